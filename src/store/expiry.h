/* Which objects expire, earliest first: a binary heap with room for every slot, made of
 * zero memory that stays untouched until objects with a time to live exist.
 * Owner: loop thread. */
#ifndef STORE_EXPIRY_H
#define STORE_EXPIRY_H

#include <stdbool.h>
#include <stdint.h>

struct expiry_entry {
    uint32_t expires_ds;
    uint32_t slot;
};

/* Invariant: position[entries[i].slot] == i + 1; 0 for slots that are not in. */
struct expiry {
    struct expiry_entry *entries;
    uint32_t *position;
    uint32_t count;
};

/* False when out of memory. */
bool expiry_init(struct expiry *expiry, uint32_t slot_count);
void expiry_fini(struct expiry *expiry);

/* Let `slot` expire at `expires_ds`; 0 takes it out. Whether it was in or not. */
void expiry_set(struct expiry *expiry, uint32_t slot, uint32_t expires_ds);

/* The slot that expires first, if it is due. */
bool expiry_due(const struct expiry *expiry, uint64_t now_ds, uint32_t *out_slot);

/* 0 if nothing expires. */
uint32_t expiry_next(const struct expiry *expiry);

/* When `slot` expires; 0 if it is not in. */
uint32_t expiry_of(const struct expiry *expiry, uint32_t slot);

void expiry_check(const struct expiry *expiry);

#endif
