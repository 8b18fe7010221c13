#include "store/table.h"

#include "base/check.h"
#include "base/slice.h"
#include "store/format.h"

#include <xxhash.h>

enum ds_status
table_init(struct table *table, const struct store_memory *memory, struct ds_error *err)
{
    enum ds_status status = format_check_table(memory, err);
    if (status != DS_OK)
        return status;
    uint8_t *base = memory->table;
    struct table_header *header = memory->table;
    *table = (struct table){
        .header = header,
        .heads = (_Atomic uint32_t *)(void *)(base + header->buckets_off),
        .slots = (struct slot *)(void *)(base + header->slots_off),
        .key_heap = base + header->key_heap_off,
        .arena_bytes = header->arena_bytes,
        .bucket_mask = header->bucket_count - 1,
        .key_heap_bytes = header->key_heap_bytes,
        .slot_count = (uint32_t)header->slot_count,
    };
    status = arena_create(table->key_heap_bytes, &table->keys, err);
    if (status != DS_OK)
        return status;
    arena_set_populated(table->keys, table->key_heap_bytes);
    return DS_OK;
}

void
table_fini(struct table *table)
{
    arena_destroy(table->keys);
    *table = (struct table){0};
}

/* ---- Keys ---- */

uint64_t
table_hash(struct ds_slice key)
{
    return XXH3_64bits(key.data, key.len);
}

static key_heap_place
heap_place(const struct slot *slot)
{
    key_heap_place place;
    memcpy(&place, slot->key, sizeof place);
    return place;
}

struct ds_slice
table_key(const struct table *table, const struct slot *slot)
{
    uint16_t key_bytes = place_key_bytes(slot->place);
    if (key_bytes <= KEY_INLINE_BYTES)
        return slice(slot->key, key_bytes);
    return slice(table->key_heap + heap_place(slot), key_bytes);
}

bool
table_key_reserve(struct table *table, size_t key_bytes, key_heap_place *out_place)
{
    DS_ASSERT(key_bytes > 0);
    DS_ASSERT(key_bytes <= DS_KEY_BYTES_MAX);
    *out_place = 0;
    if (key_bytes <= KEY_INLINE_BYTES)
        return true;
    return arena_alloc(table->keys, key_bytes, EXTENT_UNIT_BYTES, out_place) == DS_OK;
}

void
table_key_cancel(struct table *table, size_t key_bytes, key_heap_place place)
{
    if (key_bytes > KEY_INLINE_BYTES)
        arena_free(table->keys, place, key_bytes, EXTENT_UNIT_BYTES);
}

void
table_key_write(struct table *table, struct slot *slot, struct ds_slice key,
                key_heap_place place)
{
    if (key.len <= KEY_INLINE_BYTES) {
        memcpy(slot->key, key.data, key.len);
        step_reached("create key");
        return;
    }
    memcpy(table->key_heap + place, key.data, key.len);
    step_reached("create key bytes");
    memcpy(slot->key, &place, sizeof place);
    step_reached("create key place");
}

void
table_key_free(struct table *table, const struct slot *slot)
{
    uint16_t key_bytes = place_key_bytes(slot->place);
    if (key_bytes > KEY_INLINE_BYTES)
        arena_free(table->keys, heap_place(slot), key_bytes, EXTENT_UNIT_BYTES);
}

bool
table_key_is_sane(const struct table *table, const struct slot *slot)
{
    uint16_t key_bytes = place_key_bytes(slot->place);
    if (key_bytes == 0 || key_bytes > DS_KEY_BYTES_MAX)
        return false;
    if (key_bytes > KEY_INLINE_BYTES &&
        heap_place(slot) > table->key_heap_bytes - key_bytes)
        return false;
    return table_tag(table_hash(table_key(table, slot))) == slot->tag;
}

bool
table_key_claim(struct table *table, const struct slot *slot)
{
    uint16_t key_bytes = place_key_bytes(slot->place);
    return key_bytes <= KEY_INLINE_BYTES ||
           arena_claim(table->keys, heap_place(slot), key_bytes, EXTENT_UNIT_BYTES);
}

/* ---- Chains ---- */

static uint32_t
head_slot(_Atomic uint32_t *head)
{
    return atomic_load_explicit(head, memory_order_relaxed) - 1;
}
static_assert((uint32_t)(0u - 1u) == SLOT_NONE, "an empty bucket is SLOT_NONE");

static uint32_t
next_slot(struct slot *slot)
{
    return atomic_load_explicit(&slot->next, memory_order_relaxed);
}

static _Atomic uint32_t *
bucket_of(const struct table *table, uint64_t hash)
{
    return &table->heads[hash & table->bucket_mask];
}

uint32_t
table_find(const struct table *table, struct ds_slice key, uint64_t hash)
{
    uint32_t index = head_slot(bucket_of(table, hash));
    while (index != SLOT_NONE) {
        struct slot *slot = table_slot(table, index);
        if (slot->tag == table_tag(hash) && slot_state_of(slot) == SLOT_SEALED &&
            slice_equal(table_key(table, slot), key))
            return index;
        index = next_slot(slot);
    }
    return SLOT_NONE;
}

void
table_link(struct table *table, uint32_t index, uint64_t hash)
{
    _Atomic uint32_t *head = bucket_of(table, hash);
    STEP_RELEASE(&table_slot(table, index)->next, head_slot(head), "link next");
    STEP_RELEASE(head, index + 1, "link head");
}

void
table_unlink(struct table *table, uint32_t index, uint64_t hash)
{
    _Atomic uint32_t *head = bucket_of(table, hash);
    uint32_t after = next_slot(table_slot(table, index));
    uint32_t before = head_slot(head);
    if (before == index) {
        STEP_RELEASE(head, after + 1, "unlink head");
        return;
    }
    while (next_slot(table_slot(table, before)) != index) {
        before = next_slot(table_slot(table, before));
        DS_ASSERT(before != SLOT_NONE);
    }
    STEP_RELEASE(&table_slot(table, before)->next, after, "unlink next");
}
