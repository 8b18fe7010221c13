#include "os/tcp_peer.h"

#include "base/status.h"
#include "os/tcp_owner.h"

#include <arpa/inet.h>
#include <string.h>
#include <unistd.h>

static bool
is_loopback(const union tcp_address *address)
{
    if (address->any.sa_family == AF_INET)
        return ntohl(address->v4.sin_addr.s_addr) >> 24 == 127;
    return address->any.sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&address->v6.sin6_addr);
}

static unsigned
port_of(const union tcp_address *address)
{
    return address->any.sa_family == AF_INET ? ntohs(address->v4.sin_port)
                                             : ntohs(address->v6.sin6_port);
}

static void
unmap(union tcp_address *address)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = address->v6.sin6_port};
    memcpy(&v4.sin_addr, &address->v6.sin6_addr.s6_addr[12], sizeof v4.sin_addr);
    *address = (union tcp_address){.v4 = v4};
}

static bool
is_mapped(const union tcp_address *address)
{
    return address->any.sa_family == AF_INET6 &&
           IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr);
}

bool
tcp_ends_normalize(struct tcp_ends *ends)
{
    if (is_mapped(&ends->self) && is_mapped(&ends->peer)) {
        unmap(&ends->self);
        unmap(&ends->peer);
    }
    int family = ends->self.any.sa_family;
    return family == ends->peer.any.sa_family &&
           (family == AF_INET || family == AF_INET6);
}

static enum ds_status
ends_of(int fd, struct tcp_ends *out, struct ds_error *err)
{
    struct tcp_ends ends = {0};
    socklen_t peer_bytes = sizeof ends.peer, self_bytes = sizeof ends.self;
    if (getpeername(fd, &ends.peer.any, &peer_bytes) < 0 ||
        getsockname(fd, &ends.self.any, &self_bytes) < 0)
        return ds_fail_errno(err, "address of a peer");
    if (!tcp_ends_normalize(&ends))
        return ds_fail(err, DS_IO, "the peer of a TCP connection has no IP address");
    *out = ends;
    return DS_OK;
}

/* ---- Who has connected to us ---- */

static enum tcp_owner
find_peer(const struct tcp_ends *ends, uid_t *out_uid)
{
    enum tcp_owner owner = tcp_diag_find_peer(ends, IPPROTO_TCP, out_uid);
    return owner == TCP_UNKNOWN ? tcp_table_find_peer(ends, out_uid) : owner;
}

static enum ds_status
fail_without_owner(enum tcp_owner owner, const struct tcp_ends *ends,
                   struct ds_error *err)
{
    unsigned port = port_of(&ends->peer);
    if (owner == TCP_OWNERLESS)
        return ds_fail(err, DS_IO,
                       "the peer at local port %u has closed its socket already, so "
                       "whose it was is unknown",
                       port);
    if (owner == TCP_ABSENT)
        return ds_fail(err, DS_INVALID,
                       "the peer at local port %u has no socket in this network "
                       "namespace, so whose it is is unknown; connect directly, not "
                       "through a redirection",
                       port);
    return ds_fail(err, DS_INVALID,
                   "the kernel does not say whose the peer at local port %u is; allow "
                   "this process NETLINK_SOCK_DIAG sockets or to read /proc/net/tcp",
                   port);
}

/* What comes to a loopback address comes from this host, whatever address the sender
 * has bound. Only a peer at a loopback address must be found, though: another one may
 * have been sent here by a rule of the firewall. */
enum ds_status
tcp_peer_check_user(int fd, struct ds_error *err)
{
    struct tcp_ends ends = {0};
    enum ds_status status = ends_of(fd, &ends, err);
    if (status != DS_OK)
        return status;
    if (!is_loopback(&ends.peer) && !is_loopback(&ends.self))
        return DS_OK;
    uid_t uid = 0;
    enum tcp_owner owner = find_peer(&ends, &uid);
    bool is_elsewhere = owner != TCP_OWNED && owner != TCP_OWNERLESS;
    if (is_elsewhere && !is_loopback(&ends.peer))
        return DS_OK;
    if (owner != TCP_OWNED)
        return fail_without_owner(owner, &ends, err);
    if (uid == geteuid() || uid == 0)
        return DS_OK;
    return ds_fail(err, DS_INVALID, "peer has uid %u, this process serves uid %u", uid,
                   geteuid());
}

bool
tcp_peer_is_ours(int fd)
{
    struct tcp_ends ends = {0};
    uid_t uid = 0;
    return ends_of(fd, &ends, NULL) == DS_OK && find_peer(&ends, &uid) == TCP_OWNED &&
           uid == geteuid();
}

/* ---- Whom we have connected to ---- */

enum ds_status
tcp_peer_check_listener(int fd, struct ds_error *err)
{
    struct tcp_ends ends = {0};
    enum ds_status status = ends_of(fd, &ends, err);
    if (status != DS_OK)
        return status;
    uid_t uid;
    unsigned port = port_of(&ends.peer);
    if (!is_loopback(&ends.peer) || !tcp_table_find_listener(port, geteuid(), &uid) ||
        uid == geteuid())
        return DS_OK;
    return ds_fail(err, DS_INVALID, "port %u is user %u's, not ours (user %u)", port,
                   uid, geteuid());
}
