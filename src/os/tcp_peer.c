#include "os/tcp_peer.h"

#include "base/status.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NOBODY ((uid_t)-1)

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static bool
is_loopback(const union address *address)
{
    if (address->any.sa_family == AF_INET)
        return ntohl(address->v4.sin_addr.s_addr) >> 24 == 127;
    if (address->any.sa_family != AF_INET6)
        return false;
    const struct in6_addr *v6 = &address->v6.sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(v6) ||
           (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
}

static unsigned
port_of(const union address *address)
{
    return address->any.sa_family == AF_INET ? ntohs(address->v4.sin_port)
                                             : ntohs(address->v6.sin6_port);
}

/* A line of the kernel's tables: "sl: local:port remote:port st tx:rx tr:when retr uid".
 * A socket that listens has the remote port 0. */
struct row {
    unsigned local, remote;
    uid_t uid;
};

/* False at the end of the table. Its heading is passed over. */
static bool
read_row(FILE *table, struct row *out)
{
    char line[512];
    while (fgets(line, sizeof line, table) != NULL) {
        if (sscanf(line, "%*d: %*[0-9A-F]:%x %*[0-9A-F]:%x %*x %*x:%*x %*x:%*x %*x %u",
                   &out->local, &out->remote, &out->uid) == 3)
            return true;
    }
    return false;
}

/* The owner of the local socket with these two ports; false if it is not listed. Where
 * several are (they may listen at several addresses), `preferred` is, if among them. */
static bool
find_owner_in(const char *path, unsigned local_port, unsigned remote_port,
              uid_t preferred, uid_t *out)
{
    FILE *table = fopen(path, "re");
    if (table == NULL)
        return false;
    bool found = false;
    struct row row;
    while (!(found && *out == preferred) && read_row(table, &row)) {
        if (row.local != local_port || row.remote != remote_port)
            continue;
        *out = row.uid;
        found = true;
    }
    fclose(table);
    return found;
}

static bool
find_owner(unsigned local_port, unsigned remote_port, uid_t preferred, uid_t *out)
{
    bool v4 = find_owner_in("/proc/net/tcp", local_port, remote_port, preferred, out);
    if (v4 && *out == preferred)
        return true;
    uid_t uid;
    if (!find_owner_in("/proc/net/tcp6", local_port, remote_port, preferred, &uid))
        return v4;
    *out = uid;
    return true;
}

enum ds_status
tcp_peer_check_user(int fd, struct ds_error *err)
{
    union address peer = {0}, self = {0};
    socklen_t peer_bytes = sizeof peer, self_bytes = sizeof self;
    if (getpeername(fd, &peer.any, &peer_bytes) < 0 ||
        getsockname(fd, &self.any, &self_bytes) < 0)
        return ds_fail_errno(err, "address of a peer");
    if (!is_loopback(&peer))
        return DS_OK;
    uid_t uid;
    unsigned theirs = port_of(&peer), ours = port_of(&self);
    if (!find_owner(theirs, ours, NOBODY, &uid))
        return DS_OK;
    if (uid == geteuid() || uid == 0)
        return DS_OK;
    return ds_fail(err, DS_INVALID, "peer has uid %u, this process serves uid %u", uid,
                   geteuid());
}

enum ds_status
tcp_peer_check_listener(int fd, struct ds_error *err)
{
    union address peer = {0};
    socklen_t peer_bytes = sizeof peer;
    if (getpeername(fd, &peer.any, &peer_bytes) < 0)
        return ds_fail_errno(err, "address of a peer");
    uid_t uid;
    if (!is_loopback(&peer) || !find_owner(port_of(&peer), 0, geteuid(), &uid) ||
        uid == geteuid())
        return DS_OK;
    return ds_fail(err, DS_INVALID, "port %u is user %u's, not ours (user %u)",
                   port_of(&peer), uid, geteuid());
}
