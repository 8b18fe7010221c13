#include "store/internal.h"

#include "base/check.h"

void
view_of(const struct store *store, uint32_t index, struct object_view *out)
{
    const struct slot *slot = table_slot(&store->table, index);
    uint64_t commit = slot_commit(slot);
    *out = (struct object_view){
        .ref = {.slot = index, .generation = commit_generation(commit)},
        .commit = commit,
        .offset = place_offset(slot->place),
        .size = slot->size,
        .version = slot->version,
        .checksum = slot->checksum,
        .expires_ds = slot->expires_ds,
        .flags = place_flags(slot->place),
    };
}

bool
store_inspect(const struct store *store, uint32_t slot, struct object_view *out,
              enum slot_state *out_state)
{
    if (slot >= table_slots_used(&store->table))
        return false;
    enum slot_state state = slot_state_of(table_slot(&store->table, slot));
    if (state == SLOT_FREE)
        return false;
    view_of(store, slot, out);
    *out_state = state;
    return true;
}

struct ds_slice
store_key(const struct store *store, uint32_t slot, uint8_t *buffer)
{
    (void)buffer; /* Every key lies in the table as a whole. */
    DS_ASSERT(slot < table_slots_used(&store->table));
    DS_ASSERT(slot_state_of(table_slot(&store->table, slot)) != SLOT_FREE);
    return table_key(&store->table, table_slot(&store->table, slot));
}

void
store_each(struct store *store, store_object_fn fn, void *arg)
{
    uint32_t used = table_slots_used(&store->table);
    for (uint32_t index = 0; index < used; index++) {
        const struct slot *slot = table_slot(&store->table, index);
        if (slot_state_of(slot) != SLOT_SEALED)
            continue;
        struct object_view view;
        view_of(store, index, &view);
        fn(&view, table_key(&store->table, slot), arg);
    }
}

static void
count_pin(uint64_t unit, void *arg)
{
    (void)unit;
    ++*(uint64_t *)arg;
}

void
store_stats(const struct store *store, struct store_stats *out)
{
    *out = (struct store_stats){
        .objects = store->sealed_count,
        .objects_without_checksum = store->unchecked_count,
        .copies = store->copy_count,
        .evictable = store->evictable_count,
        .writing = store->writing_count - store->lent_count,
        .lent = store->lent_count,
        .dead = store->limbo.count,
        .dead_bytes = store->limbo.bytes,
        .slots_total = store->table.slot_count,
        .clients = store->pins.used_count,
    };
    arena_stats(store->arena, &out->arena);
    out->arena.used_bytes -= store->lent_bytes;
    out->arena.free_bytes += store->lent_bytes;
    out->arena.extent_count -= store->lent_count;
    pins_visit(&store->pins, count_pin, &out->pins);
}

const struct table_header *
store_header(const struct store *store)
{
    return store->table.header;
}

uint64_t
store_next_expiry(const struct store *store)
{
    return expiry_next(&store->expiry);
}
