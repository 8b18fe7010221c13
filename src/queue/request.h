/* A request to the queue, as a struct and from MessagePack (docs/queue_protocol.md).
 *
 * Decoding knows the rules that hold for any queue: shapes, lengths, text. Whether a
 * key exists or a limit is reached is for queue_apply(). The two are apart so that a
 * decoded request can be written down and applied again. */
#ifndef QUEUE_REQUEST_H
#define QUEUE_REQUEST_H

#include <datasystem/datasystem.h>

enum queue_operation {
    QUEUE_KV_PUT,
    QUEUE_KV_GET,
    QUEUE_KV_LIST,
    QUEUE_KV_CLEAR,
    QUEUE_KV_MOVE,
    QUEUE_SPARSE_BLOCKS,
    QUEUE_CONFIG_SET,
    QUEUE_CONFIG_GET,
    QUEUE_STATS,
    QUEUE_PURGE,
    QUEUE_SHUTDOWN,
    QUEUE_OPERATION_COUNT
};

enum {
    QUEUE_NAME_BYTES_MAX = 64 << 10, /* Of a key, a partition or a field. */
    QUEUE_BACKEND_BYTES_MAX = 255,   /* Of a backend's name. */
    QUEUE_KEYS_MAX = 4 << 20,        /* In one request. */
    QUEUE_PUT_BLOCKS_MAX = 1024,     /* Of one put. */
    QUEUE_CONFIG_BYTES_MAX = 16 << 20,
    QUEUE_TAG_NAMES_MAX = 1024, /* Of one row: merging compares them all. */
};

/* Bytes of columns are below 2^56, so that sums of 64 columns do not overflow; the sum
 * of a block is checked to be below as well. */
#define QUEUE_BLOCK_BYTES_MAX (UINT64_C(1) << 56)

/* Texts, keys or raw values, borrowed from the request's bytes. Owner of `items`: the
 * request. */
struct slice_list {
    struct ds_slice *items;
    size_t count;
};

/* The blocks of a put, all with the same fields. The put's keys lie in them one after
 * another: row i of block b belongs to key blocks_request_first(b) + i. */
struct blocks_request {
    struct ds_block_id *ids; /* All different; owned. */
    uint32_t *ends; /* Per block, one past the position of its last key; owned. */
    uint32_t count;
    struct ds_slice backend;
    struct slice_list fields;
    uint64_t *column_bytes; /* Of the first block's fields, then the second's; owned. */
};

/* The position of the key that the first row of block `b` belongs to. */
static inline uint32_t
blocks_request_first(const struct blocks_request *request, uint32_t b)
{
    return b == 0 ? 0 : request->ends[b - 1];
}

/* Which members mean something depends on the operation. Everything of struct ds_slice
 * is borrowed from the bytes that were decoded; the arrays are owned, see
 * queue_request_fini(). */
struct queue_request {
    enum queue_operation operation;
    bool has_partition; /* kv_list without one: all of them. */
    struct ds_slice partition;
    struct slice_list keys;
    bool has_blocks;
    struct blocks_request blocks;
    struct ds_block_id from; /* kv_move: the block that the cells are in now. */
    struct ds_slice backend; /* sparse_blocks: of this one, */
    uint64_t wanted_bytes;   /* until so many dead bytes would be freed. */
    struct slice_list tags;  /* None, or a raw map per key; empty slice: no tags. */
    bool has_select;
    struct slice_list select;
    struct ds_slice config;
    uint64_t wait_ms;
};

/* `*out` must be zeroed; whatever comes back, queue_request_fini() frees it.
 *   DS_INVALID     not a request; the text says where
 *   DS_NO_MEMORY */
DS_MUST_USE enum ds_status
queue_request_decode(struct ds_slice bytes, struct queue_request *out,
                     struct ds_error *err);

void queue_request_fini(struct queue_request *request);

/* A request that frees its arrays when it leaves scope. */
#define AUTO_QUEUE_REQUEST(name) \
    __attribute__((cleanup(queue_request_fini))) struct queue_request name = {0}

/* "kv_put" and so on. */
const char *queue_operation_name(enum queue_operation operation);

#endif
