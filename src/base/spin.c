#include "base/spin.h"

#include "base/numeric.h"

enum { MISSES_FREE = 2 }; /* Before waits go without. */

uint32_t
spin_begin(struct spin *spin, uint64_t now_ns)
{
    if (now_ns < spin->paused_until_ns)
        return 0;
    if (spin->skips > 0) {
        spin->skips--;
        return 0;
    }
    return SPIN_NS_MAX;
}

static void
pause_for_others(struct spin *spin, uint64_t now_ns)
{
    uint64_t doubled = max_u64(2 * (uint64_t)spin->pause_ns, SPIN_PAUSE_NS_MIN);
    spin->pause_ns = (uint32_t)min_u64(doubled, SPIN_PAUSE_NS_MAX);
    spin->paused_until_ns = now_ns + spin->pause_ns;
}

void
spin_end(struct spin *spin, uint64_t now_ns, enum spin_outcome outcome)
{
    switch (outcome) {
    case SPIN_HIT:
        spin->misses = 0;
        spin->pause_ns /= 2;
        break;
    case SPIN_MISS:
        spin->misses++;
        if (spin->misses > MISSES_FREE)
            spin->skips = (uint32_t)min_u64(
                1u << min_u64(spin->misses - MISSES_FREE, 16), SPIN_SKIP_MAX);
        break;
    case SPIN_PREEMPTED:
        pause_for_others(spin, now_ns);
        break;
    }
}

bool
spin_look(struct spin *spin, uint64_t (*now_ns)(void), bool (*look)(void *arg),
          void *arg)
{
    uint64_t begin = now_ns();
    uint64_t now = begin;
    uint32_t budget = spin_begin(spin, begin);
    enum spin_outcome outcome = SPIN_MISS;
    while (outcome == SPIN_MISS && now - begin < budget) {
        uint64_t last = now;
        bool came = look(arg);
        now = now_ns();
        if (came)
            outcome = SPIN_HIT;
        else if (now - last > SPIN_PREEMPTED_NS)
            outcome = SPIN_PREEMPTED;
    }
    if (budget > 0)
        spin_end(spin, now, outcome);
    return outcome == SPIN_HIT;
}
