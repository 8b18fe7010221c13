/* The step hook: called after every store to shared memory, and after those loads from it
 * that somebody else's store can race with, with a name, so that a test can stop the
 * world there. */
#ifndef STORE_STEP_H
#define STORE_STEP_H

#include "store/store.h"

/* Set by store_set_step_hook() only. */
extern store_step_fn step_hook;
extern void *step_hook_arg;

static inline void
step_reached(const char *name)
{
    if (__builtin_expect(step_hook != NULL, 0))
        step_hook(name, step_hook_arg);
}

/* One plain store to shared memory. */
#define STEP_STORE(target, value, name) ((target) = (value), step_reached(name))

/* One atomic store to shared memory: everything stored before is visible with it. */
#define STEP_RELEASE(target, value, name) \
    (atomic_store_explicit((target), (value), memory_order_release), step_reached(name))

/* A full fence. A test that models store buffers empties this side's here. */
#define STEP_FENCE(name) (atomic_thread_fence(memory_order_seq_cst), step_reached(name))

#endif
