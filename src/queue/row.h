/* Rows, and the partitions that hold them by key. */
#ifndef QUEUE_ROW_H
#define QUEUE_ROW_H

#include "queue/block.h"
#include "queue/tags.h"

/* These fields of the row are in row `row` of the block. */
struct entry {
    struct block_no block;
    uint32_t row;
    struct field_set fields;
};

enum { ROW_ENTRIES_INLINE = 2 };

/* Invariants: entries are disjoint, none is empty, and `produced` is their union.
 * Owner: its partition. */
struct row {
    struct hmap_node node;
    struct list link;      /* In the partition's order of insertion. */
    uint64_t seen_in;      /* Serial of the operation that last met the row. */
    struct row_tags *tags; /* Owned; NULL: none. */
    struct entry *entries; /* `inline_entries`, or owned. */
    struct entry inline_entries[ROW_ENTRIES_INLINE];
    uint32_t entry_count;
    uint32_t entry_capacity;
    uint32_t index; /* Among the live rows of the whole queue. */
    struct field_set produced;
    uint32_t key_len;
    char key[];
};

/* NULL when out of memory. Has no index and is in no list yet. */
struct row *row_create(struct ds_slice key);

/* Accepts NULL. The row must be out of map and list. */
void row_destroy(struct row *row);

/* Room for one more entry; false when out of memory. */
bool row_reserve_entry(struct row *row);

struct ds_slice row_key(const struct row *row);

/* Same sets in the same places: what holds for the fields of one holds for the other.
 */
bool row_same_shape(const struct row *a, const struct row *b);

/* Invariant: every row is in both `rows` and `order`. Owner: the queue. */
struct partition {
    struct hmap_node node;
    struct list link; /* In the queue's order of creation. */
    struct hmap rows;
    struct list order;
    uint32_t name_len;
    char name[];
};

/* NULL when out of memory. */
struct partition *partition_create(struct ds_slice name);

/* Frees the rows as well. Accepts NULL. */
void partition_destroy(struct partition *partition);

struct ds_slice partition_name(const struct partition *partition);

struct row *
partition_find(const struct partition *partition, struct ds_slice key, uint64_t hash);

/* Numbers for rows: those given back come again, first in first out, before a number
 * that never was. Invariant: capacity is at least `next`, so that giving back cannot
 * fail. */
struct index_pool {
    uint32_t *free; /* A ring. */
    uint32_t capacity;
    uint32_t head;
    uint32_t count;
    uint32_t next; /* All numbers below were given out at some time. */
};

void index_pool_fini(struct index_pool *pool);

/* Makes sure that `count` numbers can be taken; false when out of memory. */
bool index_pool_reserve(struct index_pool *pool, uint32_t count);
uint32_t index_pool_take(struct index_pool *pool);
void index_pool_give(struct index_pool *pool, uint32_t index);

#endif
