/* Other users are tested as root, by tests/e2e/test_environment.py. */
#include "os/sockets.h"
#include "os/tcp_peer.h"

#include "test.h"

#include <poll.h>

enum { WAIT_MS = 5000 };

static void
check_both_ends(const char *host)
{
    struct ds_error err = {0};
    int listener = -1, client = -1, server = -1;
    uint16_t port;
    CHECK_OK(socket_listen_tcp(host, 0, 8, &listener, &port, &err));
    CHECK_OK(socket_connect_tcp(host, port, &client, &err));
    struct pollfd waiting = {.fd = listener, .events = POLLIN};
    CHECK_INT(poll(&waiting, 1, WAIT_MS), 1);
    CHECK_OK(tcp_peer_check_listener(client, &err)); /* Not accepted yet. */
    CHECK_OK(socket_accept(listener, &server, &err));
    CHECK_OK(tcp_peer_check_listener(client, &err));
    CHECK_OK(tcp_peer_check_user(server, &err));
    socket_close(server);
    socket_close(client);
    socket_close(listener);
}

TEST(both_ends_of_our_own_connection_are_ours)
{
    check_both_ends("127.0.0.1");
    check_both_ends("::1");
}

TEST(a_listener_that_has_gone_is_nobody_elses)
{
    struct ds_error err = {0};
    int listener = -1, client = -1;
    uint16_t port;
    CHECK_OK(socket_listen_tcp("127.0.0.1", 0, 8, &listener, &port, &err));
    CHECK_OK(socket_connect_tcp("127.0.0.1", port, &client, &err));
    struct pollfd waiting = {.fd = client, .events = POLLOUT};
    CHECK_INT(poll(&waiting, 1, WAIT_MS), 1);
    int server = -1;
    CHECK_OK(socket_accept(listener, &server, &err));
    socket_close(listener);
    CHECK_OK(tcp_peer_check_listener(client, &err));
    socket_close(server);
    socket_close(client);
}

TEST_MAIN(RUN(both_ends_of_our_own_connection_are_ours),
          RUN(a_listener_that_has_gone_is_nobody_elses))
