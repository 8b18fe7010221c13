/* The simulated node: its supervisor with memory files and listening sockets, the worker
 * that it starts again and again, and a controller. */
#ifndef TESTS_SIM_NODE_H
#define TESTS_SIM_NODE_H

#include "sim.h"

#include "worker/worker.h"

#define NODE_HOST              "127.0.0.1"
#define NODE_PORT              31501
#define NODE_CONTROLLER_SOCKET "/run/queue/socket"

enum { NODE_CLIENTS_MAX = 12, NODE_DEAD_TIMEOUT_S = 3 };

struct node {
    struct process *worker; /* NULL: it is dead, and will be started. */
    struct worker state;    /* Of that process. */
    bool is_serving;        /* `state` is open. */
    int restarts;
    uint32_t arenas; /* How many there have been. */
    struct process *controller;
    uint32_t controllers; /* How many there have been. */
};
extern struct node node;

/* Begins with a new arena. Then keeps worker and controller alive. */
void node_start(bool with_controller);
/* The supervisor dies, and its worker and memory with it; another begins. */
void node_lose_memory(void);

/* Nothing may be left of clients that are gone: no pin, nothing unsealed, no dead extent;
 * every byte of the arena is free or of a live object; and, if all rows were cleared, no
 * block is there. */
void node_check_settled(bool no_blocks);

#endif
