/* All that the queue knows, as records of a journal, and back: what a long journal comes
 * to. Bodies are MessagePack:
 *
 *   FIELDS   [name...] [[number of a name...]...]      sets 1, 2, ... of these names
 *   INDEXES  next [free index...]                      in the order of their reuse
 *   BLOCKS   {id keys_hash rows set backend [bytes of a column...]}...
 *   ROWS     partition {key index tags [{block row set}...]}...   as tags a map, or nil
 *   PAST     {id refused}...                           the oldest first
 *   DEAD     id...                                     still to be deleted
 *   REPLIES  {client number reply}...                  the least recently seen first
 *   END      configuration-or-nil [counter...] rows blocks
 *
 * in this order, each kind but the first and the last in as many records as it takes.
 * Blocks are numbered from 0 in the order in which they come. Pure. */
#ifndef QUEUE_SNAPSHOT_H
#define QUEUE_SNAPSHOT_H

#include "queue/queue.h"
#include "queue/record.h"
#include "queue/replies.h"

/* Takes one record's body, which is borrowed. An error ends snapshot_write(). */
typedef enum ds_status (*snapshot_fn)(enum record_type type, struct ds_slice body,
                                      void *arg, struct ds_error *err);

/* What it is made of. Borrowed. */
struct snapshot_source {
    const struct queue *queue;
    const struct replies *replies;
    const struct ds_block_id
        *deleting;         /* Blocks that the queue's holder has taken off */
    size_t deleting_count; /* as dead, and not deleted yet. */
};

/* Gives the records in order. DS_NO_MEMORY, and what `emit` gives. */
DS_MUST_USE enum ds_status
snapshot_write(const struct snapshot_source *source, snapshot_fn emit, void *arg,
               struct ds_error *err);

static inline bool
snapshot_has(enum record_type type)
{
    return type >= SNAPSHOT_FIELDS && type <= SNAPSHOT_END;
}

/* Applies one record. The first is for a queue that nothing was done to. After an error
 * the queue can only be destroyed.
 *   DS_INVALID     it is no snapshot, or does not fit what came before
 *   DS_NO_MEMORY */
DS_MUST_USE enum ds_status
snapshot_read(struct queue *queue, struct replies *replies, enum record_type type,
              struct ds_slice body, struct ds_error *err);

#endif
