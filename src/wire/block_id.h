/* What a block's id says, and the keys of its parts.
 *
 *      {node 32 | incarnation 32 | queue 16 | restarts 12 | count 36}   little endian
 *
 * Issued by the worker where the block is born. `queue` lets any worker find the
 * controller that knows about the block; the rest of the counter makes the id the arena's
 * only one. Pure. */
#ifndef WIRE_BLOCK_ID_H
#define WIRE_BLOCK_ID_H

#include <datasystem/datasystem.h>

#include <stdbool.h>
#include <stdint.h>

/* The place of a block's birth, and its queue's tag. */
struct block_birth {
    uint32_t node;
    uint32_t incarnation;
    uint16_t queue; /* 0: no queue with a name. */
};
struct block_birth wire_block_birth(const struct ds_block_id *id);

/* Not 0 for a name that is not empty. Two queues may have the same: then each is asked
 * about the other's blocks as well. */
uint16_t wire_queue_tag(struct ds_slice name);

/* The counter of the first block after so many restarts. */
uint64_t wire_block_counter(int restarts);

struct ds_block_id wire_block_id(struct block_birth birth, uint64_t counter);

/* The id that was issued `count` ids later. */
struct ds_block_id wire_block_id_after(struct ds_block_id id, uint64_t count);

#define BLOCK_KEY_BYTES 20u

/* The key of one part: the id, then the part's number, little endian. Never a legal
 * user key, since part numbers below DS_BLOCK_PARTS_MAX end in zero bytes. */
void wire_block_key(struct ds_block_id id, uint32_t part, uint8_t out[BLOCK_KEY_BYTES]);
bool wire_is_block_key(struct ds_slice key);

/* A user's object, which never changes, under a name by which every node can ask for it
 * and keep a copy. It looks like the key of a block's part, but is none of one:
 *
 *      {node 32 | incarnation 32 | generation 64 | 1 | slot 31}   little endian */
struct object_name {
    uint32_t node;
    uint32_t incarnation;
    uint32_t slot; /* Below 2^31. */
    uint64_t generation;
};
void wire_object_key(const struct object_name *name, uint8_t out[BLOCK_KEY_BYTES]);

/* False if it is none. */
bool wire_object_name(struct ds_slice key, struct object_name *out);
bool object_name_equal(const struct object_name *one, const struct object_name *two);

#endif
