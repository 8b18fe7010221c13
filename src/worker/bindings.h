/* Which object each key is, of the keys that one node owns and other nodes hold.
 *
 * A key that its owner holds itself needs no entry: it is in its table. Entries are few
 * bytes more than their keys; nothing here is kept over a restart, as the holders know it.
 *
 * Owner: who holds the struct; no locking. */
#ifndef WORKER_BINDINGS_H
#define WORKER_BINDINGS_H

#include "base/hmap.h"
#include "base/list.h"
#include "wire/block_id.h"

struct bindings {
    struct hmap map;
    size_t deleted_count;
};

/* Owner: the bindings. The caller may change `object`, `as_of` and `expires_ds`, and keep its own
 * elements in `changes`. */
struct binding {
    struct hmap_node hash;
    struct object_name object; /* node 0: it is bound to nothing. */
    uint64_t as_of;            /* The epoch in which that was said last. */
    uint32_t expires_ds;       /* 0: never. */
    bool is_deleted;     /* And that is remembered, for a holder that comes back. */
    struct list changes; /* Those that are under way, one after the other. */
    bool is_advancing;   /* They are looked at just now. */
    size_t key_bytes;
    uint8_t key[];
};

void bindings_init(struct bindings *bindings);

/* No entry has changes any more. */
void bindings_fini(struct bindings *bindings);

/* NULL: there is none. */
struct binding *bindings_find(const struct bindings *bindings, struct ds_slice key);

/* The entry, or a new one that is bound to nothing; NULL when out of memory. */
struct binding *bindings_get(struct bindings *bindings, struct ds_slice key);

/* The entry goes, unless it is bound, deleted, or has changes. */
void bindings_settle(struct bindings *bindings, struct binding *binding);

void bindings_set_deleted(struct bindings *bindings, struct binding *binding,
                          bool is_deleted);

struct ds_slice binding_key(const struct binding *binding);

#endif
