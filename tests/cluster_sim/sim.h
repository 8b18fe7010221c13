/* A few nodes with users' keys, everything that can go wrong between them, and whether what
 * clients saw can be.
 *
 *   main.c      seeds, and what is said of them
 *   run.c       one seed: clients and faults until both are enough, then quiet, then a look
 *   clients.c   what clients do, each one request after the other
 *   blocks.c    what is done with blocks beside that
 *   controllers.c, controllers_told.c   a queue, of which there is a journal
 *   calls.c     one request over a connection of its own
 *   faults.c    what goes wrong meanwhile
 *   record.c    what was done and seen, and whether there is an order in which that can be
 *   losses.c    which values a node had that is away or lost, as that is not promised
 *   values.c    bytes
 *
 * The nodes are those of tests/cluster; the check is tests/support/history.h. What is held
 * to be true is what docs/decisions/0014-keys.md promises. */
#ifndef TESTS_CLUSTER_SIM_SIM_H
#define TESTS_CLUSTER_SIM_SIM_H

#include "cluster.h"
#include "history.h"
#include "nodes.h"

enum {
    NODES_MIN = 3,
    NODES_MAX = 5,
    KEYS = 12,
    CLIENTS_EACH = 3, /* Of each node. */
};

/* ---- One seed (run.c) ---- */

struct run {
    uint64_t seed;
    uint32_t operations_wanted;
    uint32_t faults_wanted; /* 0: none happens. */

    uint32_t operations; /* That have ended, */
    uint32_t done;       /* of them with success, */
    uint32_t full;       /* for want of room. */
    uint32_t faults;
    uint32_t unchecked;      /* Keys, of which too much was under way at a time. */
    uint64_t troubles;       /* Faults, and epochs that somebody heard of. */
    uint64_t hash;           /* Of everything that happened, in order. */
    bool allows_overlap;     /* A fault may begin before the one before is over. */
    bool is_small;           /* The arenas: what is copied may find no room. */
    uint64_t whole_since_ns; /* All nodes that are there run, and know the same members
                                and their keys; 0: they do not. */
    bool is_calm;            /* Nothing goes wrong any more, */
    uint64_t calm_since_ns;
    bool is_ending; /* Clients begin nothing any more. */
    bool is_over;
    uint64_t hurry_until_ns; /* Something happens: clients do not think for long. */
};
extern struct run run;

/* The nodes, the clients, the faults: all of `run.seed`. Fails the program if something is
 * wrong. */
void run_seed(void);

/* All that are there run, and know the same members and their keys: just now. */
bool run_is_whole(void);

void run_note(uint64_t what); /* Into the hash. */
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern bool is_tracing;

/* Whatever was under way may have been done again since then. */
uint64_t run_troubles(void);

/* ---- Clients (clients.c) ---- */

void clients_start(void);
void clients_settle_down(void); /* Each ends what it does. */
bool clients_are_idle(void);
void clients_expect_answers(uint64_t ms); /* All being whole for so long is enough. */
void clients_hang_up(void);

/* Each key at each node, in quiet times: all see the same. */
void clients_look_at_all(void);

/* ---- Blocks (blocks.c) ---- */

void blocks_reset(void);
void blocks_start(void);
bool blocks_are_idle(void);
void blocks_look_at_all(void); /* As clients_look_at_all(). */
void blocks_wipe(
    const struct node *node); /* Its memory is about to go: what it has is lost, */
void blocks_left(const struct node *node); /* or is elsewhere, as it has left. */

/* ---- A queue and its controllers (controllers.c) ---- */

void controllers_reset(void);
void controllers_start(void);
void controllers_tick(void);
bool controllers_disturb(void); /* False: nothing happened. */
void controllers_note_trouble(const struct node *node);
void controllers_look(void); /* In quiet times, it goes on: */
bool controllers_are_looked_at(void);
void controllers_end(void);

/* ---- One request over a connection of its own (calls.c) ---- */

/* `header` NULL: there is no answer. */
typedef void (*call_fn)(void *arg, const struct frame_header *header,
                        struct ds_slice body, const uint8_t *payload);
void call_once(struct node *node, enum message_type type, struct ds_slice body,
               call_fn on_answer, void *arg);

/* ---- Faults (faults.c) ---- */

void faults_reset(void);
void faults_start(void);
void faults_end(void); /* Whatever is wrong is mended, soon. */
bool faults_are_over(void);
bool faults_spare(const struct node *node);   /* Nothing is wrong with it now. */
bool faults_let_run(const struct node *node); /* Its machine does not sleep. */
void faults_tick(void);

/* ---- What was done and seen (record.c) ---- */

void record_reset(void);
uint32_t
record_begin(uint32_t key, enum operation operation, uint32_t value, uint32_t by);
/* `troubles`: run_troubles() when it began. */
void
record_end(uint32_t number, enum outcome outcome, uint32_t value, uint64_t troubles);

/* What may happen between now and record_close(): the key loses this value, or has it
 * again. */
uint32_t record_open(uint32_t key, enum operation operation, uint32_t value);
void record_close(uint32_t number);

/* What ended with an unknown outcome so long ago does not happen any more. */
void record_forget_before(uint64_t ns);

void record_check(void); /* Fails the program if there is no such order. */

/* ---- What is not promised (losses.c) ---- */

void losses_reset(void);
void losses_look(void);  /* Often: notices who is no member any more. */
void losses_close(void); /* All is whole. */
/* The memory of the node is about to go. */
void losses_wipe(struct node *node);
/* The node begins to move what it has to another; it has gone, and nothing is lost with it:
 * if it is, that is wrong. */
void losses_begin_leaving(struct node *node);
void losses_left(struct node *node);
void losses_stayed(const struct node *node);
void losses_note_put(const struct node *node, uint32_t key, uint32_t value);
/* A process ends, with what only it knew. */
void losses_crash(const struct node *node);
bool losses_may_miss(const struct history_event *event, uint32_t value);
bool losses_may_see(const struct history_event *read);
bool losses_are_open(void);

/* ---- Bytes (values.c) ---- */

uint32_t value_new(void); /* Its number. */
void values_reset(void);
uint64_t value_bytes(uint32_t value);
void value_write(void *out, uint32_t key, uint32_t value);
/* The number of the value of `key` that these bytes are; anything else fails the program. */
uint32_t value_read(const void *data, uint64_t bytes, uint32_t key, const char *where);

/* The key of a slot that is not free. */
struct table_reader;
struct slot;
struct ds_slice
value_slot_key(const struct table_reader *reader, const struct slot *slot);

/* What the node's memory says the key is, whether it may say so or not; 0: nothing. */
uint32_t value_in_table(const struct node *node, uint32_t key);
struct ds_slice sim_key_name(uint32_t key, char out[64]);

#endif
