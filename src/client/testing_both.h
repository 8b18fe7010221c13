/* One worker for all tests of a file, and a client for each: in shared memory, over TCP,
 * or both in turn. Included once by a test file, instead of testing.h. */
#ifndef CLIENT_TESTING_BOTH_H
#define CLIENT_TESTING_BOTH_H

#include "client/testing.h"

static struct worker_process worker;
static struct ds_client *client;

static int
group_setup(void **state)
{
    (void)state;
    worker_start(&worker, 64);
    return 0;
}

static int
group_teardown(void **state)
{
    (void)state;
    worker_stop(&worker);
    return 0;
}

static int
open_shared(void **state)
{
    test_before(state);
    client = open_client(&worker, false);
    return 0;
}

static int
open_tcp(void **state)
{
    test_before(state);
    client = open_client(&worker, true);
    return 0;
}

static int
close_any(void **state)
{
    ds_client_close(client);
    return test_after(state);
}

#define SHARED(name) cmocka_unit_test_setup_teardown(name, open_shared, close_any)
#define TCP(name)                                     \
    {                                                 \
        "tcp_" #name, name, open_tcp, close_any, NULL \
    }
#define BOTH(name) SHARED(name), TCP(name)

#endif
