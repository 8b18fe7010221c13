#include "queue/snapshot.h"

#include "queue/hash.h"
#include "queue/internal.h"

#include "wire/msgpack.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>

/* One record while it is read. */
struct load {
    struct queue *queue;
    struct replies *replies;
    struct reader reader;
    struct ds_error *err;
};

static enum ds_status
fail_invalid(const struct load *load, const char *what)
{
    return ds_fail(load->err, DS_INVALID, "a snapshot with %s", what);
}

static enum ds_status
fail_memory(const struct load *load)
{
    return ds_fail(load->err, DS_NO_MEMORY, "out of memory for a snapshot");
}

static bool
has_more(const struct load *load)
{
    return reader_ok(&load->reader) && reader_left(&load->reader) > 0;
}

/* A number below `limit`; anything else turns the reader `failed`. */
static uint32_t
read_below(struct load *load, uint64_t limit)
{
    uint64_t value = msgpack_read_uint(&load->reader);
    if (value >= limit)
        load->reader.failed = true;
    return load->reader.failed ? 0 : (uint32_t)value;
}

static bool
read_id(struct load *load, struct ds_block_id *out)
{
    struct ds_slice bytes = msgpack_read_bin(&load->reader);
    if (bytes.len != sizeof out->bytes)
        return false;
    memcpy(out->bytes, bytes.data, sizeof out->bytes);
    return true;
}

/* A text of 1 (or `bytes_min`) to `bytes_max` bytes. */
static bool
read_text(struct load *load, size_t bytes_min, size_t bytes_max, struct ds_slice *out)
{
    *out = msgpack_read_str(&load->reader);
    return reader_ok(&load->reader) && out->len >= bytes_min && out->len <= bytes_max;
}

/* ---- FIELDS ---- */

static bool
is_untouched(const struct load *load)
{
    const struct queue *queue = load->queue;
    return queue->partitions_by_name.count == 0 && queue->fields.name_count == 0 &&
           queue->fields.set_count == 1 && queue->blocks.count == 0 &&
           queue->blocks.past_by_id.count == 0 && queue->indexes.next == 0 &&
           !queue->has_config && replies_count(load->replies) == 0;
}

static enum ds_status
load_names(struct load *load)
{
    uint32_t count = msgpack_read_array(&load->reader);
    for (uint32_t i = 0; i < count; i++) {
        struct ds_slice name;
        struct field_no number;
        if (!read_text(load, 1, QUEUE_NAME_BYTES_MAX, &name))
            return fail_invalid(load, "a field without a name");
        enum ds_status status =
            fields_intern(&load->queue->fields, name, &number, load->err);
        if (status != DS_OK)
            return status;
        if (number.value != i)
            return fail_invalid(load, "a field that is named twice");
    }
    return DS_OK;
}

static enum ds_status
load_set(struct load *load, uint32_t number)
{
    struct field_table *fields = &load->queue->fields;
    uint32_t count = msgpack_read_array(&load->reader);
    struct field_no *members = calloc(count + 1u, sizeof *members);
    if (members == NULL)
        return fail_memory(load);
    for (uint32_t i = 0; i < count; i++)
        members[i].value = read_below(load, fields->name_count);
    struct field_set set = {0};
    enum ds_status status =
        !reader_ok(&load->reader)
            ? fail_invalid(load, "a set of fields that have no name")
            : fields_make_set(fields, members, count, &set, load->err);
    free(members);
    if (status == DS_OK && set.value != number)
        return fail_invalid(load, "a set of fields that is there twice");
    return status;
}

static enum ds_status
load_fields(struct load *load)
{
    if (!is_untouched(load))
        return fail_invalid(load, "something before it");
    load->queue->is_loading = true;
    enum ds_status status = load_names(load);
    uint32_t count = msgpack_read_array(&load->reader);
    for (uint32_t i = 0; status == DS_OK && i < count; i++)
        status = load_set(load, i + 1);
    return status;
}

/* ---- INDEXES ---- */

static enum ds_status
load_indexes(struct load *load)
{
    struct index_pool *pool = &load->queue->indexes;
    uint64_t next_max = (uint64_t)load->queue->limits.rows_max + 1;
    uint32_t next = read_below(load, next_max);
    uint32_t count = msgpack_read_array(&load->reader);
    if (!reader_ok(&load->reader) || (pool->next != 0 && pool->next != next) ||
        load->queue->row_count > 0)
        return fail_invalid(load, "indexes that do not fit");
    if (pool->next == 0) {
        if (!index_pool_reserve(pool, next))
            return fail_memory(load);
        pool->next = next;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = read_below(load, next);
        if (!reader_ok(&load->reader) || pool->count == next)
            return fail_invalid(load, "an index that was never given out");
        index_pool_give(pool, index);
    }
    return DS_OK;
}

/* ---- BLOCKS ---- */

/* Reads the sizes of a block's columns into `out`, which has room for all. */
static bool
read_column_bytes(struct load *load, uint32_t columns, uint64_t *out)
{
    uint64_t total = 0;
    if (msgpack_read_array(&load->reader) != columns)
        return false;
    for (uint32_t i = 0; i < columns; i++) {
        out[i] = msgpack_read_uint(&load->reader);
        if (!reader_ok(&load->reader) || out[i] >= QUEUE_BLOCK_BYTES_MAX - total)
            return false;
        total += out[i];
    }
    return true;
}

static enum ds_status
load_block(struct load *load)
{
    struct queue *queue = load->queue;
    uint64_t column_bytes[DS_BLOCK_PARTS_MAX];
    struct block_image image = {.column_bytes = column_bytes};
    if (!read_id(load, &image.id) || blocks_find(&queue->blocks, &image.id) != NULL)
        return fail_invalid(load, "a block without an id of its own");
    image.keys_hash = msgpack_read_uint(&load->reader);
    image.row_count = read_below(load, (uint64_t)QUEUE_KEYS_MAX + 1);
    image.fields.value = read_below(load, queue->fields.set_count);
    if (!read_text(load, 0, QUEUE_BACKEND_BYTES_MAX, &image.backend) ||
        image.row_count == 0 || field_set_is_empty(image.fields))
        return fail_invalid(load, "a block without rows, or without fields");
    fields_members(&queue->fields, image.fields, &image.column_count);
    if (image.column_count > DS_BLOCK_PARTS_MAX ||
        !read_column_bytes(load, image.column_count, column_bytes))
        return fail_invalid(load, "a block whose columns have no plausible size");
    if (!blocks_restore(&queue->blocks, &image))
        return fail_memory(load);
    return DS_OK;
}

static enum ds_status
load_blocks(struct load *load)
{
    enum ds_status status = DS_OK;
    while (status == DS_OK && has_more(load))
        status = load_block(load);
    return status;
}

/* ---- ROWS ---- */

static struct partition *
add_partition(struct load *load, struct ds_slice name)
{
    struct queue *queue = load->queue;
    struct partition *partition = partition_create(name);
    if (partition == NULL ||
        !hmap_insert(&queue->partitions_by_name, &partition->node, hash_slice(name))) {
        partition_destroy(partition);
        return NULL;
    }
    list_push_back(&queue->partitions, &partition->link);
    return partition;
}

/* The one that rows came for last, or a new one. */
static enum ds_status
open_partition(struct load *load, struct partition **out)
{
    struct queue *queue = load->queue;
    struct ds_slice name;
    if (!read_text(load, 0, QUEUE_NAME_BYTES_MAX, &name))
        return fail_invalid(load, "a partition without a name");
    struct partition *known = queue_find_partition(queue, name);
    if (known != NULL && queue->partitions.prev != &known->link)
        return fail_invalid(load, "a partition that is there twice");
    if (known == NULL &&
        queue->partitions_by_name.count >= queue->limits.partitions_max)
        return fail_invalid(load, "too many partitions");
    *out = known != NULL ? known : add_partition(load, name);
    return *out != NULL ? DS_OK : fail_memory(load);
}

static enum ds_status
load_tags(struct load *load, struct row *row)
{
    struct queue *queue = load->queue;
    if (msgpack_read_nil(&load->reader))
        return DS_OK;
    struct reader pairs = load->reader;
    struct ds_slice raw = msgpack_read_raw(&load->reader);
    uint32_t count = msgpack_read_map(&pairs);
    if (!reader_ok(&load->reader) || !reader_ok(&pairs) || count == 0 ||
        count > QUEUE_TAG_NAMES_MAX)
        return fail_invalid(load, "tags that are no map");
    enum ds_status status = tags_merge(NULL, raw, queue->limits.row_tag_bytes_max,
                                       &queue->scratch, &row->tags, load->err);
    if (status == DS_OK)
        queue->tag_bytes += row->tags->len;
    return status;
}

/* The next entry of `row`, which is in no list yet. */
static enum ds_status
load_entry(struct load *load, struct row *row)
{
    struct queue *queue = load->queue;
    struct field_table *fields = &queue->fields;
    struct entry entry = {.block = {read_below(load, queue->blocks.count)}};
    if (!reader_ok(&load->reader))
        return fail_invalid(load, "a row in a block that is not there");
    struct block *block = blocks_get(&queue->blocks, entry.block);
    entry.row = read_below(load, block->row_count);
    entry.fields.value = read_below(load, fields->set_count);
    if (!reader_ok(&load->reader) || field_set_is_empty(entry.fields) ||
        block->live_rows == block->row_count)
        return fail_invalid(load, "a row that its block does not have");
    struct field_set inside;
    struct field_set repeated;
    enum ds_status status =
        fields_intersect(fields, entry.fields, block->fields, &inside, load->err);
    if (status == DS_OK)
        status =
            fields_intersect(fields, entry.fields, row->produced, &repeated, load->err);
    if (status == DS_OK &&
        (!field_set_equal(inside, entry.fields) || !field_set_is_empty(repeated)))
        return fail_invalid(load,
                            "a row with a field from nowhere, or from two blocks");
    if (status == DS_OK)
        status = fields_unite(fields, row->produced, entry.fields, &row->produced,
                              load->err);
    if (status == DS_OK && !row_reserve_entry(row))
        return fail_memory(load);
    if (status != DS_OK)
        return status;
    row->entries[row->entry_count++] = entry;
    blocks_account(&queue->blocks, fields, block, (struct field_set){0}, entry.fields);
    return DS_OK;
}

static enum ds_status
load_entries(struct load *load, struct row *row)
{
    uint32_t count = msgpack_read_array(&load->reader);
    enum ds_status status = DS_OK;
    for (uint32_t i = 0; status == DS_OK && i < count / 3; i++)
        status = load_entry(load, row);
    if (status == DS_OK && count % 3 != 0)
        return fail_invalid(load, "half of a row's place");
    return status;
}

/* The row is the partition's before it has tags and entries, so that whatever fails, all
 * is freed with the queue. */
static enum ds_status
load_row(struct load *load, struct partition *partition)
{
    struct queue *queue = load->queue;
    struct ds_slice key;
    if (!read_text(load, 1, QUEUE_NAME_BYTES_MAX, &key))
        return fail_invalid(load, "a row without a key");
    uint64_t hash = hash_slice(key);
    if (partition_find(partition, key, hash) != NULL)
        return fail_invalid(load, "a key that is there twice");
    uint32_t index = read_below(load, queue->indexes.next);
    if (!reader_ok(&load->reader) || queue->row_count >= queue->limits.rows_max)
        return fail_invalid(load, "a row without an index");
    struct row *row = row_create(key);
    if (row == NULL || !hmap_insert(&partition->rows, &row->node, hash)) {
        row_destroy(row);
        return fail_memory(load);
    }
    row->index = index;
    list_push_back(&partition->order, &row->link);
    queue->row_count++;
    enum ds_status status = load_tags(load, row);
    return status == DS_OK ? load_entries(load, row) : status;
}

static enum ds_status
load_rows(struct load *load)
{
    struct partition *partition = NULL;
    enum ds_status status = open_partition(load, &partition);
    while (status == DS_OK && has_more(load))
        status = load_row(load, partition);
    return status;
}

/* ---- PAST, DEAD and REPLIES ---- */

static enum ds_status
load_past(struct load *load)
{
    struct block_table *blocks = &load->queue->blocks;
    while (has_more(load)) {
        struct ds_block_id id;
        if (!read_id(load, &id))
            return fail_invalid(load, "a past block without an id");
        bool is_refused = read_below(load, 2) != 0;
        if (!reader_ok(&load->reader) || blocks_find(blocks, &id) != NULL ||
            blocks_find_past(blocks, &id) != NULL)
            return fail_invalid(load, "a past block that is there twice");
        blocks_remember(blocks, &id, is_refused);
    }
    return DS_OK;
}

static enum ds_status
load_dead(struct load *load)
{
    struct block_table *blocks = &load->queue->blocks;
    while (has_more(load)) {
        struct ds_block_id id;
        if (!read_id(load, &id) || blocks_find(blocks, &id) != NULL)
            return fail_invalid(load, "a dead block that is not dead");
        if (!blocks_restore_dead(blocks, &id))
            return fail_memory(load);
    }
    return DS_OK;
}

static enum ds_status
load_replies(struct load *load)
{
    while (has_more(load)) {
        struct request_id id;
        id.client = msgpack_read_uint(&load->reader);
        id.number = msgpack_read_uint(&load->reader);
        struct ds_slice reply = msgpack_read_bin(&load->reader);
        if (!reader_ok(&load->reader) || id.client == 0)
            return fail_invalid(load, "a reply to nobody");
        if (!replies_reserve(load->replies, id))
            return fail_memory(load);
        replies_keep(load->replies, id, reply);
    }
    return DS_OK;
}

/* ---- END ---- */

/* Every index below `next` is a row's or free. */
static enum ds_status
check_indexes(struct load *load)
{
    const struct queue *queue = load->queue;
    const struct index_pool *pool = &queue->indexes;
    uint8_t *seen = calloc(pool->next + 1u, 1);
    uint64_t different = 0;
    if (seen == NULL)
        return fail_memory(load);
    LIST_FOREACH (link, &queue->partitions) {
        const struct partition *partition = CONTAINER_OF(link, struct partition, link);
        LIST_FOREACH (row_link, &partition->order)
            seen[CONTAINER_OF(row_link, struct row, link)->index] = 1;
    }
    for (uint32_t i = 0; i < pool->count; i++)
        seen[pool->free[((uint64_t)pool->head + i) % pool->capacity]] = 1;
    for (uint32_t i = 0; i < pool->next; i++)
        different += seen[i];
    free(seen);
    if (different != pool->next ||
        (uint64_t)queue->row_count + pool->count != pool->next)
        return fail_invalid(load, "an index that is nobody's, or two rows'");
    return DS_OK;
}

static enum ds_status
check_blocks(struct load *load)
{
    const struct block_table *blocks = &load->queue->blocks;
    for (uint32_t i = 0; i < blocks->count; i++) {
        if (blocks->blocks[i]->live_rows == 0)
            return fail_invalid(load, "a block that no row refers to");
    }
    return DS_OK;
}

static enum ds_status
load_end(struct load *load)
{
    struct queue *queue = load->queue;
    struct queue_counters *counters = &queue->counters;
    uint64_t *const values[] = {&counters->puts,          &counters->put_rows,
                                &counters->repeated_puts, &counters->gets,
                                &counters->get_rows,      &counters->cleared_rows};
    size_t count = sizeof values / sizeof values[0];
    struct ds_slice config = {0};
    bool has_config = !msgpack_read_nil(&load->reader);
    if (has_config)
        config = msgpack_read_bin(&load->reader);
    bool fits = msgpack_read_array(&load->reader) == count;
    for (size_t i = 0; fits && i < count; i++)
        *values[i] = msgpack_read_uint(&load->reader);
    uint64_t rows = msgpack_read_uint(&load->reader);
    uint64_t blocks = msgpack_read_uint(&load->reader);
    if (!reader_ok(&load->reader) || !fits || rows != queue->row_count ||
        blocks != queue->blocks.count || config.len > QUEUE_CONFIG_BYTES_MAX)
        return fail_invalid(load, "an end that does not fit");
    if (has_config && !queue_set_config(queue, config))
        return fail_memory(load);
    queue->is_loading = false;
    enum ds_status status = check_blocks(load);
    if (status == DS_OK)
        status = check_indexes(load);
    if (status == DS_OK && DS_CHECKS_ON)
        queue_check(queue);
    return status;
}

/* ---- Any ---- */

enum ds_status
snapshot_read(struct queue *queue, struct replies *replies, enum record_type type,
              struct ds_slice body, struct ds_error *err)
{
    static enum ds_status (*const loads[RECORD_TYPE_COUNT])(struct load * load) = {
        [SNAPSHOT_FIELDS] = load_fields,   [SNAPSHOT_INDEXES] = load_indexes,
        [SNAPSHOT_BLOCKS] = load_blocks,   [SNAPSHOT_ROWS] = load_rows,
        [SNAPSHOT_PAST] = load_past,       [SNAPSHOT_DEAD] = load_dead,
        [SNAPSHOT_REPLIES] = load_replies, [SNAPSHOT_END] = load_end,
    };
    struct load load = {.queue = queue,
                        .replies = replies,
                        .reader = reader_of(body.data, body.len),
                        .err = err};
    if (type != SNAPSHOT_FIELDS && !queue->is_loading)
        return fail_invalid(&load, "no beginning");
    enum ds_status status = loads[type](&load);
    if (status == DS_OK && !reader_done(&load.reader))
        return fail_invalid(&load, "something that is left over");
    return status;
}
