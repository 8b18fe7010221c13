#include "queue/test_text.h"

#include "wire/msgpack.h"

#include "base/check.h"
#include "base/slice.h"

#include <stdio.h>
#include <stdlib.h>

struct ds_block_id
test_block_id(uint64_t counter)
{
    struct ds_block_id id = {.bytes = {1, 0, 0, 0, 2}};
    for (size_t i = 0; i < 8; i++)
        id.bytes[8 + i] = (uint8_t)(counter >> (8 * i));
    return id;
}

static void
skip_spaces(const char **at)
{
    while (**at == ' ' || **at == ',' || **at == ':')
        (*at)++;
}

/* The text up to `end`, which is stepped over. */
static struct ds_slice
take_until(const char **at, char end)
{
    const char *begin = *at;
    const char *stop = strchr(begin, end);
    DS_ASSERT(stop != NULL);
    *at = stop + 1;
    return slice(begin, (size_t)(stop - begin));
}

static void write_value(const char **at, struct writer *out);

/* Elements up to `end` into `out`, returns how many. */
static size_t
write_elements(const char **at, char end, struct writer *out)
{
    size_t count = 0;
    for (skip_spaces(at); **at != end; skip_spaces(at)) {
        write_value(at, out);
        count++;
    }
    (*at)++;
    return count;
}

static void
write_container(const char **at, char begin, struct writer *out)
{
    AUTO_WRITER(elements);
    size_t count = write_elements(at, begin == '[' ? ']' : '}', &elements);
    if (begin == '[')
        msgpack_write_array(out, count);
    else
        msgpack_write_map(out, count / 2);
    write_bytes(out, slice(elements.data, elements.len));
}

static void
write_value(const char **at, struct writer *out)
{
    char first = *(*at)++;
    char *end;
    switch (first) {
    case '[':
    case '{':
        write_container(at, first, out);
        return;
    case '\'':
        msgpack_write_str(out, take_until(at, '\''));
        return;
    case '<':
        msgpack_write_bin(out, take_until(at, '>'));
        return;
    case '@': {
        struct ds_block_id id = test_block_id(strtoull(*at, &end, 10));
        *at = end;
        msgpack_write_bin(out, slice(id.bytes, sizeof id.bytes));
        return;
    }
    case 'n':
        DS_ASSERT(strncmp(*at, "il", 2) == 0);
        *at += 2;
        msgpack_write_nil(out);
        return;
    default:
        DS_ASSERT(first >= '0' && first <= '9');
        msgpack_write_uint(out, strtoull(*at - 1, &end, 10));
        *at = end;
    }
}

void
text_to_msgpack(const char *text, struct writer *out)
{
    write_value(&text, out);
    DS_ASSERT(*text == '\0');
}

static void
render_text(struct writer *out, const char *text)
{
    write_bytes(out, slice_of_text(text));
}

static void
render_number(struct writer *out, const char *prefix, uint64_t number)
{
    char text[32];
    snprintf(text, sizeof text, "%s%ju", prefix, (uintmax_t)number);
    render_text(out, text);
}

static void
render_bin(struct writer *out, struct ds_slice bytes)
{
    struct ds_block_id none = test_block_id(0);
    if (bytes.len == sizeof none.bytes && memcmp(bytes.data, none.bytes, 8) == 0) {
        struct reader counter = reader_of((const uint8_t *)bytes.data + 8, 8);
        render_number(out, "@", read_u64(&counter));
        return;
    }
    render_text(out, "<");
    write_bytes(out, bytes);
    render_text(out, ">");
}

static void
render_quoted(struct writer *out, struct ds_slice text)
{
    render_text(out, "'");
    write_bytes(out, text);
    render_text(out, "'");
}

static void render_value(struct reader *reader, struct writer *out);

static void
render_array(struct reader *reader, struct writer *out)
{
    uint32_t count = msgpack_read_array(reader);
    render_text(out, "[");
    for (uint32_t i = 0; i < count; i++) {
        render_text(out, i == 0 ? "" : ",");
        render_value(reader, out);
    }
    render_text(out, "]");
}

static void
render_map(struct reader *reader, struct writer *out)
{
    uint32_t count = msgpack_read_map(reader);
    render_text(out, "{");
    for (uint32_t i = 0; i < count; i++) {
        render_text(out, i == 0 ? "" : ",");
        render_value(reader, out);
        render_text(out, ":");
        render_value(reader, out);
    }
    render_text(out, "}");
}

static void
render_value(struct reader *reader, struct writer *out)
{
    enum msgpack_type type = msgpack_peek(reader);
    if (type == MSGPACK_ARRAY)
        render_array(reader, out);
    else if (type == MSGPACK_MAP)
        render_map(reader, out);
    else if (type == MSGPACK_STR)
        render_quoted(out, msgpack_read_str(reader));
    else if (type == MSGPACK_BIN)
        render_bin(out, msgpack_read_bin(reader));
    else if (msgpack_read_nil(reader))
        render_text(out, "nil");
    else
        render_number(out, "", msgpack_read_uint(reader));
}

void
msgpack_to_text(struct ds_slice bytes, struct writer *out)
{
    struct reader reader = reader_of(bytes.data, bytes.len);
    writer_clear(out);
    render_value(&reader, out);
    write_u8(out, 0);
    DS_ASSERT(reader_done(&reader));
    DS_ASSERT(!out->failed);
}

struct talk
talk_begin(const struct queue_options *options)
{
    struct queue_options usual = {
        .limits = queue_limits_default(),
        .reports_dead = true,
    };
    struct talk talk = {0};
    enum ds_status status =
        queue_create(options == NULL ? &usual : options, &talk.queue, &talk.err);
    DS_ASSERT(status == DS_OK);
    return talk;
}

void
talk_end(struct talk *talk)
{
    queue_destroy(talk->queue);
    writer_fini(&talk->request);
    writer_fini(&talk->reply);
    writer_fini(&talk->text);
}

enum ds_status
talk_call(struct talk *talk, const char *request_text)
{
    AUTO_QUEUE_REQUEST(request);
    writer_clear(&talk->request);
    writer_clear(&talk->reply);
    text_to_msgpack(request_text, &talk->request);
    enum ds_status status = queue_request_decode(
        (struct ds_slice){talk->request.data, talk->request.len}, &request, &talk->err);
    if (status != DS_OK)
        return status;
    status = queue_apply(talk->queue, &request, &talk->reply, &talk->err);
    queue_check(talk->queue);
    if (status != DS_OK)
        return status;
    msgpack_to_text((struct ds_slice){talk->reply.data, talk->reply.len}, &talk->text);
    return DS_OK;
}
