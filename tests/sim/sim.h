/* The simulated machine: processes, time and chance, all from one seed.
 *
 * The worker, the controller and the client library run here as they are; what they
 * would ask of Linux and of libuv is answered by the files of this folder:
 *
 *   kernel.c    processes, their fibers, time            above src/store/step.h's hook
 *   memory.c    malloc(): a killed process loses it all  (--wrap at the link)
 *   sockets.c   sockets, and descriptors.c               in place of src/os
 *   machine.c   clock, random numbers, memory files, ... in place of src/os
 *   disk.c      files that outlive a process             in place of src/os
 *   loop.c      the functions of libuv that daemons use  in place of libuv
 *   library.c   the library's state, one per process     in place of src/client/library.c
 *
 *   daemons.c   the node: its supervisor, its worker, its controller
 *   oracle.c    what clients did and saw, and whether that can be
 *   workload.c  what clients do, with the queue: queue_load.c
 *   faults.c    what goes wrong meanwhile
 *
 * One thread; a process gives up the processor where it would wait, and now and then
 * between two stores to shared memory, so that everything is seen half-done. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "base/list.h"

#include <datasystem/datasystem.h>

#include <stdio.h>

#define SIM_MS UINT64_C(1000000)
#define SIM_S  UINT64_C(1000000000)

/* ---- Chance ---- */

uint64_t sim_random(void);
uint64_t sim_below(uint64_t count);               /* 0 to count - 1 */
uint64_t sim_between(uint64_t min, uint64_t max); /* both inclusive */
bool sim_chance(uint64_t times, uint64_t of);

/* ---- Processes (kernel.c) ---- */

/* What src/client/library.c keeps for a process. */
struct library_state {
    struct list pools;
    struct list mappings;
    struct list deferred;
    uint32_t sequence;
    bool is_ready;
    bool is_locked;
};

struct process {
    struct list link;
    uint32_t pid; /* Never reused. */
    char name[24];
    bool is_visible;      /* Others see its pid. */
    uint32_t fiber_count; /* It ends with the last one. */
    uint64_t steps_left;  /* Until it is killed between two stores; 0: it is not. */
    uint64_t stalled_until_ns; /* It gets no processor. */
    uint32_t losses;           /* Connections that ended at the other end, or broke. */
    struct list memory;        /* What it allocated: memory.c */
    struct library_state library;
    void (*on_end)(void *arg); /* In no process. */
    void *end_arg;
};

typedef void (*fiber_fn)(void *arg);

/* A new process with one fiber. */
struct process *process_start(const char *name, fiber_fn main, void *arg);
/* One more thread of it. */
void process_add_fiber(struct process *process, fiber_fn main, void *arg);
/* At once; of the current process: does not return. */
void process_kill(struct process *process);
struct process *process_current(void); /* NULL: the simulation itself. */
struct process *process_find(uint32_t pid);
/* Its fibers look again for what they wait for. */
void process_wake(struct process *process);
void process_wake_at(const struct process *process, uint64_t ns);

/* The current fiber waits until its process is woken, or until then. */
void sim_block(uint64_t until_ns);
void sim_sleep(uint64_t ns);
/* The others may have the processor, but need not. */
void sim_yield(void);
void sim_yield_rarely(void);

/* ---- The whole ---- */

struct sim {
    uint64_t now_ns;
    uint64_t switches;
    uint64_t hash; /* Of everything that happened, in order. */
    uint64_t seed;
    size_t stream_bytes_max; /* Under way in a connection; who sends more waits. */
    uint32_t preempt_of;     /* A process is preempted once in so many stores. */
    uint64_t lag_until_ns;   /* The network is slow. */
    bool calm;               /* Nothing goes wrong any more, */
    uint64_t calm_since_ns;  /* since then. */
    bool is_tracing;
    FILE *out;
    const char *failure;
};
extern struct sim sim;

/* Runs `body` as a fiber of no process until it returns. False: see sim.failure. */
bool sim_run(uint64_t seed, fiber_fn body, void *arg);

void sim_note(uint64_t what); /* Into the hash. */
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* As sim_trace(), but not part of what happened. */
void sim_print(const char *line);
/* Ends the run: something is wrong with the product. Does not return. */
void
sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn, cold));

/* ---- Memory (memory.c) ---- */

void memory_free_all(struct process *process);
void *sim_allocate(size_t bytes); /* Zeroed, of no process; never NULL. */
void sim_free(void *data);

/* ---- Descriptors (descriptors.c, sockets.c) ---- */

struct object;
int descriptor_open(struct object *object);
void descriptors_close_of(struct process *process);
void descriptors_give(int fd, struct process *owner);
void descriptors_reset(void);
void disk_reset(void);                        /* disk.c */
short descriptor_ready(int fd, short events); /* As poll() tells. */
void descriptor_watch(int fd);                /* Events there wake this process. */
void descriptors_process_ended(const struct process *process);
uint32_t descriptors_count(void);

/* A random connection breaks, with what is under way in it. False: there is none. */
bool sockets_break_one(void);
/* Nobody gets through to listeners until then. */
void sockets_refuse_until(uint64_t ns);

int memory_file_open(uint64_t bytes);

void *memory_file_data(int fd);
int socket_listen_any(const char *name); /* "unix:PATH" or "tcp:PORT" */
int mailbox_object_open(void *box);
void mailbox_object_ready(int fd, bool is_ready);
int lock_object_open(const char *path); /* -1: somebody has it. */

/* Whether this run has a key that everybody knows, and proves over TCP. */
void machine_choose_secret(void);

#endif
