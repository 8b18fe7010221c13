/* DISCOVER and HELLO, who asks a controller, and where that is. */
#include "wire/message.h"

#include "wire/message_internal.h"

#include <string.h>

void
encode_discovered(struct writer *writer, const struct discovered *message)
{
    write_u32(writer, message->layout_version);
    write_u32(writer, message->protocol_version);
    write_u32(writer, message->uid);
    write_u32(writer, message->pid);
    write_short_bytes(writer, message->boot_id);
    write_short_bytes(writer, message->socket_path);
    write_short_bytes(writer, message->version);
    write_short_bytes(writer, message->owner);
}

bool
decode_discovered(struct ds_slice body, struct discovered *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct discovered message = {.layout_version = read_u32(&reader)};
    message.protocol_version = read_u32(&reader);
    message.uid = read_u32(&reader);
    message.pid = read_u32(&reader);
    message.boot_id = read_short_bytes(&reader);
    message.socket_path = read_short_bytes(&reader);
    message.version = read_short_bytes(&reader);
    message.owner = read_short_bytes(&reader);
    if (!reader_done(&reader))
        return false;
    *out = message;
    return true;
}

void
encode_hello(struct writer *writer, const struct hello *message,
             const struct wire_ref *holding, size_t holding_count)
{
    write_u32(writer, message->layout_version);
    write_u32(writer, message->protocol_version);
    write_u32(writer, message->flags);
    write_u32(writer, message->client);
    write_u64(writer, message->token);
    write_u32(writer, message->incarnation);
    write_u16(writer, message->queue);
    write_u64(writer, message->epoch);
    write_ref_list(writer, holding, holding_count);
}

bool
decode_hello(struct ds_slice body, struct hello *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct hello message = {.layout_version = read_u32(&reader)};
    message.protocol_version = read_u32(&reader);
    message.flags = read_u32(&reader);
    message.client = read_u32(&reader);
    message.token = read_u64(&reader);
    message.incarnation = read_u32(&reader);
    message.queue = read_u16(&reader);
    message.epoch = read_u64(&reader);
    if (!read_ref_list(&reader, &message.holding))
        return false;
    *out = message;
    return true;
}

void
encode_welcome(struct writer *writer, const struct welcome *message)
{
    write_u32(writer, message->node);
    write_u32(writer, message->incarnation);
    write_u32(writer, message->client);
    write_u64(writer, message->token);
    write_u64(writer, message->arena_bytes);
    write_u64(writer, message->table_bytes);
    write_u64(writer, message->pins_offset);
    write_u64(writer, message->pins_bytes);
    write_u64(writer, message->huge_page_bytes);
}

bool
decode_welcome(struct ds_slice body, struct welcome *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct welcome message = {.node = read_u32(&reader)};
    message.incarnation = read_u32(&reader);
    message.client = read_u32(&reader);
    message.token = read_u64(&reader);
    message.arena_bytes = read_u64(&reader);
    message.table_bytes = read_u64(&reader);
    message.pins_offset = read_u64(&reader);
    message.pins_bytes = read_u64(&reader);
    message.huge_page_bytes = read_u64(&reader);
    if (!reader_done(&reader))
        return false;
    *out = message;
    return true;
}

void
encode_queue_call(struct writer *writer, const struct queue_call *message)
{
    write_u64(writer, message->client);
    write_u64(writer, message->number);
}

bool
decode_queue_call(struct ds_slice body, struct queue_call *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct queue_call message = {.client = read_u64(&reader)};
    message.number = read_u64(&reader);
    if (!reader_done(&reader))
        return false;
    *out = message;
    return true;
}

void
encode_queue_place(struct writer *writer, const struct queue_place *message)
{
    write_short_bytes(writer, message->name);
    write_short_bytes(writer, message->address);
    write_short_bytes(writer, message->tcp_address);
    write_u64(writer, message->term);
}

bool
read_queue_place(struct reader *reader, struct queue_place *out)
{
    struct queue_place message = {.name = read_short_bytes(reader)};
    message.address = read_short_bytes(reader);
    message.tcp_address = read_short_bytes(reader);
    message.term = read_u64(reader);
    if (!reader_ok(reader) || !is_short_text(message.name, QUEUE_PLACE_NAME_MAX) ||
        !is_short_text(message.address, QUEUE_PLACE_ADDRESS_MAX) ||
        !is_short_text(message.tcp_address, QUEUE_PLACE_ADDRESS_MAX))
        return false;
    *out = message;
    return true;
}

bool
decode_queue_place(struct ds_slice body, struct queue_place *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct queue_place message;
    if (!read_queue_place(&reader, &message) || !reader_done(&reader))
        return false;
    *out = message;
    return true;
}
