/* Objects that may go when room is short: copies of what another node has, which go
 * first, and what its writer allowed to go. Taken in the order of their slots, from where
 * the last search ended, so that what is new mostly stays; what is pinned stays, too. */
#include "store/internal.h"

enum { EVICT_AT_ONCE = 256 };

struct victims {
    uint32_t slots[EVICT_AT_ONCE];
    uint32_t count;
    uint64_t bytes;
};

static bool
is_candidate(const struct slot *slot, enum slot_flags flag)
{
    return slot_state_of(slot) == SLOT_SEALED && !slot_is_provisional(slot) &&
           (place_flags(slot->place) & flag) != 0;
}

/* The next candidates from *cursor on, enough for `bytes` if there are; false once all
 * `left` slots were looked at. */
static bool
collect(struct store *store, enum slot_flags flag, uint64_t bytes, uint32_t *left,
        struct victims *out)
{
    uint32_t slots = table_slots_used(&store->table);
    out->count = 0;
    out->bytes = 0;
    for (; *left > 0 && out->count < EVICT_AT_ONCE && out->bytes < bytes; (*left)--) {
        uint32_t index = store->evict_cursor < slots ? store->evict_cursor : 0;
        const struct slot *slot = table_slot(&store->table, index);
        store->evict_cursor = index + 1;
        if (!is_candidate(slot, flag))
            continue;
        out->slots[out->count++] = index;
        out->bytes += slot->size;
    }
    return out->count > 0;
}

/* Those that nobody pins or holds. A reader that pins one between the look at the pins
 * and its death finds it dead, or is seen by the scan that reclaims. */
static uint32_t
kill_unpinned(struct store *store, const struct victims *victims)
{
    uint32_t killed = 0;
    for (uint32_t i = 0; i < victims->count; i++)
        limbo_mark(store, victims->slots[i]);
    limbo_unmark_pinned(store);
    for (uint32_t i = 0; i < victims->count; i++) {
        if (!limbo_take_mark(store, victims->slots[i]))
            continue;
        object_die(store, victims->slots[i]);
        killed++;
    }
    return killed;
}

bool
evict(struct store *store, enum slot_flags flag, uint64_t bytes)
{
    struct victims victims;
    uint64_t count =
        flag == SLOT_FLAG_COPY ? store->copy_count : store->evictable_count;
    if (count == 0 || store->holds.unnamed > 0)
        return false; /* There is none, or what is held cannot be told. */
    uint32_t left = table_slots_used(&store->table);
    while (collect(store, flag, bytes, &left, &victims)) {
        if (kill_unpinned(store, &victims) == 0)
            continue;
        (void)limbo_reclaim(store);
        return true;
    }
    return false;
}

void
evictable_count(struct store *store, const struct slot *slot, int change)
{
    uint8_t flags = place_flags(slot->place);
    if ((flags & SLOT_FLAG_COPY) != 0)
        store->copy_count += (uint64_t)change;
    if ((flags & SLOT_FLAG_EVICTABLE) != 0)
        store->evictable_count += (uint64_t)change;
}
