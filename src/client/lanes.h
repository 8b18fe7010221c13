/* Who asks, to a controller: a request takes a lane, one at a time, and is numbered there, so
 * that it takes effect once however often it is sent. */
#ifndef CLIENT_LANES_H
#define CLIENT_LANES_H

#include <stdint.h>
#include <sys/types.h>

/* Owner: its lanes; while a call is under way, the call. */
struct lane {
    struct lane *next; /* While no call has it. */
    uint64_t client;
    uint64_t last_number;
};

/* Guarded by the library's lock. */
struct lanes {
    struct lane *free; /* Owned. */
    pid_t pid; /* They are the process's that made them, not a forked child's. */
};

void lanes_init(struct lanes *lanes);
void lanes_fini(struct lanes *lanes); /* Lock held. */

/* Both take the lock. NULL when out of memory. */
struct lane *lanes_take(struct lanes *lanes);
void lanes_leave(struct lanes *lanes, struct lane *lane);

#endif
