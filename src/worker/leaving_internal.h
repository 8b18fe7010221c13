/* What the files of leaving share: leaving.c, when it moves and to whom; leaving_move.c, what
 * is moved and how. Only these include it. */
#ifndef WORKER_LEAVING_INTERNAL_H
#define WORKER_LEAVING_INTERNAL_H

#include "meta/members.h"
#include "worker/leaving.h"
#include "worker/peers.h"

enum {
    LEAVING_BATCH_MAX = 256, /* Objects of one request to the taker. */
    LEAVING_REASON_BYTES = 512,
    LEAVING_TOLD_MS = 10000, /* So long the list of members may take to say who has our
                                blocks. */
    LEAVING_NOTHING_MS = 2000, /* Who has nothing waits so long for its signal. */
};

enum leaving_phase {
    STAYS,
    HAS_NOTHING, /* Nor takes anything, so it may be ended. */
    ASKS_FOR_ROOM,
    MOVES,
    HANDS_OVER,
    IS_TOLD,
    LINGERS,
    GOES,
};

struct amount {
    uint64_t objects;
    uint64_t bytes;
    uint64_t room; /* That they take in an arena. */
};

/* Invariants: a request of this round to the taker is under way exactly while
 * `is_under_way`; refs [0, at) were offered since the table was looked through.
 * Owner: worker->leaving. */
struct leaving {
    struct worker *worker;
    enum leaving_phase phase;
    uint32_t round;      /* What an earlier one asked for is answered to nobody, */
    uint32_t open_steps; /* but a new one does not begin before it is. */
    uint32_t open_rooms;
    struct arena_id taker; /* With the most room of those that have answered, */
    uint64_t room;
    char to[MEMBER_ADDRESS_MAX + 1];
    uint64_t until_ms;
    uint64_t logged_ms;
    uint64_t *told; /* Owned; by slot: 1 + the generation that the taker has, or 0. */
    struct object_ref *refs; /* Owned; what is to be moved. */
    size_t count;
    size_t capacity;
    size_t at;
    bool is_out_of_memory;
    bool ends_alone;        /* It has something, but nobody was there to take it. */
    uint64_t taken_count;   /* Since the table was looked through; */
    uint64_t refused_count; /* and those that are still here. */
    bool is_under_way;
    struct object_view batch[LEAVING_BATCH_MAX];
    uint32_t batch_count;
    bool has_given;        /* The taker has something of ours. */
    struct writer deleted; /* Ids of blocks that it is to hear of. */
    struct amount all;
    struct amount moved;
    char reason
        [LEAVING_REASON_BYTES]; /* Why it stays; empty: it was not told to leave. */
};

/* ---- leaving.c ---- */

/* It stays after all, for this reason. */
void leaving_stay(struct leaving *leaving, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A member has said how much room it has, or is gone. */
void leaving_take_room(struct leaving *leaving, const struct peer_request *request,
                       const struct peer_answer *answer);

double leaving_mib(uint64_t bytes);

/* ---- leaving_move.c ---- */

/* Lists what the taker does not have yet: blocks, or users' keys. */
struct amount leaving_collect(struct leaving *leaving, bool of_keys);

/* False: it cannot be asked just now. */
bool leaving_ask_for_room(struct leaving *leaving, struct arena_id member);

/* Goes on with what is next, unless a request is under way. */
void leaving_advance(struct leaving *leaving);

/* What the taker has of ours are copies again. */
void leaving_call_back(struct leaving *leaving);

#endif
