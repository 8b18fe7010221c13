/* Which object each user's key is, on all nodes of the cluster: this worker's share of it.
 *
 * The ring (meta/ring.h) says which node owns a key. The owner alone says what the key is:
 *
 *      held by the owner   it is in its table, as on a single node
 *      held elsewhere      it is among its bindings
 *
 * Changes of one key go one after the other, and a holder is told to drop its object before
 * another takes its place, so that nobody reads the old value once the new one is
 * acknowledged.
 *
 *      BIND ──► [first in line] ──► who holds it? ── another node ──► DROP, its answer
 *                                       └── we, or nobody ──► bound ◄──┘
 *
 * Bindings are not kept anywhere; who knows them when the ring changes is told in owners.h.
 * Owner: loop thread. */
#ifndef WORKER_DIRECTORY_H
#define WORKER_DIRECTORY_H

#include "wire/bindings.h"
#include "worker/bindings.h"
#include "worker/peers.h"

struct directory;
struct key_owner; /* worker/owners.h */
struct worker;

/* DS_NO_MEMORY */
DS_MUST_USE enum ds_status directory_open(struct directory **out, struct ds_error *err);

/* When no change is under way any more. Accepts NULL. */
void directory_close(struct directory *directory);

/* The table alone says what this key is: it is ours, and nobody else holds it. Always so
 * where there is no cluster. */
bool directory_is_here(const struct worker *worker, struct ds_slice key);

/* ---- What a key of ours is ---- */

/* As the answer to KEY_FIND. */
void
directory_find(struct worker *worker, struct ds_slice key, struct wire_answer *out);

/* Part of who changes something; keeps `key` until it is done. */
struct key_change {
    enum key_order order; /* One of those to an owner, but KEY_FIND. */
    struct ds_slice key;
    struct object_name object;
    struct object_name was; /* KEY_MOVE */
    uint32_t ttl_ds;        /* As in wire_binding. */

    /* Called once, maybe before directory_change() returns. */
    void (*done)(struct worker *worker, struct key_change *change,
                 const struct wire_answer *answer);

    /* The directory's: */
    struct list link; /* In binding->changes. */
    struct binding *binding;
    struct object_name asked; /* The holder's, of the request under way, */
    uint32_t from;            /* which we make as the owner, this process of it. */
    uint32_t from_restarts;
    uint64_t from_epoch;
    bool only_asks; /* Whether it is there, in place of telling to let go. */
    struct peer_request request;
};

/* The answer is KEY_MOVED when the key is not ours, or memory is out. BIND of what is in our
 * own table soon is done by its seal, at once. */
void directory_change(struct worker *worker, struct key_change *change);

/* The key is bound to this object, as far as we know. */
bool directory_knows(const struct worker *worker, const struct wire_binding *binding);

/* A holder has this object, as it reports. KEY_NO: the key is another one; KEY_MOVED: out of
 * memory. */
enum key_answer
directory_take_report(struct worker *worker, const struct wire_binding *binding);

/* An owner before us deleted it, and somebody may come back with what it was. Or bound it to
 * this object, which its holder may not have sealed, and so does not report. False when out of
 * memory. */
DS_MUST_USE bool directory_take_deleted(struct worker *worker, struct ds_slice key);
DS_MUST_USE bool
directory_take_known(struct worker *worker, const struct wire_binding *known);

/* While somebody may come back: each key of ours that others hold, or that was deleted, which
 * has no object. */
typedef void (*directory_key_fn)(struct ds_slice key, const struct object_name *object,
                                 void *arg);
void directory_each_known(const struct worker *worker, directory_key_fn fn, void *arg);
void directory_forget_deleted(struct worker *worker);
void directory_forget_expired(struct worker *worker);

/* A member that was away has reported all that it has. What it was said to have before, and does
 * not have, is gone. */
void directory_forget_unsaid(struct worker *worker, const struct key_owner *holder);

/* Forgets what others own now, or all. */
void directory_forget(struct worker *worker, bool is_all);

/* Keys of ours that others hold, or that are remembered as deleted. NULL: none. */
size_t directory_count(const struct directory *directory);

#endif
