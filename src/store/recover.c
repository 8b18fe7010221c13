/* store_open(): everything private is rebuilt from the table, which a worker may have
 * left at any store. Whatever a slot says is checked before it is believed. */
#include "store/internal.h"

#include "base/auto.h"
#include "base/check.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/status.h"

#include <stdlib.h>

enum {
    SLOT_FLAGS_ALL = SLOT_FLAG_BLOCK | SLOT_FLAG_PROVISIONAL | SLOT_FLAG_EVICTABLE |
                     SLOT_FLAG_CHECKSUM | SLOT_FLAG_COPY
};

#define VERSION_MAX (1ull << 63)

/* Owner: store_open(). */
struct recovery {
    struct store *store;
    struct store_recovery report;
    struct unit_map claimed;   /* Units of the arena that a slot claims, */
    struct unit_map contested; /* and those that a second one claims as well. */
    bool any_contested;
};

static void
recovery_auto(struct recovery *recovery)
{
    unit_map_fini(&recovery->claimed);
    unit_map_fini(&recovery->contested);
}

DEFINE_AUTO(store, struct store, store_close)

void
store_close(struct store *store)
{
    if (store == NULL)
        return;
    table_fini(&store->table);
    pins_fini(&store->pins);
    arena_destroy(store->arena);
    free(store->link);
    free(store->pending);
    expiry_fini(&store->expiry);
    limbo_fini(store);
    holds_fini(&store->holds);
    free(store);
}

/* ---- One slot ---- */

/* Even generations are the dead ones: the next that is greater. */
static uint64_t
next_dead_generation(uint64_t generation)
{
    uint64_t next = (generation | 1) + 1;
    return min_u64(next, GENERATION_MAX);
}

void
slot_drop(struct store *store, uint32_t index)
{
    struct slot *slot = table_slot(&store->table, index);
    uint64_t generation = next_dead_generation(commit_generation(slot_commit(slot)));
    slot_set_commit(slot, generation, SLOT_FREE, "recover drop");
}

static bool
extent_is_sane(const struct store *store, const struct slot *slot)
{
    uint64_t arena_bytes = store->table.arena_bytes;
    uint64_t offset = place_offset(slot->place);
    if (slot->size == 0 || slot->size > arena_bytes)
        return false;
    uint64_t bytes = extent_bytes(slot->size);
    return bytes <= arena_bytes && offset <= arena_bytes - bytes;
}

/* Could this store have written such a slot that is not FREE? */
static bool
slot_is_sane(const struct store *store, const struct slot *slot)
{
    uint64_t commit = slot_commit(slot);
    enum slot_state state = commit_state(commit);
    uint64_t generation = commit_generation(commit);
    bool dead = state == SLOT_DEAD;
    return state <= SLOT_DEAD && generation % 2 == (dead ? 0 : 1) &&
           generation <= GENERATION_MAX && slot->client <= store->pins.region_count &&
           (place_flags(slot->place) & ~SLOT_FLAGS_ALL) == 0 &&
           slot->version < VERSION_MAX && (state != SLOT_SEALED || slot->version > 0) &&
           extent_is_sane(store, slot) &&
           (table_key_is_sane(&store->table, slot) ||
            (slot_is_lent(slot) && state != SLOT_SEALED));
}

/* ---- First pass: which slots are whole, and which of them claim the same bytes ----
 */

static void
claim_units(struct recovery *recovery, const struct slot *slot)
{
    uint64_t offset = place_offset(slot->place);
    uint64_t bytes = extent_bytes(slot->size);
    if (!unit_map_set_range(&recovery->claimed, offset, bytes))
        return;
    recovery->any_contested = true;
    (void)unit_map_set_range(&recovery->contested, offset, bytes);
}

static void
examine(struct recovery *recovery, uint32_t index)
{
    struct store *store = recovery->store;
    const struct slot *slot = table_slot(&store->table, index);
    uint64_t commit = slot_commit(slot);
    if (commit_state(commit) == SLOT_FREE && commit_generation(commit) % 2 == 0)
        return;
    if (commit_state(commit) == SLOT_FREE || !slot_is_sane(store, slot)) {
        slot_drop(store, index);
        recovery->report.dropped_damaged++;
        return;
    }
    claim_units(recovery, slot);
}

/* ---- Second pass: take what is left into use ---- */

static bool
is_contested(const struct recovery *recovery, const struct slot *slot)
{
    return recovery->any_contested &&
           unit_map_any_in_range(&recovery->contested, place_offset(slot->place),
                                 extent_bytes(slot->size));
}

/* Mark extent and key as taken. False, with nothing taken, if one of them cannot be. */
static bool
claim_room(struct store *store, const struct slot *slot)
{
    uint64_t offset = place_offset(slot->place);
    uint64_t alignment = store_alignment(store, slot->size);
    if (!arena_claim(store->arena, offset, slot->size, alignment))
        return false;
    if (table_key_claim(&store->table, slot))
        return true;
    arena_free(store->arena, offset, slot->size, alignment);
    return false;
}

/* Unsealed objects wait for their owner. The worker itself is one that never comes back
 * (client 0), and so is a client whose region is free. */
static void
adopt_writing(struct recovery *recovery, uint32_t index)
{
    struct store *store = recovery->store;
    const struct slot *slot = table_slot(&store->table, index);
    store->writing_count++;
    pending_add(store, index);
    if (slot_is_lent(slot))
        lent_add(store, slot);
    if (slot->client != 0 && client_is_known(store, slot->client))
        recovery->report.writing++;
    else
        object_die(store, index);
}

/* A seal stopped between publishing the new object and ending the old one leaves two.
 */
static void
adopt_sealed(struct recovery *recovery, uint32_t index)
{
    struct store *store = recovery->store;
    const struct slot *slot = table_slot(&store->table, index);
    struct ds_slice key = table_key(&store->table, slot);
    uint64_t hash = table_hash(key);
    uint32_t other = table_find(&store->table, key, hash);

    table_link(&store->table, index, hash);
    expiry_set(&store->expiry, index, slot->expires_ds);
    store->sealed_count++;
    store->unchecked_count += !slot_has_checksum(slot);
    evictable_count(store, slot, 1);
    recovery->report.sealed++;
    if (slot_is_provisional(slot)) {
        pending_add(store, index);
        if (!client_is_known(store, slot->client))
            pending_orphan(store, &store->pending[store->link[index]]);
    }
    if (other == SLOT_NONE)
        return;
    bool newer = slot->version > table_slot(&store->table, other)->version;
    object_die(store, newer != PLANTED(OLDER_WINS) ? other : index);
    recovery->report.sealed--;
    recovery->report.dropped_superseded++;
}

static void
adopt(struct recovery *recovery, uint32_t index)
{
    struct store *store = recovery->store;
    const struct slot *slot = table_slot(&store->table, index);
    store->version = max_u64(store->version, slot->version);
    switch (slot_state_of(slot)) {
    case SLOT_WRITING:
        adopt_writing(recovery, index);
        break;
    case SLOT_SEALED:
        adopt_sealed(recovery, index);
        break;
    case SLOT_DEAD:
        limbo_add(store, index);
        break;
    case SLOT_FREE:
        DS_ASSERT(false);
    }
}

static void
take_into_use(struct recovery *recovery, uint32_t index)
{
    struct store *store = recovery->store;
    const struct slot *slot = table_slot(&store->table, index);
    if (slot_state_of(slot) == SLOT_FREE)
        return;
    if (PLANTED(DOUBLE_GRANT) && slot_state_of(slot) == SLOT_WRITING) {
        adopt(recovery, index);
        return;
    }
    if (is_contested(recovery, slot) || !claim_room(store, slot)) {
        slot_drop(store, index);
        recovery->report.dropped_overlapping++;
        return;
    }
    adopt(recovery, index);
}

/* ---- The whole table ---- */

/* Until epoch_end() readers ask the worker. */
static void
epoch_begin(struct store *store)
{
    _Atomic uint64_t *epoch = &store->table.header->epoch;
    uint64_t before = atomic_load_explicit(epoch, memory_order_relaxed);
    STEP_RELEASE(epoch, before | 1, "recover epoch");
}

static void
epoch_end(struct store *store)
{
    _Atomic uint64_t *epoch = &store->table.header->epoch;
    uint64_t before = atomic_load_explicit(epoch, memory_order_relaxed);
    STEP_RELEASE(epoch, before + 1, "recovered epoch");
}

/* Chains are made anew. Clients that walk one meanwhile miss, and ask. */
static void
clear_chains(struct store *store)
{
    for (uint64_t i = 0; i <= store->table.bucket_mask; i++) {
        _Atomic uint32_t *head = &store->table.heads[i];
        if (atomic_load_explicit(head, memory_order_relaxed) != 0)
            STEP_RELEASE(head, 0, "recover head");
    }
}

/* Lowest slot first, so that the used part of the table stays short. */
static void
collect_free_slots(struct store *store)
{
    for (uint32_t i = table_slots_used(&store->table); i > 0; i--) {
        uint64_t commit = slot_commit(table_slot(&store->table, i - 1));
        if (commit_state(commit) != SLOT_FREE)
            continue;
        if (commit_generation(commit) >= GENERATION_MAX)
            store->resting_count++;
        else
            free_slot_push(store, i - 1);
    }
}

static void
correct_header(struct store *store)
{
    struct table_header *header = store->table.header;
    uint64_t used = atomic_load_explicit(&header->slots_used, memory_order_relaxed);
    if (used > store->table.slot_count)
        STEP_RELEASE(&header->slots_used, store->table.slot_count,
                     "recover slots used");
    uint64_t populated = atomic_load_explicit(&header->populated, memory_order_relaxed);
    uint64_t sane = min_u64(populated, store->table.arena_bytes) & ~4095ull;
    if (sane != populated)
        STEP_RELEASE(&header->populated, sane, "recover populated");
    arena_set_populated(store->arena, sane);
}

static void
rebuild(struct recovery *recovery)
{
    struct store *store = recovery->store;
    epoch_begin(store);
    correct_header(store);
    clear_chains(store);
    uint32_t used = table_slots_used(&store->table);
    for (uint32_t i = 0; i < used; i++)
        examine(recovery, i);
    for (uint32_t i = 0; i < used; i++)
        take_into_use(recovery, i);
    collect_free_slots(store);
    epoch_end(store);
    recovery->report.dead = store->limbo.count;
}

static enum ds_status
open_parts(struct store *store, const struct store_memory *memory, struct ds_error *err)
{
    enum ds_status status = table_init(&store->table, memory, err);
    if (status == DS_OK)
        status = pins_init(&store->pins, memory, err);
    if (status == DS_OK)
        status = arena_create(store->table.arena_bytes, &store->arena, err);
    if (status != DS_OK)
        return status;
    uint32_t slot_count = store->table.slot_count;
    store->huge_page_bytes = store->table.header->huge_page_bytes;
    store->link = calloc(slot_count, sizeof *store->link);
    store->pending = calloc(slot_count, sizeof *store->pending);
    if (store->link != NULL && store->pending != NULL &&
        expiry_init(&store->expiry, slot_count) && limbo_init(store))
        return DS_OK;
    return ds_fail(err, DS_NO_MEMORY,
                   "no memory for the bookkeeping of a table of %u slots", slot_count);
}

enum ds_status
store_open(const struct store_memory *memory, uint64_t now_ds, struct store **out,
           struct store_recovery *report, struct ds_error *err)
{
    DS_ASSERT(memory != NULL);
    DS_ASSERT(out != NULL);
    AUTO(store) struct store *store = calloc(1, sizeof *store);
    if (store == NULL)
        return ds_fail(err, DS_NO_MEMORY, "no memory to open the object table");
    store->free_slot = SLOT_NONE;
    holds_init(&store->holds);
    enum ds_status status = open_parts(store, memory, err);
    if (status != DS_OK)
        return status;

    AUTO(recovery) struct recovery recovery = {.store = store};
    if (!unit_map_init(&recovery.claimed, store->table.arena_bytes) ||
        !unit_map_init(&recovery.contested, store->table.arena_bytes))
        return ds_fail(err, DS_NO_MEMORY, "no memory to recover the object table");
    rebuild(&recovery);
    (void)
        now_ds; /* What expired meanwhile is not found, and goes with the first tick. */
    if (report != NULL)
        *report = recovery.report;
    *out = TAKE(store);
    return DS_OK;
}
