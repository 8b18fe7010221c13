#include "wire/block_id.h"

#include "base/check.h"
#include "wire/cursor.h"

#include <string.h>
#include <xxhash.h>

enum { QUEUE_SHIFT = 48, RESTARTS_SHIFT = 36, RESTARTS_MASK = 0xfff };

static void
put_le(uint8_t *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

struct block_birth
wire_block_birth(const struct ds_block_id *id)
{
    struct reader reader = reader_of(id->bytes, sizeof id->bytes);
    struct block_birth birth = {.node = read_u32(&reader)};
    birth.incarnation = read_u32(&reader);
    birth.queue = (uint16_t)(read_u64(&reader) >> QUEUE_SHIFT);
    return birth;
}

uint16_t
wire_queue_tag(struct ds_slice name)
{
    uint16_t tag = (uint16_t)XXH3_64bits(name.data, name.len);
    if (name.len == 0)
        return 0;
    return tag == 0 ? 1 : tag;
}

uint64_t
wire_block_counter(int restarts)
{
    return (uint64_t)(restarts & RESTARTS_MASK) << RESTARTS_SHIFT;
}

struct ds_block_id
wire_block_id(struct block_birth birth, uint64_t counter)
{
    struct ds_block_id id;
    put_le(id.bytes, birth.node, 4);
    put_le(id.bytes + 4, birth.incarnation, 4);
    put_le(id.bytes + 8, (uint64_t)birth.queue << QUEUE_SHIFT | counter, 8);
    return id;
}

struct ds_block_id
wire_block_id_after(struct ds_block_id id, uint64_t count)
{
    struct reader reader = reader_of(id.bytes + 8, 8);
    put_le(id.bytes + 8, read_u64(&reader) + count, 8);
    return id;
}

void
wire_block_key(struct ds_block_id id, uint32_t part, uint8_t out[BLOCK_KEY_BYTES])
{
    DS_ASSERT(part < DS_BLOCK_PARTS_MAX);
    memcpy(out, id.bytes, sizeof id.bytes);
    for (size_t i = 0; i < 4; i++)
        out[sizeof id.bytes + i] = (uint8_t)(part >> (8 * i));
}

bool
wire_is_block_key(struct ds_slice key)
{
    if (key.len != BLOCK_KEY_BYTES)
        return false;
    const uint8_t *bytes = key.data;
    const uint8_t *part = bytes + sizeof(struct ds_block_id);
    return part[3] == 0 && part[2] == 0 &&
           (part[0] | part[1] << 8) < DS_BLOCK_PARTS_MAX;
}

enum { OBJECT_BIT = 31 };

void
wire_object_key(const struct object_name *name, uint8_t out[BLOCK_KEY_BYTES])
{
    DS_ASSERT(name->slot >> OBJECT_BIT == 0);
    put_le(out, name->node, 4);
    put_le(out + 4, name->incarnation, 4);
    put_le(out + 8, name->generation, 8);
    put_le(out + 16, 1u << OBJECT_BIT | name->slot, 4);
}

bool
wire_object_name(struct ds_slice key, struct object_name *out)
{
    struct reader reader = reader_of(key.data, key.len);
    struct object_name name = {.node = read_u32(&reader)};
    name.incarnation = read_u32(&reader);
    name.generation = read_u64(&reader);
    name.slot = read_u32(&reader);
    if (!reader_done(&reader) || name.slot >> OBJECT_BIT == 0)
        return false;
    name.slot &= ~(1u << OBJECT_BIT);
    *out = name;
    return true;
}

bool
object_name_equal(const struct object_name *one, const struct object_name *two)
{
    return one->node == two->node && one->incarnation == two->incarnation &&
           one->slot == two->slot && one->generation == two->generation;
}
