/* queue_check(): every invariant that the headers state, found again from the rows. */
#include "queue/internal.h"

#include "base/check.h"

#include <stdlib.h>

/* What the rows say, to be compared with what the queue keeps. */
struct tally {
    struct queue *queue;
    uint64_t rows;
    uint64_t tag_bytes;
    uint64_t bytes;
    uint64_t live_bytes;
    uint32_t *live_rows;   /* By block number. */
    uint8_t *index_in_use; /* By row index. */
};

static void
check_entry(struct tally *tally, const struct entry *entry)
{
    const struct block_table *blocks = &tally->queue->blocks;
    DS_ASSERT(entry->block.value < blocks->count);
    const struct block *block = blocks_get(blocks, entry->block);
    DS_ASSERT(block != NULL);
    DS_ASSERT(entry->row < block->row_count);
    DS_ASSERT(!field_set_is_empty(entry->fields));
    struct field_set inside;
    enum ds_status status = fields_intersect(&tally->queue->fields, entry->fields,
                                             block->fields, &inside, NULL);
    DS_ASSERT(status == DS_OK);
    DS_ASSERT(field_set_equal(inside, entry->fields));
    tally->live_rows[entry->block.value]++;
}

static void
check_row(struct tally *tally, const struct row *row)
{
    struct queue *queue = tally->queue;
    uint32_t members = 0;
    for (uint32_t i = 0; i < row->entry_count; i++) {
        uint32_t count;
        check_entry(tally, &row->entries[i]);
        fields_members(&queue->fields, row->entries[i].fields, &count);
        members += count;
        struct field_set inside;
        enum ds_status status = fields_intersect(&queue->fields, row->entries[i].fields,
                                                 row->produced, &inside, NULL);
        DS_ASSERT(status == DS_OK);
        DS_ASSERT(field_set_equal(inside, row->entries[i].fields));
    }
    uint32_t produced;
    fields_members(&queue->fields, row->produced, &produced);
    DS_ASSERT(members == produced); /* With the above: disjoint, and their union. */
    DS_ASSERT(row->entry_count <= row->entry_capacity);
    DS_ASSERT(row->index < queue->indexes.next);
    DS_ASSERT(!tally->index_in_use[row->index]);
    tally->index_in_use[row->index] = 1;
    tally->tag_bytes += row->tags == NULL ? 0 : row->tags->len;
    tally->rows++;
}

static void
check_partitions(struct tally *tally)
{
    size_t partitions = 0;
    LIST_FOREACH (link, &tally->queue->partitions) {
        struct partition *partition = CONTAINER_OF(link, struct partition, link);
        uint64_t rows_before = tally->rows;
        LIST_FOREACH (row_link, &partition->order)
            check_row(tally, CONTAINER_OF(row_link, struct row, link));
        DS_ASSERT(tally->rows - rows_before == partition->rows.count);
        partitions++;
    }
    DS_ASSERT(partitions == tally->queue->partitions_by_name.count);
}

static void
check_blocks(struct tally *tally)
{
    const struct block_table *blocks = &tally->queue->blocks;
    size_t live = 0;
    for (uint32_t i = 0; i < blocks->count; i++) {
        const struct block *block = blocks->blocks[i];
        if (block == NULL)
            continue;
        DS_ASSERT(block->number.value == i);
        DS_ASSERT(block->live_rows > 0);
        DS_ASSERT(block->live_rows == tally->live_rows[i]);
        DS_ASSERT(block->doomed_rows == 0);
        DS_ASSERT(list_is_empty(&block->doomed_link));
        DS_ASSERT(block->live_bytes <= block->bytes);
        tally->bytes += block->bytes;
        tally->live_bytes += block->live_bytes;
        live++;
    }
    DS_ASSERT(live == blocks->by_id.count);
    DS_ASSERT(live + blocks->free_count == blocks->count);
    DS_ASSERT(tally->bytes == blocks->bytes);
    DS_ASSERT(tally->live_bytes == blocks->live_bytes);
}

static void
check_indexes(const struct tally *tally)
{
    const struct index_pool *pool = &tally->queue->indexes;
    for (uint32_t i = 0; i < pool->count; i++) {
        uint32_t index = pool->free[(pool->head + (uint64_t)i) % pool->capacity];
        DS_ASSERT(index < pool->next);
        DS_ASSERT(!tally->index_in_use[index]);
        tally->index_in_use[index] = 1;
    }
    DS_ASSERT(tally->rows + pool->count == pool->next);
    DS_ASSERT(pool->next <= pool->capacity);
}

void
queue_check(struct queue *queue)
{
    struct tally tally = {.queue = queue};
    tally.live_rows = calloc(queue->blocks.count + 1u, sizeof *tally.live_rows);
    tally.index_in_use = calloc(queue->indexes.next + 1u, 1);
    if (tally.live_rows != NULL && tally.index_in_use != NULL) {
        fields_check(&queue->fields);
        check_partitions(&tally);
        check_blocks(&tally);
        check_indexes(&tally);
        DS_ASSERT(tally.rows == queue->row_count);
        DS_ASSERT(tally.tag_bytes == queue->tag_bytes);
    }
    free(tally.live_rows);
    free(tally.index_in_use);
}
