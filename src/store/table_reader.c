#include "store/table_reader.h"

#include "base/slice.h"
#include "store/format.h"
#include "store/step.h"
#include "store/table.h"

#include <string.h>

/* A longer chain is damaged, or leads in a circle while it changes. */
enum { CHAIN_MAX = 256 };

/* Plain fields of a slot may change while they are read; whether they did is seen
 * later. These loads only keep the compiler from reading twice. */
#define LOAD_RELAXED(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

enum ds_status
table_reader_init(struct table_reader *reader, void *table, uint64_t table_bytes,
                  struct ds_error *err)
{
    struct store_memory memory = {.table = table, .table_bytes = table_bytes};
    enum ds_status status = format_check_table(&memory, err);
    if (status != DS_OK)
        return status;
    const struct table_header *header = table;
    const uint8_t *base = table;
    *reader = (struct table_reader){
        .header = header,
        .heads = (const _Atomic uint32_t *)(const void *)(base + header->buckets_off),
        .slots = (const struct slot *)(const void *)(base + header->slots_off),
        .key_heap = base + header->key_heap_off,
        .arena_bytes = header->arena_bytes,
        .bucket_mask = header->bucket_count - 1,
        .key_heap_bytes = header->key_heap_bytes,
        .slot_count = (uint32_t)header->slot_count,
    };
    return DS_OK;
}

static bool
key_is(const struct table_reader *reader, const struct slot *slot, uint64_t place,
       struct ds_slice key)
{
    if (place_key_bytes(place) != key.len)
        return false;
    if (key.len <= KEY_INLINE_BYTES)
        return memcmp(slot->key, key.data, key.len) == 0;
    key_heap_place start;
    memcpy(&start, slot->key, sizeof start);
    if (key.len > reader->key_heap_bytes || start > reader->key_heap_bytes - key.len)
        return false;
    return memcmp(reader->key_heap + start, key.data, key.len) == 0;
}

static bool
lies_in_arena(const struct table_reader *reader, uint64_t offset, uint64_t size)
{
    return size > 0 && offset <= reader->arena_bytes &&
           size <= reader->arena_bytes - offset;
}

/* What a reader looks for. */
struct wanted {
    struct ds_slice key;
    uint64_t hash;
    bool is_block;
    uint64_t now_ds;
};

/* True: this slot decides. Then out->size is 0 if what it has is not to be used. */
static bool
examine(const struct table_reader *reader, const struct slot *slot,
        const struct wanted *wanted, struct table_hit *out)
{
    out->commit = atomic_load_explicit(&slot->commit, memory_order_acquire);
    step_reached("read commit");
    if (commit_state(out->commit) != SLOT_SEALED ||
        LOAD_RELAXED(slot->tag) != table_tag(wanted->hash))
        return false;
    uint64_t place = LOAD_RELAXED(slot->place);
    step_reached("read place");
    if (!key_is(reader, slot, place, wanted->key))
        return false;
    step_reached("read key");
    uint32_t expires_ds = LOAD_RELAXED(slot->expires_ds);
    bool has_expired = expires_ds != 0 && expires_ds <= wanted->now_ds;
    bool is_block = (place_flags(place) & SLOT_FLAG_BLOCK) != 0;
    out->offset = place_offset(place);
    out->size = LOAD_RELAXED(slot->size);
    step_reached("read size");
    if (has_expired || is_block != wanted->is_block ||
        !lies_in_arena(reader, out->offset, out->size))
        out->size = 0;
    return true;
}

bool
table_reader_find(const struct table_reader *reader, struct ds_slice key, bool is_block,
                  uint64_t now_ds, struct table_hit *out)
{
    struct wanted wanted = {
        .key = key, .hash = table_hash(key), .is_block = is_block, .now_ds = now_ds};
    struct table_hit hit = {
        .epoch = atomic_load_explicit(&reader->header->epoch, memory_order_acquire)};
    step_reached("read epoch");
    if (hit.epoch % 2 != 0)
        return false;
    uint32_t index =
        atomic_load_explicit(&reader->heads[wanted.hash & reader->bucket_mask],
                             memory_order_acquire) -
        1;
    step_reached("read head");
    for (int i = 0; i < CHAIN_MAX && index < reader->slot_count; i++) {
        const struct slot *slot = &reader->slots[index];
        if (examine(reader, slot, &wanted, &hit)) {
            hit.slot = index;
            *out = hit;
            return hit.size > 0;
        }
        index = atomic_load_explicit(&slot->next, memory_order_acquire);
        step_reached("read next");
    }
    return false;
}

bool
table_reader_confirms(const struct table_reader *reader, const struct table_hit *hit)
{
    atomic_thread_fence(memory_order_acquire);
    uint64_t epoch = atomic_load_explicit(&reader->header->epoch, memory_order_relaxed);
    step_reached("read epoch again");
    return epoch == hit->epoch;
}

bool
table_reader_is_current(const struct table_reader *reader, uint64_t now_ds)
{
    return now_ds <
           atomic_load_explicit(&reader->header->lease_until, memory_order_acquire);
}
