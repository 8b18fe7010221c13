/* The replies to LOOKUP (where objects are) and FETCH (what is sent of them). */
#include "wire/message_internal.h"

#include <assert.h>

enum { OBJECT_BYTES = 29, VALUE_BYTES = 42 };
static_assert(LOOKUP_KEYS_MAX * OBJECT_BYTES + 4 <= FRAME_BODY_BYTES_MAX, "reply");
static_assert(LOOKUP_KEYS_MAX * VALUE_BYTES + 4 <= FRAME_BODY_BYTES_MAX, "reply");

void
encode_found_begin(struct writer *writer, uint32_t count)
{
    write_u32(writer, count);
}

void
encode_found_object(struct writer *writer, const struct wire_object *object)
{
    write_u8(writer, object->found);
    write_u32(writer, object->slot);
    write_u64(writer, object->commit);
    write_u64(writer, object->offset);
    write_u64(writer, object->size);
}

bool
decode_found(struct ds_slice body, struct found *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct found list = {.count = read_u32(&reader)};
    list.at = reader;
    if (!fixed_list_fits(list.count, &list.at, OBJECT_BYTES))
        return false;
    *out = list;
    return true;
}

bool
next_object(struct found *list, struct wire_object *out)
{
    if (!step(&list->count))
        return false;
    out->found = read_u8(&list->at) != 0;
    out->slot = read_u32(&list->at);
    out->commit = read_u64(&list->at);
    out->offset = read_u64(&list->at);
    out->size = read_u64(&list->at);
    return reader_ok(&list->at);
}

void
encode_fetched_begin(struct writer *writer, uint32_t count)
{
    write_u32(writer, count);
}

void
encode_fetched_value(struct writer *writer, const struct wire_value *value)
{
    write_u8(writer, value->found);
    write_u64(writer, value->size);
    write_u64(writer, value->total);
    write_u64(writer, value->checksum);
    write_u8(writer, value->whole.known);
    write_u64(writer, value->whole.value);
    write_place(writer, value->relay);
}

bool
decode_fetched(struct ds_slice body, struct fetched *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct fetched list = {.count = read_u32(&reader)};
    list.at = reader;
    if (!fixed_list_fits(list.count, &list.at, VALUE_BYTES))
        return false;
    *out = list;
    return true;
}

bool
next_value(struct fetched *list, struct wire_value *out)
{
    if (!step(&list->count))
        return false;
    out->found = read_u8(&list->at) != 0;
    out->size = read_u64(&list->at);
    out->total = read_u64(&list->at);
    out->checksum = read_u64(&list->at);
    out->whole.known = read_u8(&list->at) != 0;
    out->whole.value = read_u64(&list->at);
    out->relay = read_place(&list->at);
    return reader_ok(&list->at);
}
