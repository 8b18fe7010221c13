#include "store/pin.h"

#include "base/check.h"
#include "base/planted.h"
#include "store/step.h"

/* The worker scans only words below words_used, so it has to cover `index` before the
 * word is set. Threads of one client may raise it at once: the highest wins. */
static void
cover(struct pin_region *region, uint32_t index)
{
    uint64_t wanted = (uint64_t)index + 1;
    uint64_t used = atomic_load_explicit(&region->words_used, memory_order_relaxed);
    while (used < wanted) {
        if (atomic_compare_exchange_weak_explicit(&region->words_used, &used, wanted,
                                                  memory_order_relaxed,
                                                  memory_order_relaxed)) {
            step_reached("pin words used");
            return;
        }
    }
}

bool
pin_acquire(struct pin_region *region, uint32_t index, const struct slot *slot,
            uint64_t commit, uint64_t offset)
{
    _Atomic uint64_t *word = &region->words[index];
    DS_ASSERT(commit_state(commit) == SLOT_SEALED ||
              commit_state(commit) == SLOT_WRITING);
    DS_ASSERT(atomic_load_explicit(word, memory_order_relaxed) == 0);
    cover(region, index);
    /* Release, so that what this word pinned before is done with, whichever of the two
     * values the worker reads. */
    STEP_RELEASE(word, pin_word(offset), "pin word");
    STEP_FENCE("pin fence");
    uint64_t now = atomic_load_explicit(&slot->commit, memory_order_acquire);
    step_reached("pin check");
    if (now == commit || PLANTED(UNCHECKED_PIN))
        return true;
    STEP_RELEASE(word, 0, "pin take back");
    return false;
}

void
pin_release(struct pin_region *region, uint32_t index)
{
    DS_ASSERT(atomic_load_explicit(&region->words[index], memory_order_relaxed) != 0);
    /* Release: every read of the extent happens before the worker sees the 0. */
    STEP_RELEASE(&region->words[index], 0, "pin release");
}

void
pin_announce(struct pin_region *region)
{
    cover(region, 0);
}
