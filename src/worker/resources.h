/* What outlives the worker's child: memory files, listening sockets, the lock on the
 * home folder. The supervisor opens them before it forks; each child inherits them.
 * Owner: the supervisor process; the child only uses them. */
#ifndef WORKER_RESOURCES_H
#define WORKER_RESOURCES_H

#include "os/secret_file.h"
#include "store/store.h"
#include "wire/auth.h"
#include "worker/flags.h"

#include <limits.h>

struct resources {
    int lock_fd;
    int arena_fd;
    int table_fd;
    int pins_fd;
    int unix_fd;
    int tcp_fd;
    int metastore_fd; /* -1: not the head node. */

    char home[PATH_MAX]; /* Absolute. */
    char socket_path[PATH_MAX];
    char health_path[PATH_MAX];
    char ready_path[PATH_MAX];
    char log_dir[PATH_MAX];
    char host[64]; /* Of worker_address. */
    uint16_t port;
    char bind_host[64]; /* Where it listens: there, or elsewhere. */
    uint16_t bind_port;

    struct store_geometry geometry;
    uint64_t huge_page_bytes;

    bool has_key;
    bool encrypts;        /* What passes on connections over TCP after the proof. */
    struct auth_key key;  /* Of the cluster, for connections over TCP, */
    struct secret secret; /* and what it was made of, for controllers started here. */
};

/* What to prove with; NULL: nothing. */
static inline const struct auth_key *
resources_key(const struct resources *resources)
{
    return resources->has_key ? &resources->key : NULL;
}

static inline enum auth_encryption
resources_encryption(const struct resources *resources)
{
    return resources->encrypts ? AUTH_ENCRYPTED : AUTH_PLAIN;
}

/* Resolve folders and addresses: pure arithmetic on the flags, so that the log can be
 * opened before anything can fail. */
DS_MUST_USE enum ds_status
resources_resolve(const struct worker_flags *flags, struct resources *out,
                  struct ds_error *err);

/* Read the key, check the memory, then lock, listen and create. On failure everything is
 * closed again.
 *
 *   DS_NO_MEMORY    the arena does not fit; names sizes and what limits them
 *   DS_EXISTS       another worker has this home or port; names it
 *   DS_UNSUPPORTED  a flag asks for what this machine lacks
 *   as secret_file_read() */
DS_MUST_USE enum ds_status
resources_open(const struct worker_flags *flags, struct resources *resources,
               struct ds_error *err);

/* Close everything and remove socket, probe and lock files. */
void resources_close(struct resources *resources);

#endif
