#include "wire/bindings.h"

#include "wire/message_internal.h"

#include <assert.h>
#include <string.h>

enum {
    BINDING_BYTES_MIN = 4 + 2 * BLOCK_KEY_BYTES + 2,
    ANSWER_BYTES_MIN = 1 + BLOCK_KEY_BYTES + 4,
    VALUE_BYTES_MIN = 8 + 2,
    VALUE_FOLLOWS = 1 << 7, /* Beside the answer, in its byte. */
};
static_assert(KEY_ORDERS_MAX * (BINDING_BYTES_MIN + DS_KEY_BYTES_MAX) + 64 <=
                  FRAME_BODY_BYTES_MAX,
              "orders for the longest keys fit into a frame");
static_assert(KEY_ORDERS_MAX * (ANSWER_BYTES_MIN + VALUE_BYTES_MIN) +
                      KEY_VALUES_BYTES_MAX + 64 <=
                  FRAME_BODY_BYTES_MAX,
              "answers with values fit into a frame");
static_assert(KEY_VALUE_BYTES_MAX <= UINT16_MAX, "a value's length is a u16");
static_assert((int)KEY_ANSWER_COUNT <= (int)VALUE_FOLLOWS, "there is room for a bit");

/* ---- Objects ---- */

static void
write_object(struct writer *writer, const struct object_name *object)
{
    uint8_t bytes[BLOCK_KEY_BYTES] = {0};
    if (object->node != 0)
        wire_object_key(object, bytes);
    write_bytes(writer, (struct ds_slice){.data = bytes, .len = sizeof bytes});
}

/* False: it is neither an object nor none. */
static bool
read_object(struct reader *reader, struct object_name *out)
{
    static const uint8_t none[BLOCK_KEY_BYTES];
    struct ds_slice bytes = read_bytes(reader, BLOCK_KEY_BYTES);
    *out = (struct object_name){0};
    if (!reader_ok(reader))
        return false;
    if (memcmp(bytes.data, none, sizeof none) == 0)
        return true;
    return wire_object_name(bytes, out) && out->node != 0;
}

/* ---- Bindings ---- */

void
encode_binding(struct writer *writer, const struct wire_binding *binding)
{
    write_u32(writer, binding->ttl_ds);
    write_object(writer, &binding->object);
    if (binding->was.node != 0)
        write_object(writer, &binding->was);
    write_short_bytes(writer, binding->key);
}

bool
next_binding(struct binding_list *list, struct wire_binding *out)
{
    if (!step(&list->count))
        return false;
    out->ttl_ds = read_u32(&list->at);
    out->was = (struct object_name){0};
    if (!read_object(&list->at, &out->object) ||
        (list->has_was && (!read_object(&list->at, &out->was) || out->was.node == 0)))
        return false;
    out->key = read_short_bytes(&list->at);
    return reader_ok(&list->at) && wire_user_key_is_legal(out->key);
}

/* A list that ends the body. */
static bool
read_bindings(struct reader *reader, bool has_was, struct binding_list *out)
{
    struct binding_list list = {.count = read_u32(reader), .has_was = has_was};
    list.at = *reader;
    if (list.count > KEY_ORDERS_MAX)
        return false;
    struct binding_list probe = list;
    struct wire_binding binding;
    while (probe.count > 0) {
        if (!next_binding(&probe, &binding))
            return false;
    }
    *out = list;
    return reader_done(&probe.at);
}

/* ---- KEY_ORDERS ---- */

void
encode_key_orders_begin(struct writer *writer, const struct key_orders *message)
{
    write_u32(writer, message->order);
    write_u32(writer, message->wait_ms);
    write_u32(writer, message->from);
    write_u32(writer, message->restarts);
    write_u64(writer, message->epoch);
    write_u8(writer, message->wants_values);
    write_u32(writer, message->bindings.count);
}

bool
decode_key_orders(struct ds_slice body, struct key_orders *out)
{
    struct reader reader = reader_of(body.data, body.len);
    uint32_t order = read_u32(&reader);
    struct key_orders message = {.wait_ms = read_u32(&reader)};
    message.from = read_u32(&reader);
    message.restarts = read_u32(&reader);
    message.epoch = read_u64(&reader);
    uint8_t wants_values = read_u8(&reader);
    message.wants_values = wants_values != 0;
    if (order >= KEY_ORDER_COUNT || wants_values > (order == KEY_FIND) ||
        !read_bindings(&reader, order == KEY_MOVE, &message.bindings))
        return false;
    message.order = (enum key_order)order;
    *out = message;
    return true;
}

void
encode_answers_begin(struct writer *writer, uint32_t count)
{
    write_u32(writer, count);
}

void
encode_answer(struct writer *writer, const struct wire_answer *answer)
{
    bool has_value = answer->value.len > 0;
    write_u8(writer, (uint8_t)(answer->answer | (has_value ? VALUE_FOLLOWS : 0)));
    write_object(writer, &answer->object);
    write_u32(writer, answer->ttl_ds);
    if (has_value) {
        write_u64(writer, answer->checksum);
        write_short_bytes(writer, answer->value);
    }
}

/* False: it is empty, or too large, or of no object. */
static bool
read_value(struct reader *reader, struct wire_answer *out)
{
    out->checksum = read_u64(reader);
    out->value = read_short_bytes(reader);
    return out->value.len > 0 && out->value.len <= KEY_VALUE_BYTES_MAX &&
           out->answer == KEY_YES && out->object.node != 0;
}

bool
next_answer(struct answer_list *list, struct wire_answer *out)
{
    if (!step(&list->count))
        return false;
    uint8_t first = read_u8(&list->at);
    bool has_value = (first & VALUE_FOLLOWS) != 0;
    uint8_t answer = (uint8_t)(first & ~VALUE_FOLLOWS);
    *out = (struct wire_answer){0};
    if (!read_object(&list->at, &out->object) || answer >= KEY_ANSWER_COUNT)
        return false;
    out->answer = (enum key_answer)answer;
    out->ttl_ds = read_u32(&list->at);
    if (has_value && !read_value(&list->at, out))
        return false;
    return reader_ok(&list->at);
}

static bool
read_answers(struct reader *reader, struct answer_list *out)
{
    struct answer_list list = {.count = read_u32(reader)};
    list.at = *reader;
    if (list.count > reader_left(reader) / ANSWER_BYTES_MIN)
        return false;
    struct answer_list probe = list;
    struct wire_answer answer;
    while (probe.count > 0) {
        if (!next_answer(&probe, &answer))
            return false;
    }
    if (!reader_done(&probe.at))
        return false;
    *out = list;
    return true;
}

bool
decode_answers(struct ds_slice body, struct answer_list *out)
{
    struct reader reader = reader_of(body.data, body.len);
    return read_answers(&reader, out);
}

/* ---- KEY_REPORT ---- */

enum { PAST_MEMBER_BYTES = 9, IS_GONE = 1, HAS_LEFT = 2 };

void
encode_past_epoch_begin(struct writer *writer, uint32_t count)
{
    write_u32(writer, count);
}

void
encode_past_member(struct writer *writer, const struct past_member *member)
{
    write_u32(writer, member->node);
    write_u32(writer, member->incarnation);
    write_u8(writer, (uint8_t)((member->is_gone ? IS_GONE : 0) |
                               (member->has_left ? HAS_LEFT : 0)));
}

bool
next_past_epoch(struct reader *list, struct past_epoch *out)
{
    if (reader_left(list) == 0)
        return false;
    uint32_t count = read_u32(list);
    if (count > reader_left(list) / PAST_MEMBER_BYTES) {
        list->failed = true;
        return false;
    }
    struct ds_slice members = read_bytes(list, count * (size_t)PAST_MEMBER_BYTES);
    *out = (struct past_epoch){count, reader_of(members.data, members.len)};
    return !list->failed;
}

bool
next_past_member(struct past_epoch *epoch, struct past_member *out)
{
    if (epoch->count == 0)
        return false;
    epoch->count--;
    *out = (struct past_member){.node = read_u32(&epoch->at)};
    out->incarnation = read_u32(&epoch->at);
    uint8_t flags = read_u8(&epoch->at);
    out->is_gone = (flags & IS_GONE) != 0;
    out->has_left = (flags & HAS_LEFT) != 0;
    return !epoch->at.failed && flags <= (IS_GONE | HAS_LEFT);
}

/* Whoever looks for a member believes in the order of their nodes. */
static bool
is_in_order(struct past_epoch epoch)
{
    struct past_member member;
    uint64_t least = 0;
    while (epoch.count > 0) {
        if (!next_past_member(&epoch, &member) || member.node < least)
            return false;
        least = (uint64_t)member.node + 1;
    }
    return true;
}

static bool
read_lost(struct reader *reader, struct ds_slice *out)
{
    uint32_t bytes = read_u32(reader);
    struct past_epoch epoch;
    *out = read_bytes(reader, bytes);
    struct reader list = reader_of(out->data, out->len);
    while (next_past_epoch(&list, &epoch)) {
        if (!is_in_order(epoch))
            return false;
    }
    return !reader->failed && !list.failed;
}

void
encode_key_report_begin(struct writer *writer, const struct key_report *message)
{
    write_u32(writer, message->node);
    write_u32(writer, message->incarnation);
    write_u32(writer, message->restarts);
    write_u64(writer, message->member_since);
    write_u64(writer, message->epoch);
    write_u64(writer, message->since);
    write_u8(writer, (uint8_t)(message->is_last | message->is_back << 1));
    write_u32(writer, (uint32_t)message->lost.len);
    write_bytes(writer, message->lost);
    write_u32(writer, message->bindings.count);
}

bool
decode_key_report(struct ds_slice body, struct key_report *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct key_report message = {.node = read_u32(&reader)};
    message.incarnation = read_u32(&reader);
    message.restarts = read_u32(&reader);
    message.member_since = read_u64(&reader);
    message.epoch = read_u64(&reader);
    message.since = read_u64(&reader);
    uint8_t flags = read_u8(&reader);
    message.is_last = (flags & 1) != 0;
    message.is_back = (flags & 2) != 0;
    if (flags > 3 || !read_lost(&reader, &message.lost) ||
        !read_bindings(&reader, false, &message.bindings))
        return false;
    *out = message;
    return true;
}

void
encode_report_reply_begin(struct writer *writer, bool wants_all, uint32_t count)
{
    write_u8(writer, wants_all);
    encode_answers_begin(writer, count);
}

bool
decode_report_reply(struct ds_slice body, struct key_report_reply *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct key_report_reply message = {.wants_all = read_u8(&reader) != 0};
    if (!read_answers(&reader, &message.refused))
        return false;
    *out = message;
    return true;
}
