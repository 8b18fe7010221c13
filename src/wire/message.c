#include "wire/message.h"

#include "wire/message_internal.h"

#include "base/check.h"
#include "base/slice.h"

#include <assert.h>
#include <string.h>

/* ---- Lists ----------------------------------------------------------------------
 *
 * A list is a u32 count and then the elements. decode_x() steps through a copy of the
 * list once, so that whoever steps through it later meets no surprise: next_x() then
 * only answers false at the end. */

static void
write_ref(struct writer *writer, struct wire_ref ref)
{
    write_u32(writer, ref.slot);
    write_u64(writer, ref.generation);
}

static struct wire_ref
read_ref(struct reader *reader)
{
    struct wire_ref ref = {.slot = read_u32(reader)};
    ref.generation = read_u64(reader);
    return ref;
}

static void
write_checksum(struct writer *writer, struct wire_checksum checksum)
{
    write_u8(writer, checksum.known);
    write_u64(writer, checksum.value);
}

static struct wire_checksum
read_checksum(struct reader *reader)
{
    struct wire_checksum checksum = {.known = read_u8(reader) != 0};
    checksum.value = read_u64(reader);
    return checksum;
}

bool
next_ref(struct ref_list *list, struct wire_ref *out)
{
    if (!step(&list->count))
        return false;
    *out = read_ref(&list->at);
    return reader_ok(&list->at);
}

enum {
    REF_BYTES = 12,
    FILLED_BYTES = 21,
    EXTENT_BYTES = 20,
};
static_assert(CREATE_OBJECTS_MAX * EXTENT_BYTES + 20 <= FRAME_BODY_BYTES_MAX, "reply");

bool
read_ref_list(struct reader *reader, struct ref_list *out)
{
    out->count = read_u32(reader);
    out->at = *reader;
    return fixed_list_fits(out->count, &out->at, REF_BYTES);
}

void
write_ref_list(struct writer *writer, const struct wire_ref *refs, size_t count)
{
    DS_ASSERT(count <= UINT32_MAX);
    write_u32(writer, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        write_ref(writer, refs[i]);
}

/* ---- CREATE, FILL, SEAL, PUBLISH, ABORT ---- */

bool
next_sized_key(struct sized_key_list *list, struct ds_slice *out_key,
               uint64_t *out_size)
{
    if (!step(&list->count))
        return false;
    *out_size = read_u64(&list->at);
    *out_key = read_short_bytes(&list->at);
    return reader_ok(&list->at);
}

void
encode_create(struct writer *writer, uint32_t wait_ms, uint8_t write_mode,
              const struct ds_slice *keys, const uint64_t *sizes, size_t count)
{
    DS_ASSERT(count <= UINT32_MAX);
    write_u32(writer, wait_ms);
    write_u8(writer, write_mode);
    write_u32(writer, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        write_u64(writer, sizes[i]);
        write_short_bytes(writer, keys[i]);
    }
}

bool
decode_create(struct ds_slice body, struct create *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct create message = {.wait_ms = read_u32(&reader)};
    message.write_mode = read_u8(&reader);
    message.objects.count = read_u32(&reader);
    message.objects.at = reader;
    struct sized_key_list probe = message.objects;
    struct ds_slice key;
    uint64_t size;
    while (next_sized_key(&probe, &key, &size)) {
    }
    if (!reader_done(&probe.at))
        return false;
    *out = message;
    return true;
}

bool
next_size(struct size_list *list, uint64_t *out)
{
    if (!step(&list->count))
        return false;
    *out = read_u64(&list->at);
    return reader_ok(&list->at);
}

void
encode_block_create(struct writer *writer, uint32_t wait_ms, const uint64_t *sizes,
                    size_t count)
{
    DS_ASSERT(count <= UINT32_MAX);
    write_u32(writer, wait_ms);
    write_u32(writer, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        write_u64(writer, sizes[i]);
}

bool
decode_block_create(struct ds_slice body, struct block_create *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct block_create message = {.wait_ms = read_u32(&reader)};
    message.sizes.count = read_u32(&reader);
    message.sizes.at = reader;
    if (!fixed_list_fits(message.sizes.count, &message.sizes.at, sizeof(uint64_t)))
        return false;
    *out = message;
    return true;
}

static void
write_block_id(struct writer *writer, struct ds_block_id id)
{
    write_bytes(writer, (struct ds_slice){.data = id.bytes, .len = sizeof id.bytes});
}

static struct ds_block_id
read_block_id(struct reader *reader)
{
    struct ds_block_id id = {0};
    struct ds_slice bytes = read_bytes(reader, sizeof id.bytes);
    if (bytes.len == sizeof id.bytes)
        memcpy(id.bytes, bytes.data, sizeof id.bytes);
    return id;
}

void
encode_created_begin(struct writer *writer, struct ds_block_id block, uint32_t count)
{
    write_block_id(writer, block);
    write_u32(writer, count);
}

void
encode_created_extent(struct writer *writer, struct wire_extent extent)
{
    write_ref(writer, extent.ref);
    write_u64(writer, extent.offset);
}

bool
decode_created(struct ds_slice body, struct created *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct created list = {.block = read_block_id(&reader)};
    list.count = read_u32(&reader);
    list.at = reader;
    if (!fixed_list_fits(list.count, &list.at, EXTENT_BYTES))
        return false;
    *out = list;
    return true;
}

bool
next_extent(struct created *list, struct wire_extent *out)
{
    if (!step(&list->count))
        return false;
    out->ref = read_ref(&list->at);
    out->offset = read_u64(&list->at);
    return reader_ok(&list->at);
}

void
encode_fill(struct writer *writer, const struct fill *message)
{
    write_ref(writer, message->ref);
    write_u64(writer, message->offset);
    write_u64(writer, message->checksum);
}

bool
decode_fill(struct ds_slice body, struct fill *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct fill message = {.ref = read_ref(&reader)};
    message.offset = read_u64(&reader);
    message.checksum = read_u64(&reader);
    if (!reader_done(&reader))
        return false;
    *out = message;
    return true;
}

bool
next_filled(struct filled_list *list, struct wire_filled *out)
{
    if (!step(&list->count))
        return false;
    out->ref = read_ref(&list->at);
    out->checksum = read_checksum(&list->at);
    return reader_ok(&list->at);
}

void
encode_seal(struct writer *writer, uint32_t ttl_seconds, bool only_if_absent,
            const struct wire_filled *objects, size_t count)
{
    DS_ASSERT(count <= UINT32_MAX);
    write_u32(writer, ttl_seconds);
    write_u8(writer, only_if_absent);
    write_u32(writer, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        write_ref(writer, objects[i].ref);
        write_checksum(writer, objects[i].checksum);
    }
}

bool
decode_seal(struct ds_slice body, struct seal *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct seal message = {.ttl_seconds = read_u32(&reader)};
    message.only_if_absent = read_u8(&reader) != 0;
    message.objects.count = read_u32(&reader);
    message.objects.at = reader;
    if (!fixed_list_fits(message.objects.count, &reader, FILLED_BYTES))
        return false;
    *out = message;
    return true;
}

void
encode_publish(struct writer *writer, const struct publish *message)
{
    write_u32(writer, message->ttl_seconds);
    write_u8(writer, message->only_if_absent);
    write_ref(writer, message->ref);
    write_u64(writer, message->size);
    write_u64(writer, message->lend_bytes);
    write_checksum(writer, message->checksum);
    write_short_bytes(writer, message->key);
}

bool
decode_publish(struct ds_slice body, struct publish *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct publish message = {.ttl_seconds = read_u32(&reader)};
    message.only_if_absent = read_u8(&reader) != 0;
    message.ref = read_ref(&reader);
    message.size = read_u64(&reader);
    message.lend_bytes = read_u64(&reader);
    message.checksum = read_checksum(&reader);
    message.key = read_short_bytes(&reader);
    if (!reader_done(&reader))
        return false;
    *out = message;
    return true;
}

void
encode_refs(struct writer *writer, const struct wire_ref *refs, size_t count)
{
    write_ref_list(writer, refs, count);
}

bool
decode_refs(struct ds_slice body, struct ref_list *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct ref_list list;
    if (!read_ref_list(&reader, &list))
        return false;
    *out = list;
    return true;
}

/* ---- Keys ---- */

bool
wire_user_key_is_legal(struct ds_slice key)
{
    static const char punctuation[] = ".-_!@#%^*()+=:;";
    if (key.len == 0 || key.len > DS_KEY_BYTES_MAX)
        return false;
    const unsigned char *at = key.data;
    for (size_t i = 0; i < key.len; i++) {
        unsigned char c = at[i];
        bool alphanumeric =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!alphanumeric && (c == 0 || strchr(punctuation, c) == NULL))
            return false;
    }
    return true;
}

bool
next_key(struct key_list *list, struct ds_slice *out)
{
    if (!step(&list->count))
        return false;
    *out = read_short_bytes(&list->at);
    return reader_ok(&list->at);
}

static void
write_key_list(struct writer *writer, const struct ds_slice *keys, size_t count)
{
    DS_ASSERT(count <= UINT32_MAX);
    write_u32(writer, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        write_short_bytes(writer, keys[i]);
}

static bool
read_key_list(struct reader *reader, struct key_list *out)
{
    struct key_list list = {.count = read_u32(reader)};
    list.at = *reader;
    struct key_list probe = list;
    struct ds_slice key;
    while (next_key(&probe, &key)) {
    }
    if (!reader_done(&probe.at))
        return false;
    *out = list;
    return true;
}

void
encode_keys(struct writer *writer, const struct ds_slice *keys, size_t count)
{
    write_key_list(writer, keys, count);
}

bool
decode_keys(struct ds_slice body, struct key_list *out)
{
    struct reader reader = reader_of(body.data, body.len);
    return read_key_list(&reader, out);
}

void
write_place(struct writer *writer, struct wire_place place)
{
    write_u32(writer, place.node);
    write_u32(writer, place.incarnation);
}

struct wire_place
read_place(struct reader *reader)
{
    struct wire_place place = {.node = read_u32(reader)};
    place.incarnation = read_u32(reader);
    return place;
}

void
encode_lookup(struct writer *writer, const struct lookup *message,
              const struct ds_slice *keys, size_t count)
{
    write_u32(writer, message->flags);
    write_u32(writer, message->wait_ms);
    write_u64(writer, message->range_offset);
    write_u64(writer, message->range_bytes);
    if ((message->flags & LOOKUP_RELAY) != 0)
        write_place(writer, message->asker);
    write_key_list(writer, keys, count);
}

bool
decode_lookup(struct ds_slice body, struct lookup *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct lookup message = {.flags = read_u32(&reader)};
    message.wait_ms = read_u32(&reader);
    message.range_offset = read_u64(&reader);
    message.range_bytes = read_u64(&reader);
    if ((message.flags & LOOKUP_RELAY) != 0)
        message.asker = read_place(&reader);
    if (!read_key_list(&reader, &message.keys))
        return false;
    *out = message;
    return true;
}

void
encode_expire(struct writer *writer, uint32_t ttl_seconds, const struct ds_slice *keys,
              size_t count)
{
    write_u32(writer, ttl_seconds);
    write_key_list(writer, keys, count);
}

bool
decode_expire(struct ds_slice body, struct expire *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct expire message = {.ttl_seconds = read_u32(&reader)};
    if (!read_key_list(&reader, &message.keys))
        return false;
    *out = message;
    return true;
}

void
encode_put(struct writer *writer, const struct put *message)
{
    write_u32(writer, message->ttl_seconds);
    write_u8(writer, message->only_if_absent);
    write_u8(writer, message->write_mode);
    write_checksum(writer, message->checksum);
    write_short_bytes(writer, message->key);
}

bool
decode_put(struct ds_slice body, struct put *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct put message = {.ttl_seconds = read_u32(&reader)};
    message.only_if_absent = read_u8(&reader) != 0;
    message.write_mode = read_u8(&reader);
    message.checksum = read_checksum(&reader);
    message.key = read_short_bytes(&reader);
    if (!reader_done(&reader))
        return false;
    *out = message;
    return true;
}

void
encode_flags_begin(struct writer *writer, uint32_t count)
{
    write_u32(writer, count);
}

bool
decode_flags(struct ds_slice body, uint32_t *out_count, const uint8_t **out_flags)
{
    struct reader reader = reader_of(body.data, body.len);
    uint32_t count = read_u32(&reader);
    if (!fixed_list_fits(count, &reader, 1))
        return false;
    *out_count = count;
    *out_flags = reader.at;
    return true;
}

/* ---- Blocks ---- */

bool
next_block_id(struct block_id_list *list, struct ds_block_id *out)
{
    if (!step(&list->count))
        return false;
    *out = read_block_id(&list->at);
    return reader_ok(&list->at);
}

void
encode_block_ids(struct writer *writer, const struct ds_block_id *ids, size_t count)
{
    DS_ASSERT(count <= UINT32_MAX);
    write_u32(writer, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        write_block_id(writer, ids[i]);
}

bool
decode_block_ids(struct ds_slice body, struct block_id_list *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct block_id_list list = {.count = read_u32(&reader)};
    list.at = reader;
    if (!fixed_list_fits(list.count, &list.at, sizeof(struct ds_block_id)))
        return false;
    *out = list;
    return true;
}

void
encode_orphans_found(struct writer *writer, bool is_anybodys,
                     const struct ds_block_id *ids, size_t count)
{
    write_u8(writer, is_anybodys);
    encode_block_ids(writer, ids, count);
}

bool
decode_orphans_found(struct ds_slice body, struct orphans_found *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct orphans_found message = {.is_anybodys = read_u8(&reader) != 0};
    if (!reader_ok(&reader) ||
        !decode_block_ids(slice(reader.at, reader_left(&reader)), &message.ids))
        return false;
    *out = message;
    return true;
}
