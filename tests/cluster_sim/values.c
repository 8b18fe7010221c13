/* Every value has a number, and its bytes follow from that and the key. */
#include "sim.h"

#include "mix.h"

#include "base/slice.h"
#include "store/table_reader.h"

#include <stdio.h>
#include <string.h>

static uint32_t last_value;

void
values_reset(void)
{
    last_value = 0;
}

uint32_t
value_new(void)
{
    return ++last_value;
}

/* 16 bytes to 96 KiB, most of them small; whole words. */
uint64_t
value_bytes(uint32_t value)
{
    uint64_t chance = mix(value ^ run.seed << 20);
    uint64_t max = chance % 32 < 20 ? 16 : chance % 32 < 28 ? 500 : 2000;
    if (chance % 32 == 31 && !run.is_small)
        max = 12000;
    return 8 * (2 + (chance >> 8) % max);
}

static uint64_t
word_at(uint32_t key, uint32_t value, uint64_t i)
{
    uint64_t first = (uint64_t)value << 16 | key;
    return i == 0 ? first : mix(first) + i * UINT64_C(0x9e3779b97f4a7c15);
}

void
value_write(void *out, uint32_t key, uint32_t value)
{
    uint64_t *words = out;
    uint64_t count = value_bytes(value) / 8;
    uint64_t base = mix(word_at(key, value, 0));
    words[0] = word_at(key, value, 0);
    for (uint64_t i = 1; i < count; i++)
        words[i] = base + i * UINT64_C(0x9e3779b97f4a7c15);
}

uint32_t
value_read(const void *data, uint64_t bytes, uint32_t key, const char *where)
{
    const uint64_t *words = data;
    uint64_t first = bytes < 16 ? 0 : words[0];
    uint32_t value = (uint32_t)(first >> 16);
    if ((first & 0xffff) != key || value == 0 || value > last_value)
        cluster_fail("%s: the %ju bytes of key %u begin as those of key %ju value %u",
                     where, (uintmax_t)bytes, key, (uintmax_t)(first & 0xffff), value);
    if (bytes != value_bytes(value))
        cluster_fail("%s: key %u value %u has %ju bytes, not %ju", where, key, value,
                     (uintmax_t)bytes, (uintmax_t)value_bytes(value));
    uint64_t base = mix(first);
    uint64_t wrong = 0;
    for (uint64_t i = 1; i < bytes / 8; i++)
        wrong |= words[i] ^ (base + i * UINT64_C(0x9e3779b97f4a7c15));
    if (wrong != 0)
        cluster_fail("%s: bytes of key %u value %u are not what was put", where, key,
                     value);
    return value;
}

struct ds_slice
value_slot_key(const struct table_reader *reader, const struct slot *slot)
{
    uint16_t bytes = place_key_bytes(slot->place);
    key_heap_place at;
    memcpy(&at, slot->key, sizeof at);
    return slice(bytes <= KEY_INLINE_BYTES ? slot->key : reader->key_heap + at, bytes);
}

/* Slot by slot: a worker that was killed may have left the chains in pieces. */
uint32_t
value_in_table(const struct node *node, uint32_t key)
{
    struct table_reader reader;
    const struct slot *newest = NULL;
    char name[64];
    struct ds_slice wanted = sim_key_name(key, name);
    if (table_reader_init(&reader, node->memory.table, node->memory.table_bytes,
                          NULL) != DS_OK)
        return 0;
    for (uint32_t i = 0; i < reader.slot_count; i++) {
        const struct slot *slot = &reader.slots[i];
        if (commit_state(slot->commit) == SLOT_SEALED &&
            (place_flags(slot->place) & SLOT_FLAG_BLOCK) == 0 &&
            slice_equal(value_slot_key(&reader, slot), wanted) &&
            (newest == NULL || newest->version < slot->version))
            newest = slot;
    }
    return newest == NULL ? 0
                          : value_read(node->arena + place_offset(newest->place),
                                       newest->size, key, "memory");
}

/* Some are longer than what a slot holds. */
struct ds_slice
sim_key_name(uint32_t key, char out[64])
{
    const char *tail = key % 3 == 0 ? "-and.a.tail.that.does.not.fit.into.a.slot" : "";
    int len = snprintf(out, 64, "key.%u%s", key, tail);
    return slice(out, (size_t)len);
}
