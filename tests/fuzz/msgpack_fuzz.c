/* The MessagePack reader. The whole input is one value, if it is any: what
 * msgpack_read_raw() takes as well-formed can be walked with the typed readers, and
 * ends for them where it ended for it. And any reader on any bytes stays inside them.
 */
#include "fuzz.h"

#include "wire/msgpack.h"

/* A reader that asks for the wrong type fails and gives nothing. */
static void
try_all(const uint8_t *data, size_t size)
{
    struct reader start = reader_of(data, size);
    enum msgpack_type type = msgpack_peek(&start);
    struct reader reader = start;
    (void)msgpack_read_uint(&reader);
    DS_ASSERT(reader_ok(&reader) ? type == MSGPACK_INTEGER : reader.failed);
    reader = start;
    struct ds_slice text = msgpack_read_str(&reader);
    DS_ASSERT(reader_ok(&reader) ? type == MSGPACK_STR : text.len == 0);
    reader = start;
    struct ds_slice bytes = msgpack_read_bin(&reader);
    DS_ASSERT(reader_ok(&reader) ? type == MSGPACK_BIN : bytes.len == 0);
    reader = start;
    uint32_t count = msgpack_read_array(&reader);
    DS_ASSERT(reader_ok(&reader) ? type == MSGPACK_ARRAY : count == 0);
    DS_ASSERT(count <= reader_left(&reader));
    reader = start;
    count = msgpack_read_map(&reader);
    DS_ASSERT(reader_ok(&reader) ? type == MSGPACK_MAP : count == 0);
    DS_ASSERT((uint64_t)count * 2 <= reader_left(&reader));
    reader = start;
    DS_ASSERT(msgpack_read_nil(&reader) == (type == MSGPACK_NIL));
}

static void walk(struct reader *reader, int depth);

static void
walk_elements(struct reader *reader, uint64_t count, int depth)
{
    DS_ASSERT(depth <= MSGPACK_DEPTH_MAX);
    for (uint64_t i = 0; i < count; i++)
        walk(reader, depth);
}

/* One value of a well-formed input, by its type. */
static void
walk(struct reader *reader, int depth)
{
    switch (msgpack_peek(reader)) {
    case MSGPACK_ARRAY:
        walk_elements(reader, msgpack_read_array(reader), depth + 1);
        break;
    case MSGPACK_MAP:
        walk_elements(reader, 2 * (uint64_t)msgpack_read_map(reader), depth + 1);
        break;
    case MSGPACK_STR:
        (void)msgpack_read_str(reader);
        break;
    case MSGPACK_BIN:
        (void)msgpack_read_bin(reader);
        break;
    case MSGPACK_NIL:
        (void)msgpack_read_nil(reader);
        break;
    case MSGPACK_BOOL:
    case MSGPACK_INTEGER:
    case MSGPACK_FLOAT:
    case MSGPACK_EXT:
        msgpack_skip(reader);
        break;
    case MSGPACK_NONE:
        DS_ASSERT(false);
    }
    DS_ASSERT(reader_ok(reader));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_all(data, size);
    struct reader reader = reader_of(data, size);
    struct reader skipped = reader;
    struct reader walked = reader;
    struct ds_slice raw = msgpack_read_raw(&reader);
    msgpack_skip(&skipped);
    DS_ASSERT(reader_ok(&reader) == reader_ok(&skipped));
    if (!reader_ok(&reader)) {
        DS_ASSERT(raw.len == 0);
        return 0;
    }
    DS_ASSERT(raw.data == data);
    DS_ASSERT(raw.len == size - reader_left(&reader));
    DS_ASSERT(skipped.at == reader.at);
    walk(&walked, 0);
    DS_ASSERT(walked.at == reader.at);
    return 0;
}
