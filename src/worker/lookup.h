/* LOOKUP and FETCH: users' keys, and blocks' parts and objects by their names. */
#ifndef WORKER_LOOKUP_H
#define WORKER_LOOKUP_H

#include "wire/message.h"
#include "worker/waiters.h"

/* The live object under a key of `message`, which says of what kind its keys are. False
 * if there is none. */
bool lookup_find(struct worker *worker, const struct lookup *message,
                 struct ds_slice key, struct object_view *out);

/* The object of that name, or a copy of it. */
bool lookup_find_named(struct worker *worker, const struct object_name *name,
                       struct object_view *out);

/* Answers a lookup of users' keys, or parks it for `wait_ms`. A waiter_answer_fn: where the
 * keys are has changed, or time is up. */
void lookup_user_keys(struct session *session, const struct frame_header *header,
                      struct ds_slice body, uint32_t wait_ms);

/* Answers a lookup of blocks, and of objects by their names, when what can be fetched has been;
 * what may be on another node waits `wait_ms` until it is known which ones there are: as long as
 * a client has time, and not at all for another worker, which asks elsewhere then. A
 * waiter_answer_fn, as above. */
void lookup_known_blocks(struct session *session, const struct frame_header *header,
                         struct ds_slice body, uint32_t wait_ms);

/* Calls `on_there` when all that can be fetched from other nodes has been.
 *   DS_NO_MEMORY
 *   DS_FULL        too much of this session waits already; in both cases it is not called */
DS_MUST_USE enum ds_status
lookup_blocks(struct session *session, const struct frame_header *header,
              struct ds_slice body, waiter_answer_fn on_there, struct ds_error *err);

/* Answers with what is there now. */
void lookup_answer(struct session *session, const struct frame_header *header,
                   struct ds_slice body, uint32_t left_ms);

#endif
