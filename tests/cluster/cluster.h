/* A cluster of many workers in one process, on virtual time.
 *
 * The workers are the real ones (all of src/worker but what is named below), each a
 * struct worker of its own. They are joined below src/net: a message goes from one
 * conn_send() to another on_frame(), after some virtual time.
 *
 *   clock.c     virtual time, what happens next, and chance
 *   network.c   connections, in place of src/net
 *   delivery.c  what goes wrong between them, where something shall
 *   loop.c      the functions of libuv that the worker calls, on virtual time
 *   machine.c   in place of src/os where it has to be: clock, memory, programs; a ring that
 *               several build is built once
 *   files.c     files in memory
 *   nodes.c     starting, stopping and losing nodes
 *
 * What is not as on a machine: nobody proves a key; the arena is not populated and no
 * checksums are computed in advance; nothing takes virtual time but what is in enum
 * network_cost, and what network.faults says. All of it follows from the seed alone.
 *
 * Two programs use it: tests/scale counts what many workers cost each other, and measures
 * the processor's time, which does not move the virtual clock; tests/cluster_sim lets a few
 * of them meet with faults. */
#ifndef TESTS_CLUSTER_CLUSTER_H
#define TESTS_CLUSTER_CLUSTER_H

#include "wire/frame.h"
#include "worker/flags.h"
#include "worker/resources.h"
#include "worker/worker.h"

#include <stdbool.h>
#include <stdint.h>

#define VIRTUAL_US UINT64_C(1000)
#define VIRTUAL_MS UINT64_C(1000000)
#define VIRTUAL_S  UINT64_C(1000000000)

/* ---- Virtual time and chance (clock.c) ---- */

typedef void (*virtual_fn)(void *arg);

uint64_t virtual_now_ns(void);
void virtual_at(uint64_t at_ns, virtual_fn run, void *arg);
void virtual_run_until(uint64_t at_ns);
/* All nodes are gone: what is still to happen does nothing, and time begins anew. */
void virtual_clear(void);
uint64_t virtual_events(void);           /* That have happened. */
extern void (*virtual_after_each)(void); /* Of them; NULL: nothing. */

void chance_seed(uint64_t seed);
uint64_t chance_random(void);
uint64_t chance_below(uint64_t count);               /* 0 to count - 1 */
uint64_t chance_between(uint64_t min, uint64_t max); /* Both inclusive. */
bool chance_of(uint64_t times, uint64_t of);

/* ---- What is counted ---- */

struct tally {
    uint64_t messages;   /* Sent; a reply is one, too. */
    uint64_t bytes;      /* Of frames; without what TCP adds. */
    uint64_t cpu_ns;     /* In the worker's code. */
    uint64_t longest_ns; /* Of that in one go: so long the loop did nothing else. */
};

/* Reading the processor's time is a system call: only who looks at it wants it measured. */
extern bool cpu_is_measured;

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
uint64_t cpu_thread_ns(void); /* 0 where nobody wants it measured. */

/* Of the whole network, since counts_reset(). */
struct counts {
    struct {
        uint64_t requests;
        uint64_t accepted; /* Replies that are no error. */
        uint64_t refused;
        uint64_t bytes; /* Of both. */
    } types[MESSAGE_TYPE_COUNT];
    uint64_t connections;
    uint64_t connections_late;  /* A backlog was full: tried again a second later. */
    uint64_t connections_ended; /* An end of one between nodes. */
    uint64_t damaged;           /* Payloads. */
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
    struct list late_alarms; /* Whose time came while the process stood still. */
    uint32_t handle_count;
    bool is_turn_due;
};

/* A machine with a worker. Invariants: `worker` is open exactly while is_up; its memory is
 * there exactly while has_supervisor. */
struct node {
    struct worker worker;
    struct worker_flags flags;
    struct resources resources;
    struct store_memory memory;
    uint8_t *arena;
    uint8_t *snapshot; /* Of the memory, when the worker is killed. */
    char saved[64];    /* The file that its metastore keeps; empty: none. */
    struct loop_state loop;
    struct listener listeners[PORT_COUNT];
    uint32_t index;
    char address[32];
    int restarts;
    bool is_up;
    bool has_supervisor;
    bool is_silent;  /* The machine stands still for good: nothing comes out of it. */
    bool is_stalled; /* The worker gets no processor; what arrives waits. */
    bool is_muted;   /* It is being killed: nothing that it does is seen any more. */
    uint64_t steps_left; /* Until it is killed between two stores; 0: it is not. */
    uint32_t side;     /* Of a network that is cut: those of another are not reached. */
    uint64_t clock_ns; /* What its clocks are ahead of the virtual one; */
    uint64_t asleep_ns;        /* the monotonic one stood still for so long, */
    int64_t wall_ns;           /* and the wall clock was set by so much. */
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

/* Whose code runs: its clocks are read, and it is charged. One can be inside another. */
extern struct node *node_running; /* NULL: nobody's. */
struct node_entry {
    struct cpu_account account;
    struct node *before;
};
struct node_entry node_enter(struct node *node, struct tally *whose);
void node_leave(struct node_entry entry);

/* ---- The network (network.c, delivery.c) ---- */

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

/* A connection from outside of the cluster, whose messages are not counted. Of a Unix
 * socket: no cut is in its way. */
struct conn *
network_dial(struct node *node, enum port port, const struct conn_ops *ops, void *user);

/* Without `are_on` every message arrives, whole, unless its node is lost. */
struct network_faults {
    bool are_on;
    uint64_t jitter_ns;     /* A message takes up to so much longer. */
    uint64_t slow_until_ns; /* Until then up to SLOW_NS. */
    uint64_t
        damage_until_ns; /* Until then payloads between nodes are damaged, sometimes. */
};
enum { SLOW_NS = 300000000 };
extern struct network_faults network_faults;

/* Who can reach whom, or who stands still, is another: what waited goes on, soon; behind a
 * cut that has healed after up to `late_ns`. */
void network_changed(uint64_t late_ns);

/* A random connection between nodes breaks, with what is under way in it; false: there is
 * none. Or stalls until then. */
bool network_break_one(void);
bool network_stall_one(uint64_t until_ns);

/* All that lead from one side to another break, each or each second one. */
void network_break_cut(bool all);

/* Some message is late: behind a cut, or at a node that stands still. */
bool network_holds_something(void);

#endif
