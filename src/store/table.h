/* The object table in shared memory: buckets, slots and keys.
 *
 * Only SEALED slots stand in a bucket's chain (for a moment also one that is about to
 * be sealed, or has just died). Readers of other processes may walk a chain while it
 * changes: links change by single stores and a slot never moves, so such a reader finds
 * the object, or misses and asks the worker. Owner: loop thread. */
#ifndef STORE_TABLE_H
#define STORE_TABLE_H

#include "store/arena.h"
#include "store/step.h"
#include "store/store.h"

struct table {
    struct table_header *header;
    _Atomic uint32_t *heads; /* Slot number + 1; 0: empty. */
    struct slot *slots;
    uint8_t *key_heap;
    struct arena *keys; /* Which cells of the key heap are taken. */
    uint64_t arena_bytes;
    uint64_t bucket_mask;
    uint64_t key_heap_bytes;
    uint32_t slot_count;
};

/* Checks the header; chains are taken as they are.
 *   DS_MISMATCH, DS_NO_MEMORY */
DS_MUST_USE enum ds_status
table_init(struct table *table, const struct store_memory *memory,
           struct ds_error *err);
void table_fini(struct table *table);

/* XXH3, 64 bits: the lower ones choose the bucket, the upper 32 are the tag. */
uint64_t table_hash(struct ds_slice key);

static inline uint32_t
table_tag(uint64_t hash)
{
    return (uint32_t)(hash >> 32);
}

static inline struct slot *
table_slot(const struct table *table, uint32_t index)
{
    return &table->slots[index];
}

static inline uint64_t
slot_commit(const struct slot *slot)
{
    return atomic_load_explicit(&slot->commit, memory_order_relaxed);
}

static inline enum slot_state
slot_state_of(const struct slot *slot)
{
    return commit_state(slot_commit(slot));
}

/* The one store by which a slot changes its state. */
static inline void
slot_set_commit(struct slot *slot, uint64_t generation, enum slot_state state,
                const char *step)
{
    STEP_RELEASE(&slot->commit, commit_word(generation, state), step);
}

static inline uint32_t
table_slots_used(const struct table *table)
{
    return (uint32_t)atomic_load_explicit(&table->header->slots_used,
                                          memory_order_relaxed);
}

/* Borrowed from the table. */
struct ds_slice table_key(const struct table *table, const struct slot *slot);

/* Room for a key of `key_bytes`: *out_place is where in the heap, for keys that do not
 * fit into the slot. False when the heap is full. */
bool
table_key_reserve(struct table *table, size_t key_bytes, key_heap_place *out_place);
void table_key_cancel(struct table *table, size_t key_bytes, key_heap_place place);

/* Write the key and its tag into a slot that is not in use. */
void table_key_write(struct table *table, struct slot *slot, struct ds_slice key,
                     key_heap_place place);

/* Give back the room of a slot's key; before the slot is used again. */
void table_key_free(struct table *table, const struct slot *slot);

/* Recovery: is the slot's key whole? Then its room is taken, or it is not. */
bool table_key_is_sane(const struct table *table, const struct slot *slot);
bool table_key_claim(struct table *table, const struct slot *slot);

/* The SEALED slot of `key`, or SLOT_NONE. */
uint32_t table_find(const struct table *table, struct ds_slice key, uint64_t hash);

/* Put a slot in front of its chain; take it out. */
void table_link(struct table *table, uint32_t index, uint64_t hash);
void table_unlink(struct table *table, uint32_t index, uint64_t hash);

#endif
