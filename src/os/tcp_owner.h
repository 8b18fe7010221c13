/* Who owns a TCP socket of this network namespace: two ways to ask the kernel. Neither
 * sees sockets of other namespaces. For tcp_peer.c and its tests. */
#ifndef OS_TCP_OWNER_H
#define OS_TCP_OWNER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

union tcp_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* A connection as our socket has it: the peer's has the two the other way round. */
struct tcp_ends {
    union tcp_address self;
    union tcp_address peer;
};

/* Only OWNED comes with a uid. A socket without an owner was closed by its process
 * while the kernel still delivers (FIN_WAIT, TIME_WAIT), or was not accepted yet; some
 * kernels say that uid 0 has it. */
enum tcp_owner {
    TCP_OWNED,
    TCP_OWNERLESS,
    TCP_ABSENT,  /* No such socket in this namespace. */
    TCP_UNKNOWN, /* The kernel does not answer, or not in this way. */
};

/* IPv4-mapped IPv6 ends become IPv4. False if the two are not of one IP family. */
bool tcp_ends_normalize(struct tcp_ends *ends);

/* ---- NETLINK_SOCK_DIAG: one look-up in the kernel's hash, whatever there is (tcp_diag.c)
 *
 * `ends` are normalized. `protocol` is IPPROTO_TCP; for one that the kernel has no diag
 * module for, the answer is TCP_UNKNOWN. */
enum tcp_owner
tcp_diag_find_peer(const struct tcp_ends *ends, uint8_t protocol, uid_t *out_uid);

/* ---- /proc/net/tcp and tcp6: reads every socket of the namespace (tcp_table.c) ---- */

enum tcp_owner tcp_table_find_peer(const struct tcp_ends *ends, uid_t *out_uid);

/* Of a listener at `port`, at whatever address: `preferred` if it has one. */
bool tcp_table_find_listener(unsigned port, uid_t preferred, uid_t *out_uid);

#endif
