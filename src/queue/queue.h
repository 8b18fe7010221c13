/* The queue: what transfer_queue_controller knows, as a state machine.
 *
 * A partition holds rows by key. A row has tags and fields; the value of a field is a
 * cell in some block, an immutable run of columns that the queue only knows by its id.
 * Rows refer to blocks through put records ("the fields of this set are in row r of
 * block b"), so what an operation costs depends on puts and rows, never on cells.
 *
 *      bytes ── queue_request_decode ──► request ── queue_apply ──► reply bytes
 *                                                       └──► blocks nobody refers to
 *
 * Every operation is atomic: it is applied whole or, when an error comes back, not at
 * all, also when memory ran out half-way. No system calls, no clock, no randomness: the
 * same requests in the same order give the same replies.
 *
 * Owner: whoever holds it; no locking. */
#ifndef QUEUE_QUEUE_H
#define QUEUE_QUEUE_H

#include "queue/request.h"

#include "wire/cursor.h"

#include "base/auto.h"

struct queue;

/* Reaching one is DS_FULL, with the limit in the text. */
struct queue_limits {
    uint32_t partitions_max;
    uint32_t rows_max;
    uint32_t fields_max;            /* Different names in the whole queue. */
    uint64_t field_set_members_max; /* Of all sets of fields that ever occurred. */
    uint32_t row_tag_bytes_max;
    uint64_t tag_bytes_max; /* Of all rows together. */
};

struct queue_limits queue_limits_default(void);

struct queue_options {
    struct queue_limits limits;
    /* Replies list dead blocks for the caller to delete. Else replies list none, and
     * whoever runs the queue deletes what queue_next_dead() gives. */
    bool reports_dead;
};

/* DS_NO_MEMORY. */
DS_MUST_USE enum ds_status queue_create(const struct queue_options *options,
                                        struct queue **out, struct ds_error *err);

/* Accepts NULL. */
void queue_destroy(struct queue *queue);
DEFINE_AUTO(queue, struct queue, queue_destroy)

/* Apply one request and append its reply to `reply`, which must be empty. kv_get,
 * kv_list, config_get and stats change nothing; config_get answers at once, and
 * shutdown is the same as purge here: waiting and ending are for the caller. On failure
 * the queue is as it was, and what is in `reply` is meaningless. DS_INVALID     the
 * request breaks a rule DS_NOT_FOUND   no such rows, or the put's block was given up
 *   DS_NOT_READY   the rows have no field in common
 *   DS_FULL        a limit of struct queue_limits
 *   DS_NO_MEMORY */
DS_MUST_USE enum ds_status
queue_apply(struct queue *queue, const struct queue_request *request,
            struct writer *reply, struct ds_error *err);

/* Whether a request of this kind may change what the queue knows. */
bool queue_operation_changes(enum queue_operation operation);

/* ---- Blocks ---- */

/* Every block that rows refer to, in no particular order. */
typedef void (*queue_block_fn)(const struct ds_block_id *id, void *arg);
void queue_each_block(const struct queue *queue, queue_block_fn visit, void *arg);

bool queue_knows_block(const struct queue *queue, const struct ds_block_id *id);

/* The writer of this block may be dead before its put arrives. True if the queue knows
 * the block; if not, a put with it is refused from now on (the last 65,536 are
 * remembered). */
bool queue_refuse_block(struct queue *queue, const struct ds_block_id *id);

/* Blocks that no row refers to any more, each exactly once: look at the next one, and
 * take it off once its deletion is seen to. With `reports_dead` the reply has said it
 * already, and there is none. */
bool queue_peek_dead(const struct queue *queue, struct ds_block_id *out);
void queue_pop_dead(struct queue *queue);

/* A snapshot (queue/snapshot.h) was begun and has not come to its end. */
bool queue_is_loading(const struct queue *queue);

/* ---- Configuration ---- */

/* False before the first config_set; borrowed until the next. */
bool queue_config(const struct queue *queue, struct ds_slice *out);

/* Walks everything; aborts on a broken invariant. */
void queue_check(struct queue *queue);

#endif
