#include "queue/queue.h"

#include "queue/hash.h"
#include "queue/internal.h"

#include "wire/msgpack.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>

struct queue_limits
queue_limits_default(void)
{
    return (struct queue_limits){
        .partitions_max = 1u << 20,
        .rows_max = 1u << 26,
        .fields_max = 1u << 16,
        .field_set_members_max = 1u << 24,
        .row_tag_bytes_max = 1u << 20,
        .tag_bytes_max = UINT64_C(1) << 34,
    };
}

enum ds_status
queue_create(const struct queue_options *options, struct queue **out,
             struct ds_error *err)
{
    DS_ASSERT(options->limits.rows_max > 0);
    AUTO(queue) struct queue *queue = calloc(1, sizeof *queue);
    if (queue == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for the queue");
    queue->limits = options->limits;
    queue->reports_dead = options->reports_dead;
    list_init(&queue->partitions);
    list_init(&queue->blocks.dead);
    struct field_limits field_limits = {
        .names_max = options->limits.fields_max,
        .members_max = options->limits.field_set_members_max,
    };
    enum ds_status status = fields_init(&queue->fields, &field_limits, err);
    if (status == DS_OK)
        status = blocks_init(&queue->blocks, err);
    if (status != DS_OK)
        return status;
    *out = TAKE(queue);
    return DS_OK;
}

void
queue_destroy(struct queue *queue)
{
    if (queue == NULL)
        return;
    LIST_FOREACH (link, &queue->partitions)
        partition_destroy(CONTAINER_OF(link, struct partition, link));
    hmap_fini(&queue->partitions_by_name);
    index_pool_fini(&queue->indexes);
    blocks_fini(&queue->blocks);
    fields_fini(&queue->fields);
    writer_fini(&queue->scratch);
    free(queue->config);
    free(queue);
}

struct partition *
queue_find_partition(const struct queue *queue, struct ds_slice name)
{
    uint64_t hash = hash_slice(name);
    struct hmap_node *node = hmap_chain(&queue->partitions_by_name, hash);
    for (; node != NULL; node = node->next) {
        struct partition *partition = CONTAINER_OF(node, struct partition, node);
        if (node->hash == hash && slice_equal(partition_name(partition), name))
            return partition;
    }
    return NULL;
}

void
doom_init(struct doom *doom)
{
    *doom = (struct doom){0};
    list_init(&doom->touched);
}

void
doom_entry(struct doom *doom, struct block *block)
{
    if (block->doomed_rows == 0)
        list_push_back(&doom->touched, &block->doomed_link);
    block->doomed_rows++;
    DS_ASSERT(block->doomed_rows <= block->live_rows);
    if (block->doomed_rows == block->live_rows)
        doom->dead_count++;
}

void
doom_fini(struct doom *doom)
{
    LIST_FOREACH (link, &doom->touched) {
        CONTAINER_OF(link, struct block, doomed_link)->doomed_rows = 0;
        list_remove(link);
    }
}

void
queue_write_dead(const struct queue *queue, const struct doom *doom,
                 struct writer *reply)
{
    if (!queue->reports_dead) {
        msgpack_write_array(reply, 0);
        return;
    }
    msgpack_write_array(reply, doom->dead_count);
    LIST_FOREACH (link, &doom->touched) {
        const struct block *block = CONTAINER_OF(link, struct block, doomed_link);
        if (block->doomed_rows == block->live_rows)
            msgpack_write_bin(reply, slice(block->id.bytes, sizeof block->id.bytes));
    }
}

enum ds_status
queue_check_reply(const struct writer *reply, struct ds_error *err)
{
    if (!reply->failed)
        return DS_OK;
    return ds_fail(err, DS_NO_MEMORY, "out of memory for a reply of over %zu bytes",
                   reply->len);
}

enum ds_status
queue_write_field_names(const struct queue *queue, struct field_set set,
                        struct writer *reply, struct ds_error *err)
{
    uint32_t count;
    fields_members(&queue->fields, set, &count);
    struct field_no *sorted = calloc(count + 1, sizeof *sorted);
    if (sorted == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for %u names of fields",
                       count);
    fields_sort_by_name(&queue->fields, set, sorted);
    msgpack_write_array(reply, count);
    for (uint32_t i = 0; i < count; i++)
        msgpack_write_str(reply, fields_name(&queue->fields, sorted[i]));
    free(sorted);
    return DS_OK;
}

static void
list_partition(const struct partition *partition, struct writer *reply)
{
    msgpack_write_str(reply, partition_name(partition));
    msgpack_write_map(reply, partition->rows.count);
    LIST_FOREACH (link, &partition->order) {
        const struct row *row = CONTAINER_OF(link, struct row, link);
        msgpack_write_str(reply, row_key(row));
        write_bytes(reply, tags_slice(row->tags));
    }
}

void
queue_apply_list(struct queue *queue, const struct queue_request *request,
                 struct writer *reply)
{
    if (request->has_partition) {
        const struct partition *partition =
            queue_find_partition(queue, request->partition);
        msgpack_write_map(reply, partition != NULL);
        if (partition != NULL)
            list_partition(partition, reply);
        return;
    }
    msgpack_write_map(reply, queue->partitions_by_name.count);
    LIST_FOREACH (link, &queue->partitions)
        list_partition(CONTAINER_OF(link, struct partition, link), reply);
}

bool
queue_set_config(struct queue *queue, struct ds_slice config)
{
    uint8_t *copy = malloc(config.len + 1);
    if (copy == NULL)
        return false;
    if (config.len > 0)
        memcpy(copy, config.data, config.len);
    free(queue->config);
    queue->config = copy;
    queue->config_len = config.len;
    queue->has_config = true;
    return true;
}

static enum ds_status
set_config(struct queue *queue, struct ds_slice config, struct writer *reply,
           struct ds_error *err)
{
    msgpack_write_nil(reply);
    if (reply->failed || !queue_set_config(queue, config))
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a configuration");
    return DS_OK;
}

bool
queue_config(const struct queue *queue, struct ds_slice *out)
{
    if (!queue->has_config)
        return false;
    *out = slice(queue->config, queue->config_len);
    return true;
}

static void
write_config(const struct queue *queue, struct writer *reply)
{
    struct ds_slice config;
    if (queue_config(queue, &config))
        msgpack_write_bin(reply, config);
    else
        msgpack_write_nil(reply);
}

static void
write_stats(const struct queue *queue, struct writer *reply)
{
    const struct queue_counters *counters = &queue->counters;
    const struct {
        const char *name;
        uint64_t value;
    } stats[] = {
        {"partitions", queue->partitions_by_name.count},
        {"rows", queue->row_count},
        {"indexes_reusable", queue->indexes.count},
        {"fields", queue->fields.name_count},
        {"field_sets", queue->fields.set_count - 1},
        {"tag_bytes", queue->tag_bytes},
        {"blocks", queue->blocks.by_id.count},
        {"blocks_bytes", queue->blocks.bytes},
        {"blocks_live_bytes", queue->blocks.live_bytes},
        {"blocks_dead_waiting", queue->blocks.dead_count},
        {"puts", counters->puts},
        {"put_rows", counters->put_rows},
        {"repeated_puts", counters->repeated_puts},
        {"gets", counters->gets},
        {"get_rows", counters->get_rows},
        {"cleared_rows", counters->cleared_rows},
        {"moved_rows", counters->moved_rows},
    };
    size_t count = sizeof stats / sizeof stats[0];
    msgpack_write_map(reply, count);
    for (size_t i = 0; i < count; i++) {
        msgpack_write_str(reply, slice_of_text(stats[i].name));
        msgpack_write_uint(reply, stats[i].value);
    }
}

static enum ds_status
dispatch(struct queue *queue, const struct queue_request *request, struct writer *reply,
         struct ds_error *err)
{
    switch (request->operation) {
    case QUEUE_KV_PUT:
        return queue_apply_put(queue, request, reply, err);
    case QUEUE_KV_GET:
        return queue_apply_get(queue, request, reply, err);
    case QUEUE_KV_CLEAR:
        return queue_apply_clear(queue, request, reply, err);
    case QUEUE_KV_MOVE:
        return queue_apply_move(queue, request, reply, err);
    case QUEUE_SPARSE_BLOCKS:
        return queue_apply_sparse_blocks(queue, request, reply, err);
    case QUEUE_CONFIG_SET:
        return set_config(queue, request->config, reply, err);
    case QUEUE_PURGE:
    case QUEUE_SHUTDOWN:
        return queue_apply_purge(queue, reply, err);
    case QUEUE_KV_LIST:
        queue_apply_list(queue, request, reply);
        break;
    case QUEUE_CONFIG_GET:
        write_config(queue, reply);
        break;
    case QUEUE_STATS:
        write_stats(queue, reply);
        break;
    case QUEUE_OPERATION_COUNT:
        DS_ASSERT(request->operation < QUEUE_OPERATION_COUNT);
    }
    return queue_check_reply(reply, err);
}

enum ds_status
queue_apply(struct queue *queue, const struct queue_request *request,
            struct writer *reply, struct ds_error *err)
{
    DS_ASSERT(reply->len == 0);
    queue->serial++;
    enum ds_status status = dispatch(queue, request, reply, err);
    while (queue->reports_dead && !list_is_empty(&queue->blocks.dead))
        blocks_pop_dead(&queue->blocks);
    if (DS_CHECKS_ON)
        queue_check(queue);
    return status;
}

bool
queue_operation_changes(enum queue_operation operation)
{
    return operation == QUEUE_KV_PUT || operation == QUEUE_KV_CLEAR ||
           operation == QUEUE_KV_MOVE || operation == QUEUE_CONFIG_SET ||
           operation == QUEUE_PURGE || operation == QUEUE_SHUTDOWN;
}

void
queue_each_block(const struct queue *queue, queue_block_fn visit, void *arg)
{
    for (uint32_t i = 0; i < queue->blocks.count; i++) {
        if (queue->blocks.blocks[i] != NULL)
            visit(&queue->blocks.blocks[i]->id, arg);
    }
}

bool
queue_knows_block(const struct queue *queue, const struct ds_block_id *id)
{
    return blocks_find(&queue->blocks, id) != NULL;
}

bool
queue_refuse_block(struct queue *queue, const struct ds_block_id *id)
{
    if (queue_knows_block(queue, id))
        return true;
    blocks_remember(&queue->blocks, id, true);
    return false;
}

bool
queue_peek_dead(const struct queue *queue, struct ds_block_id *out)
{
    return blocks_peek_dead(&queue->blocks, out);
}

void
queue_pop_dead(struct queue *queue)
{
    blocks_pop_dead(&queue->blocks);
}

bool
queue_is_loading(const struct queue *queue)
{
    return queue->is_loading;
}
