/* What the files of copies share: a part on its way. Only src/worker/copies*.c include
 * this. */
#ifndef WORKER_COPIES_INTERNAL_H
#define WORKER_COPIES_INTERNAL_H

#include "os/checksum.h"
#include "worker/arenas.h"
#include "worker/copies.h"
#include "worker/peers.h"

/* A range is asked for, and compared, as one, while it is in a cache. So many of a part
 * are under way at once: all connections to its node have the next one waiting. */
enum {
    RANGE_BYTES = 2 * CHECKSUM_PIECE_BYTES,
    RANGES_MAX = 8,
    DAMAGES_MAX = 3, /* So often damaged, it is not asked for again. */
};

/* A part on its way. Owner: its ranges under way together. Invariants: `view` is reserved,
 * and held, exactly while `pieces` and `has_arrived` are there; bytes [0, asked) were asked
 * for. */
struct copy {
    struct hmap_node by_key; /* In worker->copies. */
    struct list unasked;     /* In worker->copies_unasked, or in none. */
    uint8_t key[BLOCK_KEY_BYTES];
    struct copy_take *take; /* Who gets it when it has arrived; NULL: it is a copy. */
    struct arena_id at;     /* Who has it. */
    struct arena_id relay;  /* Who passes it on to us; none: `at` is asked. */
    struct object_view view;
    uint64_t *pieces;  /* Owned; checksums of what has arrived. */
    bool *has_arrived; /* Owned; of each range. */
    struct wire_checksum whole;
    struct ds_error *refusal; /* Owned; NULL, or why it is there and cannot be had. */
    uint32_t damage_count;    /* So often it did not arrive as it was sent; */
    bool is_damaged;          /* the last time as well. */
    uint64_t asked;
    uint32_t under_way;
    bool is_direct;  /* It was not to be had from a relay. */
    bool has_failed; /* It ends when nothing is under way any more. */
};

/* Asks for the next range; false: nobody can be asked. */
bool copy_ask_next(struct worker *worker, struct copy *copy);

/* Its size is known: makes room, and asks for more of it. False, with a line in the log:
 * there is no room for so many. */
bool copy_begin_arriving(struct worker *worker, struct copy *copy, uint64_t bytes);

/* Nothing of it is under way: all of it is here, or it has failed. Frees it, unless it is
 * asked for again. */
void copy_finish(struct worker *worker, struct copy *copy);

/* ---- Room (copies_room.c) ---- */

/* Its size is known: so much of the arena is its own, and it has notes of what arrives.
 * False, with a line in the log and a refusal: there is no room for so many. */
bool copy_reserve(struct worker *worker, struct copy *copy, uint64_t bytes);

/* What was reserved for it is kept, or, if it has failed, given back. */
void copy_let_go(struct worker *worker, struct copy *copy);

/* Where so many of its bytes go; ready to be written to. */
uint8_t *copy_place(const struct worker *worker, const struct copy *copy,
                    uint64_t offset, uint64_t bytes);

/* Pieces with a checksum each, of what is reserved. */
size_t copy_piece_count(const struct copy *copy);

/* Before its size is known, it has one. */
size_t copy_range_count(const struct copy *copy);

/* Who asked hears it, in place of that it is gone. `what` follows who we are. */
void copy_refuse(const struct worker *worker, struct copy *copy, const char *what,
                 const struct ds_error *err);

#endif
