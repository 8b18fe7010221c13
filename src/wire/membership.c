/* Who belongs to the cluster. */
#include "wire/message.h"

#include "wire/leaving.h"
#include "wire/message_internal.h"

/* It is put into JSON and into the log as it is. */
static bool
is_address(struct ds_slice text)
{
    const uint8_t *at = text.data;
    for (size_t i = 0; i < text.len; i++) {
        if (at[i] <= ' ' || at[i] >= 0x7f || at[i] == '"' || at[i] == '\\')
            return false;
    }
    return text.len > 0 && text.len <= MEMBER_ADDRESS_BYTES_MAX;
}

void
encode_member(struct writer *writer, const struct wire_member *member)
{
    write_u32(writer, member->node);
    write_u32(writer, member->incarnation);
    write_u32(writer, member->restarts);
    write_u64(writer, member->since);
    write_short_bytes(writer, member->address);
    write_short_bytes(writer, member->queues);
    write_short_bytes(writer, member->arenas);
}

bool
next_member_queue(struct ds_slice *queues, struct queue_place *out)
{
    struct reader reader = reader_of(queues->data, queues->len);
    if (queues->len == 0 || !read_queue_place(&reader, out))
        return false;
    *queues = (struct ds_slice){.data = reader.at, .len = reader_left(&reader)};
    return true;
}

static bool
are_queues(struct ds_slice queues)
{
    struct queue_place place;
    while (next_member_queue(&queues, &place)) {
    }
    return queues.len == 0;
}

/* False also when it is none. */
static bool
read_member(struct reader *reader, struct wire_member *out)
{
    out->node = read_u32(reader);
    out->incarnation = read_u32(reader);
    out->restarts = read_u32(reader);
    out->since = read_u64(reader);
    out->address = read_short_bytes(reader);
    out->queues = read_short_bytes(reader);
    out->arenas = read_short_bytes(reader);
    return reader_ok(reader) && out->node != 0 && is_address(out->address) &&
           are_queues(out->queues) && wire_are_arenas(out->arenas);
}

void
encode_member_renew(struct writer *writer, const struct member_renew *message)
{
    encode_member(writer, &message->who);
    write_u32(writer, message->flags);
    write_u64(writer, message->epoch);
    write_u64(writer, message->version);
    write_u32(writer, message->count);
    write_u32(writer, message->wait_ms);
    write_short_bytes(writer, message->cluster_name);
}

bool
decode_member_renew(struct ds_slice body, struct member_renew *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct member_renew message;
    if (!read_member(&reader, &message.who))
        return false;
    message.flags = read_u32(&reader);
    message.epoch = read_u64(&reader);
    message.version = read_u64(&reader);
    message.count = read_u32(&reader);
    message.wait_ms = read_u32(&reader);
    message.cluster_name = read_short_bytes(&reader);
    if (!reader_done(&reader))
        return false;
    *out = message;
    return true;
}

void
encode_member_list_begin(struct writer *writer, const struct member_list *message)
{
    write_u64(writer, message->epoch);
    write_u64(writer, message->version);
    write_u32(writer, message->lease_ms);
    write_u32(writer, message->lapse_ms);
    write_u32(writer, message->away_ms);
    write_u32(writer, message->count);
}

bool
next_member(struct member_list *list, struct wire_member *out)
{
    return step(&list->count) && read_member(&list->at, out);
}

bool
decode_member_list(struct ds_slice body, struct member_list *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct member_list message = {.epoch = read_u64(&reader)};
    message.version = read_u64(&reader);
    message.lease_ms = read_u32(&reader);
    message.lapse_ms = read_u32(&reader);
    message.away_ms = read_u32(&reader);
    message.count = read_u32(&reader);
    message.at = reader;
    struct member_list probe = message;
    struct wire_member member;
    uint32_t before = 0;
    while (probe.count > 0) {
        if (!next_member(&probe, &member) || member.node <= before)
            return false; /* The last one, too, may be malformed. */
        before = member.node;
    }
    if (!reader_done(&probe.at))
        return false;
    *out = message;
    return true;
}
