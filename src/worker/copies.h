/* Copies of blocks that other nodes have.
 *
 *      copies_fetch(part) ──► asked of the node in its block's id (peers.h)
 *           │   ──► "ask that other one": relays.h
 *           ──► its bytes, straight into the arena ──► sealed ──► who waits is woken
 *           │      └── each range is passed on to other nodes as soon as it is there
 *           ──► not there, no room, damaged, its node is gone ──► who waits is woken
 *
 * A part is fetched once however many ask for it, and its copy goes first when room is
 * short. Blocks do not change, so a copy is as good as the original. Owner: loop thread. */
#ifndef WORKER_COPIES_H
#define WORKER_COPIES_H

#include "wire/message.h"
#include "worker/flags.h"
#include "worker/worker.h"

/* `key`, of a block's part (wire_block_key()), is not here. True: it is being fetched once
 * copies_ask() has been called, and waiters_key_settled() will be called for it, whatever
 * comes of it. False: it cannot be had, as it was born here, or no member has that arena
 * (any more). */
bool copies_fetch(struct worker *worker, struct ds_slice key);

/* Part of who takes another node's object over, under a key of its own. */
struct copy_take {
    struct ds_slice key; /* Of what is reserved here for it, */
    uint8_t flags;       /* with these. */
    bool has_arrived;
    struct object_ref ref; /* It is unsealed; whose this is then. */
    uint64_t checksum;
    void (*done)(struct worker *worker, struct copy_take *take); /* Called once. */
};

/* As copies_fetch(), for a user's object; `done` tells what came of it. */
bool copies_take(struct worker *worker, const struct object_name *object,
                 struct copy_take *take);

/* How long a copy is kept; 0: for as long as there is room. Without
 * --enable_data_replication for as long as it takes those who asked for it to pin it. */
static inline uint32_t
copies_ttl_s(const struct worker *worker)
{
    return worker->flags->enable_data_replication ? 0 : 1;
}

/* ---- Passing on what is arriving ---- */

enum { RANGE_KEY_BYTES = BLOCK_KEY_BYTES + 8 };

/* What a FETCH waits for that asks for `key`, which is being fetched: the key, or, in
 * `buffer`, the range of it. waiters_key_settled() is called for either. */
struct ds_slice copies_awaited(const struct lookup *message, struct ds_slice key,
                               uint8_t buffer[RANGE_KEY_BYTES]);

/* The range that is asked for has arrived of a part that is on its way. Fills in the
 * checksums of `value`. */
bool copies_find_range(const struct worker *worker, const struct lookup *message,
                       struct ds_slice key, struct object_view *out,
                       struct wire_value *value);

/* ---- Asking ---- */

/* Asks for what was gathered: the first parts of several blocks of a node by one request.
 * Who waits for them is parked by then. */
void copies_ask(struct worker *worker);

/* ---- Life ---- */

void copies_tick(struct worker *worker);

/* After the loop has run. */
void copies_close(struct worker *worker);

#endif
