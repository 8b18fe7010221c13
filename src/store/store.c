/* The life of an object. The order of the stores to shared memory is what recovery and
 * concurrent readers rely on; every one of them is a step that tests stop at. */
#include "store/internal.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/status.h"
#include "store/no_room.h"

enum { OBJECT_ALIGNMENT = EXTENT_UNIT_BYTES };

uint64_t
store_alignment(const struct store *store, uint64_t size)
{
    bool huge = store->huge_page_bytes != 0 && size >= store->huge_page_bytes;
    return huge ? store->huge_page_bytes : OBJECT_ALIGNMENT;
}

void
store_set_lease(struct store *store, uint64_t until_ds)
{
    STEP_RELEASE(&store->table.header->lease_until, until_ds, "lease");
}

void
store_set_known_epoch(struct store *store, uint64_t epoch)
{
    STEP_RELEASE(&store->table.header->known_epoch, epoch, "known epoch");
}

void
store_set_populated(struct store *store, uint64_t populated_bytes)
{
    struct table_header *header = store->table.header;
    uint64_t bytes = min_u64(populated_bytes, store->table.arena_bytes) & ~4095ull;
    if (bytes <= atomic_load_explicit(&header->populated, memory_order_relaxed))
        return;
    STEP_RELEASE(&header->populated, bytes, "populated");
    arena_set_populated(store->arena, bytes);
}

/* ---- Pending objects ---- */

void
pending_add(struct store *store, uint32_t index)
{
    const struct slot *slot = table_slot(&store->table, index);
    DS_ASSERT(store->pending_count < store->table.slot_count);
    store->pending[store->pending_count] = (struct pending){
        .slot = index,
        .client = slot->client,
        .sequence = slot->sequence,
    };
    store->link[index] = store->pending_count++;
}

void
pending_remove(struct store *store, uint32_t index)
{
    uint32_t at = store->link[index];
    DS_ASSERT(at < store->pending_count);
    DS_ASSERT(store->pending[at].slot == index);
    struct pending last = store->pending[--store->pending_count];
    store->pending[at] = last;
    store->link[last.slot] = at;
}

/* ---- Create ---- */

struct room {
    uint64_t offset;
    key_heap_place key_place;
};

/* Is there a slot that was never used? Damage to the table can have left something in
 * it (the count is in the table, too); then it begins anew, or rests when its
 * generation is one of damage. */
static bool
has_fresh_slot(struct store *store)
{
    for (;;) {
        uint32_t index = table_slots_used(&store->table);
        if (index >= store->table.slot_count)
            return false;
        uint64_t commit = slot_commit(table_slot(&store->table, index));
        if (commit_state(commit) != SLOT_FREE || commit_generation(commit) % 2 != 0)
            slot_drop(store, index);
        commit = slot_commit(table_slot(&store->table, index));
        if (commit_generation(commit) < GENERATION_MAX)
            return true;
        STEP_RELEASE(&store->table.header->slots_used, (uint64_t)index + 1,
                     "create pass over slot");
        store->resting_count++;
    }
}

static enum room_lack
reserve_room(struct store *store, const struct create_request *request,
             struct room *out)
{
    if (store->free_slot == SLOT_NONE && !has_fresh_slot(store))
        return ROOM_NO_SLOT;
    out->key_place = 0;
    if (request->key.len > 0 &&
        !table_key_reserve(&store->table, request->key.len, &out->key_place))
        return ROOM_NO_KEY_BYTES;
    if (arena_alloc(store->arena, request->size, store_alignment(store, request->size),
                    &out->offset) == DS_OK)
        return ROOM_FOUND;
    table_key_cancel(&store->table, request->key.len, out->key_place);
    return ROOM_NO_EXTENT;
}

/* A FREE slot, out of the free list or never used before. */
static uint32_t
take_slot(struct store *store)
{
    uint32_t index = store->free_slot;
    if (index != SLOT_NONE) {
        store->free_slot = store->link[index];
        store->free_count--;
        return index;
    }
    index = table_slots_used(&store->table);
    DS_ASSERT(index < store->table.slot_count);
    STEP_RELEASE(&store->table.header->slots_used, (uint64_t)index + 1,
                 "create slots used");
    return index;
}

static void
fill_slot(struct store *store, struct slot *slot, const struct create_request *request,
          const struct room *room)
{
    uint64_t place =
        place_pack(room->offset, request->flags, (uint16_t)request->key.len);
    STEP_STORE(slot->tag, table_tag(table_hash(request->key)), "create tag");
    STEP_STORE(slot->place, place, "create place");
    STEP_STORE(slot->size, request->size, "create size");
    STEP_STORE(slot->version, 0, "create version");
    STEP_STORE(slot->checksum, 0, "create checksum");
    STEP_STORE(slot->expires_ds, 0, "create expires");
    STEP_STORE(slot->client, request->client, "create client");
    STEP_STORE(slot->sequence, request->sequence, "create sequence");
    if (request->key.len > 0)
        table_key_write(&store->table, slot, request->key, room->key_place);
}

static void
create_in(struct store *store, const struct create_request *request,
          const struct room *room, struct object_view *out)
{
    uint32_t index = take_slot(store);
    struct slot *slot = table_slot(&store->table, index);
    uint64_t generation = commit_generation(slot_commit(slot)) + 1;
    DS_ASSERT(slot_state_of(slot) == SLOT_FREE);
    if (PLANTED(LATE_SLOT))
        slot_set_commit(slot, generation, SLOT_WRITING, "create commit");
    fill_slot(store, slot, request, room);
    slot_set_commit(slot, generation, SLOT_WRITING, "create commit");
    pending_add(store, index);
    store->writing_count++;
    if (slot_is_lent(slot))
        lent_add(store, slot);
    view_of(store, index, out);
    store_checkpoint(store);
}

bool
create_without_effort(struct store *store, const struct create_request *request,
                      struct object_view *out)
{
    struct room room;
    limbo_reclaim_if_due(store);
    if (reserve_room(store, request, &room) != ROOM_FOUND)
        return false;
    create_in(store, request, &room, out);
    return true;
}

/* What may go makes room: copies before what is nowhere else. */
static enum room_lack
evict_for(struct store *store, const struct create_request *request,
          enum room_lack lack, struct room *out)
{
    static const enum slot_flags order[] = {SLOT_FLAG_COPY, SLOT_FLAG_EVICTABLE};
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        while (lack != ROOM_FOUND && evict(store, order[i], request->size))
            lack = reserve_room(store, request, out);
    }
    return lack;
}

enum ds_status
store_create(struct store *store, const struct create_request *request, uint64_t now_ds,
             struct object_view *out, struct ds_error *err)
{
    DS_ASSERT(request->key.len > 0);
    DS_ASSERT(request->key.len <= DS_KEY_BYTES_MAX);
    DS_ASSERT(request->size > 0);
    DS_ASSERT(request->client <= store->pins.region_count);
    DS_ASSERT(client_is_known(store, request->client));
    DS_ASSERT((request->flags & SLOT_FLAG_CHECKSUM) == 0);

    struct room room;
    limbo_reclaim_if_due(store);
    enum room_lack lack = reserve_room(store, request, &room);
    if (lack != ROOM_FOUND && store_tick(store, now_ds) > 0)
        lack = reserve_room(store, request, &room);
    lack = evict_for(store, request, lack, &room);
    if (lack != ROOM_FOUND && store->lent_count > 0) {
        limbo_take_back(store);
        lack = reserve_room(store, request, &room);
    }
    if (lack != ROOM_FOUND)
        return no_room(store, lack, request->size, err);
    create_in(store, request, &room, out);
    return DS_OK;
}

/* ---- The end of an object ---- */

void
object_die(struct store *store, uint32_t index)
{
    struct slot *slot = table_slot(&store->table, index);
    uint64_t commit = slot_commit(slot);
    bool sealed = commit_state(commit) == SLOT_SEALED;
    DS_ASSERT(sealed || commit_state(commit) == SLOT_WRITING);

    slot_set_commit(slot, commit_generation(commit) + 1, SLOT_DEAD, "dead commit");
    if (sealed) {
        table_unlink(&store->table, index, table_hash(table_key(&store->table, slot)));
        expiry_set(&store->expiry, index, 0);
        store->sealed_count--;
        store->unchecked_count -= !slot_has_checksum(slot);
        evictable_count(store, slot, -1);
    } else {
        store->writing_count--;
        if (slot_is_lent(slot))
            lent_remove(store, slot);
    }
    if (!sealed || slot_is_provisional(slot))
        pending_remove(store, index);
    limbo_add(store, index);
}

void
store_abort(struct store *store, struct object_ref ref)
{
    if (ref.slot >= table_slots_used(&store->table))
        return;
    const struct slot *slot = table_slot(&store->table, ref.slot);
    uint64_t commit = slot_commit(slot);
    bool is_unsealed = commit == commit_word(ref.generation, SLOT_WRITING);
    bool is_unused =
        commit == commit_word(ref.generation, SLOT_SEALED) && slot_is_provisional(slot);
    if (!is_unsealed && !is_unused)
        return;
    object_die(store, ref.slot);
    store_checkpoint(store);
}

/* ---- Seal ---- */

/* The slot is not WRITING in the life that `request` names. Lives begin with odd
 * generations, so a later one tells that this one was ended; whether it was sealed
 * before is known only as long as the slot was not used again. */
static enum ds_status
seal_again(const struct slot *slot, const struct seal_request *request,
           struct ds_error *err)
{
    uint64_t commit = slot_commit(slot);
    uint64_t generation = commit_generation(commit);
    uint64_t wanted = request->ref.generation;
    bool was_alive = wanted % 2 == 1 && wanted <= generation;
    bool given_up = wanted + 1 == generation && slot->version == 0;
    /* An object that lost against an existing one was given up by its seal; what was
     * lent and taken back never had one. */
    bool lost = request->only_if_absent && !slot_is_lent(slot);
    if (was_alive && (!given_up || lost))
        return DS_OK;
    return ds_fail(err, DS_INVALID,
                   "nothing to seal in slot %u: the object was given up, or never "
                   "created; create it again",
                   request->ref.slot);
}

/* A worker that stopped within an earlier seal of this object may have left one. */
static void
write_checksum(struct slot *slot, const struct seal_request *request)
{
    uint64_t flag = (uint64_t)SLOT_FLAG_CHECKSUM << 16;
    if (slot_has_checksum(slot))
        STEP_STORE(slot->place, slot->place & ~flag, "seal no flag");
    if (!request->has_checksum)
        return;
    STEP_STORE(slot->checksum, request->checksum, "seal checksum");
    STEP_STORE(slot->place, slot->place | flag, "seal flags");
}

static void
publish(struct store *store, uint32_t index, const struct seal_request *request,
        uint64_t hash)
{
    struct slot *slot = table_slot(&store->table, index);
    STEP_STORE(slot->version, ++store->version, "seal version");
    STEP_STORE(slot->expires_ds, request->expires_ds, "seal expires");
    write_checksum(slot, request);
    table_link(&store->table, index, hash);
    slot_set_commit(slot, request->ref.generation, SLOT_SEALED, "seal commit");
    if (!slot_is_provisional(slot))
        pending_remove(store, index);
    expiry_set(&store->expiry, index, request->expires_ds);
    store->writing_count--;
    store->sealed_count++;
    store->unchecked_count += !request->has_checksum;
    evictable_count(store, slot, 1);
}

enum ds_status
store_seal(struct store *store, const struct seal_request *request, uint64_t now_ds,
           struct ds_error *err)
{
    uint32_t index = request->ref.slot;
    if (index >= table_slots_used(&store->table))
        return ds_fail(err, DS_INVALID, "nothing to seal: there is no slot %u", index);
    const struct slot *slot = table_slot(&store->table, index);
    if (slot_commit(slot) != commit_word(request->ref.generation, SLOT_WRITING))
        return seal_again(slot, request, err);
    if (slot_is_lent(slot))
        return ds_fail(err, DS_INVALID, "slot %u is lent and has no key yet", index);

    struct ds_slice key = table_key(&store->table, slot);
    uint64_t hash = table_hash(key);
    uint32_t old = table_find(&store->table, key, hash);
    bool old_wins = request->only_if_absent && old != SLOT_NONE &&
                    !slot_has_expired(table_slot(&store->table, old), now_ds);
    if (old_wins) {
        if (!PLANTED(LEAKED_LOSER))
            object_die(store, index);
    } else {
        publish(store, index, request, hash);
        if (old != SLOT_NONE && !PLANTED(RESURRECTED_KEY))
            object_die(store, old);
    }
    store_checkpoint(store);
    return DS_OK;
}

/* ---- By key ---- */

/* The slot of a live object, or SLOT_NONE. */
static uint32_t
find_live(const struct store *store, struct ds_slice key, uint64_t now_ds)
{
    uint32_t index = table_find(&store->table, key, table_hash(key));
    if (index == SLOT_NONE ||
        slot_has_expired(table_slot(&store->table, index), now_ds))
        return SLOT_NONE;
    return index;
}

bool
store_find(struct store *store, struct ds_slice key, uint64_t now_ds,
           struct object_view *out)
{
    uint32_t index = find_live(store, key, now_ds);
    if (index == SLOT_NONE)
        return false;
    view_of(store, index, out);
    return true;
}

bool
store_find_creator(struct store *store, struct ds_slice key, uint64_t now_ds,
                   uint32_t *out_client, uint32_t *out_sequence)
{
    uint32_t index = find_live(store, key, now_ds);
    if (index == SLOT_NONE)
        return false;
    *out_client = table_slot(&store->table, index)->client;
    *out_sequence = table_slot(&store->table, index)->sequence;
    return true;
}

bool
store_delete(struct store *store, struct ds_slice key, uint64_t now_ds)
{
    uint32_t index = find_live(store, key, now_ds);
    if (index == SLOT_NONE)
        return false;
    object_die(store, index);
    store_checkpoint(store);
    return true;
}

bool
store_set_expiry(struct store *store, struct ds_slice key, uint32_t expires_ds,
                 uint64_t now_ds)
{
    uint32_t index = find_live(store, key, now_ds);
    if (index == SLOT_NONE)
        return false;
    STEP_STORE(table_slot(&store->table, index)->expires_ds, expires_ds, "expires");
    expiry_set(&store->expiry, index, expires_ds);
    store_checkpoint(store);
    return true;
}

bool
store_adopt(struct store *store, struct ds_slice key, uint64_t now_ds)
{
    uint32_t index = find_live(store, key, now_ds);
    if (index == SLOT_NONE)
        return false;
    struct slot *slot = table_slot(&store->table, index);
    if (!slot_is_provisional(slot))
        return true;
    uint64_t flag = (uint64_t)SLOT_FLAG_PROVISIONAL << 16;
    STEP_STORE(slot->place, slot->place & ~flag, "adopt flags");
    pending_remove(store, index);
    store_checkpoint(store);
    return true;
}

/* One word says it, so whoever stops in between left one or the other. */
bool
store_set_kind(struct store *store, struct ds_slice key, uint8_t flags, uint64_t now_ds)
{
    const uint8_t kinds = SLOT_FLAG_COPY | SLOT_FLAG_PROVISIONAL;
    DS_ASSERT((flags & ~kinds) == 0);
    DS_ASSERT(flags != kinds);
    uint32_t index = find_live(store, key, now_ds);
    if (index == SLOT_NONE)
        return false;
    struct slot *slot = table_slot(&store->table, index);
    bool was_provisional = slot_is_provisional(slot);
    evictable_count(store, slot, -1);
    STEP_STORE(slot->place,
               (slot->place & ~((uint64_t)kinds << 16)) | (uint64_t)flags << 16,
               "kind flags");
    evictable_count(store, slot, 1);
    if (was_provisional && !slot_is_provisional(slot))
        pending_remove(store, index);
    if (!was_provisional && slot_is_provisional(slot))
        pending_add(store, index);
    store_checkpoint(store);
    return true;
}

void
store_hold(struct store *store, const struct object_view *view)
{
    if (!PLANTED(FORGOTTEN_HOLD))
        holds_add(&store->holds, view->offset);
}

void
store_unhold(struct store *store, uint64_t offset)
{
    if (!PLANTED(FORGOTTEN_HOLD))
        holds_remove(&store->holds, offset);
}

uint64_t
store_tick(struct store *store, uint64_t now_ds)
{
    uint32_t index;
    while (expiry_due(&store->expiry, now_ds, &index))
        object_die(store, index);
    uint64_t freed = limbo_reclaim(store);
    store_checkpoint(store);
    return freed;
}
