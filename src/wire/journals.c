#include "wire/journals.h"

#include "wire/message_internal.h"

/* ---- To the controller's worker ---- */

void
encode_queue_serve(struct writer *writer, const struct queue_serve *message)
{
    encode_queue_place(writer, &message->place);
    write_u8(writer, message->copies_max);
    write_u8(writer, message->has_answered);
    write_short_bytes(writer, message->journal_path);
}

bool
decode_queue_serve(struct ds_slice body, struct queue_serve *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct queue_serve message;
    if (!read_queue_place(&reader, &message.place))
        return false;
    message.copies_max = read_u8(&reader);
    uint8_t has_answered = read_u8(&reader);
    message.journal_path = read_short_bytes(&reader);
    struct ds_slice path = message.journal_path;
    bool has_path = path.len > 0 && *(const char *)path.data == '/';
    if (!reader_done(&reader) || message.place.name.len == 0 ||
        message.place.address.len == 0 || message.copies_max > JOURNAL_COPIES_MAX ||
        has_answered > 1 || (message.copies_max > 0 && !has_path) ||
        !is_short_text(message.journal_path, JOURNAL_PATH_MAX))
        return false;
    message.has_answered = has_answered == 1;
    *out = message;
    return true;
}

void
encode_queue_served(struct writer *writer, bool is_copied)
{
    write_u8(writer, is_copied);
}

bool
decode_queue_served(struct ds_slice body, bool *out_is_copied)
{
    struct reader reader = reader_of(body.data, body.len);
    uint8_t is_copied = read_u8(&reader);
    if (!reader_done(&reader) || is_copied > 1)
        return false;
    *out_is_copied = is_copied == 1;
    return true;
}

void
encode_journal_sync(struct writer *writer, const struct journal_sync *message)
{
    write_u64(writer, message->number);
    write_u64(writer, message->id);
    write_u64(writer, message->inode);
    write_u64(writer, message->bytes);
    write_u64(writer, message->sequence);
}

bool
decode_journal_sync(struct ds_slice body, struct journal_sync *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct journal_sync message = {.number = read_u64(&reader)};
    message.id = read_u64(&reader);
    message.inode = read_u64(&reader);
    message.bytes = read_u64(&reader);
    message.sequence = read_u64(&reader);
    if (!reader_done(&reader) || message.bytes == 0 || message.sequence == 0)
        return false;
    *out = message;
    return true;
}

void
encode_journal_synced(struct writer *writer, const struct journal_synced *message)
{
    write_u64(writer, message->number);
    write_u64(writer, message->lease_until);
}

bool
decode_journal_synced(struct ds_slice body, struct journal_synced *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct journal_synced message = {.number = read_u64(&reader)};
    message.lease_until = read_u64(&reader);
    if (!reader_done(&reader))
        return false;
    *out = message;
    return true;
}

/* ---- Between workers ---- */

/* Of a queue that others can go on with. */
static bool
is_name(struct ds_slice name)
{
    return name.len > 0 && is_short_text(name, QUEUE_PLACE_NAME_MAX);
}

void
encode_journal_write(struct writer *writer, const struct journal_write *message)
{
    write_short_bytes(writer, message->name);
    write_u64(writer, message->term);
    write_u32(writer, message->node);
    write_u32(writer, message->incarnation);
    write_u64(writer, message->id);
    write_u64(writer, message->offset);
    write_u64(writer, message->sequence);
    write_u8(writer, message->is_unsure);
    write_bytes(writer, message->bytes);
}

bool
decode_journal_write(struct ds_slice body, struct journal_write *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct journal_write message = {.name = read_short_bytes(&reader)};
    message.term = read_u64(&reader);
    message.node = read_u32(&reader);
    message.incarnation = read_u32(&reader);
    message.id = read_u64(&reader);
    message.offset = read_u64(&reader);
    message.sequence = read_u64(&reader);
    uint8_t is_unsure = read_u8(&reader);
    message.is_unsure = is_unsure != 0;
    message.bytes = read_bytes(&reader, reader_left(&reader));
    if (!reader_done(&reader) || !is_name(message.name) || is_unsure > 1 ||
        message.bytes.len > JOURNAL_WRITE_BYTES_MAX ||
        message.offset > UINT64_MAX - message.bytes.len)
        return false;
    *out = message;
    return true;
}

void
encode_journal_written(struct writer *writer, uint64_t bytes)
{
    write_u64(writer, bytes);
}

bool
decode_journal_written(struct ds_slice body, uint64_t *out_bytes)
{
    struct reader reader = reader_of(body.data, body.len);
    *out_bytes = read_u64(&reader);
    return reader_done(&reader);
}

void
encode_journal_ask(struct writer *writer, const struct journal_ask *message)
{
    write_short_bytes(writer, message->name);
    write_u64(writer, message->term);
    write_u32(writer, message->node);
    write_u8(writer, (uint8_t)message->intent);
}

bool
decode_journal_ask(struct ds_slice body, struct journal_ask *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct journal_ask message = {.name = read_short_bytes(&reader)};
    message.term = read_u64(&reader);
    message.node = read_u32(&reader);
    uint8_t intent = read_u8(&reader);
    if (!reader_done(&reader) || !is_name(message.name) || intent >= ASK_INTENT_COUNT)
        return false;
    message.intent = (enum ask_intent)intent;
    *out = message;
    return true;
}

void
encode_journal_known(struct writer *writer, const struct journal_known *message)
{
    write_u8(writer, (uint8_t)(message->has_copy | message->has_failed << 1));
    write_u64(writer, message->promised);
    write_u64(writer, message->heard);
    write_u64(writer, message->dead);
    write_u64(writer, message->copy_term);
    write_u64(writer, message->sequence);
}

bool
decode_journal_known(struct ds_slice body, struct journal_known *out)
{
    struct reader reader = reader_of(body.data, body.len);
    uint8_t flags = read_u8(&reader);
    struct journal_known message = {.has_copy = (flags & 1) != 0,
                                    .has_failed = (flags & 2) != 0,
                                    .promised = read_u64(&reader)};
    message.heard = read_u64(&reader);
    message.dead = read_u64(&reader);
    message.copy_term = read_u64(&reader);
    message.sequence = read_u64(&reader);
    if (!reader_done(&reader) || flags > 3)
        return false;
    *out = message;
    return true;
}
