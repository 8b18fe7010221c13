/* Blocks as a whole: adopting and deleting them, wherever they are.
 *
 * A request may name blocks of any nodes. What is here is done at once, the rest is
 * passed on to the nodes in the ids, or to those that took their blocks over (arenas.h);
 * the reply waits until all of them have answered, or are no members any more, and with
 * them their blocks. */
#ifndef WORKER_BLOCKS_H
#define WORKER_BLOCKS_H

#include "worker/session.h"

/* A live part of a block on this node. */
bool blocks_find_part(struct worker *worker, struct ds_block_id id, uint32_t part,
                      struct object_view *out);

/* The session is closing: its requests go on, and nobody is told. */
void blocks_drop(struct session *session);

#endif
