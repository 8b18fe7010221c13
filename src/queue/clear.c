/* kv_clear and purge: rows go, and with them blocks. */
#include "queue/hash.h"
#include "queue/internal.h"

#include "wire/msgpack.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>

static void
doom_row(const struct queue *queue, struct doom *doom, const struct row *row)
{
    for (uint32_t i = 0; i < row->entry_count; i++)
        doom_entry(doom, blocks_get(&queue->blocks, row->entries[i].block));
}

/* Takes the row, which is in `partition`. */
static void
remove_row(struct queue *queue, struct partition *partition, struct row *row)
{
    for (uint32_t i = 0; i < row->entry_count; i++) {
        const struct entry *entry = &row->entries[i];
        blocks_account(&queue->blocks, &queue->fields,
                       blocks_get(&queue->blocks, entry->block), entry->fields,
                       (struct field_set){0});
    }
    hmap_remove(&partition->rows, &row->node);
    list_remove(&row->link);
    index_pool_give(&queue->indexes, row->index);
    queue->tag_bytes -= row->tags == NULL ? 0 : row->tags->len;
    queue->row_count--;
    queue->counters.cleared_rows++;
    row_destroy(row);
}

/* Names of fields outlive their rows only while there are other rows. */
static void
forget_fields_if_empty(struct queue *queue)
{
    if (queue->row_count > 0)
        return;
    DS_ASSERT(queue->blocks.by_id.count == 0);
    DS_ASSERT(queue->tag_bytes == 0);
    fields_reset(&queue->fields);
}

/* The rows of these keys, each once; returns how many. */
static size_t
find_rows(struct queue *queue, const struct partition *partition,
          const struct slice_list *keys, struct row **out)
{
    size_t count = 0;
    for (size_t i = 0; i < keys->count; i++) {
        struct row *row =
            partition_find(partition, keys->items[i], hash_slice(keys->items[i]));
        if (row == NULL || row->seen_in == queue->serial)
            continue;
        row->seen_in = queue->serial;
        out[count++] = row;
    }
    return count;
}

static enum ds_status
clear_rows(struct queue *queue, struct partition *partition, struct row **rows,
           size_t count, struct writer *reply, struct ds_error *err)
{
    struct doom doom;
    doom_init(&doom);
    for (size_t i = 0; i < count; i++)
        doom_row(queue, &doom, rows[i]);
    msgpack_write_array(reply, 1);
    queue_write_dead(queue, &doom, reply);
    enum ds_status status = queue_check_reply(reply, err);
    if (status == DS_OK) {
        for (size_t i = 0; i < count; i++)
            remove_row(queue, partition, rows[i]);
        forget_fields_if_empty(queue);
    }
    doom_fini(&doom);
    return status;
}

enum ds_status
queue_apply_clear(struct queue *queue, const struct queue_request *request,
                  struct writer *reply, struct ds_error *err)
{
    struct partition *partition = queue_find_partition(queue, request->partition);
    if (partition == NULL)
        return clear_rows(queue, NULL, NULL, 0, reply, err);
    struct row **rows = calloc(request->keys.count + 1, sizeof(struct row *));
    if (rows == NULL)
        return ds_fail(err, DS_NO_MEMORY, "kv_clear: out of memory for %zu keys",
                       request->keys.count);
    size_t count = find_rows(queue, partition, &request->keys, rows);
    enum ds_status status = clear_rows(queue, partition, rows, count, reply, err);
    free(rows);
    return status;
}

static void
purge_partition(struct queue *queue, struct partition *partition)
{
    LIST_FOREACH (link, &partition->order)
        remove_row(queue, partition, CONTAINER_OF(link, struct row, link));
    hmap_remove(&queue->partitions_by_name, &partition->node);
    list_remove(&partition->link);
    partition_destroy(partition);
}

static void
forget_everything(struct queue *queue)
{
    LIST_FOREACH (link, &queue->partitions)
        purge_partition(queue, CONTAINER_OF(link, struct partition, link));
    index_pool_fini(&queue->indexes);
    forget_fields_if_empty(queue);
    free(queue->config);
    queue->config = NULL;
    queue->config_len = 0;
    queue->has_config = false;
}

enum ds_status
queue_apply_purge(struct queue *queue, struct writer *reply, struct ds_error *err)
{
    struct doom doom;
    doom_init(&doom);
    LIST_FOREACH (link, &queue->partitions) {
        struct partition *partition = CONTAINER_OF(link, struct partition, link);
        LIST_FOREACH (row_link, &partition->order)
            doom_row(queue, &doom, CONTAINER_OF(row_link, struct row, link));
    }
    msgpack_write_array(reply, 1);
    queue_write_dead(queue, &doom, reply);
    enum ds_status status = queue_check_reply(reply, err);
    if (status == DS_OK)
        forget_everything(queue);
    doom_fini(&doom);
    return status;
}
