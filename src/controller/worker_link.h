/* The controller's connection to the worker of its node.
 *
 * Tells it which blocks to keep (adopt) and which to delete, in the order in which that
 * became known, in batches of one per turn of the loop. What the worker has not
 * acknowledged is told again when it comes back; both orders are idempotent. It also
 * keeps one ORPHANS request waiting there: blocks whose writer died before its put are
 * refused in the queue and then deleted, or, if the put did arrive, adopted.
 *
 *      [away] ── connect, HELLO, welcome ──► [up] ── batch sent ──► acknowledged ──┐
 *        ▲  back-off 50 ms to 2 s             │ ▲                                  │
 *        └──────── the connection ends ───────┘ └──────────────────────────────────┘
 *
 * An arena that is new has none of the old one's blocks: what was still to be told
 * about them is dropped. Owner: loop thread. */
#ifndef CONTROLLER_WORKER_LINK_H
#define CONTROLLER_WORKER_LINK_H

#include "queue/queue.h"
#include "wire/message.h"

#include <uv.h>

struct worker_link;
struct queue_serve;    /* wire/journals.h */
struct journal_sync;   /* the same */
struct journal_synced; /* the same */

/* What the link asks of its owner. */
struct worker_link_ops {
    /* A batch is about to go out: whatever led to it must be in the journal by now. */
    void (*before_batch)(void *arg);

    /* The writer of this block is dead: *out_known, or refused from now on. False when
     * that cannot be decided now; the worker will ask again. */
    bool (*judge_orphan)(const struct ds_block_id *id, bool *out_known, void *arg);

    /* An order is told to the worker once its ticket is covered (copied.h). */
    uint64_t (*take_ticket)(void *arg);
    bool (*is_covered)(uint64_t ticket, void *arg);

    /* The worker knows where our queue is, and whether it makes copies of its journal. */
    void (*on_served)(bool is_copied, void *arg);
    void (*on_synced)(const struct journal_synced *answer, void *arg);

    /* It is away: what it said last may not be so any more. */
    void (*on_away)(void *arg);

    /* Another controller goes on with our queue. */
    void (*on_superseded)(void *arg);
};

/* `path`, `serve` and `ops` are borrowed. Connects in the background, again and again,
 * and says then where our queue is, if it has a name.
 *   DS_NO_MEMORY */
DS_MUST_USE enum ds_status
worker_link_open(uv_loop_t *loop, const char *path, const struct queue_serve *serve,
                 const struct worker_link_ops *ops, void *arg, struct worker_link **out,
                 struct ds_error *err);

/* Ends in the loop; the link is freed there. Accepts NULL. */
void worker_link_close(struct worker_link *link);

/* Room for `count` more blocks, so that adopting them cannot fail; false when out of
 * memory. */
bool worker_link_reserve(struct worker_link *link, size_t count);

/* Room must be reserved. */
void worker_link_adopt(struct worker_link *link, struct ds_block_id id);

/* False when out of memory. */
bool worker_link_delete(struct worker_link *link, struct ds_block_id id);

/* More tickets are covered. */
void worker_link_wake(struct worker_link *link);

/* The worker was told where our queue is, so it takes JOURNAL_SYNC. */
bool worker_link_is_served(const struct worker_link *link);
void worker_link_sync(struct worker_link *link, const struct journal_sync *message);

/* The queue has ended: its copies go, then `on_ended` is called; never while the worker is
 * away, which is told as soon as it is back. `on_ended` may be NULL. */
void
worker_link_end_queue(struct worker_link *link, void (*on_ended)(void *arg), void *arg);

bool worker_link_is_up(const struct worker_link *link);

/* The blocks that the worker was to delete and has not acknowledged, to be free()d; false
 * when out of memory. */
bool worker_link_deleting(const struct worker_link *link, struct ds_block_id **out,
                          size_t *out_count);

/* Calls `on_flushed` once everything told so far is acknowledged, at once if it is. */
void
worker_link_flush(struct worker_link *link, void (*on_flushed)(void *arg), void *arg);

#endif
