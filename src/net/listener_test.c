#include "net/conn_testing.h"

#include "base/log.h"

#include <sys/resource.h>

enum { CLIENTS = 5 };

static struct {
    int listener;
    uint16_t port;
    struct listener *accepting;
    int accepted[64];
    size_t count;
    bool close_on_accept;
} here;

static void
note_accepted(int fd, void *arg)
{
    CHECK(arg == &here);
    here.accepted[here.count++] = fd;
    if (here.close_on_accept)
        listener_close(here.accepting);
}

static void
begin(void)
{
    struct ds_error err = {0};
    memset(&here, 0, sizeof here);
    loop_begin();
    CHECK_OK(socket_listen_tcp("127.0.0.1", 0, 64, &here.listener, &here.port, &err));
    CHECK_OK(listener_create(&test_loop, here.listener, note_accepted, &here,
                             &here.accepting, &err));
}

static void
finish(void)
{
    loop_end();
    for (size_t i = 0; i < here.count; i++)
        socket_close(here.accepted[i]);
    socket_close(here.listener);
}

static int
connect_here(void)
{
    struct ds_error err = {0};
    int fd = -1;
    CHECK_OK(socket_connect_tcp("127.0.0.1", here.port, &fd, &err));
    return fd;
}

TEST(waiting_connections_are_accepted)
{
    int clients[CLIENTS];
    begin();
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = connect_here();
    RUN_UNTIL(here.count == CLIENTS);
    for (int i = 0; i < CLIENTS; i++)
        socket_close(clients[i]);
    listener_close(here.accepting);
    finish();
}

static size_t lines;

static void
count_line(enum log_level level, const char *line, void *arg)
{
    (void)level;
    (void)arg;
    CHECK_CONTAINS(line, "Too many open files");
    lines++;
}

/* Without descriptors the listener rests instead of turning the loop at full speed,
 * says so once, and goes on when there are some again. */
TEST(listener_rests_while_descriptors_are_short)
{
    struct rlimit before, none;
    begin();
    lines = 0;
    log_set_sink(count_line, NULL, LOG_WARN);
    int client = connect_here();
    turn(); /* Whatever libuv itself opens is open now. */
    if (here.count > 0) {
        socket_close(here.accepted[--here.count]);
        socket_close(client);
        client = connect_here();
    }
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = before;
    none.rlim_cur = 3;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    uint64_t until_ms = clock_monotonic_ms() + 250;
    size_t turns = 0;
    while (clock_monotonic_ms() < until_ms) {
        uv_run(&test_loop, UV_RUN_ONCE);
        turns++;
    }
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK_INT(here.count, 0);
    CHECK_INT(lines, 1);
    CHECK(turns < 250); /* The test's own tick is 125 of them. */
    RUN_UNTIL(here.count == 1);
    log_set_sink(NULL, NULL, LOG_NONE);
    socket_close(client);
    listener_close(here.accepting);
    finish();
}

TEST(closing_while_accepting_stops_at_once)
{
    int clients[CLIENTS];
    begin();
    here.close_on_accept = true;
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = connect_here();
    RUN_UNTIL(here.count > 0);
    turn();
    CHECK_INT(here.count, 1);
    for (int i = 0; i < CLIENTS; i++)
        socket_close(clients[i]);
    finish();
}

TEST_MAIN(RUN(waiting_connections_are_accepted),
          RUN(listener_rests_while_descriptors_are_short),
          RUN(closing_while_accepting_stops_at_once))
