/* The blocks that rows refer to, as 32-bit numbers, with what of them is still live;
 * and the blocks of the past.
 *
 * A block comes with its put and stays while any row has an entry in it. When the last
 * entry goes the block is dead: its number is free again, its id waits in the list of
 * the dead until somebody takes it to delete the bytes. Ids of dead and of refused
 * blocks are remembered for a while (QUEUE_PAST_BLOCKS_MAX), so that a put that arrives
 * late is recognised: the one was applied long ago, the other must not be any more.
 *
 * Invariants: blocks[n]->number is n; live_rows is the number of entries that name the
 * block, and live_bytes the sum of their shares; bytes and live_bytes of the table are
 * the sums over blocks. Owner: the queue. */
#ifndef QUEUE_BLOCK_H
#define QUEUE_BLOCK_H

#include "queue/field.h"
#include "queue/request.h"

#include "base/auto.h"
#include "base/list.h"

enum { QUEUE_PAST_BLOCKS_MAX = 65536 };

struct block_no {
    uint32_t value;
};

struct block {
    struct hmap_node node;
    struct list link; /* In the list of the dead. */
    struct ds_block_id id;
    struct block_no number;
    uint64_t keys_hash; /* Of partition and keys of its put, to know it again. */
    uint32_t row_count; /* Of its put; not 0. */
    uint32_t live_rows;
    uint64_t bytes; /* Of all columns. */
    uint64_t live_bytes;
    struct field_set fields;
    struct field_set share_of; /* The set that row_share was last asked for, */
    uint64_t share_bytes;      /* and the answer. */
    struct list doomed_link;   /* In the list of those that this operation touches. */
    uint32_t doomed_rows;      /* Entries that this operation will take away. */
    uint64_t seen_in;          /* Serial of the group of a get that numbered it, */
    uint32_t seen_as;          /* and its number there. */
    uint64_t offered_in;       /* Serial of the sparse_blocks that named it last. */
    uint32_t backend_len;
    char *backend;           /* Behind column_bytes. */
    uint64_t column_bytes[]; /* One per field, in the order of `fields`. */
};

struct past_block {
    struct hmap_node node;
    struct ds_block_id id;
    bool is_used;
    bool is_refused; /* Else it was put, and died. */
};

struct block_table {
    struct hmap by_id;
    struct block **blocks; /* By number; NULL: the number is free. */
    uint32_t *free_numbers;
    uint32_t free_count;
    uint32_t count;    /* Numbers ever given out. */
    uint32_t capacity; /* Of both arrays. */
    uint64_t bytes;
    uint64_t live_bytes;
    struct list dead;
    uint64_t dead_count;
    struct hmap past_by_id;
    struct past_block *past; /* A ring of QUEUE_PAST_BLOCKS_MAX. */
    uint32_t past_next;
};

/* DS_NO_MEMORY. */
DS_MUST_USE enum ds_status blocks_init(struct block_table *table, struct ds_error *err);

/* Accepts a table of zeros. */
void blocks_fini(struct block_table *table);

struct block *
blocks_find(const struct block_table *table, const struct ds_block_id *id);

static inline struct block *
blocks_get(const struct block_table *table, struct block_no number)
{
    return table->blocks[number.value];
}

/* The blocks of this put, which no table knows yet: out[i] is to be handed to blocks_add()
 * or block_destroy(). Also makes sure that adding them all cannot fail. The fields are
 * interned. After a failure `out` is all NULL.
 *   DS_INVALID     a field is named twice
 *   DS_FULL, DS_NO_MEMORY */
DS_MUST_USE enum ds_status
blocks_prepare(struct block_table *table, struct field_table *fields,
               const struct blocks_request *request, struct block **out,
               struct ds_error *err);

/* Takes `block`. It must get its entries before anything else happens. */
void blocks_add(struct block_table *table, struct block *block);

/* A block as a snapshot has it. Borrowed. */
struct block_image {
    struct ds_block_id id;
    uint64_t keys_hash;
    uint32_t row_count; /* Not 0. */
    struct field_set fields;
    struct ds_slice backend;
    const uint64_t *column_bytes; /* In the order of `fields`. */
    uint32_t column_count;
};

/* Adds a block that the table does not know; its number is the next one where none was
 * freed. It must get its entries. False when out of memory. */
bool blocks_restore(struct block_table *table, const struct block_image *image);

/* A block that is still to be deleted; false when out of memory. */
bool blocks_restore_dead(struct block_table *table, const struct ds_block_id *id);

/* For a block that was not added. Accepts NULL. */
void block_destroy(struct block *block);
DEFINE_AUTO(block, struct block, block_destroy)

/* A row got an entry in the block, or an entry of a row changed its fields; an empty
 * set stands for no entry. After the last entry the block is dead and must not be used.
 */
void
blocks_account(struct block_table *table, const struct field_table *fields,
               struct block *block, struct field_set before, struct field_set after);

/* The id of a dead block that nobody took yet; false when there is none. */
bool blocks_peek_dead(const struct block_table *table, struct ds_block_id *out);
void blocks_pop_dead(struct block_table *table);

/* The id in the memory of past blocks, or NULL. */
const struct past_block *
blocks_find_past(const struct block_table *table, const struct ds_block_id *id);
void blocks_remember(struct block_table *table, const struct ds_block_id *id,
                     bool is_refused);

#endif
