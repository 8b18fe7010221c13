/* Addresses, listening, connecting, accepting. Bytes and descriptors are in
 * socket_io.c. */
#include "os/sockets.h"

#include "base/check.h"
#include "base/status.h"
#include "os/process.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    SOCKET_FLAGS = SOCK_CLOEXEC | SOCK_NONBLOCK,
    CONNECT_NEXT_MS = 250, /* For an address of a name, before the next one is tried. */
};

void
socket_close(int fd)
{
    if (fd >= 0)
        (void)close(fd);
}

/* Requests go at once; a peer whose machine vanished without a word is noticed within a
 * minute. */
static void
set_tcp_options(int fd)
{
    int on = 1, idle_s = 30, interval_s = 10, probes = 3;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

void
socket_expect_life(int fd, uint32_t ms)
{
    int probes = 3, interval_s = (int)(ms / 1000 / 4 + 1), timeout_ms = (int)ms;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &interval_s, sizeof interval_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
}

/* ---- Unix ---- */

/* A path over 107 bytes is named through a descriptor of its folder. *out_folder is -1
 * or must stay open while the address is used. */
static enum ds_status
unix_address(const char *path, struct sockaddr_un *out, int *out_folder,
             struct ds_error *err)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    *out_folder = -1;
    size_t len = strlen(path);
    if (len > 0 && len < sizeof out->sun_path) {
        memcpy(out->sun_path, path, len + 1);
        return DS_OK;
    }
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash == path || len >= sizeof folder)
        return ds_fail(err, DS_IO,
                       "socket '%.200s': the name is empty or too long (at most 107 "
                       "bytes without a folder)",
                       path);
    memcpy(folder, path, (size_t)(slash - path));
    folder[slash - path] = '\0';
    int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return ds_fail_errno(err, "socket '%s': open its folder", path);
    int wanted =
        snprintf(out->sun_path, sizeof out->sun_path, "/proc/self/fd/%d%s", fd, slash);
    if (wanted < 0 || (size_t)wanted >= sizeof out->sun_path) {
        close(fd);
        return ds_fail(
            err, DS_IO,
            "socket '%s': its own name '%s' is too long; use at most 80 bytes", path,
            slash + 1);
    }
    *out_folder = fd;
    return DS_OK;
}

/* Binds and listens; only a socket is ever replaced. */
static enum ds_status
bind_unix(int fd, const char *path, const struct sockaddr_un *address, int backlog,
          struct ds_error *err)
{
    struct stat info;
    if (lstat(address->sun_path, &info) == 0) {
        if (!S_ISSOCK(info.st_mode))
            return ds_fail(err, DS_IO,
                           "socket '%s': there is a file of that name that is not a "
                           "socket; remove it or name another path",
                           path);
        (void)unlink(address->sun_path);
    }
    /* On a socket that is not bound yet this decides the mode of the file to be made,
     * so there is no moment at which others could connect. */
    if (fchmod(fd, 0600) < 0)
        return ds_fail_errno(err, "socket '%s': set its mode", path);
    if (bind(fd, (const struct sockaddr *)address, sizeof *address) < 0)
        return ds_fail_errno(err, "socket '%s': bind", path);
    if (listen(fd, backlog) < 0)
        return ds_fail_errno(err, "socket '%s': listen", path);
    return DS_OK;
}

enum ds_status
socket_listen_unix(const char *path, int backlog, int *out_fd, struct ds_error *err)
{
    DS_ASSERT(path != NULL);
    struct sockaddr_un address;
    int folder;
    enum ds_status status = unix_address(path, &address, &folder, err);
    if (status != DS_OK)
        return status;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCKET_FLAGS, 0);
    if (fd < 0)
        status = ds_fail_errno(err, "socket '%s': create", path);
    else
        status = bind_unix(fd, path, &address, backlog, err);
    socket_close(folder);
    if (status != DS_OK) {
        socket_close(fd);
        return status;
    }
    *out_fd = fd;
    return DS_OK;
}

/* Non-blocking Unix sockets connect at once or not at all: EAGAIN is a full backlog. */
static enum ds_status
connect_unix(int fd, const char *path, const struct sockaddr_un *address,
             struct ds_error *err)
{
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0)
        return DS_OK;
    if (errno == EAGAIN)
        return ds_fail(err, DS_TIMEOUT,
                       "socket '%s': its owner is too busy to accept; try again", path);
    return ds_fail_errno(err, "socket '%s': connect", path);
}

enum ds_status
socket_connect_unix(const char *path, int *out_fd, struct ds_error *err)
{
    DS_ASSERT(path != NULL);
    struct sockaddr_un address;
    int folder;
    enum ds_status status = unix_address(path, &address, &folder, err);
    if (status != DS_OK)
        return status;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCKET_FLAGS, 0);
    if (fd < 0)
        status = ds_fail_errno(err, "socket '%s': create", path);
    else
        status = connect_unix(fd, path, &address, err);
    socket_close(folder);
    if (status != DS_OK) {
        socket_close(fd);
        return status;
    }
    *out_fd = fd;
    return DS_OK;
}

/* ---- TCP ---- */

static enum ds_status
resolve(const char *host, uint16_t port, int flags, struct addrinfo **out,
        struct ds_error *err)
{
    char service[8];
    snprintf(service, sizeof service, "%u", (unsigned)port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
    hints.ai_flags = flags | AI_NUMERICSERV;
    int result = getaddrinfo(host, service, &hints, out);
    if (result == 0)
        return DS_OK;
    if ((flags & AI_NUMERICHOST) != 0)
        return ds_fail(err, DS_INVALID,
                       "'%s' is not a numeric IPv4 or IPv6 address to listen at", host);
    return ds_fail(err, DS_IO, "cannot resolve host '%s': %s", host,
                   gai_strerror(result));
}

static enum ds_status
fail_port_in_use(const char *host, uint16_t port, struct ds_error *err)
{
    char holder[128];
    process_describe_listener(port, holder, sizeof holder);
    return ds_fail(err, DS_EXISTS,
                   "port %u is already in use at %s%s%s; stop that process or choose "
                   "another port",
                   (unsigned)port, host, holder[0] == '\0' ? "" : " by ", holder);
}

static enum ds_status
bind_tcp(int fd, const char *host, uint16_t port, const struct addrinfo *address,
         int backlog, struct ds_error *err)
{
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 &&
        listen(fd, backlog) == 0)
        return DS_OK;
    if (errno == EADDRINUSE)
        return fail_port_in_use(host, port, err);
    return ds_fail_errno(err, "listen at %s port %u", host, (unsigned)port);
}

static enum ds_status
bound_port(int fd, uint16_t *out, struct ds_error *err)
{
    struct sockaddr_storage name = {0};
    socklen_t len = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &len) < 0)
        return ds_fail_errno(err, "port of a listening socket");
    /* getsockname() has filled it in, which the analyzer does not know.
     * NOLINTBEGIN(clang-analyzer-core.CallAndMessage) */
    *out = ntohs(name.ss_family == AF_INET6
                     ? ((const struct sockaddr_in6 *)&name)->sin6_port
                     : ((const struct sockaddr_in *)&name)->sin_port);
    /* NOLINTEND(clang-analyzer-core.CallAndMessage) */
    return DS_OK;
}

enum ds_status
socket_listen_tcp(const char *host, uint16_t port, int backlog, int *out_fd,
                  uint16_t *out_port, struct ds_error *err)
{
    DS_ASSERT(host != NULL);
    struct addrinfo *address = NULL;
    enum ds_status status =
        resolve(host, port, AI_NUMERICHOST | AI_PASSIVE, &address, err);
    if (status != DS_OK)
        return status;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCKET_FLAGS, 0);
    if (fd < 0)
        status =
            ds_fail_errno(err, "listen at %s port %u: socket", host, (unsigned)port);
    else
        status = bind_tcp(fd, host, port, address, backlog, err);
    freeaddrinfo(address);
    if (status == DS_OK)
        status = bound_port(fd, out_port, err);
    if (status != DS_OK) {
        socket_close(fd);
        return status;
    }
    *out_fd = fd;
    return DS_OK;
}

/* A socket that is connecting to this address; -1 with errno. */
static int
start_connect(const struct addrinfo *address)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCKET_FLAGS, 0);
    if (fd < 0)
        return -1;
    set_tcp_options(fd);
    if (connect(fd, address->ai_addr, address->ai_addrlen) == 0 || errno == EINPROGRESS)
        return fd;
    int number = errno;
    socket_close(fd);
    errno = number;
    return -1;
}

/* A name such as localhost may have an address where nobody listens before the one
 * where somebody does: the next is tried after a refusal, or after a short silence. */
static bool
is_refused_soon(int fd)
{
    struct pollfd waiting = {.fd = fd, .events = POLLOUT};
    int result = poll(&waiting, 1, CONNECT_NEXT_MS);
    if (result <= 0)
        return true;
    int number = 0;
    socklen_t len = sizeof number;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &len) < 0)
        number = errno;
    errno = number;
    return number != 0;
}

enum ds_status
socket_connect_tcp(const char *host, uint16_t port, int *out_fd, struct ds_error *err)
{
    DS_ASSERT(host != NULL);
    struct addrinfo *addresses = NULL;
    enum ds_status status = resolve(host, port, 0, &addresses, err);
    if (status != DS_OK)
        return status;
    int fd = -1;
    for (struct addrinfo *at = addresses; at != NULL && fd < 0; at = at->ai_next) {
        fd = start_connect(at);
        if (fd >= 0 && at->ai_next != NULL && is_refused_soon(fd)) {
            socket_close(fd);
            fd = -1;
        }
    }
    if (fd < 0)
        status = ds_fail_errno(err, "connect to %s port %u", host, (unsigned)port);
    freeaddrinfo(addresses);
    if (status == DS_OK)
        *out_fd = fd;
    return status;
}

enum ds_status
socket_connect_result(int fd, struct ds_error *err)
{
    int number = 0;
    socklen_t len = sizeof number;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &len) < 0)
        number = errno;
    if (number == 0)
        return DS_OK;
    errno = number;
    return ds_fail_errno(err, "connect");
}

/* ---- Accepting ---- */

/* Errors of the connection that was waiting, not of the listener. */
static bool
concerns_one_peer(int number)
{
    return number == EINTR || number == ECONNABORTED || number == EPROTO ||
           number == EPERM || number == ENETDOWN || number == ENETUNREACH ||
           number == EHOSTUNREACH || number == EHOSTDOWN;
}

enum ds_status
socket_accept(int listener, int *out_fd, struct ds_error *err)
{
    int fd;
    do {
        fd = accept4(listener, NULL, NULL, SOCKET_FLAGS);
    } while (fd < 0 && concerns_one_peer(errno));
    if (fd < 0 && errno != EAGAIN)
        return ds_fail_errno(err, "accept a connection");
    if (fd >= 0)
        set_tcp_options(fd); /* Fails on Unix sockets, which have no delay. */
    *out_fd = fd;
    return DS_OK;
}

/* ---- Addresses ---- */

static enum ds_status
fail_address(const char *text, const char *why, struct ds_error *err)
{
    return ds_fail(err, DS_INVALID,
                   "address '%.200s': %s; write host:port, or [host]:port for IPv6",
                   text, why);
}

static bool
parse_port(const char *text, uint16_t *out)
{
    size_t len = strlen(text);
    if (len == 0 || len > 5 || strspn(text, "0123456789") != len)
        return false;
    unsigned long value = strtoul(text, NULL, 10);
    if (value < 1 || value > UINT16_MAX)
        return false;
    *out = (uint16_t)value;
    return true;
}

bool
socket_host_is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

enum ds_status
socket_parse_address(const char *text, char *out_host, size_t out_host_bytes,
                     uint16_t *out_port, struct ds_error *err)
{
    DS_ASSERT(text != NULL);
    const char *colon = strrchr(text, ':');
    if (colon == NULL)
        return fail_address(text, "there is no port", err);
    const char *host = text;
    size_t len = (size_t)(colon - text);
    if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
        host++;
        len -= 2;
    } else if (memchr(host, ':', len) != NULL || host[0] == '[') {
        return fail_address(text, "an IPv6 address needs brackets", err);
    }
    if (len == 0 || len >= out_host_bytes)
        return fail_address(
            text, len == 0 ? "the host is empty" : "the host is too long", err);
    uint16_t port;
    if (!parse_port(colon + 1, &port))
        return fail_address(text, "the port must be a number from 1 to 65535", err);
    memcpy(out_host, host, len);
    out_host[len] = '\0';
    *out_port = port;
    return DS_OK;
}
