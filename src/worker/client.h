/* A process that shares our memory, or reserves in it over TCP: one region of the pins
 * file, watched until it dies.
 *
 * Dead means that the process is dead (its pidfd says so). Losing every connection is
 * not death: a living process keeps its pins and unsealed objects, and claims them when
 * it connects again. Only where the pid is not visible (over TCP, or in another pid
 * namespace) do the connections count.
 *
 * A fork claim is a client without connections: it holds copies of its parent's pins
 * until the pipe that the child inherited closes.
 *
 * Owner: loop thread; freed from the close callback of its watch. */
#ifndef WORKER_CLIENT_H
#define WORKER_CLIENT_H

#include "os/sockets.h"
#include "worker/worker.h"

struct client {
    struct list link; /* In worker->clients. */
    struct worker *worker;
    uint32_t region;
    struct client_identity identity;
    int watch_fd; /* Turns readable when the process is gone; -1: not visible. */
    uv_poll_t watch;
    bool watching;
    uint32_t session_count;
    bool must_resume; /* Known from before a restart; has not said what it holds. */
    uint64_t silent_since; /* Monotonic ms of the last lost connection; 0: connected. */
};

/* A new process says HELLO. Takes peer->pidfd, also on failure. */
DS_MUST_USE enum ds_status client_add(struct worker *worker, struct peer *peer,
                                      struct client **out, struct ds_error *err);

/* A fork claim for what `parent` has pinned. Takes `pipe_fd`, also on failure. */
DS_MUST_USE enum ds_status
client_add_fork_claim(struct client *parent, int pipe_fd, struct ds_error *err);

/* The client with this region and token; NULL if there is none. */
struct client *client_find(struct worker *worker, uint32_t region, uint64_t token);

/* After a restart: find the clients of the previous child again, or bury them. */
void clients_recover(struct worker *worker);

/* Bury those whose pid is not visible and who stayed away too long. */
void clients_tick(struct worker *worker, uint64_t now_ms);

/* At the end: forget all (the memory files go on). */
void clients_close(struct worker *worker);

#endif
