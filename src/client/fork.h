/* Survives fork(): the child inherits what the parent shows it and touches nothing
 * else.
 *
 * In the child, connections are closed without a word and mappings are marked
 * inherited. So that what the child can see stays right after the parent lets go of it,
 * the parent asks the worker just before the fork to keep a copy of its pins for as
 * long as a descriptor is open; the child is the one who keeps it open. What the worker
 * looks at is a mark that the kernel keeps (memfile_mark()), so it outlives the worker.
 */
#ifndef CLIENT_FORK_H
#define CLIENT_FORK_H

/* Once per process. */
void fork_install(void);

#endif
