/* Provisional blocks whose client died, or left, between seal and the controller's put.
 *
 * Whether such a block was put, only its queue's controller knows. It parks an ORPHANS
 * request at its worker, which answers with block ids; it then adopts those that it knows
 * and deletes the others, which it refuses from then on.
 *
 *      orphan ── its queue's controller is here ────────────► told, and again after 10 s
 *         │  └── it is at another member ── ORPHANS_FOUND ──► that one tells it
 *         └───── it is nowhere for 5 minutes ───────────────► told to any controller here
 *
 * Whose a block is, its id says. One of no queue with a name is any controller's. */
#ifndef WORKER_ORPHANS_H
#define WORKER_ORPHANS_H

#include "worker/worker.h"

/* Note the provisional blocks that the region's client made. */
void orphans_collect(struct worker *worker, uint32_t region);

/* After a restart: note those of clients that are gone, also of those that had gone
 * before it and whose region is another's now. */
void orphans_recover(struct worker *worker);

/* Note the provisional blocks that were born there, and are ours from now on. Their clients
 * may have put them just before, so controllers have longer to adopt them. */
struct arena_id; /* arenas.h */
void orphans_collect_born(struct worker *worker, struct arena_id born);

/* Tell waiting controllers about those that have waited long enough for an adoption that
 * was under way. */
void orphans_tick(struct worker *worker, uint64_t now_ms);

void orphans_close(struct worker *worker);

#endif
