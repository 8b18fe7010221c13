/* A cluster of many workers in one process, to count what their membership costs.
 *
 * The workers are the real ones (all of src/worker but what is named below), each a
 * struct worker of its own. They are joined below src/net: a message goes from one
 * conn_send() to another on_frame(), after some virtual time.
 *
 *   clock.c     virtual time, and what happens next
 *   network.c   connections, in place of src/net
 *   loop.c      the functions of libuv that the worker calls, on virtual time
 *   machine.c   in place of src/os where it has to be: clock, memory, programs; a ring that
 *               several build is built once
 *   cluster.c   starting, stopping and losing nodes
 *   lookup.c    a client's look-up of a key, and the copies of a queue's journal
 *   measure.c   what happens to the cluster, and what it costs
 *
 * What is not as on a machine: nobody proves a key; a message is never cut or lost, unless
 * its node is; the arena is not populated and no checksums are computed in advance; nothing
 * takes virtual time but what is in enum network_cost. The processor's time is measured,
 * and does not move the virtual clock, so counts and virtual times follow from the seed
 * alone. */
#ifndef TESTS_SCALE_SCALE_H
#define TESTS_SCALE_SCALE_H

#include "wire/frame.h"
#include "worker/flags.h"
#include "worker/resources.h"
#include "worker/worker.h"

#include <stdbool.h>
#include <stdint.h>

#define SCALE_US UINT64_C(1000)
#define SCALE_MS UINT64_C(1000000)
#define SCALE_S  UINT64_C(1000000000)

/* ---- Virtual time (clock.c) ---- */

typedef void (*scale_fn)(void *arg);

uint64_t scale_now_ns(void);
void scale_at(uint64_t at_ns, scale_fn run, void *arg);
void scale_run_until(uint64_t at_ns);
/* All nodes are gone: what is still to happen does nothing, and time begins anew. */
void scale_clear(void);

void scale_seed(uint64_t seed);
uint64_t scale_random(void);
uint64_t scale_below(uint64_t count); /* 0 to count - 1 */

/* ---- What is counted ---- */

struct tally {
    uint64_t messages;   /* Sent; a reply is one, too. */
    uint64_t bytes;      /* Of frames; without what TCP adds. */
    uint64_t cpu_ns;     /* In the worker's code. */
    uint64_t longest_ns; /* Of that in one go: so long the loop did nothing else. */
};

/* The time from cpu_enter() to cpu_leave() goes to `whose`, less that between cpu_pause()
 * and cpu_resume(). One can be inside another. */
struct cpu_account {
    struct tally *whose; /* NULL: nobody's. */
    uint64_t began_ns;
    uint64_t used_ns;
};
struct cpu_account cpu_enter(struct tally *whose);
void cpu_leave(struct cpu_account outer);
void cpu_pause(void);
void cpu_resume(void);
void cpu_charge(uint64_t ns); /* As if it had been used. */

/* Of the whole network, since counts_reset(). */
struct counts {
    struct {
        uint64_t requests;
        uint64_t accepted; /* Replies that are no error. */
        uint64_t refused;
        uint64_t bytes; /* Of both. */
    } types[MESSAGE_TYPE_COUNT];
    uint64_t connections;
    uint64_t connections_late; /* A backlog was full: tried again a second later. */
};
extern struct counts counts;

/* ---- Nodes ---- */

enum port { PORT_UNIX, PORT_WORKER, PORT_METASTORE, PORT_COUNT };

struct listener {
    void (*on_accept)(int fd, void *arg); /* NULL: nobody listens. */
    void *arg;
};

/* What libuv keeps for a loop. */
struct loop_state {
    uv_handle_t *closing;
    struct list closing_conns;
    uint32_t handle_count;
    bool is_turn_due;
};

/* A machine with a worker. Invariant: `worker` is open exactly while is_up. */
struct node {
    struct worker worker;
    struct worker_flags flags;
    struct resources resources;
    struct store_memory memory;
    uint8_t *arena;
    struct loop_state loop;
    struct listener listeners[PORT_COUNT];
    uint32_t index;
    char address[32];
    bool is_up;
    bool is_silent;            /* The machine stands still: nothing comes out of it. */
    bool is_muted;             /* It is being killed: it sends nothing any more. */
    uint64_t busy_until_ns;    /* With messages that have arrived; */
    uint64_t accepts_until_ns; /* with connections; */
    uint64_t sends_until_ns;   /* and its wire. */
    uint64_t now_ns;           /* Ahead of the clock by what it has sent just now. */
    uint64_t epoch_seen;
    struct tally tally;     /* As a worker, */
    struct tally metastore; /* and as the metastore. */
};

/* Stands for them all. */
struct cluster {
    struct node *nodes;
    uint32_t count; /* Places. */
    char home[64];
};
extern struct cluster cluster;

struct node *node_of_loop(const uv_loop_t *loop);

/* ---- The network (network.c) ---- */

enum network_cost {
    LATENCY_NS = 50000,    /* From one node to another, */
    MESSAGE_NS = 5000,     /* for the system calls of a message at each end, */
    CONNECT_NS = 40000,    /* of a connection, */
    BITS_PER_NS = 10,      /* and a wire of 10 Gbit/s. */
    BACKLOG = 4096,        /* As in worker/resources.c. */
    RETRY_NS = 1000000000, /* Linux repeats a lost SYN after a second. */
};

struct conn;
struct conn_ops;

/* A connection from outside of the cluster, whose messages are not counted. */
struct conn *
network_dial(struct node *node, enum port port, const struct conn_ops *ops, void *user);

#endif
