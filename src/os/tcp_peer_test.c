/* What is promised of a peer holds in both ways to ask the kernel: each such test runs
 * a second time in a child that may open no netlink socket.
 *
 * The tests with another user and those in a network namespace of their own need root;
 * without it they are skipped, and say so. tests/e2e/test_environment.py has a worker
 * and another user. */
#include "os/sockets.h"
#include "os/tcp_owner.h"
#include "os/tcp_peer.h"

#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT_MS = 5000, NOBODY = 65534, NO_SUCH_PROTOCOL = 253 };

/* ---- Connections ---- */

struct connection {
    int listener;
    int client; /* -1: another process has it. */
    int server;
};

static void
wait_for(int fd, short events)
{
    struct pollfd waiting = {.fd = fd, .events = events};
    CHECK_INT(poll(&waiting, 1, WAIT_MS), 1);
}

/* An IPv6 listener takes IPv4 as well. */
static int
listen_at(const char *host, uint16_t *out_port)
{
    union tcp_address at = {.v6 = {.sin6_family = AF_INET6}};
    socklen_t bytes = sizeof at.v6;
    int off = 0;
    if (inet_pton(AF_INET6, host, &at.v6.sin6_addr) != 1) {
        at = (union tcp_address){.v4 = {.sin_family = AF_INET}};
        bytes = sizeof at.v4;
        CHECK_INT(inet_pton(AF_INET, host, &at.v4.sin_addr), 1);
    }
    int fd = socket(at.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    if (at.any.sa_family == AF_INET6)
        CHECK(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0);
    CHECK(bind(fd, &at.any, bytes) == 0);
    CHECK(listen(fd, 8) == 0);
    CHECK(getsockname(fd, &at.any, &bytes) == 0);
    *out_port = ntohs(at.v4.sin_port); /* At the same place in both. */
    return fd;
}

static struct connection
connect_both(const char *listen_host, const char *connect_host)
{
    uint16_t port;
    struct ds_error err = {0};
    struct connection connection = {.listener = listen_at(listen_host, &port)};
    CHECK_OK(socket_connect_tcp(connect_host, port, &connection.client, &err));
    wait_for(connection.listener, POLLIN);
    CHECK_OK(socket_accept(connection.listener, &connection.server, &err));
    return connection;
}

static void
connection_close(struct connection *connection)
{
    socket_close(connection->server);
    socket_close(connection->client);
    socket_close(connection->listener);
}

/* ---- Other circumstances ---- */

typedef void (*body_fn)(void);

/* In a child, so that what it does to itself ends with it. A CHECK that fails there is
 * printed, and ends it with SIGABRT. */
enum { CHILD_IS_FINE = 42 };

static int
run_in_child(body_fn prepare, body_fn body)
{
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        setenv("CMOCKA_TEST_ABORT", "1", 1);
        prepare();
        body();
        _exit(CHILD_IS_FINE);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* As a sandbox does: socket(AF_NETLINK, ...) is EPERM. */
static void
forbid_netlink(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    CHECK(socket(AF_NETLINK, SOCK_RAW, 4) < 0 && errno == EPERM);
}

static void
check_both_ways(body_fn body)
{
    body();
    CHECK_INT(run_in_child(forbid_netlink, body), CHILD_IS_FINE);
}

/* What there is to say about a test that cannot run here. */
static void
need_root(void)
{
    if (geteuid() == 0)
        return;
    print_message("needs root: to be another user, or in another namespace\n");
    skip();
}

/* ---- Our own ---- */

static void
our_own(void)
{
    static const char *const hosts[][2] = {
        {"127.0.0.1", "127.0.0.1"},
        {"0.0.0.0", "127.0.0.2"},
        {"::1", "::1"},
        {"::", "127.0.0.1"}, /* Both ends: IPv4-mapped. */
        {"::", "::1"},
        {"127.0.0.1", "::ffff:127.0.0.1"},
        {"::", "::ffff:127.0.0.1"},
    };
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct ds_error err = {0};
        struct connection connection = connect_both(hosts[i][0], hosts[i][1]);
        enum ds_status status = tcp_peer_check_user(connection.server, &err);
        CHECK_TEXT(err.message, "");
        CHECK_OK(status);
        CHECK(tcp_peer_is_ours(connection.server));
        CHECK_OK(tcp_peer_check_listener(connection.client, &err));
        connection_close(&connection);
    }
}

TEST(our_own_connection_is_ours_in_every_family)
{
    check_both_ways(our_own);
}

static void
not_accepted_yet(void)
{
    struct ds_error err = {0};
    uint16_t port;
    int client, listener = listen_at("127.0.0.1", &port);
    CHECK_OK(socket_connect_tcp("127.0.0.1", port, &client, &err));
    wait_for(client, POLLOUT);
    CHECK_OK(tcp_peer_check_listener(client, &err));
    socket_close(client);
    socket_close(listener);
}

TEST(a_listener_of_ours_is_ours_before_it_accepts)
{
    check_both_ways(not_accepted_yet);
}

static void
listener_has_gone(void)
{
    struct ds_error err = {0};
    struct connection connection = connect_both("127.0.0.1", "127.0.0.1");
    socket_close(connection.listener);
    connection.listener = -1;
    CHECK_OK(tcp_peer_check_listener(connection.client, &err));
    connection_close(&connection);
}

TEST(a_listener_that_has_gone_is_nobody_elses)
{
    check_both_ways(listener_has_gone);
}

TEST(both_ways_to_ask_find_the_same_owner)
{
    struct connection connection = connect_both("::", "127.0.0.1");
    struct tcp_ends ends = {0};
    socklen_t self_bytes = sizeof ends.self, peer_bytes = sizeof ends.peer;
    CHECK(getsockname(connection.server, &ends.self.any, &self_bytes) == 0);
    CHECK(getpeername(connection.server, &ends.peer.any, &peer_bytes) == 0);
    CHECK(tcp_ends_normalize(&ends));
    CHECK_INT(ends.peer.any.sa_family, AF_INET);
    uid_t by_diag = NOBODY + 1, by_table = NOBODY + 1;
    CHECK_INT(tcp_diag_find_peer(&ends, IPPROTO_TCP, &by_diag), TCP_OWNED);
    CHECK_INT(tcp_table_find_peer(&ends, &by_table), TCP_OWNED);
    CHECK_INT(by_diag, geteuid());
    CHECK_INT(by_table, geteuid());
    connection_close(&connection);
}

/* The kernel's answer is then the same ENOENT as for a socket that is not there. */
TEST(a_missing_module_is_not_taken_for_a_missing_socket)
{
    struct connection connection = connect_both("127.0.0.1", "127.0.0.1");
    struct tcp_ends ends = {0};
    socklen_t self_bytes = sizeof ends.self, peer_bytes = sizeof ends.peer;
    CHECK(getsockname(connection.server, &ends.self.any, &self_bytes) == 0);
    CHECK(getpeername(connection.server, &ends.peer.any, &peer_bytes) == 0);
    uid_t uid;
    CHECK_INT(tcp_diag_find_peer(&ends, NO_SUCH_PROTOCOL, &uid), TCP_UNKNOWN);
    connection_close(&connection);
}

/* ---- Closed ---- */

static void
closed_before_the_check(void)
{
    struct ds_error err = {0};
    struct connection connection = connect_both("::", "127.0.0.1");
    socket_close(connection.client);
    connection.client = -1;
    wait_for(connection.server, POLLIN); /* Its end has arrived: FIN_WAIT2 there. */
    CHECK_STATUS(tcp_peer_check_user(connection.server, &err), DS_IO);
    CHECK_CONTAINS(err.message, "has closed its socket already");
    CHECK(!tcp_peer_is_ours(connection.server));
    connection_close(&connection);
}

TEST(a_socket_that_was_closed_is_nobodys_not_roots)
{
    check_both_ways(closed_before_the_check);
}

static void
half_closed(void)
{
    struct ds_error err = {0};
    struct connection connection = connect_both("127.0.0.1", "127.0.0.1");
    CHECK(shutdown(connection.client, SHUT_WR) == 0);
    wait_for(connection.server, POLLIN);
    CHECK_OK(tcp_peer_check_user(connection.server, &err));
    connection_close(&connection);
}

TEST(who_will_send_no_more_still_owns_its_socket)
{
    check_both_ways(half_closed);
}

/* The peer's kernel forgets a closed socket a second after our kernel said that it has
 * the end; ours does not hear of it. */
static void
forgotten_by_the_kernel(void)
{
    struct ds_error err = {0};
    int linger_s = 1;
    struct connection connection = connect_both("127.0.0.1", "127.0.0.1");
    CHECK(setsockopt(connection.client, IPPROTO_TCP, TCP_LINGER2, &linger_s,
                     sizeof linger_s) == 0);
    socket_close(connection.client);
    connection.client = -1;
    enum ds_status status = DS_IO; /* As long as the closed socket is there. */
    for (int i = 0; i < WAIT_MS / 50 && status == DS_IO; i++) {
        status = tcp_peer_check_user(connection.server, &err);
        usleep(50000);
    }
    CHECK_STATUS(status, DS_INVALID);
    CHECK_CONTAINS(err.message, "has no socket in this network namespace");
    connection_close(&connection);
}

TEST(a_local_peer_that_is_not_to_be_found_is_refused)
{
    check_both_ways(forgotten_by_the_kernel);
}

static struct connection of_the_parent;

static void
open_nothing(void)
{
    struct rlimit none = {0};
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
}

static void
cannot_ask(void)
{
    struct ds_error err = {0};
    CHECK_STATUS(tcp_peer_check_user(of_the_parent.server, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "the kernel does not say whose");
    CHECK_CONTAINS(err.message, "/proc/net/tcp");
}

TEST(a_local_peer_is_refused_where_the_kernel_cannot_be_asked)
{
    of_the_parent = connect_both("127.0.0.1", "127.0.0.1");
    CHECK_INT(run_in_child(open_nothing, cannot_ask), CHILD_IS_FINE);
    connection_close(&of_the_parent);
}

/* ---- Another user ---- */

struct other_user {
    pid_t pid;
    int listener; /* Ours. */
    int server;   /* Ours: the other end is that user's. */
};

/* A process of user `uid` connects to us and then does nothing more, or closes. */
static struct other_user
connect_as(uid_t uid, const char *listen_host, const char *connect_host, bool closes)
{
    uint16_t port;
    struct ds_error err = {0};
    struct other_user other = {.listener = listen_at(listen_host, &port)};
    other.pid = fork();
    CHECK(other.pid >= 0);
    if (other.pid == 0) {
        int fd;
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (setresuid(uid, uid, uid) != 0 ||
            socket_connect_tcp(connect_host, port, &fd, &err) != DS_OK)
            _exit(EXIT_FAILURE);
        wait_for(fd, POLLOUT);
        if (closes)
            socket_close(fd);
        for (;;)
            pause();
    }
    wait_for(other.listener, POLLIN);
    CHECK_OK(socket_accept(other.listener, &other.server, &err));
    if (closes)
        wait_for(other.server, POLLIN);
    return other;
}

static void
other_user_end(struct other_user *other)
{
    CHECK(kill(other->pid, SIGKILL) == 0);
    CHECK(waitpid(other->pid, NULL, 0) == other->pid);
    socket_close(other->server);
    socket_close(other->listener);
}

static void
another_user(void)
{
    static const char *const hosts[][2] = {
        {"127.0.0.1", "127.0.0.1"}, {"::1", "::1"}, {"::", "127.0.0.1"}};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        struct ds_error err = {0};
        struct other_user other = connect_as(NOBODY, hosts[i][0], hosts[i][1], false);
        CHECK_STATUS(tcp_peer_check_user(other.server, &err), DS_INVALID);
        CHECK_CONTAINS(err.message, "peer has uid 65534");
        other_user_end(&other);
    }
}

TEST(another_user_is_refused_in_every_family)
{
    need_root();
    check_both_ways(another_user);
}

static void
another_user_closes(void)
{
    struct ds_error err = {0};
    struct other_user other = connect_as(NOBODY, "127.0.0.1", "127.0.0.1", true);
    CHECK_STATUS(tcp_peer_check_user(other.server, &err), DS_IO);
    CHECK_CONTAINS(err.message, "has closed its socket already");
    other_user_end(&other);
}

TEST(another_user_does_not_become_root_by_closing)
{
    need_root();
    check_both_ways(another_user_closes);
}

static void
as_nobody(void)
{
    struct ds_error err = {0};
    CHECK(seteuid(NOBODY) == 0);
    enum ds_status status = tcp_peer_check_user(of_the_parent.server, &err);
    bool is_ours = tcp_peer_is_ours(of_the_parent.server);
    CHECK(seteuid(0) == 0);
    CHECK_OK(status);
    CHECK(!is_ours);
}

TEST(root_is_let_in_by_everybody)
{
    need_root();
    of_the_parent = connect_both("127.0.0.1", "127.0.0.1");
    check_both_ways(as_nobody);
    connection_close(&of_the_parent);
}

static void
another_users_listener(void)
{
    struct ds_error err = {0};
    struct connection connection = connect_both("127.0.0.1", "127.0.0.1");
    CHECK(seteuid(NOBODY) == 0);
    enum ds_status status = tcp_peer_check_listener(connection.client, &err);
    CHECK(seteuid(0) == 0);
    CHECK_STATUS(status, DS_INVALID);
    CHECK_CONTAINS(err.message, "is user 0's, not ours (user 65534)");
    connection_close(&connection);
}

TEST(a_listener_of_another_user_is_refused_root_too)
{
    need_root();
    check_both_ways(another_users_listener);
}

/* ---- Network namespaces ---- */

static void
set_interface(const char *name, const char *address)
{
    struct ifreq request = {0};
    struct sockaddr_in at = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    CHECK_INT(inet_pton(AF_INET, address, &at.sin_addr), 1);
    memcpy(&request.ifr_addr, &at, sizeof at);
    CHECK(ioctl(fd, SIOCSIFADDR, &request) == 0);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    CHECK(ioctl(fd, SIOCSIFFLAGS, &request) == 0);
    close(fd);
}

/* A namespace with nothing in it but 127.0.0.1 and an address that is no loopback's. */
static void
enter_own_namespace(void)
{
    CHECK(unshare(CLONE_NEWNET) == 0);
    set_interface("lo", "127.0.0.1");
    set_interface("lo:1", "10.9.8.7");
}

static void
is_not_here(void)
{
    struct ds_error err = {0};
    CHECK_STATUS(tcp_peer_check_user(of_the_parent.server, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "has no socket in this network namespace");
    CHECK(!tcp_peer_is_ours(of_the_parent.server));
}

TEST(a_loopback_peer_of_another_namespace_is_refused)
{
    need_root();
    of_the_parent = connect_both("127.0.0.1", "127.0.0.1");
    CHECK_INT(run_in_child(enter_own_namespace, is_not_here), CHILD_IS_FINE);
    connection_close(&of_the_parent);
}

/* As long as the worker listens there for other hosts, who is on this one is not
 * asked. */
static void
not_by_loopback(void)
{
    struct ds_error err = {0};
    struct other_user other = connect_as(NOBODY, "10.9.8.7", "10.9.8.7", false);
    CHECK_OK(tcp_peer_check_user(other.server, &err));
    CHECK(!tcp_peer_is_ours(other.server));
    other_user_end(&other);
    struct connection own = connect_both("10.9.8.7", "10.9.8.7");
    CHECK(tcp_peer_is_ours(own.server));
    connection_close(&own);
}

TEST(a_peer_at_no_loopback_address_counts_as_another_host)
{
    need_root();
    CHECK_INT(run_in_child(enter_own_namespace, not_by_loopback), CHILD_IS_FINE);
}

/* Binds to an address that is no loopback's, and connects to one that is. */
static void
from_outside_to_loopback(void)
{
    struct ds_error err = {0};
    uint16_t port;
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    int listener = listen_at("127.0.0.1", &port);
    CHECK_INT(inet_pton(AF_INET, "10.9.8.7", &from.sin_addr), 1);
    CHECK_INT(inet_pton(AF_INET, "127.0.0.1", &to.sin_addr), 1);
    to.sin_port = htons(port);
    int server, client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(client, (struct sockaddr *)&from, sizeof from) == 0);
    CHECK(connect(client, (struct sockaddr *)&to, sizeof to) == 0);
    CHECK_OK(socket_accept(listener, &server, &err));
    CHECK_OK(tcp_peer_check_user(server, &err));
    CHECK(seteuid(NOBODY) == 0);
    CHECK_OK(tcp_peer_check_user(server, &err)); /* Root's still. */
    CHECK(seteuid(0) == 0);
    CHECK(fchown(client, NOBODY, NOBODY) == 0);
    CHECK_STATUS(tcp_peer_check_user(server, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "peer has uid 65534");
    close(client);
    close(server);
    close(listener);
}

TEST(another_user_does_not_get_in_by_binding_to_another_address)
{
    need_root();
    CHECK_INT(run_in_child(enter_own_namespace, from_outside_to_loopback),
              CHILD_IS_FINE);
}

TEST_MAIN(RUN(our_own_connection_is_ours_in_every_family),
          RUN(a_listener_of_ours_is_ours_before_it_accepts),
          RUN(a_listener_that_has_gone_is_nobody_elses),
          RUN(both_ways_to_ask_find_the_same_owner),
          RUN(a_missing_module_is_not_taken_for_a_missing_socket),
          RUN(a_socket_that_was_closed_is_nobodys_not_roots),
          RUN(who_will_send_no_more_still_owns_its_socket),
          RUN(a_local_peer_that_is_not_to_be_found_is_refused),
          RUN(a_local_peer_is_refused_where_the_kernel_cannot_be_asked),
          RUN(another_user_is_refused_in_every_family),
          RUN(another_user_does_not_become_root_by_closing),
          RUN(root_is_let_in_by_everybody),
          RUN(a_listener_of_another_user_is_refused_root_too),
          RUN(a_loopback_peer_of_another_namespace_is_refused),
          RUN(a_peer_at_no_loopback_address_counts_as_another_host),
          RUN(another_user_does_not_get_in_by_binding_to_another_address))
