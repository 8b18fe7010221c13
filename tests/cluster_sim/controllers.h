/* What the two files of the played controllers share. */
#ifndef TESTS_CLUSTER_SIM_CONTROLLERS_H
#define TESTS_CLUSTER_SIM_CONTROLLERS_H

#include "sim.h"

#include "controller/copied.h"

enum {
    CONTROLLERS_MAX = 256, /* Of a seed. */
    RECORDS_MAX = 4096,
    ASKED_MAX = 64,
    SOCKET_BYTES = 160, /* Of its path. */
};

/* What was asked of a controller, and is answered when its ticket is covered. */
struct asked {
    bool is_open;
    uint64_t ticket;
    uint32_t count; /* Records that the answer is about. */
    uint32_t known_before;
    uint64_t until_ns;
};

/* A controller: its process, and the supervisor that starts another. Owner: the list, until
 * the seed is over. */
struct player {
    struct node *node;
    uint64_t term;
    uint32_t boot; /* Of the node's supervisor: incarnation. */
    char socket[SOCKET_BYTES];
    struct append_file *file; /* Owned; NULL: its process does not run. */
    uint64_t journal_id;
    uint64_t records[RECORDS_MAX];
    uint32_t count;
    struct copied copied;
    struct conn *conn;
    bool is_served;
    bool has_answered; /* Or a process before it, or the queue's first. */
    bool is_over;      /* Another one goes on, or nobody starts it again. */
    bool is_launched;  /* By a worker: it ends with that. */
    struct program *program;
    struct asked asked[ASKED_MAX];
};

/* All of this seed, in the order in which they began. */
extern struct player *players[CONTROLLERS_MAX];
extern uint32_t player_count;
extern char queue_name[32];

/* ---- What was said (controllers_told.c) ---- */

/* Of another queue. */
void told_reset(void);

/* It begins, or answers: with all that somebody was told before, unless nobody has that any
 * more, to whom nothing has happened since. */
void told_begin(const struct player *player);
void told_answer(const struct player *player, const struct asked *asked);

uint32_t told_count(void);  /* Records that are known. */
bool told_is_held(void);    /* By such a one. */
uint32_t told_copies(void); /* Of the journal, at all nodes. */
void told_look(void);       /* Often: notices who is no member any more. */

#endif
