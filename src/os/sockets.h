/* Sockets: Unix and TCP, always non-blocking and close-on-exec; descriptors and
 * credentials of the peer. */
#ifndef OS_SOCKETS_H
#define OS_SOCKETS_H

#include <datasystem/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Listen at `path`, mode 0600, in a folder that exists; an old socket file is replaced.
 * A path over 107 bytes works: it is bound relative to its folder.
 *   DS_IO, with the path */
DS_MUST_USE enum ds_status
socket_listen_unix(const char *path, int backlog, int *out_fd, struct ds_error *err);

/* Listen at host:port; host is a numeric IPv4 or IPv6 address, without brackets. Port
 * 0: any; *out_port is the one taken. DS_EXISTS when the port is in use, naming it and
 * the process that listens there where /proc shows it. */
DS_MUST_USE enum ds_status
socket_listen_tcp(const char *host, uint16_t port, int backlog, int *out_fd,
                  uint16_t *out_port, struct ds_error *err);

/* Start connecting; the socket turns writable when done, socket_connect_result() tells.
 * Numeric addresses and names both work for TCP ("localhost"); a name blocks while it
 * is resolved. TCP_NODELAY and SO_KEEPALIVE are set. */
DS_MUST_USE enum ds_status
socket_connect_unix(const char *path, int *out_fd, struct ds_error *err);
DS_MUST_USE enum ds_status
socket_connect_tcp(const char *host, uint16_t port, int *out_fd, struct ds_error *err);
DS_MUST_USE enum ds_status socket_connect_result(int fd, struct ds_error *err);

/* A TCP connection whose other host has said nothing for so long, though there was something
 * to be answered, is broken. A process that is stopped does not matter: its kernel answers,
 * until it has no room for more. */
void socket_expect_life(int fd, uint32_t ms);

/* Next waiting connection; *out_fd is -1 when there is none. Options as above. DS_IO
 * with errno text for EMFILE and the like: stop accepting for a while. */
DS_MUST_USE enum ds_status
socket_accept(int listener, int *out_fd, struct ds_error *err);

/* "host:port" or "[v6]:port" -> parts; brackets are removed.
 *   DS_INVALID   not of that form, or port outside 1..65535 */
DS_MUST_USE enum ds_status
socket_parse_address(const char *text, char *out_host, size_t out_host_bytes,
                     uint16_t *out_port, struct ds_error *err);

/* Whether a numeric address, without brackets, is reached from this host alone. */
bool socket_host_is_loopback(const char *host);

/* Bytes moved; 0 when the socket would block; negative: DS_IO with `err` filled in.
 * *out_eof tells that the peer closed. Up to `fds_max` descriptors that came along are
 * stored (close-on-exec) and owned by the caller; more than that are closed. */
ssize_t socket_receive(int fd, void *data, size_t bytes, bool *out_eof, int *out_fds,
                       size_t fds_max, size_t *out_fd_count, struct ds_error *err);

/* As writev(); `fds` (may be none) travel with the first byte. SIGPIPE is not raised.
 */
struct iovec;
ssize_t socket_send(int fd, const struct iovec *parts, int part_count, const int *fds,
                    size_t fd_count, struct ds_error *err);

/* Who is at the other end of a Unix socket. The pidfd is the kernel's own (Linux 6.5),
 * or else opened from the pid and checked against the start time. The caller owns it.
 */
struct peer {
    pid_t pid; /* 0: the peer is in another pid namespace. */
    uid_t uid;
    uint64_t start_time; /* Field 22 of /proc/PID/stat; 0: gone or not visible. */
    int pidfd;           /* -1: gone or not visible. */
};
DS_MUST_USE enum ds_status socket_peer(int fd, struct peer *out, struct ds_error *err);

/* Only its user: opens no descriptor and reads nothing from /proc. */
DS_MUST_USE enum ds_status socket_peer_user(int fd, uid_t *out, struct ds_error *err);

/* "host:port" or "[v6]:port" of the other end of a TCP connection, for a log; what cannot
 * be told is "?". */
enum { SOCKET_ADDRESS_TEXT_BYTES = 64 };
void socket_peer_text(int fd, char out[SOCKET_ADDRESS_TEXT_BYTES]);

void socket_close(int fd); /* Accepts -1. */

#endif
