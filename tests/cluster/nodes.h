/* Starting, stopping and losing nodes of the cluster. Node 0 is the head: the metastore is
 * in its worker. */
#ifndef TESTS_CLUSTER_NODES_H
#define TESTS_CLUSTER_NODES_H

#include "cluster.h"

struct cluster_options {
    const char *name; /* Of the program, for what is wrong. */
    uint32_t places;
    struct store_geometry geometry; /* Of each node. */
    uint32_t node_timeout_s;        /* 0: what the flag has. */
};

/* Nodes that are not up yet. */
void cluster_open(const struct cluster_options *options);

/* Room for a node's own keys, and for copies of others. */
struct store_geometry cluster_geometry(uint32_t keys_per_node);

/* Stops all, without measuring it. */
void cluster_close(void);

/* With a new arena. It joins. */
void node_start(struct node *node);

/* Told to stop: it says goodbye. */
void node_stop(struct node *node);

/* Supervisor and child at once; the kernel closes what they had. */
void node_kill(struct node *node);

/* The machine stands still, and its network with it. */
void node_silence(struct node *node);

/* The child alone, now, or between two stores of those that it makes next: its memory is as
 * it was then. */
void node_crash(struct node *node);
void node_crash_after(struct node *node, uint64_t steps);

/* Its supervisor starts another child on the same memory. */
void node_revive(struct node *node);

/* The child gets no processor, until it goes on. Asleep: with its machine, and its
 * monotonic clock. */
void node_stall(struct node *node);
void node_go_on(struct node *node, bool was_asleep, uint64_t stalled_ns);

/* It ended by itself, as it was told to: its memory is gone. */
bool node_has_stopped(const struct node *node);
void node_end(struct node *node);

uint32_t node_id(const struct node *node);
struct node *cluster_find(uint32_t id);

/* Those that run, and say so. */
uint32_t cluster_running(void);

/* Of all that run: whether they know the same members, `count` of them, in an epoch after
 * `after`. Ends the program if an epoch of a node goes back. */
bool cluster_knows(uint32_t count, uint64_t after);

/* And whether each knows what its keys are. */
bool cluster_knows_keys(void);
uint64_t cluster_epoch(void);

/* Each node holds `per_node` users' keys, and their owners know of it. */
void cluster_add_keys(uint32_t per_node);
struct ds_slice key_name(char *out, size_t out_bytes, uint32_t node, uint32_t number);

/* Something is not as it must be: ends the program. */
void cluster_fail(const char *format, ...)
    __attribute__((format(printf, 1, 2), noreturn, cold));
extern void (*cluster_on_fail)(const char *text); /* Says so; NULL: to stderr. */

#endif
