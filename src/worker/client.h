/* A client that shares our memory, or reserves in it over TCP: one region of the pins
 * file, and the process that has it, watched until it dies. A process may have several.
 *
 * Dead means that the process is dead (its pidfd says so). Losing every connection is
 * not death: a living process keeps its pins and unsealed objects, and claims them when
 * it connects again. Where the pid is not visible (another pid namespace), the client
 * lives as long as its mark on the pins file (memfile_mark(), by region number), which
 * it was handed and we keep no copy of. The kernel knows about the mark whatever becomes
 * of us, so a worker that comes after this one finds the same clients alive.
 *
 * A client that closes says so and gives its place back. One that loses its connections
 * before it ever asked for anything may not know that it was let in, and goes too.
 *
 * A fork claim is such a client, without connections: it holds copies of its parent's
 * pins, and its mark is inherited by the child, and by the child's children.
 *
 * Only who maps nothing and is not visible (over TCP) is dead by its silence.
 *
 * Owner: loop thread; freed from the close callback of its watch. */
#ifndef WORKER_CLIENT_H
#define WORKER_CLIENT_H

#include "os/sockets.h"
#include "worker/worker.h"

struct client {
    struct list link;        /* In worker->clients. */
    struct list unseen_link; /* In worker->unseen, if it is not watched. */
    struct worker *worker;
    uint32_t region;
    struct client_identity identity;
    int watch_fd; /* Turns readable when the process is gone; -1: not visible. */
    uv_poll_t watch;
    bool watching;
    uint32_t session_count;
    bool has_spoken;  /* Asked for something, so it knows that it is in. */
    bool must_resume; /* Known from before a restart; has not said what it holds. */
    uint64_t epoch;   /* Of the last time that it said so. */
    uint64_t silent_since; /* Monotonic ms of the last lost connection; 0: connected. */
};

/* A new client says HELLO; it maps our memory or not. Takes peer->pidfd, also on
 * failure. DS_FULL: the text names the process that has the most places. */
DS_MUST_USE enum ds_status
client_add(struct worker *worker, struct peer *peer, bool maps_memory,
           struct client **out, struct ds_error *err);

/* A fork claim for what `parent` has pinned, to live as long as *out_mark is open
 * anywhere. The caller sends and closes it. */
DS_MUST_USE enum ds_status
client_add_fork_claim(struct client *parent, int *out_mark, struct ds_error *err);

/* One more mark for a client that lives by its mark; *out_mark is -1 for others. The
 * caller sends and closes it. */
DS_MUST_USE enum ds_status
client_mark(const struct client *client, int *out_mark, struct ds_error *err);

/* The client with this region and token; NULL if there is none. */
struct client *client_find(struct worker *worker, uint32_t region, uint64_t token);

/* It is closed, or was never in use: its place is free for the next. */
void client_leave(struct client *client, const char *why);

/* After a restart: find the clients of the previous child again, or bury them. */
DS_MUST_USE enum ds_status clients_recover(struct worker *worker, struct ds_error *err);

/* Bury those whose mark is gone, and those over TCP who stayed away too long. */
void clients_tick(struct worker *worker, uint64_t now_ms);

/* At the end: forget all (the memory files go on). */
void clients_close(struct worker *worker);

#endif
