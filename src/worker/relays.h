/* Who gets a big object from whom, so that its source sends it twice, however many want it.
 *
 *      source ──► first ──► third ──► ...       The source serves the first two itself; who
 *         │         └─────► fourth              asks after them is told to ask one of those
 *         └─────► second ──► fifth              before, each of which serves two.
 *                   └──────► sixth
 *
 * Who is asked may still be getting it: it sends each range on when that has arrived
 * (copies.h). Who is told of one that has nothing, or is gone, asks the source again, which
 * serves it then. A binary heap: the parent of the i-th, from 0, is (i - 2) / 2.
 * Owner: loop thread. */
#ifndef WORKER_RELAYS_H
#define WORKER_RELAYS_H

#include "worker/arenas.h"

/* What is larger is passed on: less is sent sooner than told about. */
enum { RELAY_BYTES_MIN = 4 << 20 };

/* The member that `asker`, of another arena, is to get `key` from; none: it gets it here. */
struct arena_id
relays_join(struct worker *worker, struct ds_slice key, struct arena_id asker);

/* Forgets those for which nobody has asked for a while. */
void relays_tick(struct worker *worker, uint64_t now_ms);

/* Accepts having none. */
void relays_close(struct worker *worker);

#endif
