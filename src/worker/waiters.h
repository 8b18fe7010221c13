/* Lookups that are parked until all their keys are there, or their time is up. Nothing
 * polls: a seal wakes who waits for its key. */
#ifndef WORKER_WAITERS_H
#define WORKER_WAITERS_H

#include "worker/session.h"

/* Park a lookup some of whose keys are missing; they are copied, as is the body. `answer`
 * is called once, when nothing is missing or after wait_ms, unless the session closes first.
 * `left_ms`: so much of the wait is left, since it is to be looked for elsewhere; else 0.
 *   DS_NO_MEMORY
 *   DS_FULL        too much of this session waits already */
typedef void (*waiter_answer_fn)(struct session *session,
                                 const struct frame_header *header,
                                 struct ds_slice body, uint32_t left_ms);
DS_MUST_USE enum ds_status
waiters_park(struct session *session, const struct frame_header *header,
             struct ds_slice body, uint32_t wait_ms, const struct ds_slice *missing,
             size_t missing_count, waiter_answer_fn answer, struct ds_error *err);

/* NULL: it has appeared. Or it does not come, and who waits for it finds `why` in its
 * session when it is answered. */
void waiters_key_settled(struct worker *worker, struct ds_slice key,
                         const struct ds_error *why);

/* Where keys are to be looked for has changed: all look again that wait for an answer by
 * `answer`. */
void waiters_look_again(struct worker *worker, waiter_answer_fn answer);

/* The session is closing. */
void waiters_drop(struct session *session);

#endif
