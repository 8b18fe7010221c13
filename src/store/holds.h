/* Extents that the worker itself keeps while it sends from them, counted.
 * Owner: loop thread. */
#ifndef STORE_HOLDS_H
#define STORE_HOLDS_H

#include "base/hmap.h"

struct holds {
    struct hmap map; /* struct hold by offset. */
    /* Holds that found no memory: while there are any, all is kept. */
    uint64_t unnamed;
};

void holds_init(struct holds *holds);
void holds_fini(struct holds *holds);

void holds_add(struct holds *holds, uint64_t offset);

/* There must be one. */
void holds_remove(struct holds *holds, uint64_t offset);

/* Call fn with the unit (offset / 64) of every extent that is held. */
void
holds_visit(const struct holds *holds, void (*fn)(uint64_t unit, void *arg), void *arg);

#endif
