/* Who is at the other end of a TCP connection on this machine. */
#ifndef OS_TCP_PEER_H
#define OS_TCP_PEER_H

#include <datasystem/status.h>

#include <stdbool.h>

/* For who has accepted: DS_OK if neither end has a loopback address (the peer then may
 * be on another host and proves itself by other means), or if the peer's socket belongs
 * to this user (or root). DS_INVALID if it belongs to another user; the text has the
 * uid. DS_INVALID too if a peer at a loopback address is not to be found. DS_IO if it has
 * closed its socket already: that has no owner then. Does not block; asks
 * NETLINK_SOCK_DIAG, and reads /proc/net/tcp where that does not answer. */
DS_MUST_USE enum ds_status tcp_peer_check_user(int fd, struct ds_error *err);

/* For who has accepted: whether the kernel says that the peer's socket is of a process of
 * this user, in this network namespace. Not if it cannot tell. Does not block. */
bool tcp_peer_is_ours(int fd);

/* For who has connected: DS_INVALID if only other users (root too) listen at the peer's
 * port of this host. The uid is that of the listener, as a connection that nobody has
 * accepted yet has none. */
DS_MUST_USE enum ds_status tcp_peer_check_listener(int fd, struct ds_error *err);

#endif
