/* What a worker that leaves its cluster is told, and what it and the one that takes its
 * data over say to each other, as structs and as bytes. Pure.
 *
 *   type         request                    reply
 *   LEAVE        leave                      JSON text
 *   TAKE_ROOM    (empty)                    room
 *   TAKE         giver; lookup of parts     flags (1: taken)
 *   TAKE_KEYS    take_keys                  flags (1: taken, or another's by now)
 *   TAKE_END     giver; take_end            (empty)
 */
#ifndef WIRE_LEAVING_H
#define WIRE_LEAVING_H

#include "wire/block_id.h"
#include "wire/cursor.h"

/* ---- Where blocks are that were moved ---- */

/* Whoever says this of itself has blocks that were born there. `is_whole`: all that there
 * were, and they are its own; else it is just being given them. */
struct wire_arena {
    uint32_t node;
    uint32_t incarnation;
    bool is_whole;
};
enum { WIRE_ARENA_BYTES = 9 };
void encode_arena(struct writer *writer, const struct wire_arena *arena);

/* Steps through what encode_arena() wrote, one behind the other; false at the end. */
bool next_arena(struct ds_slice *arenas, struct wire_arena *out);
bool wire_are_arenas(struct ds_slice arenas);

/* ---- Messages ---- */

enum leave_action {
    LEAVE_ASK,    /* How far is it? */
    LEAVE_BEGIN,  /* Move what only this worker has, then leave. */
    LEAVE_CANCEL, /* Stay. */
    LEAVE_ACTION_COUNT
};
void encode_leave(struct writer *writer, enum leave_action action);
bool decode_leave(struct ds_slice body, enum leave_action *out);

/* Bytes that the replier could take over; 0: none, as it leaves itself. */
void encode_room(struct writer *writer, uint64_t bytes);
bool decode_room(struct ds_slice body, uint64_t *out_bytes);

/* Who gives its blocks: its arena, and the process that has that. Another one has not given
 * anything, as it does not know. */
struct wire_giver {
    uint32_t node;
    uint32_t incarnation;
    uint32_t restarts; /* More than those of the processes before it. */
};

/* What encode_lookup() writes follows (message.h). */
void encode_take_begin(struct writer *writer, const struct wire_giver *giver);
bool decode_take(struct ds_slice body, struct wire_giver *out_giver,
                 struct ds_slice *out_lookup);

/* Users' objects, and the keys that they are. */
struct wire_take_key {
    struct object_name object;
    bool is_evictable;
    struct ds_slice key; /* A legal user key. */
};
struct take_key_list {
    uint32_t count;
    struct reader at;
};
/* `count` calls of encode_take_key() follow. */
void encode_take_keys_begin(struct writer *writer, uint32_t count);
void encode_take_key(struct writer *writer, const struct wire_take_key *key);
bool decode_take_keys(struct ds_slice body, struct take_key_list *out);
bool next_take_key(struct take_key_list *list, struct wire_take_key *out);

/* The blocks of these arenas are all there, and the receiver's from now on (`is_whole` of
 * each), or nobody's: their sender keeps them. */
void encode_take_end(struct writer *writer, const struct wire_giver *giver,
                     struct ds_slice arenas);
bool decode_take_end(struct ds_slice body, struct wire_giver *out_giver,
                     struct ds_slice *out_arenas);

#endif
