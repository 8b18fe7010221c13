/* The pin words of our region: one per extent, however many buffers hold it.
 *
 * Owner: a mapping; the library's lock guards it. In a forked child the region is the
 * parent's, and only pins_fini() may be called. */
#ifndef CLIENT_PINS_H
#define CLIENT_PINS_H

#include "base/hmap.h"
#include "store/layout.h"

#include <stdbool.h>
#include <stdint.h>

struct pin;

/* Invariants: every word below `next_word` belongs to one struct pin, which is either
 * in `by_offset` (holders >= 1, word set) or in `free` (word 0). */
struct pins {
    struct pin_region *region; /* Mapped by the owner. */
    uint32_t word_count;
    uint32_t next_word;
    struct hmap by_offset;
    struct pin *free;
};

enum pin_result {
    PIN_TAKEN,
    PIN_STALE,     /* The slot lives another life by now: ask the worker again. */
    PIN_EXHAUSTED, /* All words are in use, or out of memory. */
};

void pins_init(struct pins *pins, struct pin_region *region, uint32_t word_count);

/* Frees the bookkeeping; leaves the words alone. */
void pins_fini(struct pins *pins);

/* Keep the extent at `offset`, if `slot` still has `commit`. */
enum pin_result pins_acquire(struct pins *pins, const struct slot *slot,
                             uint64_t commit, uint64_t offset);
void pins_release(struct pins *pins, uint64_t offset);

/* Extents held. */
uint32_t pins_count(const struct pins *pins);

/* Walk everything and assert that it adds up. */
void pins_check(const struct pins *pins);

#endif
