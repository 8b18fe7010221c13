#include "store/expiry.h"

#include "base/check.h"

#include <stdlib.h>

bool
expiry_init(struct expiry *expiry, uint32_t slot_count)
{
    *expiry = (struct expiry){
        .entries = calloc(slot_count, sizeof(struct expiry_entry)),
        .position = calloc(slot_count, sizeof(uint32_t)),
    };
    if (expiry->entries != NULL && expiry->position != NULL)
        return true;
    expiry_fini(expiry);
    return false;
}

void
expiry_fini(struct expiry *expiry)
{
    free(expiry->entries);
    free(expiry->position);
    *expiry = (struct expiry){0};
}

static void
place(struct expiry *expiry, uint32_t index, struct expiry_entry entry)
{
    expiry->entries[index] = entry;
    expiry->position[entry.slot] = index + 1;
}

/* `entry` belongs at `index` or nearer to the root. */
static void
sift_up(struct expiry *expiry, uint32_t index, struct expiry_entry entry)
{
    while (index > 0) {
        uint32_t parent = (index - 1) / 2;
        if (expiry->entries[parent].expires_ds <= entry.expires_ds)
            break;
        place(expiry, index, expiry->entries[parent]);
        index = parent;
    }
    place(expiry, index, entry);
}

/* `entry` belongs at `index` or farther from the root. */
static void
sift_down(struct expiry *expiry, uint32_t index, struct expiry_entry entry)
{
    for (;;) {
        uint64_t child = 2 * (uint64_t)index + 1;
        if (child >= expiry->count)
            break;
        if (child + 1 < expiry->count &&
            expiry->entries[child + 1].expires_ds < expiry->entries[child].expires_ds)
            child++;
        if (expiry->entries[child].expires_ds >= entry.expires_ds)
            break;
        place(expiry, index, expiry->entries[child]);
        index = (uint32_t)child;
    }
    place(expiry, index, entry);
}

static void
take_out(struct expiry *expiry, uint32_t slot)
{
    uint32_t index = expiry->position[slot] - 1;
    expiry->position[slot] = 0;
    struct expiry_entry last = expiry->entries[--expiry->count];
    if (last.slot == slot)
        return;
    if (index > 0 && expiry->entries[(index - 1) / 2].expires_ds > last.expires_ds)
        sift_up(expiry, index, last);
    else
        sift_down(expiry, index, last);
}

void
expiry_set(struct expiry *expiry, uint32_t slot, uint32_t expires_ds)
{
    /* Reading the position first would touch memory that most stores never need. */
    if (expiry->count > 0 && expiry->position[slot] != 0)
        take_out(expiry, slot);
    if (expires_ds == 0)
        return;
    struct expiry_entry entry = {.expires_ds = expires_ds, .slot = slot};
    sift_up(expiry, expiry->count++, entry);
}

bool
expiry_due(const struct expiry *expiry, uint64_t now_ds, uint32_t *out_slot)
{
    if (expiry->count == 0 || expiry->entries[0].expires_ds > now_ds)
        return false;
    *out_slot = expiry->entries[0].slot;
    return true;
}

uint32_t
expiry_next(const struct expiry *expiry)
{
    return expiry->count == 0 ? 0 : expiry->entries[0].expires_ds;
}

uint32_t
expiry_of(const struct expiry *expiry, uint32_t slot)
{
    if (expiry->count == 0 || expiry->position[slot] == 0)
        return 0;
    return expiry->entries[expiry->position[slot] - 1].expires_ds;
}

void
expiry_check(const struct expiry *expiry)
{
    for (uint32_t i = 0; i < expiry->count; i++) {
        const struct expiry_entry *entry = &expiry->entries[i];
        DS_ASSERT(entry->expires_ds != 0);
        DS_ASSERT(expiry->position[entry->slot] == i + 1);
        DS_ASSERT(i == 0 ||
                  expiry->entries[(i - 1) / 2].expires_ds <= entry->expires_ds);
    }
}
