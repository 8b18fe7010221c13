/* A worker for each test. Included once by a test file, instead of testing.h. */
#ifndef CLIENT_TESTING_EACH_H
#define CLIENT_TESTING_EACH_H

#include "client/testing.h"

static struct worker_process worker;

static int
before_each(void **state)
{
    test_before(state);
    worker_start(&worker, 64);
    return 0;
}

static int
after_each(void **state)
{
    worker_stop(&worker);
    return test_after(state);
}

#define EACH(name) cmocka_unit_test_setup_teardown(name, before_each, after_each)

#endif
