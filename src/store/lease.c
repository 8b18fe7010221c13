/* Room that is lent to a client for what it will write next: a WRITING object without a
 * key, so that a put needs one message. The store takes it back when room is short;
 * what the client is writing to it has pinned, and that is left alone. */
#include "store/internal.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"
#include "store/no_room.h"

void
lent_add(struct store *store, const struct slot *slot)
{
    store->lent_count++;
    store->lent_bytes += extent_bytes(slot->size);
}

void
lent_remove(struct store *store, const struct slot *slot)
{
    DS_ASSERT(store->lent_count > 0);
    store->lent_count--;
    store->lent_bytes -= extent_bytes(slot->size);
}

bool
store_lend(struct store *store, uint64_t size, uint32_t client, uint32_t sequence,
           struct object_view *out)
{
    DS_ASSERT(client != 0);
    struct arena_stats arena;
    arena_stats(store->arena, &arena);
    if (size == 0 || size > LEASE_BYTES_MAX || arena.used_bytes > arena.free_bytes)
        return false;
    struct create_request request = {
        .size = size, .client = client, .sequence = sequence};
    return create_without_effort(store, &request, out);
}

static enum ds_status
fail_other_name(uint32_t slot, struct ds_error *err)
{
    return ds_fail(err, DS_INVALID,
                   "slot %u was reserved for another key, or for another size", slot);
}

/* Key and flags count from the store to `place` on: a worker that stops before leaves
 * what is lent. */
static void
write_name(struct store *store, struct slot *slot, const struct name_request *request,
           key_heap_place key_place)
{
    struct ds_slice key = request->key;
    uint64_t place =
        place_pack(place_offset(slot->place), request->flags, (uint16_t)key.len);
    STEP_STORE(slot->size, request->size, "name size");
    STEP_STORE(slot->tag, table_tag(table_hash(key)), "name tag");
    table_key_write(&store->table, slot, key, key_place);
    STEP_STORE(slot->place, place, "name place");
}

enum ds_status
store_name(struct store *store, const struct name_request *request,
           struct ds_error *err)
{
    struct ds_slice key = request->key;
    uint64_t size = request->size;
    uint32_t index = request->ref.slot;
    DS_ASSERT(key.len > 0);
    DS_ASSERT(key.len <= DS_KEY_BYTES_MAX);
    struct object_view view;
    if (!store_find_writing(store, request->ref, request->client, &view))
        return DS_OK; /* Sealed before, or given up: the seal tells. */
    struct slot *slot = table_slot(&store->table, index);
    bool same_room = size > 0 && size <= store->table.arena_bytes &&
                     extent_bytes(size) == extent_bytes(slot->size);
    if (!slot_is_lent(slot)) {
        bool same =
            size == slot->size && slice_equal(key, table_key(&store->table, slot));
        return same ? DS_OK : fail_other_name(index, err);
    }
    key_heap_place place;
    if (!same_room)
        return fail_other_name(index, err);
    bool has_room = table_key_reserve(&store->table, key.len, &place);
    if (!has_room && limbo_reclaim(store) > 0)
        has_room = table_key_reserve(&store->table, key.len, &place);
    if (!has_room)
        return no_room(store, ROOM_NO_KEY_BYTES, size, err);
    lent_remove(store, slot);
    write_name(store, slot, request, place);
    store_checkpoint(store);
    return DS_OK;
}
