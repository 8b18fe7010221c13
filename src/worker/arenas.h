/* Where the blocks are that were born in an arena: there, or where they were moved when
 * their node left its cluster.
 *
 *      [born] ── TAKE ──► [part is here] ── TAKE_END ──► [all is here, and ours]
 *                               └── its node stays after all ──► copies, as others are
 *
 * Who took an arena over says so of itself with its renewals, and all members hear of it with
 * the list of members (wire/message.h). So one record serves for all blocks, it is
 * known wherever the members are, and ends with the member that it is about. What is here is
 * in the table, so a worker that was killed knows it again.
 *
 * A node that leaves serves its blocks, and those that it had taken over, until it is gone; who
 * has all of them goes before it.
 * Owner: loop thread. */
#ifndef WORKER_ARENAS_H
#define WORKER_ARENAS_H

#include "wire/cursor.h"
#include "wire/leaving.h"
#include "worker/worker.h"

#include <stdbool.h>
#include <stdint.h>

struct arena_id {
    uint32_t node; /* 0: none. */
    uint32_t incarnation;
};

struct arena_id arenas_own(const struct worker *worker);
bool arena_id_equal(struct arena_id one, struct arena_id other);

/* Where the block of this part was born. */
struct arena_id arenas_birth(struct ds_slice key);

/* The arena, of a member, where blocks of `born` are now; none: nobody has them. */
struct arena_id arenas_find(const struct worker *worker, struct arena_id born);

/* As above: it is this worker's, whose word counts. */
bool arenas_is_here(const struct worker *worker, struct arena_id born);

/* ---- What was taken over ---- */

/* More are not told to others, and so not taken: so much of them fits into a renewal. */
enum { ARENAS_MAX = UINT16_MAX / WIRE_ARENA_BYTES };

/* Its blocks are given to us by the process that has them, and will be ours. False when out
 * of memory, or there are too many. */
bool arenas_note(struct worker *worker, struct arena_id born,
                 const struct wire_giver *giver);

/* They are being given to us, or were: it was not said since that they are not. */
bool arenas_is_noted(const struct worker *worker, struct arena_id born);

/* All of them are, as was said before. */
bool arenas_is_whole(const struct worker *worker, struct arena_id born);

/* All of them are, and they are ours. False when out of memory. */
bool arenas_take(struct worker *worker, struct arena_id born,
                 const struct wire_giver *giver);

/* They are others' after all: what is here are copies. */
void arenas_give_up(struct worker *worker, struct arena_id born);

/* What other members are told. */
void arenas_encode(const struct worker *worker, struct writer *out);

/* Those whose blocks are ours, and our own: who takes them over from us gets these. */
void arenas_encode_ours(const struct worker *worker, bool is_whole, struct writer *out);

/* After the table was opened: what was taken over before is found there. */
void arenas_recover(struct worker *worker);

/* A node that was started again does not leave any more; what one that is gone had given us is
 * ours, with what it had been given. */
void arenas_tick(struct worker *worker);

/* After the loop has run. */
void arenas_close(struct worker *worker);

#endif
