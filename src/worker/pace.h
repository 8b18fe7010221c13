/* How a helper thread keeps out of the way: after each step of its work it rests nine
 * times as long as it kept a core busy, so it has at most a tenth of one. What counts is
 * its own processor time, since a step that had to wait for a core took nobody's.
 * Rests are whole milliseconds, rounded up. Pure. */
#ifndef WORKER_PACE_H
#define WORKER_PACE_H

#include <stdint.h>

static inline uint64_t
pace_rest_ms(uint64_t busy_ns)
{
    uint64_t rest_per_busy = 9, ns_per_ms = 1000000;
    return (busy_ns * rest_per_busy + ns_per_ms - 1) / ns_per_ms;
}

#endif
