/* Small values of users' keys, which come with their owner's word where they are.
 *
 *   who owns the key   small_values_add ──► the object is here, or a copy of it
 *                                           ──► its bytes go with the answer
 *   who asked it       small_values_take ──► a copy, as one that was fetched (copies.h)
 *
 * So a get of one takes a single round trip. Which object the key is was said before, and
 * its bytes never change; what does not come along, or is not taken, is fetched. Who asks
 * says which object it has already, as far as it remembers: that one is not sent again.
 * Owner: loop thread. */
#ifndef WORKER_SMALL_VALUES_H
#define WORKER_SMALL_VALUES_H

#include "wire/bindings.h"
#include "worker/worker.h"

/* ---- Who owns the key ---- */

/* Adds the value of an answer of ours, if there is one, it is here, small, and not the
 * object `has` of who asked. `left`: how much room all those of its message have yet. What
 * is added is borrowed from the arena. */
void small_values_add(struct worker *worker, const struct object_name *has,
                      struct wire_answer *answer, uint32_t *left);

/* ---- Who asks ---- */

/* What the key was when its value came last; node 0: that is not known (any more), or its
 * copy is gone. */
struct object_name small_values_known(struct worker *worker, struct ds_slice key);

/* Keeps the value of an answer of another node as a copy, if it is what was sent, and there
 * is room. */
void small_values_take(struct worker *worker, struct ds_slice key,
                       const struct wire_answer *answer);

void small_values_close(struct worker *worker);

#endif
