/* The decoder of a queue's requests: refuses with a text, or gives a request that keeps
 * every limit of queue/request.h. */
#include "fuzz.h"

#include "queue/request.h"

static void
check_names(const struct slice_list *names)
{
    DS_ASSERT(names->count <= QUEUE_KEYS_MAX);
    for (size_t i = 0; i < names->count; i++) {
        DS_ASSERT(names->items[i].len > 0);
        DS_ASSERT(names->items[i].len <= QUEUE_NAME_BYTES_MAX);
    }
}

/* Every block has rows, and together they have all keys. */
static void
check_blocks(const struct blocks_request *blocks, size_t key_count)
{
    uint64_t total = 0;
    check_names(&blocks->fields);
    DS_ASSERT(blocks->count > 0 && blocks->count <= QUEUE_PUT_BLOCKS_MAX);
    DS_ASSERT(blocks->fields.count > 0);
    DS_ASSERT(blocks->backend.len <= QUEUE_BACKEND_BYTES_MAX);
    for (size_t i = 0; i < blocks->count * blocks->fields.count; i++)
        total += blocks->column_bytes[i];
    DS_ASSERT(total < QUEUE_BLOCK_BYTES_MAX);
    for (uint32_t i = 0; i < blocks->count; i++)
        DS_ASSERT(blocks_request_first(blocks, i) < blocks->ends[i]);
    DS_ASSERT(blocks->ends[blocks->count - 1] == key_count);
}

static void
check_request(const struct queue_request *request)
{
    DS_ASSERT(request->operation < QUEUE_OPERATION_COUNT);
    DS_ASSERT(queue_operation_name(request->operation) != NULL);
    DS_ASSERT(request->partition.len <= QUEUE_NAME_BYTES_MAX);
    DS_ASSERT(request->config.len <= QUEUE_CONFIG_BYTES_MAX);
    check_names(&request->keys);
    check_names(&request->select);
    DS_ASSERT(request->tags.count == 0 || request->tags.count == request->keys.count);
    if (request->has_blocks)
        check_blocks(&request->blocks, request->keys.count);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ds_error err = {0};
    AUTO_QUEUE_REQUEST(request);
    enum ds_status status = queue_request_decode(slice(data, size), &request, &err);
    if (status == DS_OK) {
        check_request(&request);
        return 0;
    }
    DS_ASSERT(status == DS_INVALID || status == DS_NO_MEMORY);
    DS_ASSERT(err.status == status);
    DS_ASSERT(err.message[0] != '\0');
    return 0;
}
