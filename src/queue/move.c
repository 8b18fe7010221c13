/* kv_move: cells of a block are in another block from now on, with the same values.
 *
 * Whoever is short of room copies the live rows of a block of which most are dead into a
 * new block, and says so here. What was overwritten or cleared since it looked is left
 * as it is: only cells that are still in the old block move. */
#include "queue/hash.h"
#include "queue/internal.h"

#include "wire/msgpack.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>

/* What happens to the row of one key. */
struct moved_row {
    struct row *row;        /* NULL: nothing of it is in the old block. */
    uint32_t entry;         /* That names the old block, */
    struct field_set kept;  /* what stays in it, */
    struct field_set moved; /* and what goes. */
};

/* A move before it is committed. Owner: queue_apply_move(). */
struct move {
    struct queue *queue;
    const struct queue_request *request;
    struct block *from;
    struct block *to;       /* Owned. */
    struct moved_row *rows; /* Per key; owned. */
    uint32_t row_count;     /* Of those with something to move. */
    struct doom doom;
};

static void
move_fini(struct move *move)
{
    block_destroy(move->to);
    free(move->rows);
    doom_fini(&move->doom);
}

static enum ds_status
fail_memory(const struct move *move, struct ds_error *err)
{
    return ds_fail(err, DS_NO_MEMORY, "kv_move: out of memory for %zu rows",
                   move->request->keys.count);
}

/* The row's entry in the old block; false when it has none. */
static bool
find_entry(const struct move *move, const struct row *row, uint32_t *out)
{
    for (uint32_t i = 0; i < row->entry_count; i++) {
        if (row->entries[i].block.value == move->from->number.value) {
            *out = i;
            return true;
        }
    }
    return false;
}

/* Everything that moving one row needs; nothing of it may fail later. */
static enum ds_status
prepare_row(struct move *move, struct row *row, struct moved_row *out,
            struct ds_error *err)
{
    struct field_table *fields = &move->queue->fields;
    uint32_t at;
    if (row == NULL || !find_entry(move, row, &at))
        return DS_OK;
    if (row->seen_in == move->queue->serial)
        return ds_fail(err, DS_INVALID, "Got duplicated keys.");
    row->seen_in = move->queue->serial;
    struct field_set there = row->entries[at].fields;
    enum ds_status status =
        fields_intersect(fields, there, move->to->fields, &out->moved, err);
    if (status == DS_OK)
        status = fields_subtract(fields, there, out->moved, &out->kept, err);
    if (status != DS_OK || field_set_is_empty(out->moved))
        return status;
    if (!row_reserve_entry(row))
        return fail_memory(move, err);
    if (field_set_is_empty(out->kept))
        doom_entry(&move->doom, move->from);
    out->row = row;
    out->entry = at;
    move->row_count++;
    return DS_OK;
}

static enum ds_status
prepare_rows(struct move *move, const struct partition *partition, struct ds_error *err)
{
    const struct slice_list *keys = &move->request->keys;
    move->rows = calloc(keys->count, sizeof *move->rows);
    if (move->rows == NULL)
        return fail_memory(move, err);
    for (size_t i = 0; i < keys->count; i++) {
        struct row *row =
            partition_find(partition, keys->items[i], hash_slice(keys->items[i]));
        enum ds_status status = prepare_row(move, row, &move->rows[i], err);
        if (status != DS_OK)
            return status;
    }
    return DS_OK;
}

static enum ds_status
fail_nothing(struct ds_error *err)
{
    return ds_fail(err, DS_NOT_FOUND,
                   "kv_move: none of these cells is in that block any more");
}

static enum ds_status
prepare(struct move *move, struct ds_error *err)
{
    struct queue *queue = move->queue;
    const struct queue_request *request = move->request;
    const struct partition *partition = queue_find_partition(queue, request->partition);
    move->from = blocks_find(&queue->blocks, &request->from);
    if (partition == NULL || move->from == NULL)
        return fail_nothing(err);
    enum ds_status status = blocks_prepare(&queue->blocks, &queue->fields,
                                           &request->blocks, &move->to, err);
    if (status != DS_OK)
        return status;
    move->to->keys_hash = queue_hash_of_keys(request);
    status = prepare_rows(move, partition, err);
    if (status != DS_OK)
        return status;
    return move->row_count == 0 ? fail_nothing(err) : DS_OK;
}

static void
commit_row(struct move *move, const struct moved_row *moved, struct block *to,
           uint32_t row_in_block)
{
    struct queue *queue = move->queue;
    struct row *row = moved->row;
    struct entry *entry = &row->entries[moved->entry];
    blocks_account(&queue->blocks, &queue->fields, move->from, entry->fields,
                   moved->kept);
    entry->fields = moved->kept;
    if (!field_set_is_empty(moved->kept)) {
        DS_ASSERT(row->entry_count < row->entry_capacity);
        entry = &row->entries[row->entry_count++];
    }
    *entry = (struct entry){
        .block = to->number, .row = row_in_block, .fields = moved->moved};
    blocks_account(&queue->blocks, &queue->fields, to, (struct field_set){0},
                   moved->moved);
}

/* `from` is dead, and gone, once its last entry has moved: no row comes after it. */
static void
commit(struct move *move)
{
    struct block *to = TAKE(move->to);
    blocks_add(&move->queue->blocks, to);
    for (uint32_t i = 0; i < move->request->keys.count; i++) {
        if (move->rows[i].row != NULL)
            commit_row(move, &move->rows[i], to, i);
    }
    move->queue->counters.moved_rows += move->row_count;
}

enum ds_status
queue_apply_move(struct queue *queue, const struct queue_request *request,
                 struct writer *reply, struct ds_error *err)
{
    struct move move = {.queue = queue, .request = request};
    doom_init(&move.doom);
    bool is_repeat;
    enum ds_status status = queue_recognise(queue, request, &is_repeat, err);
    if (status == DS_OK && !is_repeat)
        status = prepare(&move, err);
    if (status == DS_OK) {
        msgpack_write_array(reply, 1);
        queue_write_dead(queue, &move.doom, reply);
        status = queue_check_reply(reply, err);
    }
    if (status == DS_OK && !is_repeat)
        commit(&move);
    move_fini(&move);
    return status;
}
