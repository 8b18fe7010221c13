/* sparse_blocks: which blocks are worth copying together, and what of them is live.
 *
 * Rows know their blocks and not the other way round, so this walks over all rows, once
 * for all the blocks that it names. It is asked for by those who found no room. */
#include "queue/internal.h"

#include "wire/msgpack.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>

enum {
    BLOCKS_MAX = 64, /* In one reply, */
    ROWS_MAX = 65536,
    OFFER_AGAIN = 1000, /* Operations until a block is named again: whoever was told of
                         * it needs some time, or is dead. */
};

/* A live row of a block. */
struct live_cell {
    uint32_t block; /* In the list of those named. */
    uint32_t row;   /* In that block. */
    struct field_set fields;
    const struct partition *partition;
    uint32_t partition_order;
    const struct row *of;
};

/* A survey while it is made. Owner: queue_apply_sparse_blocks(). */
struct survey {
    struct queue *queue;
    struct block *blocks[BLOCKS_MAX]; /* Those with the most dead bytes first. */
    uint32_t block_count;
    uint32_t row_count;      /* Live rows of all of them. */
    struct live_cell *cells; /* Owned. */
    uint32_t cell_count;
};

static uint64_t
dead_bytes(const struct block *block)
{
    return block->bytes - block->live_bytes;
}

/* Copying it costs at most as much as it frees. */
static bool
is_sparse(const struct survey *survey, const struct block *block,
          struct ds_slice backend)
{
    bool is_offered = block->offered_in != 0 &&
                      survey->queue->serial - block->offered_in < OFFER_AGAIN;
    return dead_bytes(block) > 0 && block->live_bytes <= dead_bytes(block) &&
           block->live_rows <= ROWS_MAX && !is_offered &&
           slice_equal(slice(block->backend, block->backend_len), backend);
}

/* Keeps the list in order, and short; the last one falls out. */
static void
consider(struct survey *survey, struct block *block)
{
    uint32_t at = survey->block_count;
    if (at == BLOCKS_MAX && dead_bytes(survey->blocks[at - 1]) >= dead_bytes(block))
        return;
    if (at == BLOCKS_MAX)
        at--;
    else
        survey->block_count++;
    for (; at > 0 && dead_bytes(survey->blocks[at - 1]) < dead_bytes(block); at--)
        survey->blocks[at] = survey->blocks[at - 1];
    survey->blocks[at] = block;
}

/* Shortens the list to what is wanted and what fits into a reply, and marks the rest. */
static void
choose(struct survey *survey, uint64_t wanted_bytes)
{
    uint64_t freed = 0;
    uint32_t count = 0;
    while (count < survey->block_count && freed < wanted_bytes &&
           survey->row_count + survey->blocks[count]->live_rows <= ROWS_MAX) {
        struct block *block = survey->blocks[count];
        block->seen_in = survey->queue->serial;
        block->seen_as = count++;
        freed += dead_bytes(block);
        survey->row_count += block->live_rows;
    }
    survey->block_count = count;
}

static void
collect_row(struct survey *survey, const struct partition *partition, uint32_t order,
            const struct row *row)
{
    for (uint32_t i = 0; i < row->entry_count; i++) {
        const struct entry *entry = &row->entries[i];
        const struct block *block = blocks_get(&survey->queue->blocks, entry->block);
        if (block->seen_in != survey->queue->serial)
            continue;
        DS_ASSERT(survey->cell_count < survey->row_count);
        survey->cells[survey->cell_count++] = (struct live_cell){
            .block = block->seen_as,
            .row = entry->row,
            .fields = entry->fields,
            .partition = partition,
            .partition_order = order,
            .of = row,
        };
    }
}

static void
collect(struct survey *survey)
{
    uint32_t order = 0;
    LIST_FOREACH (link, &survey->queue->partitions) {
        const struct partition *partition = CONTAINER_OF(link, struct partition, link);
        order++;
        LIST_FOREACH (row_link, &partition->order) {
            if (survey->cell_count == survey->row_count)
                return;
            collect_row(survey, partition, order,
                        CONTAINER_OF(row_link, struct row, link));
        }
    }
    DS_ASSERT(survey->cell_count == survey->row_count);
}

static int
compare_numbers(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

/* By group, and in a group by the row in the block, so that neighbours stay so. */
static int
compare_cells(const void *left, const void *right)
{
    const struct live_cell *a = left, *b = right;
    int order = compare_numbers(a->block, b->block);
    if (order == 0)
        order = compare_numbers(a->partition_order, b->partition_order);
    if (order == 0)
        order = compare_numbers(a->fields.value, b->fields.value);
    return order != 0 ? order : compare_numbers(a->row, b->row);
}

static bool
is_same_group(const struct live_cell *a, const struct live_cell *b)
{
    return a->block == b->block && a->partition == b->partition &&
           field_set_equal(a->fields, b->fields);
}

/* One past the last cell of the group that begins at `first`. */
static uint32_t
group_end(const struct survey *survey, uint32_t first)
{
    uint32_t end = first + 1;
    while (end < survey->cell_count &&
           is_same_group(&survey->cells[first], &survey->cells[end]))
        end++;
    return end;
}

static enum ds_status
write_group(const struct survey *survey, uint32_t first, uint32_t end,
            struct writer *reply, struct ds_error *err)
{
    const struct live_cell *cells = survey->cells;
    const struct block *block = survey->blocks[cells[first].block];
    msgpack_write_array(reply, 5);
    msgpack_write_bin(reply, slice(block->id.bytes, sizeof block->id.bytes));
    msgpack_write_str(reply, partition_name(cells[first].partition));
    enum ds_status status =
        queue_write_field_names(survey->queue, cells[first].fields, reply, err);
    if (status != DS_OK)
        return status;
    msgpack_write_array(reply, end - first);
    for (uint32_t i = first; i < end; i++)
        msgpack_write_str(reply, row_key(cells[i].of));
    msgpack_write_array(reply, end - first);
    for (uint32_t i = first; i < end; i++)
        msgpack_write_uint(reply, cells[i].row);
    return DS_OK;
}

static enum ds_status
write_groups(const struct survey *survey, struct writer *reply, struct ds_error *err)
{
    uint32_t groups = 0;
    for (uint32_t i = 0; i < survey->cell_count; i = group_end(survey, i))
        groups++;
    msgpack_write_array(reply, groups);
    for (uint32_t i = 0; i < survey->cell_count; i = group_end(survey, i)) {
        enum ds_status status =
            write_group(survey, i, group_end(survey, i), reply, err);
        if (status != DS_OK)
            return status;
    }
    return queue_check_reply(reply, err);
}

static void
note_offers(const struct survey *survey)
{
    for (uint32_t i = 0; i < survey->block_count; i++)
        survey->blocks[i]->offered_in = survey->queue->serial;
}

enum ds_status
queue_apply_sparse_blocks(struct queue *queue, const struct queue_request *request,
                          struct writer *reply, struct ds_error *err)
{
    struct survey survey = {.queue = queue};
    for (uint32_t i = 0; i < queue->blocks.count; i++) {
        struct block *block = queue->blocks.blocks[i];
        if (block != NULL && is_sparse(&survey, block, request->backend))
            consider(&survey, block);
    }
    choose(&survey, request->wanted_bytes);
    survey.cells = calloc(survey.row_count + 1, sizeof *survey.cells);
    if (survey.cells == NULL)
        return ds_fail(err, DS_NO_MEMORY, "sparse_blocks: out of memory for %u rows",
                       survey.row_count);
    collect(&survey);
    qsort(survey.cells, survey.cell_count, sizeof *survey.cells, compare_cells);
    enum ds_status status = write_groups(&survey, reply, err);
    if (status == DS_OK)
        note_offers(&survey);
    free(survey.cells);
    return status;
}
