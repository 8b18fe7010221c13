/* The reader's side of the pin protocol (design: docs/decisions/0002-pins.md).
 *
 *      reader                                worker (reclaim)
 *      has {slot, commit, offset}
 *      word = pin(offset)                    commit = DEAD, generation + 1
 *      fence seq_cst                         fence seq_cst
 *      commit unchanged? use : unpin         word names offset? keep : free
 *
 * Whichever fence comes second sees the other side's store, so the extent is never both
 * used and freed. Used by clients on memory that they mapped; no locks, no calls. */
#ifndef STORE_PIN_H
#define STORE_PIN_H

#include "store/layout.h"

#include <stdbool.h>
#include <stdint.h>

/* Pin `offset` with words[index] and confirm that `slot` still has `commit`. On false
 * the word is 0 again and the caller asks the worker once more. The word must be 0
 * before. A client also pins what it is about to write, with the WRITING word: so no
 * mistake about who owns an unsealed extent can make two writers share it. */
bool pin_acquire(struct pin_region *region, uint32_t index, const struct slot *slot,
                 uint64_t commit, uint64_t offset);

void pin_release(struct pin_region *region, uint32_t index);

/* The owner has mapped its region and may pin from now on, without a word to the worker:
 * it is to keep the region until it knows that the owner is gone. */
void pin_announce(struct pin_region *region);

#endif
