/* kv_get: which rows there are, which fields they share, and where the cells are. */
#include "queue/hash.h"
#include "queue/internal.h"

#include "wire/msgpack.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>

/* A get while it is answered. The groups are a division of `wanted` such that every
 * row has all fields of a group in one entry. Owner: queue_apply_get(). */
struct get {
    struct queue *queue;
    const struct queue_request *request;
    struct row **rows; /* Those found, in the order asked for; the array is owned. */
    size_t row_count;
    struct field_set wanted;
    struct field_no *sorted;  /* `wanted` by name; owned. */
    uint32_t *positions;      /* In `sorted`, by field number; owned. */
    struct field_set *groups; /* Owned. */
    uint32_t group_count;
    struct writer blocks; /* Of the group being written, */
    struct writer runs;
    uint32_t block_count; /* and how many of each. */
    size_t run_count;
};

static enum ds_status
fail_memory(const struct get *get, struct ds_error *err)
{
    return ds_fail(err, DS_NO_MEMORY, "kv_get: out of memory for %zu rows",
                   get->request->keys.count);
}

static void
get_fini(struct get *get)
{
    free(get->rows);
    free(get->sorted);
    free(get->positions);
    free(get->groups);
    writer_fini(&get->blocks);
    writer_fini(&get->runs);
}

static enum ds_status
find_rows(struct get *get, struct ds_error *err)
{
    const struct slice_list *keys = &get->request->keys;
    struct partition *partition =
        queue_find_partition(get->queue, get->request->partition);
    get->rows = calloc(keys->count + 1, sizeof(struct row *));
    if (get->rows == NULL)
        return fail_memory(get, err);
    for (size_t i = 0; partition != NULL && i < keys->count; i++) {
        struct row *row =
            partition_find(partition, keys->items[i], hash_slice(keys->items[i]));
        if (row != NULL)
            get->rows[get->row_count++] = row;
    }
    if (get->row_count == 0)
        return ds_fail(err, DS_NOT_FOUND, "keys or partition were not found!");
    return DS_OK;
}

/* The fields that every row has. */
static enum ds_status
find_common(struct get *get, struct ds_error *err)
{
    DS_ASSERT(get->rows[0] != NULL);
    get->wanted = get->rows[0]->produced;
    for (size_t i = 1; i < get->row_count; i++) {
        enum ds_status status =
            fields_intersect(&get->queue->fields, get->wanted, get->rows[i]->produced,
                             &get->wanted, err);
        if (status != DS_OK)
            return status;
    }
    if (field_set_is_empty(get->wanted))
        return ds_fail(err, DS_NOT_READY,
                       "Some fields are not ready in all the requested keys!");
    return DS_OK;
}

/* The selected fields that exist at all, as a set. */
static enum ds_status
find_selected(struct get *get, struct field_set *out, struct ds_error *err)
{
    const struct slice_list *select = &get->request->select;
    struct field_no *numbers = calloc(select->count + 1, sizeof *numbers);
    if (numbers == NULL)
        return fail_memory(get, err);
    uint32_t count = 0;
    for (size_t i = 0; i < select->count; i++)
        count += fields_find(&get->queue->fields, select->items[i], &numbers[count]);
    enum ds_status status =
        fields_make_set(&get->queue->fields, numbers, count, out, err);
    free(numbers);
    return status;
}

static enum ds_status
narrow_to_selected(struct get *get, struct ds_error *err)
{
    if (!get->request->has_select)
        return DS_OK;
    struct field_set selected;
    enum ds_status status = find_selected(get, &selected, err);
    if (status != DS_OK)
        return status;
    return fields_intersect(&get->queue->fields, get->wanted, selected, &get->wanted,
                            err);
}

/* Divides every group that lies partly in `fields`. */
static enum ds_status
divide_groups(struct get *get, struct field_set fields, struct ds_error *err)
{
    struct field_table *table = &get->queue->fields;
    for (uint32_t i = 0; i < get->group_count; i++) {
        struct field_set group = get->groups[i];
        struct field_set inside;
        struct field_set outside;
        enum ds_status status = fields_intersect(table, group, fields, &inside, err);
        if (status != DS_OK)
            return status;
        if (field_set_is_empty(inside) || field_set_equal(inside, group))
            continue;
        status = fields_subtract(table, group, fields, &outside, err);
        if (status != DS_OK)
            return status;
        get->groups[i] = inside;
        get->groups[get->group_count++] = outside;
    }
    return DS_OK;
}

static enum ds_status
find_groups(struct get *get, struct ds_error *err)
{
    get->groups[0] = get->wanted;
    get->group_count = field_set_is_empty(get->wanted) ? 0 : 1;
    for (size_t i = 0; i < get->row_count; i++) {
        const struct row *row = get->rows[i];
        if (i > 0 && row_same_shape(row, get->rows[i - 1]))
            continue;
        for (uint32_t j = 0; j < row->entry_count; j++) {
            enum ds_status status = divide_groups(get, row->entries[j].fields, err);
            if (status != DS_OK)
                return status;
        }
    }
    return DS_OK;
}

/* Memory for everything that is counted by fields. */
static enum ds_status
sort_fields(struct get *get, struct ds_error *err)
{
    const struct field_table *table = &get->queue->fields;
    uint32_t count;
    fields_members(table, get->wanted, &count);
    get->sorted = calloc(count + 1, sizeof *get->sorted);
    get->groups = calloc(count + 1, sizeof *get->groups);
    get->positions = calloc(table->name_count + 1, sizeof *get->positions);
    if (get->sorted == NULL || get->groups == NULL || get->positions == NULL)
        return fail_memory(get, err);
    fields_sort_by_name(table, get->wanted, get->sorted);
    for (uint32_t i = 0; i < count; i++)
        get->positions[get->sorted[i].value] = i;
    return DS_OK;
}

/* The positions (in keys) of the rows that exist; nil when all do. */
static void
write_found(const struct get *get, struct writer *reply)
{
    const struct slice_list *keys = &get->request->keys;
    if (get->row_count == keys->count) {
        msgpack_write_nil(reply);
        return;
    }
    msgpack_write_array(reply, get->row_count);
    size_t next = 0;
    for (size_t i = 0; next < get->row_count; i++) {
        DS_ASSERT(i < keys->count);
        if (!slice_equal(keys->items[i], row_key(get->rows[next])))
            continue;
        msgpack_write_uint(reply, i);
        next++;
    }
}

/* The entry that holds all fields of the group. */
static uint32_t
find_entry(struct get *get, const struct row *row, struct field_set group)
{
    for (uint32_t i = 0; i < row->entry_count; i++) {
        struct field_set inside;
        enum ds_status status = fields_intersect(&get->queue->fields, group,
                                                 row->entries[i].fields, &inside, NULL);
        DS_ASSERT(status == DS_OK); /* divide_groups() left only what it computed. */
        if (field_set_equal(inside, group))
            return i;
    }
    DS_ASSERT(false);
    return 0;
}

/* The number that the block has within the group. */
static uint32_t
number_block(struct get *get, struct block_no number)
{
    struct block *block = blocks_get(&get->queue->blocks, number);
    if (block->seen_in == get->queue->serial)
        return block->seen_as;
    block->seen_in = get->queue->serial;
    block->seen_as = get->block_count++;
    msgpack_write_array(&get->blocks, 2);
    msgpack_write_bin(&get->blocks, slice(block->id.bytes, sizeof block->id.bytes));
    msgpack_write_str(&get->blocks, slice(block->backend, block->backend_len));
    return block->seen_as;
}

static void
write_run(struct get *get, struct block_no block, uint32_t first, uint32_t count)
{
    msgpack_write_uint(&get->runs, number_block(get, block));
    msgpack_write_uint(&get->runs, first);
    msgpack_write_uint(&get->runs, count);
    get->run_count++;
}

/* Finds blocks and runs of one group. */
static void
trace_group(struct get *get, struct field_set group)
{
    get->queue->serial++; /* Blocks are numbered anew. */
    writer_clear(&get->blocks);
    writer_clear(&get->runs);
    get->block_count = 0;
    get->run_count = 0;
    struct entry run = {0};
    uint32_t run_rows = 0;
    uint32_t at = 0;
    for (size_t i = 0; i < get->row_count; i++) {
        const struct row *row = get->rows[i];
        if (i == 0 || !row_same_shape(row, get->rows[i - 1]))
            at = find_entry(get, row, group);
        const struct entry *entry = &row->entries[at];
        bool continues = run_rows > 0 && entry->block.value == run.block.value &&
                         entry->row == run.row + run_rows;
        if (!continues && run_rows > 0)
            write_run(get, run.block, run.row, run_rows);
        if (!continues) {
            run = *entry;
            run_rows = 0;
        }
        run_rows++;
    }
    write_run(get, run.block, run.row, run_rows);
}

static enum ds_status
write_group(struct get *get, struct field_set group, struct writer *reply,
            struct ds_error *err)
{
    trace_group(get, group);
    if (get->blocks.failed || get->runs.failed)
        return fail_memory(get, err);
    uint32_t field_count;
    const struct field_no *fields =
        fields_members(&get->queue->fields, group, &field_count);
    msgpack_write_array(reply, 3);
    msgpack_write_array(reply, field_count);
    for (uint32_t i = 0; i < field_count; i++)
        msgpack_write_uint(reply, get->positions[fields[i].value]);
    msgpack_write_array(reply, get->block_count);
    write_bytes(reply, slice(get->blocks.data, get->blocks.len));
    msgpack_write_array(reply, 3 * get->run_count);
    write_bytes(reply, slice(get->runs.data, get->runs.len));
    return DS_OK;
}

static enum ds_status
write_reply(struct get *get, struct writer *reply, struct ds_error *err)
{
    uint32_t field_count;
    fields_members(&get->queue->fields, get->wanted, &field_count);
    msgpack_write_array(reply, 3);
    write_found(get, reply);
    msgpack_write_array(reply, field_count);
    for (uint32_t i = 0; i < field_count; i++)
        msgpack_write_str(reply, fields_name(&get->queue->fields, get->sorted[i]));
    msgpack_write_array(reply, get->group_count);
    for (uint32_t i = 0; i < get->group_count; i++) {
        enum ds_status status = write_group(get, get->groups[i], reply, err);
        if (status != DS_OK)
            return status;
    }
    return queue_check_reply(reply, err);
}

enum ds_status
queue_apply_get(struct queue *queue, const struct queue_request *request,
                struct writer *reply, struct ds_error *err)
{
    struct get get = {.queue = queue, .request = request};
    enum ds_status status = find_rows(&get, err);
    if (status == DS_OK)
        status = find_common(&get, err);
    if (status == DS_OK)
        status = narrow_to_selected(&get, err);
    if (status == DS_OK)
        status = sort_fields(&get, err);
    if (status == DS_OK)
        status = find_groups(&get, err);
    if (status == DS_OK)
        status = write_reply(&get, reply, err);
    if (status == DS_OK) {
        queue->counters.gets++;
        queue->counters.get_rows += get.row_count;
    }
    get_fini(&get);
    return status;
}
