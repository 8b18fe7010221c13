#include "queue/block.h"

#include "queue/hash.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>

static uint64_t
hash_id(const struct ds_block_id *id)
{
    return hash_bytes(id->bytes, sizeof id->bytes);
}

static bool
id_equal(const struct ds_block_id *a, const struct ds_block_id *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

enum ds_status
blocks_init(struct block_table *table, struct ds_error *err)
{
    *table = (struct block_table){0};
    list_init(&table->dead);
    table->past = calloc(QUEUE_PAST_BLOCKS_MAX, sizeof *table->past);
    if (table->past == NULL ||
        !hmap_reserve(&table->past_by_id, QUEUE_PAST_BLOCKS_MAX)) {
        blocks_fini(table);
        return ds_fail(err, DS_NO_MEMORY, "out of memory for the table of blocks");
    }
    return DS_OK;
}

void
blocks_fini(struct block_table *table)
{
    for (uint32_t i = 0; i < table->count; i++)
        block_destroy(table->blocks[i]);
    if (table->dead.next != NULL) {
        LIST_FOREACH (link, &table->dead)
            block_destroy(CONTAINER_OF(link, struct block, link));
    }
    hmap_fini(&table->by_id);
    hmap_fini(&table->past_by_id);
    free(table->blocks);
    free(table->free_numbers);
    free(table->past);
    *table = (struct block_table){0};
}

struct block *
blocks_find(const struct block_table *table, const struct ds_block_id *id)
{
    uint64_t hash = hash_id(id);
    struct hmap_node *node = hmap_chain(&table->by_id, hash);
    for (; node != NULL; node = node->next) {
        struct block *block = CONTAINER_OF(node, struct block, node);
        if (node->hash == hash && id_equal(&block->id, id))
            return block;
    }
    return NULL;
}

/* Room for `count` more blocks in every array. */
static bool
reserve(struct block_table *table, uint32_t count)
{
    if (!hmap_reserve(&table->by_id, table->by_id.count + count))
        return false;
    uint32_t fresh = count <= table->free_count ? 0 : count - table->free_count;
    if (fresh <= table->capacity - table->count)
        return true;
    uint32_t wanted = (uint32_t)max_u64(2ull * table->capacity, table->count + fresh);
    wanted = (uint32_t)max_u64(wanted, 256);
    struct block **blocks = realloc(table->blocks, wanted * sizeof(struct block *));
    if (blocks == NULL)
        return false;
    table->blocks = blocks;
    uint32_t *numbers = realloc(table->free_numbers, wanted * sizeof *numbers);
    if (numbers == NULL)
        return false;
    table->free_numbers = numbers;
    table->capacity = wanted;
    return true;
}

/* Interns the request's fields. `numbers` has room for all. */
static enum ds_status
intern_fields(struct field_table *fields, const struct blocks_request *request,
              struct field_no *numbers, struct field_set *out, struct ds_error *err)
{
    uint32_t count = (uint32_t)request->fields.count;
    for (uint32_t i = 0; i < count; i++) {
        enum ds_status status =
            fields_intern(fields, request->fields.items[i], &numbers[i], err);
        if (status != DS_OK)
            return status;
    }
    struct field_set set;
    enum ds_status status = fields_make_set(fields, numbers, count, &set, err);
    if (status != DS_OK)
        return status;
    uint32_t distinct;
    fields_members(fields, set, &distinct);
    if (distinct != count)
        return ds_fail(err, DS_INVALID, "kv_put: the block names a field twice");
    *out = set;
    return DS_OK;
}

static uint32_t
find_member(const struct field_no *members, uint32_t count, struct field_no field)
{
    uint32_t low = 0;
    while (count > 1) {
        uint32_t half = count / 2;
        if (members[low + half].value <= field.value)
            low += half;
        count -= half;
    }
    DS_ASSERT(members[low].value == field.value);
    return low;
}

/* Sizes come in the order of the request; they are kept in that of the set. */
static void
order_column_bytes(struct block *block, const struct field_table *fields,
                   const struct blocks_request *request, const uint64_t *column_bytes)
{
    uint32_t count;
    const struct field_no *members = fields_members(fields, block->fields, &count);
    for (uint32_t i = 0; i < count; i++) {
        struct field_no field;
        bool found = fields_find(fields, request->fields.items[i], &field);
        DS_ASSERT(found);
        block->column_bytes[find_member(members, count, field)] = column_bytes[i];
        block->bytes += column_bytes[i];
    }
}

/* NULL when out of memory. The sizes of the columns are still to be set. */
static struct block *
create(const struct ds_block_id *id, uint32_t row_count, size_t columns,
       struct ds_slice backend)
{
    DS_ASSERT(row_count > 0);
    struct block *block =
        malloc(sizeof *block + columns * sizeof(uint64_t) + backend.len);
    if (block == NULL)
        return NULL;
    *block = (struct block){
        .id = *id,
        .row_count = row_count,
        .backend_len = (uint32_t)backend.len,
        .backend = (char *)&block->column_bytes[columns],
    };
    if (backend.len > 0)
        memcpy(block->backend, backend.data, backend.len);
    list_init(&block->link);
    list_init(&block->doomed_link);
    return block;
}

static bool
create_all(const struct blocks_request *request, struct block **out)
{
    for (uint32_t i = 0; i < request->count; i++) {
        uint32_t row_count = request->ends[i] - blocks_request_first(request, i);
        out[i] = create(&request->ids[i], row_count, request->fields.count,
                        request->backend);
        if (out[i] != NULL)
            continue;
        for (; i > 0; i--) {
            block_destroy(out[i - 1]);
            out[i - 1] = NULL;
        }
        return false;
    }
    return true;
}

enum ds_status
blocks_prepare(struct block_table *table, struct field_table *fields,
               const struct blocks_request *request, struct block **out,
               struct ds_error *err)
{
    struct field_no numbers[DS_BLOCK_PARTS_MAX];
    DS_ASSERT(request->fields.count <= DS_BLOCK_PARTS_MAX);
    struct field_set set = {0};
    enum ds_status status = intern_fields(fields, request, numbers, &set, err);
    if (status != DS_OK)
        return status;
    if (!reserve(table, request->count) || !create_all(request, out))
        return ds_fail(err, DS_NO_MEMORY, "out of memory for %u blocks",
                       request->count);
    for (uint32_t i = 0; i < request->count; i++) {
        DS_ASSERT(blocks_find(table, &request->ids[i]) == NULL);
        out[i]->fields = set;
        order_column_bytes(out[i], fields, request,
                           request->column_bytes + i * request->fields.count);
    }
    return DS_OK;
}

void
blocks_add(struct block_table *table, struct block *block)
{
    if (table->free_count > 0)
        block->number.value = table->free_numbers[--table->free_count];
    else
        block->number.value = table->count++;
    DS_ASSERT(table->count <= table->capacity);
    table->blocks[block->number.value] = block;
    table->bytes += block->bytes;
    bool inserted = hmap_insert(&table->by_id, &block->node, hash_id(&block->id));
    DS_ASSERT(inserted);
}

bool
blocks_restore(struct block_table *table, const struct block_image *image)
{
    struct block *block =
        reserve(table, 1)
            ? create(&image->id, image->row_count, image->column_count, image->backend)
            : NULL;
    if (block == NULL)
        return false;
    block->keys_hash = image->keys_hash;
    block->fields = image->fields;
    for (uint32_t i = 0; i < image->column_count; i++) {
        block->column_bytes[i] = image->column_bytes[i];
        block->bytes += image->column_bytes[i];
    }
    blocks_add(table, block);
    return true;
}

bool
blocks_restore_dead(struct block_table *table, const struct ds_block_id *id)
{
    struct block *block = create(id, 1, 0, (struct ds_slice){0});
    if (block == NULL)
        return false;
    list_push_back(&table->dead, &block->link);
    table->dead_count++;
    return true;
}

void
block_destroy(struct block *block)
{
    free(block);
}

/* What one row with these fields is worth: its part of the columns, rounded down. */
static uint64_t
row_share(const struct field_table *fields, struct block *block, struct field_set set)
{
    if (field_set_equal(set, block->share_of))
        return block->share_bytes;
    uint32_t count;
    uint32_t columns;
    const struct field_no *members = fields_members(fields, set, &count);
    const struct field_no *all = fields_members(fields, block->fields, &columns);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        bytes += block->column_bytes[find_member(all, columns, members[i])];
    block->share_of = set;
    block->share_bytes = bytes / block->row_count;
    return block->share_bytes;
}

static void
bury(struct block_table *table, struct block *block)
{
    DS_ASSERT(block->live_bytes == 0);
    hmap_remove(&table->by_id, &block->node);
    list_remove(&block->doomed_link);
    table->blocks[block->number.value] = NULL;
    table->bytes -= block->bytes;
    table->free_numbers[table->free_count++] = block->number.value;
    list_push_back(&table->dead, &block->link);
    table->dead_count++;
    blocks_remember(table, &block->id, false);
}

void
blocks_account(struct block_table *table, const struct field_table *fields,
               struct block *block, struct field_set before, struct field_set after)
{
    if (!field_set_is_empty(before)) {
        uint64_t share = row_share(fields, block, before);
        DS_ASSERT(block->live_rows > 0);
        DS_ASSERT(block->live_bytes >= share);
        block->live_rows--;
        block->live_bytes -= share;
        table->live_bytes -= share;
    }
    if (!field_set_is_empty(after)) {
        uint64_t share = row_share(fields, block, after);
        block->live_rows++;
        block->live_bytes += share;
        table->live_bytes += share;
    }
    if (block->live_rows == 0)
        bury(table, block);
}

bool
blocks_peek_dead(const struct block_table *table, struct ds_block_id *out)
{
    if (list_is_empty(&table->dead))
        return false;
    *out = CONTAINER_OF(table->dead.next, struct block, link)->id;
    return true;
}

void
blocks_pop_dead(struct block_table *table)
{
    DS_ASSERT(!list_is_empty(&table->dead));
    struct block *block = CONTAINER_OF(table->dead.next, struct block, link);
    list_remove(&block->link);
    table->dead_count--;
    block_destroy(block);
}

static struct past_block *
find_past(const struct block_table *table, const struct ds_block_id *id)
{
    uint64_t hash = hash_id(id);
    struct hmap_node *node = hmap_chain(&table->past_by_id, hash);
    for (; node != NULL; node = node->next) {
        struct past_block *past = CONTAINER_OF(node, struct past_block, node);
        if (node->hash == hash && id_equal(&past->id, id))
            return past;
    }
    return NULL;
}

const struct past_block *
blocks_find_past(const struct block_table *table, const struct ds_block_id *id)
{
    return find_past(table, id);
}

void
blocks_remember(struct block_table *table, const struct ds_block_id *id,
                bool is_refused)
{
    if (find_past(table, id) != NULL)
        return; /* What happened first counts. */
    struct past_block *slot = &table->past[table->past_next];
    table->past_next = (table->past_next + 1) % QUEUE_PAST_BLOCKS_MAX;
    if (slot->is_used)
        hmap_remove(&table->past_by_id, &slot->node);
    *slot = (struct past_block){.id = *id, .is_used = true, .is_refused = is_refused};
    bool inserted = hmap_insert(&table->past_by_id, &slot->node, hash_id(id));
    DS_ASSERT(inserted);
}
