/* The worker's side of the pins file. Clients write in it, so nothing there is
 * believed: which regions are in use is remembered privately, counts are clamped, and
 * words are numbers that may name no extent at all. Owner: loop thread. */
#ifndef STORE_PINS_H
#define STORE_PINS_H

#include "store/store.h"

struct pins {
    struct pins_header *header;
    uint8_t *regions; /* Region 0. */
    uint64_t region_bytes;
    uint32_t region_count;
    uint32_t words_per_region;
    uint32_t used_count;
    bool *used; /* By region. */
};

/* Finds the regions that a worker before this one left in use.
 *   DS_MISMATCH, DS_NO_MEMORY */
DS_MUST_USE enum ds_status
pins_init(struct pins *pins, const struct store_memory *memory, struct ds_error *err);
void pins_fini(struct pins *pins);

struct pin_region *pins_region(const struct pins *pins, uint32_t region);

/* DS_FULL: every region is in use. */
DS_MUST_USE enum ds_status
pins_add(struct pins *pins, const struct client_identity *identity,
         uint32_t *out_region, struct ds_error *err);

/* Drop all pins of a region and free it. */
void pins_remove(struct pins *pins, uint32_t region);

/* Set in region `to` every word that is set in region `from`, at the same index. */
void pins_copy(struct pins *pins, uint32_t from, uint32_t to);

/* Call fn with the unit (offset / 64) of every pin that is set. */
typedef void (*pins_visit_fn)(uint64_t unit, void *arg);
void pins_visit(const struct pins *pins, pins_visit_fn fn, void *arg);
/* The same for one region; none if it is not in use. */
void pins_visit_region(const struct pins *pins, uint32_t region, pins_visit_fn fn,
                       void *arg);

#endif
