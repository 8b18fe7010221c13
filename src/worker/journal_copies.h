/* Copies of the journal of a queue whose controller is connected to this worker, on other
 * nodes, so that a queue outlives its controller's node.
 *
 *      controller ── JOURNAL_SYNC ──► the file is so long now
 *                                        │ read, and sent on in pieces, to each keeper
 *                                        ▼
 *                                     JOURNAL_WRITE ──► keeper (kept_journals.h)
 *      controller ◄── its answer ──── all keepers have as much
 *
 * Keepers are the next two members behind this one, as long as they are members. One that
 * does not keep up for a second is late, and not waited for until it has caught up; but only
 * once the metastore has confirmed since that we are a member, and while that lease lasts: it
 * may be us who were cut off, and another controller may be started from that copy. Without
 * a lease all keepers must answer, which they do not once they have heard of another
 * controller.
 * docs/decisions/0015-takeover.md. Owner: loop thread. */
#ifndef WORKER_JOURNAL_COPIES_H
#define WORKER_JOURNAL_COPIES_H

#include "wire/journals.h"
#include "worker/session.h"

struct journal_copies;

/* Of the queue that `session` serves now.
 *   DS_NO_MEMORY */
DS_MUST_USE enum ds_status
journal_copies_open(struct session *session, const struct queue_serve *serve,
                    struct journal_copies **out, struct ds_error *err);

/* Nobody is told anything any more. Accepts NULL. */
void journal_copies_close(struct journal_copies *copies);

/* Answered when it is so, unless another comes first. */
void
journal_copies_sync(struct journal_copies *copies, const struct frame_header *header,
                    const struct journal_sync *sync);

/* The queue has ended: nobody shall go on with it. */
void journal_copies_end(struct journal_copies *copies);

/* Somebody else goes on with the queue: whoever asks is told so. */
void journal_copies_supersede(struct journal_copies *copies);

/* Other members, and what was late. */
void journal_copies_tick(struct journal_copies *copies);

/* How many keepers have all that was asked for. */
uint32_t journal_copies_count(const struct journal_copies *copies);

#endif
