/* Applying the journal's records to a queue, as they were applied the first time. Pure.
 */
#ifndef QUEUE_REPLAY_H
#define QUEUE_REPLAY_H

#include "queue/queue.h"
#include "queue/record.h"
#include "queue/replies.h"

/* DS_NO_MEMORY, or any other status: the record does not belong to what came before. */
DS_MUST_USE enum ds_status
replay_record(struct queue *queue, struct replies *replies, const struct record *record,
              struct ds_error *err);

#endif
