/* What all clients of this process share: one lock, and what a fork must know.
 *
 * The lock guards pools, mappings, pins and the list of unsealed buffers. It is held
 * for short stretches of plain code: never while something waits for a socket, and
 * never while the caller's hook runs. There is one for the process so that a fork can
 * take it and so hand the child a state that is whole. */
#ifndef CLIENT_LIBRARY_H
#define CLIENT_LIBRARY_H

#include "base/list.h"

#include <pthread.h>
#include <stdint.h>

/* Installs the fork handlers once. Every open calls it. */
void library_init(void);

void library_lock(void);

/* Then runs what library_defer() collected. */
void library_unlock(void);

/* Gives the lock up until library_wake() or for `ms`, and takes it again. */
void library_wait(uint32_t ms);
void library_wake(void);

/* The same without a limit, until `condition` is signalled, which may also be for nothing.
 */
void library_wait_on(pthread_cond_t *condition);

/* Work too slow for the lock (unmapping), done by the next library_unlock(). */
struct deferred {
    struct list link;
    void (*run)(struct deferred *work);
};
void library_defer(struct deferred *work);

/* All pools and all mappings, for the fork handlers. Lock held. */
struct list *library_pools(void);
struct list *library_mappings(void);

/* Number of a request: unique among all that this process ever sends, and most likely
 * not one that an earlier user of the same client number sent. */
uint32_t library_next_sequence(void);

/* For fork.c: take and give back the lock around fork(). */
void library_before_fork(void);
void library_after_fork(void);
void library_after_fork_in_child(void);

#endif
