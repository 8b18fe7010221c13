/* kv_put: everything is built aside first, then joined to the queue in a step that
 * cannot fail. */
#include "queue/hash.h"
#include "queue/internal.h"

#include "wire/msgpack.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>

/* A put before it is committed. New rows are in the map of their partition already, to
 * be found when a key comes twice, but in no list: that is what tells them apart.
 * Owner: queue_apply_put(). */
struct put {
    struct queue *queue;
    const struct queue_request *request;
    struct partition *partition;
    struct partition *new_partition; /* Owned; NULL: the partition exists. */
    struct row **rows;               /* Per key; the array is owned. */
    struct row_tags **tags;          /* Per key, owned; NULL: tags stay as they are. */
    struct block **blocks;   /* Owned, with those that are not NULL; NULL: only tags. */
    struct field_set added;  /* The blocks' fields. */
    struct field_set common; /* What all rows have produced in the end. */
    uint32_t new_rows;
    uint64_t tag_bytes; /* Of the whole queue in the end. */
    uint64_t keys_hash;
    struct doom doom;
};

static bool
is_new(const struct row *row)
{
    return list_is_empty(&row->link);
}

static enum ds_status
fail_memory(const struct put *put, struct ds_error *err)
{
    return ds_fail(err, DS_NO_MEMORY, "kv_put: out of memory for %zu rows",
                   put->request->keys.count);
}

/* Undoes what was built and not committed; frees the rest. */
static void
put_fini(struct put *put)
{
    size_t count = put->request->keys.count;
    for (size_t i = 0; put->rows != NULL && i < count; i++) {
        if (put->rows[i] == NULL || !is_new(put->rows[i]))
            continue;
        hmap_remove(&put->partition->rows, &put->rows[i]->node);
        row_destroy(put->rows[i]);
    }
    for (size_t i = 0; put->tags != NULL && i < count; i++)
        tags_free(put->tags[i]);
    partition_destroy(put->new_partition);
    for (uint32_t i = 0; put->blocks != NULL && i < put->request->blocks.count; i++)
        block_destroy(put->blocks[i]);
    free(put->blocks);
    doom_fini(&put->doom);
    free(put->rows);
    free(put->tags);
}

static enum ds_status
open_partition(struct put *put, struct ds_error *err)
{
    struct queue *queue = put->queue;
    put->partition = queue_find_partition(queue, put->request->partition);
    if (put->partition != NULL)
        return DS_OK;
    size_t count = queue->partitions_by_name.count;
    if (count >= queue->limits.partitions_max)
        return ds_fail(err, DS_FULL,
                       "the queue has %zu partitions, the most it may; use fewer names",
                       count);
    put->new_partition = partition_create(put->request->partition);
    put->partition = put->new_partition;
    if (put->partition == NULL || !hmap_reserve(&queue->partitions_by_name, count + 1))
        return fail_memory(put, err);
    return DS_OK;
}

/* Finds or makes the row of one key. */
static enum ds_status
meet_row(struct put *put, struct ds_slice key, struct row **out, struct ds_error *err)
{
    uint64_t hash = hash_slice(key);
    put->keys_hash = hash_combine(put->keys_hash, hash);
    struct row *row = partition_find(put->partition, key, hash);
    if (row != NULL && row->seen_in == put->queue->serial)
        return ds_fail(err, DS_INVALID, "Got duplicated keys.");
    if (row == NULL) {
        row = row_create(key);
        if (row == NULL)
            return fail_memory(put, err);
        bool inserted = hmap_insert(&put->partition->rows, &row->node, hash);
        DS_ASSERT(inserted);
        put->new_rows++;
    }
    row->seen_in = put->queue->serial;
    *out = row;
    return DS_OK;
}

static enum ds_status
meet_rows(struct put *put, struct ds_error *err)
{
    const struct slice_list *keys = &put->request->keys;
    put->rows = calloc(keys->count, sizeof(struct row *));
    if (put->rows == NULL ||
        !hmap_reserve(&put->partition->rows, put->partition->rows.count + keys->count))
        return fail_memory(put, err);
    put->keys_hash = hash_slice(put->request->partition);
    for (size_t i = 0; i < keys->count; i++) {
        enum ds_status status = meet_row(put, keys->items[i], &put->rows[i], err);
        if (status != DS_OK)
            return status;
    }
    uint64_t rows = (uint64_t)put->queue->row_count + put->new_rows;
    if (rows > put->queue->limits.rows_max)
        return ds_fail(err, DS_FULL,
                       "the queue would have %ju rows; at most %u are allowed, clear "
                       "rows that are done with",
                       (uintmax_t)rows, put->queue->limits.rows_max);
    if (!index_pool_reserve(&put->queue->indexes, put->new_rows))
        return fail_memory(put, err);
    return DS_OK;
}

static enum ds_status
merge_tags(struct put *put, struct ds_error *err)
{
    struct queue *queue = put->queue;
    const struct slice_list *added = &put->request->tags;
    put->tags = calloc(put->request->keys.count, sizeof(struct row_tags *));
    if (put->tags == NULL)
        return fail_memory(put, err);
    put->tag_bytes = queue->tag_bytes;
    for (size_t i = 0; i < added->count; i++) {
        if (added->items[i].len == 0)
            continue;
        DS_ASSERT(put->rows[i] != NULL);
        const struct row_tags *old = put->rows[i]->tags;
        enum ds_status status =
            tags_merge(old, added->items[i], queue->limits.row_tag_bytes_max,
                       &queue->scratch, &put->tags[i], err);
        if (status != DS_OK)
            return status;
        put->tag_bytes += put->tags[i]->len;
        put->tag_bytes -= old == NULL ? 0 : old->len;
    }
    if (put->tag_bytes > queue->limits.tag_bytes_max)
        return ds_fail(err, DS_FULL,
                       "the tags of all rows would come to %ju bytes; at most %ju are "
                       "allowed, clear rows that are done with",
                       (uintmax_t)put->tag_bytes,
                       (uintmax_t)queue->limits.tag_bytes_max);
    return DS_OK;
}

static enum ds_status
prepare_blocks(struct put *put, struct ds_error *err)
{
    const struct blocks_request *request = &put->request->blocks;
    if (!put->request->has_blocks)
        return DS_OK;
    put->blocks = calloc(request->count, sizeof(struct block *));
    if (put->blocks == NULL)
        return fail_memory(put, err);
    enum ds_status status = blocks_prepare(&put->queue->blocks, &put->queue->fields,
                                           request, put->blocks, err);
    if (status != DS_OK)
        return status;
    for (uint32_t i = 0; i < request->count; i++)
        put->blocks[i]->keys_hash = put->keys_hash;
    put->added = put->blocks[0]->fields;
    return DS_OK;
}

/* Everything that the new entry of this row needs, and the fields it has then. */
static enum ds_status
prepare_row(struct put *put, struct row *row, struct field_set *out_produced,
            struct ds_error *err)
{
    DS_ASSERT(row != NULL);
    struct queue *queue = put->queue;
    for (uint32_t i = 0; i < row->entry_count; i++) {
        struct entry *entry = &row->entries[i];
        struct field_set kept = {0};
        enum ds_status status =
            fields_subtract(&queue->fields, entry->fields, put->added, &kept, err);
        if (status != DS_OK)
            return status;
        if (field_set_is_empty(kept))
            doom_entry(&put->doom, blocks_get(&queue->blocks, entry->block));
    }
    if (put->blocks != NULL && !row_reserve_entry(row))
        return fail_memory(put, err);
    return fields_unite(&queue->fields, row->produced, put->added, out_produced, err);
}

static enum ds_status
prepare_rows(struct put *put, struct ds_error *err)
{
    for (size_t i = 0; i < put->request->keys.count; i++) {
        struct field_set produced = {0};
        enum ds_status status = prepare_row(put, put->rows[i], &produced, err);
        if (status != DS_OK)
            return status;
        if (i == 0)
            put->common = produced;
        status = fields_intersect(&put->queue->fields, put->common, produced,
                                  &put->common, err);
        if (status != DS_OK)
            return status;
    }
    return DS_OK;
}

static enum ds_status
write_reply(const struct put *put, struct writer *reply, struct ds_error *err)
{
    size_t count = put->request->keys.count;
    msgpack_write_array(reply, 3);
    msgpack_write_array(reply, count);
    for (size_t i = 0; i < count; i++) {
        const struct row_tags *tags =
            put->tags[i] != NULL ? put->tags[i] : put->rows[i]->tags;
        write_bytes(reply, tags_slice(tags));
    }
    enum ds_status status =
        queue_write_field_names(put->queue, put->common, reply, err);
    if (status != DS_OK)
        return status;
    queue_write_dead(put->queue, &put->doom, reply);
    return queue_check_reply(reply, err);
}

/* Takes the new blocks' fields out of the row's older entries. */
static void
shrink_entries(struct put *put, struct row *row)
{
    struct queue *queue = put->queue;
    uint32_t kept_count = 0;
    for (uint32_t i = 0; i < row->entry_count; i++) {
        struct entry entry = row->entries[i];
        struct field_set before = entry.fields;
        enum ds_status status =
            fields_subtract(&queue->fields, before, put->added, &entry.fields, NULL);
        DS_ASSERT(status == DS_OK); /* prepare_row() did it once. */
        if (!field_set_equal(before, entry.fields))
            blocks_account(&queue->blocks, &queue->fields,
                           blocks_get(&queue->blocks, entry.block), before,
                           entry.fields);
        if (!field_set_is_empty(entry.fields))
            row->entries[kept_count++] = entry;
    }
    row->entry_count = kept_count;
}

/* Row `row_in_block` of the block belongs to the put's key `i`. */
static void
commit_entry(struct put *put, struct block *block, uint32_t row_in_block, uint32_t i)
{
    struct queue *queue = put->queue;
    struct row *row = put->rows[i];
    shrink_entries(put, row);
    DS_ASSERT(row->entry_count < row->entry_capacity);
    row->entries[row->entry_count++] = (struct entry){
        .block = block->number,
        .row = row_in_block,
        .fields = put->added,
    };
    blocks_account(&queue->blocks, &queue->fields, block, (struct field_set){0},
                   put->added);
    enum ds_status status =
        fields_unite(&queue->fields, row->produced, put->added, &row->produced, NULL);
    DS_ASSERT(status == DS_OK);
}

static void
commit_block(struct put *put, uint32_t at)
{
    const struct blocks_request *request = &put->request->blocks;
    struct block *block = TAKE(put->blocks[at]);
    uint32_t first = blocks_request_first(request, at);
    blocks_add(&put->queue->blocks, block);
    for (uint32_t i = first; i < request->ends[at]; i++)
        commit_entry(put, block, i - first, i);
}

static void
commit_row(struct put *put, size_t i)
{
    struct row *row = put->rows[i];
    if (is_new(row)) {
        row->index = index_pool_take(&put->queue->indexes);
        list_push_back(&put->partition->order, &row->link);
        put->queue->row_count++;
    }
    if (put->tags[i] != NULL) {
        tags_free(row->tags);
        row->tags = TAKE(put->tags[i]);
    }
}

static void
commit_partition(struct put *put)
{
    struct partition *partition = TAKE(put->new_partition);
    if (partition == NULL)
        return;
    struct queue *queue = put->queue;
    bool inserted = hmap_insert(&queue->partitions_by_name, &partition->node,
                                hash_slice(partition_name(partition)));
    DS_ASSERT(inserted);
    list_push_back(&queue->partitions, &partition->link);
}

static void
commit(struct put *put)
{
    struct queue *queue = put->queue;
    size_t count = put->request->keys.count;
    commit_partition(put);
    for (size_t i = 0; i < count; i++)
        commit_row(put, i);
    queue->tag_bytes = put->tag_bytes;
    for (uint32_t i = 0; put->blocks != NULL && i < put->request->blocks.count; i++)
        commit_block(put, i);
    queue->counters.puts++;
    queue->counters.put_rows += count;
}

static enum ds_status
prepare(struct put *put, struct ds_error *err)
{
    enum ds_status status = open_partition(put, err);
    if (status == DS_OK)
        status = meet_rows(put, err);
    if (status == DS_OK)
        status = merge_tags(put, err);
    if (status == DS_OK)
        status = prepare_blocks(put, err);
    if (status == DS_OK)
        status = prepare_rows(put, err);
    return status;
}

/* The reply to a put that was applied before: how its rows are now. */
static enum ds_status
reply_to_repeat(struct queue *queue, const struct queue_request *request,
                struct writer *reply, struct ds_error *err)
{
    const struct slice_list *keys = &request->keys;
    struct partition *partition = queue_find_partition(queue, request->partition);
    struct field_set common = {0};
    msgpack_write_array(reply, 3);
    msgpack_write_array(reply, keys->count);
    for (size_t i = 0; i < keys->count; i++) {
        uint64_t hash = hash_slice(keys->items[i]);
        struct row *row =
            partition == NULL ? NULL : partition_find(partition, keys->items[i], hash);
        struct field_set produced = row == NULL ? (struct field_set){0} : row->produced;
        if (i == 0)
            common = produced;
        enum ds_status status =
            fields_intersect(&queue->fields, common, produced, &common, err);
        if (status != DS_OK)
            return status;
        write_bytes(reply, tags_slice(row == NULL ? NULL : row->tags));
    }
    enum ds_status status = queue_write_field_names(queue, common, reply, err);
    if (status != DS_OK)
        return status;
    msgpack_write_array(reply, 0);
    queue->counters.repeated_puts++;
    return queue_check_reply(reply, err);
}

uint64_t
queue_hash_of_keys(const struct queue_request *request)
{
    uint64_t hash = hash_slice(request->partition);
    for (size_t i = 0; i < request->keys.count; i++)
        hash = hash_combine(hash, hash_slice(request->keys.items[i]));
    return hash;
}

enum ds_status
queue_recognise(const struct queue *queue, const struct queue_request *request,
                bool *out_is_repeat, struct ds_error *err)
{
    const struct blocks_request *blocks = &request->blocks;
    const struct block *known = NULL;
    bool is_refused = false;
    *out_is_repeat = false;
    for (uint32_t i = 0; request->has_blocks && i < blocks->count; i++) {
        const struct block *block = blocks_find(&queue->blocks, &blocks->ids[i]);
        const struct past_block *past =
            blocks_find_past(&queue->blocks, &blocks->ids[i]);
        known = block != NULL ? block : known;
        is_refused = is_refused || (past != NULL && past->is_refused);
        *out_is_repeat = *out_is_repeat || block != NULL || past != NULL;
    }
    if (known != NULL && known->keys_hash != queue_hash_of_keys(request))
        return ds_fail(err, DS_INVALID,
                       "%s: this block was put before, with other keys; a block "
                       "can be put once",
                       queue_operation_name(request->operation));
    if (is_refused)
        return ds_fail(err, DS_NOT_FOUND,
                       "%s: its block was given up, because the process that wrote "
                       "it was taken for dead before the put arrived; put the data "
                       "again",
                       queue_operation_name(request->operation));
    return DS_OK;
}

enum ds_status
queue_apply_put(struct queue *queue, const struct queue_request *request,
                struct writer *reply, struct ds_error *err)
{
    DS_ASSERT(request->keys.count > 0);
    bool is_repeat;
    enum ds_status status = queue_recognise(queue, request, &is_repeat, err);
    if (status != DS_OK)
        return status;
    if (is_repeat)
        return reply_to_repeat(queue, request, reply, err);

    struct put put = {.queue = queue, .request = request};
    doom_init(&put.doom);
    status = prepare(&put, err);
    if (status == DS_OK)
        status = write_reply(&put, reply, err);
    if (status == DS_OK)
        commit(&put);
    put_fini(&put);
    return status;
}
