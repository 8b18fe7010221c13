/* Where the queues are whose controllers are connected to this worker.
 *
 *      controller ── QUEUE_SERVE name, addresses ──► kept as long as it is connected,
 *                                                    and told to all members (membership.h)
 *      client     ── QUEUE_FIND name ──► its addresses, or that nobody serves it
 *
 * So a client whose controller is not where it was finds it where it is now, on any node,
 * and any worker finds the controller that knows about a block (orphans.h). */
#ifndef WORKER_QUEUES_H
#define WORKER_QUEUES_H

#include "worker/session.h"

/* Tag of the queue whose controller the session is; 0: none with a name. */
uint16_t queues_tag_of(const struct session *session);

/* Whether some controller that is connected to this worker has a queue with this tag. */
bool queues_have_tag(const struct worker *worker, uint16_t tag);

/* What other members are told: places one behind the other, as many as go into
 * `bytes_max`. */
void queues_encode(const struct worker *worker, struct writer *out, size_t bytes_max);

/* The session is closing: what it serves is not served any more. */
void queues_drop(struct session *session);

#endif
