/* The worker's child: one loop thread that owns the store, the sessions and the
 * clients.
 *
 *   session   one connection; speaks the messages of wire/message.h
 *   client    one that reserves objects: a region of the pins file, any number of
 *             sessions; lives until it leaves or its process is dead
 *   waiter    a lookup parked until its keys appear
 *   orphan    a provisional block whose client ended: the queue's controller decides
 *
 * Everything here is Owner: loop thread. */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "base/hmap.h"
#include "base/list.h"
#include "net/conn.h"
#include "store/store.h"
#include "worker/resources.h"

#include <uv.h>

enum {
    WORKER_UNPROVEN_MAX = 256, /* Connections that have not said HELLO, and one more for
                                  each member: they all come when the members change. */
    WORKER_TICK_MS = 100,
};

struct worker_counters {
    uint64_t requests;
    uint64_t creates;
    uint64_t seals;
    uint64_t lookups;
    uint64_t hits; /* Of requests; what clients find in the table nobody counts. */
    uint64_t misses;
    uint64_t deletes;
    uint64_t bytes_sealed;
    uint64_t bytes_fetched; /* Sent through sockets. */
    uint64_t damaged;       /* Payloads that were not what their sender said. */
    uint64_t out_of_memory;
    uint64_t clients_died;
    uint64_t protocol_errors;
};

struct populate;   /* populate.h */
struct checksums;  /* checksums.h */
struct election;   /* election.h */
struct metastore;  /* metastore.h */
struct membership; /* membership.h */
struct peers;      /* peers.h */
struct owners;     /* owners.h */
struct directory;  /* directory.h */
struct leaving;    /* leaving.h */

struct worker {
    uv_loop_t loop;
    const struct worker_flags *flags;
    const struct resources *resources;
    int restarts;        /* Of the child, counted by the supervisor. */
    uint64_t started_ms; /* Since then it listens. */

    struct store *store;
    struct store_memory memory;
    uint8_t *arena; /* Mapped whole. */
    uint64_t block_counter;

    struct listener *listeners[3];
    struct list sessions;
    uint32_t session_count;
    struct list strangers; /* Those that have not said HELLO, the oldest first. */
    uint32_t unproven_count;
    struct list clients;
    struct list unseen; /* Those that are not watched, but asked for at each tick. */
    uint32_t unseen_count;
    struct list parked_creates; /* Those that wait for room: creates.c. */
    struct hmap waiting_keys;   /* waiters.c */
    struct hmap copies;         /* copies.c */
    struct list copies_unasked; /* Empty between two requests. */
    struct list batch_spares;   /* copies_batch.c */
    uint32_t batch_spare_count;
    uint32_t batch_parts; /* How many the next batch shall have. */
    uint32_t batch_idle_ticks;
    struct hmap relays;               /* relays.c */
    struct known_value *known_values; /* small_values.c; NULL: none came yet. */
    struct list orphans;              /* orphans.c */
    uint32_t foreign_orphan_count;
    struct list orphan_readers; /* Sessions of controllers that asked for orphans. */
    struct list queues;         /* queues.c */
    struct list kept_journals;  /* kept_journals.c */
    struct list started;        /* takeover.c */
    struct list taken;          /* arenas.c */
    struct leaving *leaving;    /* leaving.c; NULL: was never told to. */
    struct populate *populate;
    struct checksums *checksums;
    struct election *election;     /* NULL: no etcd decides who has the metastore. */
    struct metastore *metastore;   /* NULL: it is another node's. */
    struct membership *membership; /* NULL: it belongs to no cluster. */
    struct peers *peers;
    struct owners *owners;
    struct directory *directory;
    struct list key_requests; /* keys.c */
    struct list reports;      /* reports.c */

    uv_timer_t tick;
    uint64_t tick_count;
    uint64_t farewell_until_ms; /* 0: it does not wait until all heard of its end. */
    uv_timer_t room_tick;       /* Active while somebody waits for room. */
    uv_signal_t terminate;
    uv_signal_t interrupt;
    bool waits_to_join; /* Is not ready before it belongs to its cluster. */
    bool is_leaving;    /* Was told to stop. */
    bool stopping;
    bool is_unreported; /* The health and ready files could not be written yet. */
    struct worker_counters counters;
};

/* Brings up a worker on `resources`: formatted memory, or what the previous child left
 * behind (`restarts` above 0). uv_run(&worker->loop) then serves. A failure is cleaned
 * up. worker_close() ends every connection, runs the loop until all is closed, and
 * leaves the memory as it is. */
DS_MUST_USE enum ds_status
worker_open(struct worker *worker, const struct worker_flags *flags,
            const struct resources *resources, int restarts, struct ds_error *err);
void worker_close(struct worker *worker);

/* Leaves the cluster, whose others hear of it, and stops; said twice, it stops at once. */
void worker_end(struct worker *worker);

/* The child's main. Returns the exit code. */
int worker_run(const struct worker_flags *flags, const struct resources *resources,
               int restarts);

#endif
