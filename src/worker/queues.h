/* Where the queues are whose controllers are connected to this worker.
 *
 *      controller ── QUEUE_SERVE name, addresses ──► kept as long as it is connected, and
 *                                                    told to all members (membership.h)
 *      client     ── QUEUE_FIND name ──► its addresses, or that nobody serves it
 *
 * So a client whose controller is not where it was finds it where it is now, on any node,
 * and any worker finds the controller that knows about a block (orphans.h).
 *
 *      [served] ── its connection ends ──► [away] ── nobody listens at its socket ──► gone
 *         │                                  └── another of the queue comes ──► gone
 *         └── JOURNAL_END, its connection ends ──► [ended] ── a minute ──► gone
 *
 * In a cluster, a controller that was killed is away as long as its supervisor has its
 * socket, so that nobody else takes its queue (takeover.h); and one that has ended is known
 * to have, so that nobody waits for it. */
#ifndef WORKER_QUEUES_H
#define WORKER_QUEUES_H

#include "worker/session.h"

/* Tag of the queue whose controller the session is; 0: none with a name. */
uint16_t queues_tag_of(const struct session *session);

/* Whether some controller here has a queue with this tag. */
bool queues_have_tag(const struct worker *worker, uint16_t tag);

/* Term of the controller here that has this queue; 0: there is none. */
uint64_t queues_term(const struct worker *worker, struct ds_slice name);

/* The place of the queue with the highest term that this worker knows of, here or at another
 * member, also of a queue that has ended. False: there is none. Borrowed until the loop goes
 * on. */
bool
queues_find(const struct worker *worker, struct ds_slice name, struct queue_place *out);

/* What other members are told: places one behind the other, as many as go into
 * `bytes_max`. */
void queues_encode(const struct worker *worker, struct writer *out, size_t bytes_max);

/* On other nodes, of the journals of the queues here: those that have all. */
uint32_t queues_copies(const struct worker *worker);

void queues_tick(struct worker *worker);

/* The session is closing: what it serves is not served any more. */
void queues_drop(struct session *session);

/* We are about to be no member any more: controllers whose queues others may go on with
 * notice, and say nothing more. */
void queues_hang_up(struct worker *worker);

/* After the loop has run. */
void queues_close(struct worker *worker);

#endif
