/* This worker leaves its cluster, and gives what only it has to another member first.
 *
 *      [stays] ── LEAVE ──► [asks for room] ──► [moves] ──► [hands over] ──► [told] ──► gone
 *         ▲                       │  all members   │ TAKE,      │ TAKE_END      │ all know,
 *         └── no room, cancelled, ┴────────────────┴ TAKE_KEYS ─┴ and orders ───┘ by the list
 *             or the taker is lost                                              of members
 *
 * Reads go on to the end; nothing new is reserved. Who has nothing to move refuses what is
 * new, too, and waits for whoever asked to end it. One request to the taker is under way at a
 * time, so what was deleted while it took a block is told it behind that. Blocks go first,
 * then users' keys, which are the taker's one by one. Until it has handed over, this
 * worker's word counts for its blocks, then the taker's, to whom orders are passed on.
 * A signal ends the worker without any of this.
 * Owner: loop thread. */
#ifndef WORKER_LEAVING_H
#define WORKER_LEAVING_H

#include "worker/arenas.h"
#include "worker/session.h"

/* It is about to be gone, unless that comes to nothing. */
bool leaving_is_active(const struct worker *worker);

/* Its blocks are the taker's. */
bool leaving_is_handed_over(const struct worker *worker);
struct arena_id leaving_taker(const struct worker *worker);

/* Requests of this type come too late. */
bool leaving_refuses(const struct worker *worker, enum message_type type);
void leaving_refuse(struct session *session, const struct frame_header *header);

/* Before a block that is here is adopted or deleted: the taker will hear of it. */
void leaving_note_order(struct worker *worker, enum message_type type,
                        struct ds_block_id id);

void leaving_tick(struct worker *worker);

/* After the loop has run. */
void leaving_close(struct worker *worker);

#endif
