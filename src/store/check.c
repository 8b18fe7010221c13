/* store_check(): table, arena, keys and lists must tell the same story. */
#include "store/internal.h"

#include "base/check.h"
#include "base/numeric.h"

#include <stdlib.h>

enum {
    CHECK_SLOTS_ALWAYS = 256, /* Up to here a check after every mutation is cheap, */
    CHECK_EVERY = 4096,       /* beyond it is made once in so many. */
};

struct tally {
    uint64_t by_state[4];
    uint64_t resting;
    uint64_t provisional;
    uint64_t unchecked;
    uint64_t copies;
    uint64_t evictable;
    uint64_t expiring;
    uint64_t dead_bytes;
    uint64_t lent;
    uint64_t lent_bytes;
    struct arena_stats arena; /* What the slots add up to, */
    struct arena_stats keys;  /* and their keys. */
};

static void
tally_extent(struct arena_stats *stats, uint64_t size)
{
    stats->used_bytes += extent_bytes(size);
    stats->extent_count++;
}

static void
check_pending(const struct store *store, uint32_t index)
{
    const struct slot *slot = table_slot(&store->table, index);
    uint32_t at = store->link[index];
    DS_ASSERT(at < store->pending_count);
    DS_ASSERT(store->pending[at].slot == index);
    DS_ASSERT(store->pending[at].client == slot->client);
    DS_ASSERT(store->pending[at].sequence == slot->sequence);
    DS_ASSERT(client_is_known(store, slot->client));
    DS_ASSERT(!store->pending[at].kept);
}

static void
check_sealed(const struct store *store, uint32_t index, struct tally *tally)
{
    const struct slot *slot = table_slot(&store->table, index);
    struct ds_slice key = table_key(&store->table, slot);
    uint64_t hash = table_hash(key);
    DS_ASSERT(table_tag(hash) == slot->tag);
    DS_ASSERT(table_find(&store->table, key, hash) == index);
    DS_ASSERT(slot->version > 0);
    DS_ASSERT(slot->version <= store->version);
    DS_ASSERT(expiry_of(&store->expiry, index) == slot->expires_ds);
    tally->expiring += slot->expires_ds != 0;
    tally->unchecked += !slot_has_checksum(slot);
    tally->copies += (place_flags(slot->place) & SLOT_FLAG_COPY) != 0;
    tally->evictable += (place_flags(slot->place) & SLOT_FLAG_EVICTABLE) != 0;
    if (!slot_is_provisional(slot))
        return;
    tally->provisional++;
    check_pending(store, index);
}

static void
check_slot(const struct store *store, uint32_t index, struct tally *tally)
{
    const struct slot *slot = table_slot(&store->table, index);
    uint64_t commit = slot_commit(slot);
    enum slot_state state = commit_state(commit);
    uint64_t generation = commit_generation(commit);
    bool alive = state == SLOT_WRITING || state == SLOT_SEALED;
    DS_ASSERT(state <= SLOT_DEAD);
    DS_ASSERT(generation % 2 == (alive ? 1 : 0));
    tally->by_state[state]++;
    if (state == SLOT_FREE) {
        tally->resting += generation >= GENERATION_MAX;
        return;
    }
    uint16_t key_bytes = place_key_bytes(slot->place);
    tally_extent(&tally->arena, slot->size);
    if (key_bytes > KEY_INLINE_BYTES)
        tally_extent(&tally->keys, key_bytes);
    if (state == SLOT_WRITING)
        check_pending(store, index);
    if (state == SLOT_WRITING && slot_is_lent(slot)) {
        tally->lent++;
        tally->lent_bytes += extent_bytes(slot->size);
    }
    if (state == SLOT_SEALED)
        check_sealed(store, index, tally);
    if (state == SLOT_DEAD)
        tally->dead_bytes += slot->size;
}

/* Slots that stand in a chain; each of them SEALED. */
static uint64_t
check_chains(const struct store *store)
{
    uint64_t linked = 0;
    for (uint64_t i = 0; i <= store->table.bucket_mask; i++) {
        uint32_t index = atomic_load(&store->table.heads[i]) - 1;
        while (index != SLOT_NONE) {
            struct slot *slot = table_slot(&store->table, index);
            uint64_t hash = table_hash(table_key(&store->table, slot));
            DS_ASSERT(slot_state_of(slot) == SLOT_SEALED);
            DS_ASSERT((hash & store->table.bucket_mask) == i);
            DS_ASSERT(linked < store->table.slot_count);
            linked++;
            index = atomic_load(&slot->next);
        }
    }
    return linked;
}

static void
check_free_list(const struct store *store)
{
    uint32_t count = 0;
    for (uint32_t i = store->free_slot; i != SLOT_NONE; i = store->link[i]) {
        DS_ASSERT(i < table_slots_used(&store->table));
        DS_ASSERT(slot_state_of(table_slot(&store->table, i)) == SLOT_FREE);
        DS_ASSERT(count < store->free_count);
        count++;
    }
    DS_ASSERT(count == store->free_count);
}

static void
check_sums(const struct store *store, const struct tally *tally)
{
    struct arena_stats arena;
    struct arena_stats keys;
    arena_stats(store->arena, &arena);
    arena_stats(store->table.keys, &keys);
    DS_ASSERT(arena.used_bytes == tally->arena.used_bytes);
    DS_ASSERT(arena.extent_count == tally->arena.extent_count);
    DS_ASSERT(keys.used_bytes == tally->keys.used_bytes);
    DS_ASSERT(keys.extent_count == tally->keys.extent_count);
    DS_ASSERT(tally->by_state[SLOT_FREE] == store->free_count + store->resting_count);
    DS_ASSERT(tally->resting == store->resting_count);
    DS_ASSERT(tally->by_state[SLOT_WRITING] == store->writing_count);
    DS_ASSERT(tally->by_state[SLOT_SEALED] == store->sealed_count);
    DS_ASSERT(tally->unchecked == store->unchecked_count);
    DS_ASSERT(tally->copies == store->copy_count);
    DS_ASSERT(tally->evictable == store->evictable_count);
    DS_ASSERT(tally->by_state[SLOT_DEAD] == store->limbo.count);
    DS_ASSERT(tally->dead_bytes == store->limbo.bytes);
    DS_ASSERT(tally->lent == store->lent_count);
    DS_ASSERT(tally->lent_bytes == store->lent_bytes);
    DS_ASSERT(tally->provisional + store->writing_count == store->pending_count);
    DS_ASSERT(tally->expiring == store->expiry.count);
}

/* No two objects share a byte. */
static void
check_disjoint(const struct store *store)
{
    struct unit_map map;
    if (!unit_map_init(&map, store->table.arena_bytes))
        return;
    uint32_t used = table_slots_used(&store->table);
    for (uint32_t i = 0; i < used; i++) {
        const struct slot *slot = table_slot(&store->table, i);
        if (slot_state_of(slot) == SLOT_FREE)
            continue;
        uint64_t offset = place_offset(slot->place);
        DS_ASSERT(offset + slot->size <= store->table.arena_bytes);
        DS_ASSERT(!unit_map_set_range(&map, offset, slot->size));
    }
    unit_map_fini(&map);
}

static void
check_limbo(const struct store *store)
{
    for (uint32_t i = 0; i < store->limbo.count; i++) {
        const struct slot *slot = table_slot(&store->table, store->limbo.slots[i]);
        uint64_t unit = place_offset(slot->place) / EXTENT_UNIT_BYTES;
        DS_ASSERT(slot_state_of(slot) == SLOT_DEAD);
        DS_ASSERT(!unit_map_test(&store->limbo.marks, unit));
    }
}

void
store_check(struct store *store)
{
    struct tally tally = {0};
    uint32_t used = table_slots_used(&store->table);
    DS_ASSERT(used <= store->table.slot_count);
    for (uint32_t i = 0; i < used; i++)
        check_slot(store, i, &tally);
    DS_ASSERT(check_chains(store) == store->sealed_count);
    check_free_list(store);
    check_sums(store, &tally);
    check_disjoint(store);
    check_limbo(store);
    expiry_check(&store->expiry);
    arena_check(store->arena);
    arena_check(store->table.keys);
}

void
store_checkpoint(struct store *store)
{
    if (!DS_CHECKS_ON)
        return;
    uint64_t size = max_u64(store->table.slot_count, store->table.bucket_mask);
    if (size <= CHECK_SLOTS_ALWAYS || store->mutations++ % CHECK_EVERY == 0)
        store_check(store);
}
