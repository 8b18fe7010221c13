/* Connections to the workers of other nodes, and copies of what those have.
 *
 *      peers_fetch(part) ──► [asked] ── its bytes, straight into the arena ──► [sealed]
 *                               │                                  who waits is woken ─┘
 *                               └── not there, no room, damaged, the node is gone ──► woken
 *
 * A block's id says where it was born; a part that is not here is fetched from there, once
 * however many ask for it, and kept as a copy, which goes first when room is short. Blocks
 * do not change, so a copy is as good as the original. Owner: loop thread. */
#ifndef WORKER_PEERS_H
#define WORKER_PEERS_H

#include <datasystem/datasystem.h>

#include <stdbool.h>

struct peers;
struct worker;

/* DS_NO_MEMORY */
DS_MUST_USE enum ds_status
peers_open(struct worker *worker, struct peers **out, struct ds_error *err);

/* Ends every connection, in the loop. */
void peers_stop(struct peers *peers);

/* After the loop has run. Accepts NULL. */
void peers_close(struct peers *peers);

/* `key`, of a block's part (wire_block_key()), is not here. True: it is being fetched, and
 * waiters_key_appeared() will be called for it, whatever comes of it. False: it cannot be
 * had, as it was born here, or no member has that arena (any more). */
bool peers_fetch(struct peers *peers, struct ds_slice key);

/* Other members are known now: what is asked of those that are gone has failed. */
void peers_members_changed(struct peers *peers);

#endif
