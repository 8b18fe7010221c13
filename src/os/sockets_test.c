#include "os/files.h"
#include "os/process.h"
#include "os/sockets.h"

#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT_MS = 5000 };

static void
wait_for(int fd, short events)
{
    struct pollfd waiting = {.fd = fd, .events = events};
    CHECK_INT(poll(&waiting, 1, WAIT_MS), 1);
}

static int
accept_one(int listener)
{
    struct ds_error err = {0};
    int fd = -1;
    wait_for(listener, POLLIN);
    CHECK_OK(socket_accept(listener, &fd, &err));
    CHECK(fd >= 0);
    return fd;
}

static void
send_text(int fd, const char *text)
{
    struct ds_error err = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
    CHECK_INT(socket_send(fd, &part, 1, NULL, 0, &err), strlen(text));
}

/* Receives without wanting descriptors. */
static ssize_t
receive_text(int fd, char *out, size_t bytes, bool *out_eof)
{
    struct ds_error err = {0};
    size_t fd_count;
    return socket_receive(fd, out, bytes, out_eof, NULL, 0, &fd_count, &err);
}

static void
check_talk(int from, int to)
{
    char text[16] = {0};
    bool eof;
    send_text(from, "hello");
    wait_for(to, POLLIN);
    CHECK_INT(receive_text(to, text, sizeof text - 1, &eof), 5);
    CHECK_TEXT(text, "hello");
}

static void
make_pair(int out[2])
{
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, out) == 0);
}

static void
close_pair(const int pair[2])
{
    socket_close(pair[0]);
    socket_close(pair[1]);
}

/* ---- Unix ---- */

static void
check_unix_path(const char *path)
{
    struct ds_error err = {0};
    int listener = -1, client = -1;
    CHECK_OK(socket_listen_unix(path, 8, &listener, &err));
    struct stat info;
    CHECK(stat(path, &info) == 0);
    CHECK_INT(info.st_mode & 07777, 0600);
    CHECK_OK(socket_connect_unix(path, &client, &err));
    CHECK_OK(socket_connect_result(client, &err));
    int served = accept_one(listener);
    check_talk(client, served);
    check_talk(served, client);
    CHECK((fcntl(served, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((fcntl(served, F_GETFL) & O_NONBLOCK) != 0);
    socket_close(served);
    socket_close(client);
    socket_close(listener);
}

TEST(unix_client_reaches_listener_in_both_directions)
{
    char folder[TEST_FOLDER_BYTES], path[PATH_MAX];
    test_make_folder(folder);
    snprintf(path, sizeof path, "%s/s.sock", folder);
    check_unix_path(path);
    test_remove_folder(folder);
}

/* The kernel's limit is 107 bytes; people's folders are longer. */
TEST(unix_path_of_any_length_works)
{
    char folder[TEST_FOLDER_BYTES], path[PATH_MAX];
    struct ds_error err = {0};
    test_make_folder(folder);
    snprintf(path, sizeof path, "%s/%0100d/%0100d", folder, 1, 2);
    CHECK_OK(files_make_folder(path, 0700, &err));
    strcat(path, "/datasystem_worker.sock");
    check_unix_path(path);
    test_remove_folder(folder);
}

/* 107 bytes fit, 108 do not: both sides of the edge. */
TEST(unix_path_at_the_kernels_limit_works)
{
    char folder[TEST_FOLDER_BYTES], path[PATH_MAX];
    test_make_folder(folder);
    int used = snprintf(path, sizeof path, "%s/", folder);
    snprintf(path + used, sizeof path - (size_t)used, "%0*d", 107 - used, 0);
    CHECK_INT(strlen(path), 107);
    check_unix_path(path);
    snprintf(path + used, sizeof path - (size_t)used, "%0*d", 108 - used, 0);
    CHECK_INT(strlen(path), 108);
    check_unix_path(path);
    test_remove_folder(folder);
}

TEST(old_socket_is_replaced_but_no_other_file)
{
    char folder[TEST_FOLDER_BYTES], path[PATH_MAX];
    struct ds_error err = {0};
    int fd = -1;
    test_make_folder(folder);
    snprintf(path, sizeof path, "%s/s.sock", folder);
    check_unix_path(path);
    check_unix_path(path);
    files_remove(path);
    CHECK_OK(files_write(path, "mine", 0600, &err));
    CHECK_STATUS(socket_listen_unix(path, 8, &fd, &err), DS_IO);
    CHECK_CONTAINS(err.message, path);
    CHECK_CONTAINS(err.message, "not a socket");
    test_remove_folder(folder);
}

TEST(nobody_at_a_unix_path_is_an_error_that_names_it)
{
    struct ds_error err = {0};
    int fd = -7;
    CHECK_STATUS(socket_connect_unix("/nowhere/at-all.sock", &fd, &err), DS_IO);
    CHECK_CONTAINS(err.message, "/nowhere/at-all.sock");
    CHECK_INT(fd, -7);
}

TEST(full_backlog_asks_to_try_again)
{
    char folder[TEST_FOLDER_BYTES], path[PATH_MAX];
    struct ds_error err = {0};
    int listener = -1, clients[8], count = 0;
    test_make_folder(folder);
    snprintf(path, sizeof path, "%s/s.sock", folder);
    CHECK_OK(socket_listen_unix(path, 1, &listener, &err));
    enum ds_status status = DS_OK;
    while (count < 8 && status == DS_OK) {
        status = socket_connect_unix(path, &clients[count], &err);
        count += status == DS_OK;
    }
    CHECK_STATUS(status, DS_TIMEOUT);
    CHECK_CONTAINS(err.message, "try again");
    for (int i = 0; i < count; i++)
        socket_close(clients[i]);
    socket_close(listener);
    test_remove_folder(folder);
}

/* ---- Bytes and descriptors ---- */

TEST(nothing_there_differs_from_closed)
{
    int pair[2];
    char text[4];
    bool eof = true;
    make_pair(pair);
    CHECK_INT(receive_text(pair[1], text, sizeof text, &eof), 0);
    CHECK(!eof);
    socket_close(pair[0]);
    CHECK_INT(receive_text(pair[1], text, sizeof text, &eof), 0);
    CHECK(eof);
    socket_close(pair[1]);
}

/* No SIGPIPE, which would end the process. */
TEST(sending_to_a_closed_peer_is_an_error)
{
    int pair[2];
    struct ds_error err = {0};
    struct iovec part = {.iov_base = (char[]){"x"}, .iov_len = 1};
    make_pair(pair);
    socket_close(pair[1]);
    CHECK(socket_send(pair[0], &part, 1, NULL, 0, &err) < 0);
    CHECK_INT(err.status, DS_IO);
    socket_close(pair[0]);
}

TEST(sending_into_a_full_socket_returns_zero)
{
    int pair[2];
    struct ds_error err = {0};
    static char bytes[64 << 10];
    struct iovec part = {.iov_base = bytes, .iov_len = sizeof bytes};
    make_pair(pair);
    ssize_t done = 1;
    for (int i = 0; i < 1000 && done > 0; i++)
        done = socket_send(pair[0], &part, 1, NULL, 0, &err);
    CHECK_INT(done, 0);
    close_pair(pair);
}

TEST(descriptors_travel_and_are_closed_on_exec)
{
    int pair[2], ends[2], got[4] = {-1, -1, -1, -1};
    char text[8];
    bool eof;
    size_t count = 0;
    struct ds_error err = {0};
    struct iovec part = {.iov_base = (char[]){"fds"}, .iov_len = 3};
    make_pair(pair);
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    CHECK_INT(socket_send(pair[0], &part, 1, ends, 2, &err), 3);
    CHECK_INT(socket_receive(pair[1], text, 8, &eof, got, 4, &count, &err), 3);
    CHECK_INT(count, 2);
    CHECK((fcntl(got[0], F_GETFD) & FD_CLOEXEC) != 0);
    CHECK_INT(write(got[1], "y", 1), 1);
    CHECK_INT(read(ends[0], text, 1), 1);
    CHECK_INT(text[0], 'y');
    close(got[0]);
    close(got[1]);
    close(ends[0]);
    close(ends[1]);
    close_pair(pair);
}

/* A peer must not be able to fill our descriptor table. */
TEST(descriptors_beyond_what_is_wanted_are_closed)
{
    int pair[2], many[5], got = -1;
    char text[8];
    bool eof;
    size_t count = 0;
    struct ds_error err = {0};
    struct iovec part = {.iov_base = (char[]){"x"}, .iov_len = 1};
    make_pair(pair);
    for (int i = 0; i < 5; i++)
        many[i] = pair[0];
    int before = test_open_fds();
    CHECK_INT(socket_send(pair[0], &part, 1, many, 5, &err), 1);
    CHECK_INT(socket_receive(pair[1], text, 8, &eof, &got, 1, &count, &err), 1);
    CHECK_INT(count, 1);
    CHECK_INT(test_open_fds(), before + 1);
    close(got);
    CHECK_INT(socket_send(pair[0], &part, 1, many, 5, &err), 1);
    CHECK_INT(receive_text(pair[1], text, sizeof text, &eof), 1);
    CHECK_INT(test_open_fds(), before);
    close_pair(pair);
}

/* ---- Peers ---- */

TEST(peer_is_known_by_process_and_user)
{
    int pair[2];
    struct peer peer = {0};
    struct ds_error err = {0};
    make_pair(pair);
    CHECK_OK(socket_peer(pair[0], &peer, &err));
    CHECK_INT(peer.pid, getpid());
    CHECK_INT(peer.uid, getuid());
    CHECK_INT(peer.start_time, process_start_time(getpid()));
    CHECK(peer.pidfd >= 0);
    struct pollfd watched = {.fd = peer.pidfd, .events = POLLIN};
    CHECK_INT(poll(&watched, 1, 0), 0);
    close(peer.pidfd);
    uid_t user = getuid() + 1;
    CHECK_OK(socket_peer_user(pair[0], &user, &err));
    CHECK_INT(user, getuid());
    close_pair(pair);
}

/* The process that connected has ended, though its socket is still open here. */
TEST(peer_that_has_ended_is_not_mistaken_for_another)
{
    char folder[TEST_FOLDER_BYTES], path[PATH_MAX];
    struct ds_error err = {0};
    int listener = -1, client = -1;
    test_make_folder(folder);
    snprintf(path, sizeof path, "%s/s.sock", folder);
    CHECK_OK(socket_listen_unix(path, 8, &listener, &err));
    pid_t child = fork();
    if (child == 0)
        _exit(socket_connect_unix(path, &client, &err) == DS_OK ? 0 : 1);
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
    int served = accept_one(listener);
    struct peer peer = {0};
    CHECK_OK(socket_peer(served, &peer, &err));
    CHECK_INT(peer.pid, child);
    CHECK_INT(peer.start_time, 0);
    if (peer.pidfd >= 0) /* Some kernels still give one, which tells the same. */
        wait_for(peer.pidfd, POLLIN);
    socket_close(peer.pidfd);
    socket_close(served);
    socket_close(listener);
    test_remove_folder(folder);
}

/* ---- TCP ---- */

/* A machine that vanishes says nothing: the kernel asks. */
static void
check_keepalive(int fd)
{
    int on = 0;
    socklen_t bytes = sizeof on;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &bytes) == 0);
    CHECK(on != 0);
}

static void
check_tcp(const char *listen_at, const char *connect_to)
{
    struct ds_error err = {0};
    int listener = -1, client = -1;
    uint16_t port = 0;
    CHECK_OK(socket_listen_tcp(listen_at, 0, 8, &listener, &port, &err));
    CHECK(port != 0);
    CHECK_OK(socket_connect_tcp(connect_to, port, &client, &err));
    wait_for(client, POLLOUT);
    CHECK_OK(socket_connect_result(client, &err));
    int served = accept_one(listener);
    check_talk(client, served);
    check_talk(served, client);
    check_keepalive(client);
    check_keepalive(served);
    socket_close(served);
    socket_close(client);
    socket_close(listener);
}

TEST(tcp_client_reaches_listener)
{
    check_tcp("127.0.0.1", "127.0.0.1");
}

TEST(ipv6_works)
{
    check_tcp("::1", "::1");
}

/* "localhost" may be ::1 first, where nobody listens. */
TEST(name_reaches_whichever_address_listens)
{
    check_tcp("127.0.0.1", "localhost");
}

TEST(port_in_use_names_port_and_process)
{
    struct ds_error err = {0};
    int first = -1, second = -7;
    uint16_t port = 0, other = 0;
    CHECK_OK(socket_listen_tcp("127.0.0.1", 0, 8, &first, &port, &err));
    CHECK_STATUS(socket_listen_tcp("127.0.0.1", port, 8, &second, &other, &err),
                 DS_EXISTS);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "port %u is already in use", (unsigned)port);
    CHECK_CONTAINS(err.message, wanted);
    snprintf(wanted, sizeof wanted, "PID %d (", (int)getpid());
    CHECK_CONTAINS(err.message, wanted);
    CHECK_INT(second, -7);
    socket_close(first);
}

TEST(ipv6_port_in_use_names_the_process)
{
    struct ds_error err = {0};
    int first = -1, second = -7;
    uint16_t port = 0, other = 0;
    CHECK_OK(socket_listen_tcp("::1", 0, 8, &first, &port, &err));
    CHECK_STATUS(socket_listen_tcp("::1", port, 8, &second, &other, &err), DS_EXISTS);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "PID %d (", (int)getpid());
    CHECK_CONTAINS(err.message, wanted);
    socket_close(first);
}

/* Closing on time is left to the kernel's TIME_WAIT otherwise: a restart must not wait.
 */
TEST(port_can_be_taken_again_at_once)
{
    struct ds_error err = {0};
    int listener = -1, client = -1;
    uint16_t port = 0;
    CHECK_OK(socket_listen_tcp("127.0.0.1", 0, 8, &listener, &port, &err));
    CHECK_OK(socket_connect_tcp("127.0.0.1", port, &client, &err));
    int served = accept_one(listener);
    socket_close(served); /* Our side closes first and gets the TIME_WAIT. */
    socket_close(client);
    socket_close(listener);
    CHECK_OK(socket_listen_tcp("127.0.0.1", port, 8, &listener, &port, &err));
    socket_close(listener);
}

TEST(listening_needs_a_numeric_address)
{
    struct ds_error err = {0};
    int fd = -7;
    uint16_t port = 0;
    CHECK_STATUS(socket_listen_tcp("localhost", 0, 8, &fd, &port, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "'localhost'");
}

/* At once or when the result is asked for, the kernel decides; both are DS_IO. */
TEST(refused_connection_is_reported)
{
    struct ds_error err = {0};
    int listener = -1, client = -1;
    uint16_t port = 0;
    CHECK_OK(socket_listen_tcp("127.0.0.1", 0, 8, &listener, &port, &err));
    socket_close(listener);
    enum ds_status status = socket_connect_tcp("127.0.0.1", port, &client, &err);
    if (status == DS_OK) {
        wait_for(client, POLLOUT);
        status = socket_connect_result(client, &err);
    }
    socket_close(client);
    CHECK_STATUS(status, DS_IO);
    CHECK_CONTAINS(err.message, "Connection refused");
}

TEST(nobody_waiting_is_not_an_error)
{
    struct ds_error err = {0};
    int listener = -1, fd = -7;
    uint16_t port = 0;
    CHECK_OK(socket_listen_tcp("127.0.0.1", 0, 8, &listener, &port, &err));
    CHECK_OK(socket_accept(listener, &fd, &err));
    CHECK_INT(fd, -1);
    socket_close(listener);
}

TEST(running_out_of_descriptors_is_reported)
{
    struct ds_error err = {0};
    int listener = -1, client = -1, fd = -7;
    uint16_t port = 0;
    CHECK_OK(socket_listen_tcp("127.0.0.1", 0, 8, &listener, &port, &err));
    CHECK_OK(socket_connect_tcp("127.0.0.1", port, &client, &err));
    wait_for(listener, POLLIN);
    struct rlimit before, none;
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = before;
    none.rlim_cur = 3;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    enum ds_status status = socket_accept(listener, &fd, &err);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK_STATUS(status, DS_IO);
    CHECK_CONTAINS(err.message, "Too many open files");
    fd = accept_one(listener);
    socket_close(fd);
    socket_close(client);
    socket_close(listener);
}

/* ---- Addresses ---- */

static void
check_address(const char *text, const char *host, uint16_t port)
{
    char got_host[64];
    uint16_t got_port = 0;
    struct ds_error err = {0};
    CHECK_OK(socket_parse_address(text, got_host, sizeof got_host, &got_port, &err));
    CHECK_TEXT(got_host, host);
    CHECK_INT(got_port, port);
}

static void
check_no_address(const char *text)
{
    char host[16] = "untouched";
    uint16_t port = 7;
    struct ds_error err = {0};
    CHECK_STATUS(socket_parse_address(text, host, sizeof host, &port, &err),
                 DS_INVALID);
    CHECK_CONTAINS(err.message, text);
    CHECK_TEXT(host, "untouched");
    CHECK_INT(port, 7);
}

TEST(addresses_are_taken_apart)
{
    check_address("127.0.0.1:31501", "127.0.0.1", 31501);
    check_address("[::1]:31501", "::1", 31501);
    check_address("worker-3.example:1", "worker-3.example", 1);
    check_address("0.0.0.0:65535", "0.0.0.0", 65535);
}

TEST(malformed_addresses_are_refused)
{
    check_no_address("127.0.0.1");
    check_no_address("127.0.0.1:");
    check_no_address(":31501");
    check_no_address("[]:31501");
    check_no_address("::1:31501");
    check_no_address("[::1:31501");
    check_no_address("127.0.0.1:0");
    check_no_address("127.0.0.1:65536");
    check_no_address("127.0.0.1:31501x");
    check_no_address("127.0.0.1:-1");
    check_no_address("a-host-name-too-long-for-16:1");
    check_no_address("");
}

TEST_MAIN(RUN(unix_client_reaches_listener_in_both_directions),
          RUN(unix_path_of_any_length_works), RUN(unix_path_at_the_kernels_limit_works),
          RUN(old_socket_is_replaced_but_no_other_file),
          RUN(nobody_at_a_unix_path_is_an_error_that_names_it),
          RUN(full_backlog_asks_to_try_again), RUN(nothing_there_differs_from_closed),
          RUN(sending_to_a_closed_peer_is_an_error),
          RUN(sending_into_a_full_socket_returns_zero),
          RUN(descriptors_travel_and_are_closed_on_exec),
          RUN(descriptors_beyond_what_is_wanted_are_closed),
          RUN(peer_is_known_by_process_and_user),
          RUN(peer_that_has_ended_is_not_mistaken_for_another),
          RUN(tcp_client_reaches_listener), RUN(ipv6_works),
          RUN(name_reaches_whichever_address_listens),
          RUN(port_in_use_names_port_and_process),
          RUN(ipv6_port_in_use_names_the_process), RUN(port_can_be_taken_again_at_once),
          RUN(listening_needs_a_numeric_address), RUN(refused_connection_is_reported),
          RUN(nobody_waiting_is_not_an_error),
          RUN(running_out_of_descriptors_is_reported), RUN(addresses_are_taken_apart),
          RUN(malformed_addresses_are_refused))
