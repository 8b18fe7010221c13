/* Starting, stopping and losing nodes of the cluster. Node 0 is the head: the metastore is
 * in its worker. */
#ifndef TESTS_SCALE_CLUSTER_H
#define TESTS_SCALE_CLUSTER_H

#include "scale.h"

/* Nodes that are not up yet, with room for so many keys each. */
void cluster_open(uint32_t places, uint32_t keys_per_node);

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

/* Something is not as it must be. */
void scale_fail(const char *format, ...)
    __attribute__((format(printf, 1, 2), noreturn, cold));

#endif
