#include "queue/request.h"

#include "wire/msgpack.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>

/* A request while it is decoded. `what` names the operation in messages. */
struct decoder {
    struct reader reader;
    const char *what;
    struct ds_error *err;
};

typedef enum ds_status (*decode_fn)(struct decoder *decoder, struct queue_request *out);

static enum ds_status
fail_invalid(struct decoder *decoder, const char *problem)
{
    return ds_fail(decoder->err, DS_INVALID, "%s: %s", decoder->what, problem);
}

static enum ds_status
fail_memory(struct decoder *decoder, size_t count)
{
    return ds_fail(decoder->err, DS_NO_MEMORY,
                   "%s: out of memory for a request of %zu elements", decoder->what,
                   count);
}

/* One text of at most `bytes_max`. */
static enum ds_status
decode_text(struct decoder *decoder, const char *noun, size_t bytes_max,
            struct ds_slice *out)
{
    struct ds_slice text = msgpack_read_str(&decoder->reader);
    if (!reader_ok(&decoder->reader))
        return ds_fail(decoder->err, DS_INVALID, "%s: %s is not a text (UTF-8 str)",
                       decoder->what, noun);
    if (text.len > bytes_max)
        return ds_fail(decoder->err, DS_INVALID,
                       "%s: %s is %zu bytes long; at most %zu are allowed",
                       decoder->what, noun, text.len, bytes_max);
    *out = text;
    return DS_OK;
}

static enum ds_status
decode_name(struct decoder *decoder, const char *noun, struct ds_slice *out)
{
    struct ds_slice text = {0};
    enum ds_status status = decode_text(decoder, noun, QUEUE_NAME_BYTES_MAX, &text);
    if (status != DS_OK)
        return status;
    if (text.len == 0)
        return ds_fail(decoder->err, DS_INVALID, "%s: %s is empty", decoder->what,
                       noun);
    *out = text;
    return DS_OK;
}

/* An array of names; `out` owns what was decoded also on failure. */
static enum ds_status
decode_names(struct decoder *decoder, const char *plural, const char *noun,
             struct slice_list *out)
{
    uint32_t count = msgpack_read_array(&decoder->reader);
    if (!reader_ok(&decoder->reader))
        return ds_fail(decoder->err, DS_INVALID, "%s: %s are not an array",
                       decoder->what, plural);
    if (count > QUEUE_KEYS_MAX)
        return ds_fail(decoder->err, DS_INVALID,
                       "%s: %u %s in one request; at most %d are allowed, split it",
                       decoder->what, count, plural, QUEUE_KEYS_MAX);
    if (count == 0)
        return DS_OK;
    out->items = calloc(count, sizeof *out->items);
    if (out->items == NULL)
        return fail_memory(decoder, count);
    for (; out->count < count; out->count++) {
        enum ds_status status = decode_name(decoder, noun, &out->items[out->count]);
        if (status != DS_OK)
            return status;
    }
    return DS_OK;
}

static enum ds_status
decode_partition(struct decoder *decoder, struct queue_request *out)
{
    out->has_partition = true;
    return decode_text(decoder, "the partition", QUEUE_NAME_BYTES_MAX, &out->partition);
}

static enum ds_status
decode_partition_and_keys(struct decoder *decoder, struct queue_request *out)
{
    enum ds_status status = decode_partition(decoder, out);
    if (status != DS_OK)
        return status;
    return decode_names(decoder, "keys", "a key", &out->keys);
}

/* The same with one key at least, for requests that bring blocks of these rows. */
static enum ds_status
decode_partition_and_rows(struct decoder *decoder, struct queue_request *out)
{
    enum ds_status status = decode_partition_and_keys(decoder, out);
    if (status == DS_OK && out->keys.count == 0)
        return ds_fail(decoder->err, DS_INVALID, "Received an empty list as keys.");
    return status;
}

static enum ds_status
decode_block_id(struct decoder *decoder, struct ds_block_id *out)
{
    struct ds_slice bytes = msgpack_read_bin(&decoder->reader);
    if (bytes.len != sizeof out->bytes)
        return fail_invalid(decoder, "a block's id is not 16 bytes");
    memcpy(out->bytes, bytes.data, sizeof out->bytes);
    return DS_OK;
}

static bool
is_among(const struct ds_block_id *ids, uint32_t count, const struct ds_block_id *id)
{
    for (uint32_t i = 0; i < count; i++) {
        if (memcmp(ids[i].bytes, id->bytes, sizeof id->bytes) == 0)
            return true;
    }
    return false;
}

static enum ds_status
decode_block_ids(struct decoder *decoder, struct blocks_request *out)
{
    uint32_t count = msgpack_read_array(&decoder->reader);
    if (!reader_ok(&decoder->reader) || count == 0 || count > QUEUE_PUT_BLOCKS_MAX)
        return fail_invalid(decoder, "a put has an array of 1 to 1024 block ids");
    out->ids = calloc(count, sizeof *out->ids);
    if (out->ids == NULL)
        return fail_memory(decoder, count);
    for (; out->count < count; out->count++) {
        struct ds_block_id *id = &out->ids[out->count];
        enum ds_status status = decode_block_id(decoder, id);
        if (status != DS_OK)
            return status;
        if (is_among(out->ids, out->count, id))
            return fail_invalid(decoder, "the put names a block twice");
    }
    return DS_OK;
}

static enum ds_status
decode_column_bytes(struct decoder *decoder, struct blocks_request *out)
{
    uint32_t count = msgpack_read_array(&decoder->reader);
    if (!reader_ok(&decoder->reader) ||
        count != (uint64_t)out->count * out->fields.count)
        return fail_invalid(decoder, "there is not one size per block and field");
    out->column_bytes = calloc(count, sizeof *out->column_bytes);
    if (out->column_bytes == NULL)
        return fail_memory(decoder, count);
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t bytes = msgpack_read_uint(&decoder->reader);
        if (!reader_ok(&decoder->reader) || bytes >= QUEUE_BLOCK_BYTES_MAX - total)
            return fail_invalid(decoder, "a column's size is not a plausible number");
        out->column_bytes[i] = bytes;
        total += bytes;
    }
    return DS_OK;
}

/* The first rows of all blocks but the first, as the ends of all but the last. */
static enum ds_status
decode_firsts(struct decoder *decoder, size_t key_count, struct blocks_request *out)
{
    uint32_t count = msgpack_read_array(&decoder->reader);
    if (!reader_ok(&decoder->reader) || count + 1 != out->count)
        return fail_invalid(decoder, "there is not one first row per further block");
    out->ends = calloc(out->count, sizeof *out->ends);
    if (out->ends == NULL)
        return fail_memory(decoder, out->count);
    uint64_t previous = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t first = msgpack_read_uint(&decoder->reader);
        if (!reader_ok(&decoder->reader) || first <= previous || first >= key_count)
            return fail_invalid(decoder, "first rows of blocks do not ascend within "
                                         "the keys");
        out->ends[i] = (uint32_t)first;
        previous = first;
    }
    out->ends[count] = (uint32_t)key_count;
    return DS_OK;
}

static enum ds_status
decode_blocks(struct decoder *decoder, size_t key_count, struct blocks_request *out)
{
    if (msgpack_read_array(&decoder->reader) != 5)
        return fail_invalid(decoder, "the blocks are not [ids, backend, fields, bytes, "
                                     "first rows]");
    enum ds_status status = decode_block_ids(decoder, out);
    if (status != DS_OK)
        return status;
    status =
        decode_text(decoder, "the backend", QUEUE_BACKEND_BYTES_MAX, &out->backend);
    if (status != DS_OK)
        return status;
    status = decode_names(decoder, "fields", "a field", &out->fields);
    if (status != DS_OK)
        return status;
    if (out->fields.count == 0)
        return fail_invalid(decoder, "the block has no fields");
    if (out->fields.count > DS_BLOCK_PARTS_MAX)
        return fail_invalid(decoder, "the block has more than 4096 fields");
    status = decode_column_bytes(decoder, out);
    return status == DS_OK ? decode_firsts(decoder, key_count, out) : status;
}

/* One map, well-formed to its end; an empty slice for nil and for {}. */
static enum ds_status
decode_tag(struct decoder *decoder, struct ds_slice *out)
{
    if (msgpack_read_nil(&decoder->reader))
        return DS_OK;
    struct reader pairs = decoder->reader;
    struct ds_slice raw = msgpack_read_raw(&decoder->reader);
    uint32_t count = msgpack_read_map(&pairs);
    if (!reader_ok(&decoder->reader) || !reader_ok(&pairs))
        return fail_invalid(decoder, "a tag is not a well-formed map, or is nested "
                                     "deeper than 64 levels");
    if (count > QUEUE_TAG_NAMES_MAX)
        return fail_invalid(decoder, "a tag has more than 1024 names");
    if (count > 0)
        *out = raw;
    return DS_OK;
}

static enum ds_status
decode_tags(struct decoder *decoder, struct queue_request *out)
{
    uint32_t count = msgpack_read_array(&decoder->reader);
    if (!reader_ok(&decoder->reader))
        return fail_invalid(decoder, "tags are neither nil nor an array");
    if (count != out->keys.count)
        return ds_fail(decoder->err, DS_INVALID,
                       "Length of `keys` (%zu) does not match length of `tags` (%u).",
                       out->keys.count, count);
    DS_ASSERT(count > 0); /* decode_partition_and_rows() saw to it. */
    out->tags.items = calloc(count, sizeof *out->tags.items);
    if (out->tags.items == NULL)
        return fail_memory(decoder, count);
    for (; out->tags.count < count; out->tags.count++) {
        enum ds_status status = decode_tag(decoder, &out->tags.items[out->tags.count]);
        if (status != DS_OK)
            return status;
    }
    return DS_OK;
}

static enum ds_status
decode_kv_put(struct decoder *decoder, struct queue_request *out)
{
    enum ds_status status = decode_partition_and_rows(decoder, out);
    if (status != DS_OK)
        return status;
    out->has_blocks = !msgpack_read_nil(&decoder->reader);
    if (out->has_blocks) {
        status = decode_blocks(decoder, out->keys.count, &out->blocks);
        if (status != DS_OK)
            return status;
    }
    if (msgpack_read_nil(&decoder->reader))
        return DS_OK;
    return decode_tags(decoder, out);
}

/* A block that takes the place of another one for these rows. */
static enum ds_status
decode_kv_move(struct decoder *decoder, struct queue_request *out)
{
    enum ds_status status = decode_partition_and_rows(decoder, out);
    if (status != DS_OK)
        return status;
    out->has_blocks = true;
    status = decode_blocks(decoder, out->keys.count, &out->blocks);
    if (status != DS_OK)
        return status;
    if (out->blocks.count != 1)
        return fail_invalid(decoder, "moves rows into one block at a time");
    return decode_block_id(decoder, &out->from);
}

static enum ds_status
decode_sparse_blocks(struct decoder *decoder, struct queue_request *out)
{
    out->wanted_bytes = msgpack_read_uint(&decoder->reader);
    return decode_text(decoder, "the backend", QUEUE_BACKEND_BYTES_MAX, &out->backend);
}

static enum ds_status
decode_kv_get(struct decoder *decoder, struct queue_request *out)
{
    enum ds_status status = decode_partition_and_keys(decoder, out);
    if (status != DS_OK)
        return status;
    out->has_select = !msgpack_read_nil(&decoder->reader);
    if (!out->has_select)
        return DS_OK;
    return decode_names(decoder, "selected fields", "a selected field", &out->select);
}

static enum ds_status
decode_kv_list(struct decoder *decoder, struct queue_request *out)
{
    if (msgpack_read_nil(&decoder->reader))
        return DS_OK;
    return decode_partition(decoder, out);
}

static enum ds_status
decode_config_set(struct decoder *decoder, struct queue_request *out)
{
    out->config = msgpack_read_bin(&decoder->reader);
    if (out->config.len > QUEUE_CONFIG_BYTES_MAX)
        return fail_invalid(decoder, "the configuration is larger than 16 MiB");
    return DS_OK;
}

static enum ds_status
decode_config_get(struct decoder *decoder, struct queue_request *out)
{
    out->wait_ms = msgpack_read_uint(&decoder->reader);
    return DS_OK;
}

static enum ds_status
decode_nothing(struct decoder *decoder, struct queue_request *out)
{
    (void)decoder;
    (void)out;
    return DS_OK;
}

static const struct {
    const char *name;
    uint32_t elements; /* Of the request's array, its name included. */
    decode_fn decode;
} operations[QUEUE_OPERATION_COUNT] = {
    [QUEUE_KV_PUT] = {"kv_put", 5, decode_kv_put},
    [QUEUE_KV_GET] = {"kv_get", 4, decode_kv_get},
    [QUEUE_KV_LIST] = {"kv_list", 2, decode_kv_list},
    [QUEUE_KV_CLEAR] = {"kv_clear", 3, decode_partition_and_keys},
    [QUEUE_KV_MOVE] = {"kv_move", 5, decode_kv_move},
    [QUEUE_SPARSE_BLOCKS] = {"sparse_blocks", 3, decode_sparse_blocks},
    [QUEUE_CONFIG_SET] = {"config_set", 2, decode_config_set},
    [QUEUE_CONFIG_GET] = {"config_get", 2, decode_config_get},
    [QUEUE_STATS] = {"stats", 1, decode_nothing},
    [QUEUE_PURGE] = {"purge", 1, decode_nothing},
    [QUEUE_SHUTDOWN] = {"shutdown", 1, decode_nothing},
};

const char *
queue_operation_name(enum queue_operation operation)
{
    DS_ASSERT(operation < QUEUE_OPERATION_COUNT);
    return operations[operation].name;
}

/* The operation of this name; QUEUE_OPERATION_COUNT if there is none. */
static enum queue_operation
find_operation(struct ds_slice name)
{
    for (size_t i = 0; i < QUEUE_OPERATION_COUNT; i++) {
        if (slice_equal(name, slice_of_text(operations[i].name)))
            return (enum queue_operation)i;
    }
    return QUEUE_OPERATION_COUNT;
}

enum ds_status
queue_request_decode(struct ds_slice bytes, struct queue_request *out,
                     struct ds_error *err)
{
    DS_ASSERT(out->keys.items == NULL);
    struct decoder decoder = {.reader = reader_of(bytes.data, bytes.len), .err = err};
    uint32_t elements = msgpack_read_array(&decoder.reader);
    struct ds_slice name = msgpack_read_str(&decoder.reader);
    if (!reader_ok(&decoder.reader) || elements == 0)
        return ds_fail(err, DS_INVALID,
                       "the request is not a MessagePack array that begins with the "
                       "name of an operation");
    enum queue_operation operation = find_operation(name);
    if (operation == QUEUE_OPERATION_COUNT)
        return ds_fail(err, DS_INVALID, "unknown operation '%.*s'",
                       (int)(name.len < 64 ? name.len : 64), (const char *)name.data);
    out->operation = operation;
    decoder.what = operations[operation].name;
    if (elements != operations[operation].elements)
        return ds_fail(err, DS_INVALID, "%s: takes %u arguments, not %u", decoder.what,
                       operations[operation].elements - 1, elements - 1);
    enum ds_status status = operations[operation].decode(&decoder, out);
    if (status != DS_OK)
        return status;
    if (!reader_done(&decoder.reader))
        return fail_invalid(&decoder, "the request is malformed or cut off");
    return DS_OK;
}

void
queue_request_fini(struct queue_request *request)
{
    free(request->keys.items);
    free(request->blocks.ids);
    free(request->blocks.ends);
    free(request->blocks.fields.items);
    free(request->blocks.column_bytes);
    free(request->tags.items);
    free(request->select.items);
    *request = (struct queue_request){0};
}
