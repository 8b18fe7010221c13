#include "os/tcp_peer.h"

#include "base/status.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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

/* The owner of the local socket with these two ports, from the kernel's table; false if
 * it is not listed. Each line: "sl: local:port remote:port st tx:rx tr:when retr uid".
 */
static bool
find_owner(const char *table, unsigned local_port, unsigned remote_port, uid_t *out)
{
    FILE *file = fopen(table, "re");
    if (file == NULL)
        return false;
    bool found = false;
    char line[512];
    while (!found && fgets(line, sizeof line, file) != NULL) {
        unsigned local, remote, uid;
        if (sscanf(line, "%*d: %*[0-9A-F]:%x %*[0-9A-F]:%x %*x %*x:%*x %*x:%*x %*x %u",
                   &local, &remote, &uid) != 3)
            continue;
        if (local == local_port && remote == remote_port) {
            *out = uid;
            found = true;
        }
    }
    fclose(file);
    return found;
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
    if (!find_owner("/proc/net/tcp", theirs, ours, &uid) &&
        !find_owner("/proc/net/tcp6", theirs, ours, &uid))
        return DS_OK;
    if (uid == geteuid() || uid == 0)
        return DS_OK;
    return ds_fail(err, DS_INVALID, "peer has uid %u, this process serves uid %u", uid,
                   geteuid());
}
