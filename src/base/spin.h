/* Whether to look again for a moment before sleeping, where the next thing often comes
 * within microseconds: waking a sleeping core costs more than looking.
 *
 *      budget = spin_begin(now)     0: sleep at once
 *      look until something came or the budget is over
 *      spin_end(how it went)
 *
 * which is what spin_look() does.
 *
 * As long as a wake-up can cost (competitive spinning: Karlin et al., 1991), which is up
 * to 200 us on a virtual machine. Looking that brings nothing becomes rare: after each
 * miss in a row twice as many waits go without. Where somebody else wanted the core meanwhile it stops for a while: a busy
 * machine is never slowed down by it for more than one budget in SPIN_PAUSE_NS_MIN.
 *
 * Owner: whoever waits; one thread at a time. Pure: time is an argument. */
#ifndef BASE_SPIN_H
#define BASE_SPIN_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SPIN_NS_MAX = 200 * 1000,         /* Of looking in one wait. */
    SPIN_PREEMPTED_NS = 20 * 1000,    /* Between two looks: others had the core. */
    SPIN_PAUSE_NS_MIN = 2000 * 1000,  /* Without looking, after that, */
    SPIN_PAUSE_NS_MAX = 64000 * 1000, /* when it happens again and again. */
    SPIN_SKIP_MAX = 64,               /* Waits without looking, after misses. */
};

/* All zero is a good start. */
struct spin {
    uint64_t paused_until_ns;
    uint32_t pause_ns; /* The last one; 0: none. */
    uint32_t misses;   /* In a row. */
    uint32_t skips;    /* Waits that still go without. */
};

enum spin_outcome { SPIN_HIT, SPIN_MISS, SPIN_PREEMPTED };

/* How long to look, in ns. */
uint32_t spin_begin(struct spin *spin, uint64_t now_ns);
void spin_end(struct spin *spin, uint64_t now_ns, enum spin_outcome outcome);

/* True as soon as `look` says so; false when it is time to sleep. */
bool spin_look(struct spin *spin, uint64_t (*now_ns)(void), bool (*look)(void *arg),
               void *arg);

#endif
