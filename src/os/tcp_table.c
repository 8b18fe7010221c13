/* The kernel's tables of sockets as text: where sock_diag is not to be had. */
#include "os/tcp_owner.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define V4_TABLE "/proc/net/tcp"
#define V6_TABLE "/proc/net/tcp6"

enum { END_BYTES = 40 }; /* 32 digits, colon, 4 digits. */

/* A line: "sl: local remote st tx:rx tr:when retr uid timeout inode". Both ends are
 * "ADDRESS:PORT", in words of the machine's byte order. */
struct row {
    char local[END_BYTES];
    char remote[END_BYTES];
    uid_t uid;
    unsigned long inode; /* 0: without an owner. */
};

/* False at the end of the table. Its heading is passed over. */
static bool
read_row(FILE *table, struct row *out)
{
    char line[512];
    while (fgets(line, sizeof line, table) != NULL) {
        if (sscanf(line,
                   "%*d: %39[0-9A-F:] %39[0-9A-F:] %*x %*x:%*x %*x:%*x %*x %u %*d %lu",
                   out->local, out->remote, &out->uid, &out->inode) == 4)
            return true;
    }
    return false;
}

/* ---- The other end of a connection ---- */

/* An IPv4 address may stand in the other table as well, as IPv4-mapped. */
static void
print_end(const union tcp_address *address, bool in_v6_table, char out[END_BYTES])
{
    struct in6_addr wide = address->v6.sin6_addr;
    in_port_t port = address->v6.sin6_port;
    if (address->any.sa_family == AF_INET) {
        wide = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
        memcpy(&wide.s6_addr[12], &address->v4.sin_addr, sizeof address->v4.sin_addr);
        port = address->v4.sin_port;
    }
    uint32_t words[4];
    memcpy(words, &wide, sizeof words);
    if (in_v6_table)
        snprintf(out, END_BYTES, "%08X%08X%08X%08X:%04X", words[0], words[1], words[2],
                 words[3], ntohs(port));
    else
        snprintf(out, END_BYTES, "%08X:%04X", words[3], ntohs(port));
}

static enum tcp_owner
find_peer_in(const char *path, const struct tcp_ends *ends, bool in_v6_table,
             uid_t *out_uid)
{
    char local[END_BYTES], remote[END_BYTES];
    print_end(&ends->peer, in_v6_table, local);
    print_end(&ends->self, in_v6_table, remote);
    FILE *table = fopen(path, "re");
    if (table == NULL)
        return TCP_UNKNOWN;
    enum tcp_owner owner = TCP_ABSENT;
    struct row row;
    while (owner == TCP_ABSENT && read_row(table, &row)) {
        if (strcmp(row.local, local) != 0 || strcmp(row.remote, remote) != 0)
            continue;
        owner = row.inode == 0 ? TCP_OWNERLESS : TCP_OWNED;
        if (owner == TCP_OWNED)
            *out_uid = row.uid;
    }
    fclose(table);
    return owner;
}

enum tcp_owner
tcp_table_find_peer(const struct tcp_ends *ends, uid_t *out_uid)
{
    enum tcp_owner v4 = TCP_ABSENT;
    if (ends->self.any.sa_family == AF_INET)
        v4 = find_peer_in(V4_TABLE, ends, false, out_uid);
    if (v4 == TCP_OWNED || v4 == TCP_OWNERLESS)
        return v4;
    enum tcp_owner v6 = find_peer_in(V6_TABLE, ends, true, out_uid);
    /* A kernel without IPv6 has no second table, and nothing in it. */
    return v6 == TCP_UNKNOWN && ends->self.any.sa_family == AF_INET ? v4 : v6;
}

/* ---- Listeners ---- */

/* A socket that listens has the remote port 0. */
static bool
listens_at(const struct row *row, unsigned port)
{
    unsigned local, remote;
    return sscanf(row->local, "%*[0-9A-F]:%x", &local) == 1 &&
           sscanf(row->remote, "%*[0-9A-F]:%x", &remote) == 1 && local == port &&
           remote == 0;
}

static bool
find_listener_in(const char *path, unsigned port, uid_t preferred, uid_t *out_uid)
{
    FILE *table = fopen(path, "re");
    if (table == NULL)
        return false;
    bool found = false;
    struct row row;
    while (!(found && *out_uid == preferred) && read_row(table, &row)) {
        if (!listens_at(&row, port))
            continue;
        *out_uid = row.uid;
        found = true;
    }
    fclose(table);
    return found;
}

bool
tcp_table_find_listener(unsigned port, uid_t preferred, uid_t *out_uid)
{
    bool v4 = find_listener_in(V4_TABLE, port, preferred, out_uid);
    if (v4 && *out_uid == preferred)
        return true;
    uid_t uid;
    if (!find_listener_in(V6_TABLE, port, preferred, &uid))
        return v4;
    *out_uid = uid;
    return true;
}
