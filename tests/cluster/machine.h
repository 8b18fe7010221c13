/* Between machine.c, loop.c and nodes.c. */
#ifndef TESTS_CLUSTER_MACHINE_H
#define TESTS_CLUSTER_MACHINE_H

#include "cluster.h"

struct program; /* net/program.h */

/* Stand for descriptors in struct resources; listening ones are enum port. */
enum memory_fd { FD_TABLE = 10, FD_PINS = 11, FD_ARENA = 12 };

/* worker_open() with the node's memory. */
void machine_open_worker(struct node *node);

uint64_t node_monotonic_ns(const struct node *node);

/* Controllers, by takeover.c. */
extern uint32_t machine_programs_started;

/* Who plays them; all NULL: nobody. */
struct machine_programs {
    /* With a journal at "SOCKET.journal". */
    void (*start)(struct program *program, struct node *node, const char *socket,
                  uint64_t term);
    void (*killed)(struct program *program);
    bool (*listens)(const char *socket);
};
extern struct machine_programs machine_programs;

/* It has ended: its worker hears of it, if it still wants to. It is gone soon. */
void machine_program_end(struct program *program, int exit_code, int signal_number);

/* All nodes are gone, and nobody has one open. */
void machine_forget_files(void);

/* What the last ring took to build. */
extern uint64_t machine_ring_ns;

#endif
