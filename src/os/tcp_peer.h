/* Who is at the other end of a TCP connection on this machine. */
#ifndef OS_TCP_PEER_H
#define OS_TCP_PEER_H

#include <datasystem/status.h>

/* DS_OK if the peer is on another host (which proves itself by other means), or on this
 * one and of this user (or root). DS_INVALID if it belongs to another user; the text
 * has the uid. What /proc/net does not show (another network namespace) counts as
 * another host. */
DS_MUST_USE enum ds_status tcp_peer_check_user(int fd, struct ds_error *err);

/* For who has connected: DS_INVALID if only other users (root too) listen at the peer's
 * port of this host. The uid is that of the listener, as a connection that nobody has
 * accepted yet has none. */
DS_MUST_USE enum ds_status tcp_peer_check_listener(int fd, struct ds_error *err);

#endif
