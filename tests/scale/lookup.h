/* Who talks to the workers from outside: a client, and a worker that has a journal. Their own
 * messages are not counted. */
#ifndef TESTS_SCALE_LOOKUP_H
#define TESTS_SCALE_LOOKUP_H

#include "cluster.h"

/* A client of that node looks for the key, which is found. Returns how long that took. */
uint64_t lookup_key(struct node *node, struct ds_slice key);

/* The node keeps a copy of the journal of a queue, whose controller is at `served_by`. */
void plant_journal(struct node *node, const struct node *served_by);

#endif
