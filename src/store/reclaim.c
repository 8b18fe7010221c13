/* From DEAD to FREE. A pin and a death race; docs/decisions/0002-pins.md says why the
 * fence here and the one in pin_acquire() settle it. */
#include "store/internal.h"

#include "base/check.h"
#include "base/planted.h"

#include <stdlib.h>

enum {
    SCAN_OBJECTS = 64,       /* Deaths worth a scan, */
    SCAN_BYTES = 16 << 20,   /* or bytes, */
    SCAN_PINS_PER_DEATH = 64 /* when that many pins are to be read for each death. */
};

bool
limbo_init(struct store *store)
{
    struct limbo *limbo = &store->limbo;
    limbo->slots = calloc(store->table.slot_count, sizeof *limbo->slots);
    return limbo->slots != NULL &&
           unit_map_init(&limbo->marks, store->table.arena_bytes);
}

void
limbo_fini(struct store *store)
{
    free(store->limbo.slots);
    unit_map_fini(&store->limbo.marks);
    store->limbo = (struct limbo){0};
}

void
limbo_add(struct store *store, uint32_t index)
{
    struct limbo *limbo = &store->limbo;
    const struct slot *slot = table_slot(&store->table, index);
    DS_ASSERT(slot_state_of(slot) == SLOT_DEAD);
    DS_ASSERT(limbo->count < store->table.slot_count);
    limbo->slots[limbo->count++] = index;
    limbo->bytes += slot->size;
}

/* A client may have written any number; only marked units mean something. */
static void
keep_pinned(uint64_t unit, void *arg)
{
    struct limbo *limbo = arg;
    limbo->pins_seen++;
    if (unit < limbo->marks.units && !PLANTED(FORGOTTEN_PIN))
        unit_map_clear(&limbo->marks, unit);
}

void
free_slot_push(struct store *store, uint32_t index)
{
    store->link[index] = store->free_slot;
    store->free_slot = index;
    store->free_count++;
}

/* FREE is committed before anything is given back, so that a crash never leaves a dead
 * slot that claims bytes of a newer object. */
static void
release(struct store *store, uint32_t index)
{
    struct slot *slot = table_slot(&store->table, index);
    uint64_t generation = commit_generation(slot_commit(slot));
    DS_ASSERT(slot_state_of(slot) == SLOT_DEAD);
    slot_set_commit(slot, generation, SLOT_FREE, "reclaim commit");
    store->limbo.bytes -= slot->size;
    table_key_free(&store->table, slot);
    arena_free(store->arena, place_offset(slot->place), slot->size,
               store_alignment(store, slot->size));
    if (generation >= GENERATION_MAX)
        store->resting_count++;
    else
        free_slot_push(store, index);
}

uint64_t
limbo_reclaim(struct store *store)
{
    struct limbo *limbo = &store->limbo;
    if (limbo->count == 0 || store->holds.unnamed > 0)
        return 0;
    for (uint32_t i = 0; i < limbo->count; i++)
        unit_map_set(&limbo->marks,
                     slot_unit(table_slot(&store->table, limbo->slots[i])));

    /* Every DEAD above is visible before a pin is read. */
    STEP_FENCE("reclaim fence");
    limbo->pins_seen = 0;
    pins_visit(&store->pins, keep_pinned, limbo);
    holds_visit(&store->holds, keep_pinned, limbo);

    uint32_t kept = 0;
    for (uint32_t i = 0; i < limbo->count; i++) {
        uint32_t index = limbo->slots[i];
        uint64_t unit = slot_unit(table_slot(&store->table, index));
        if (unit_map_test(&limbo->marks, unit)) {
            unit_map_clear(&limbo->marks, unit);
            release(store, index);
        } else {
            limbo->slots[kept++] = index;
        }
    }
    uint64_t freed = limbo->count - kept;
    limbo->count = kept;
    limbo->count_after_scan = kept;
    limbo->bytes_after_scan = limbo->bytes;
    return freed;
}

/* ---- Before a death ---- */

void
limbo_mark(struct store *store, uint32_t index)
{
    unit_map_set(&store->limbo.marks, slot_unit(table_slot(&store->table, index)));
}

void
limbo_unmark_pinned(struct store *store)
{
    pins_visit(&store->pins, keep_pinned, &store->limbo);
    holds_visit(&store->holds, keep_pinned, &store->limbo);
}

bool
limbo_take_mark(struct store *store, uint32_t index)
{
    uint64_t unit = slot_unit(table_slot(&store->table, index));
    bool marked = unit_map_test(&store->limbo.marks, unit);
    unit_map_clear(&store->limbo.marks, unit);
    return marked;
}

/* The slot of an entry of `pending` that is lent, or NULL. */
static const struct slot *
lent_slot(const struct store *store, uint32_t at)
{
    const struct slot *slot = table_slot(&store->table, store->pending[at].slot);
    return slot_state_of(slot) == SLOT_WRITING && slot_is_lent(slot) ? slot : NULL;
}

/* Whoever pins between the look at the pins and the death finds its slot dead, or is
 * seen by the scan that reclaims. Backwards: the dead leave `pending`. */
void
limbo_take_back(struct store *store)
{
    for (uint32_t i = 0; i < store->pending_count; i++) {
        if (lent_slot(store, i) != NULL)
            limbo_mark(store, store->pending[i].slot);
    }
    limbo_unmark_pinned(store);
    for (uint32_t i = store->pending_count; i > 0; i--) {
        uint32_t index = store->pending[i - 1].slot;
        if (lent_slot(store, i - 1) != NULL && limbo_take_mark(store, index))
            object_die(store, index);
    }
    (void)limbo_reclaim(store);
}

void
limbo_reclaim_if_due(struct store *store)
{
    const struct limbo *limbo = &store->limbo;
    uint64_t died = limbo->count - limbo->count_after_scan;
    uint64_t died_bytes = limbo->bytes - limbo->bytes_after_scan;
    bool many = died >= SCAN_OBJECTS && died >= limbo->pins_seen / SCAN_PINS_PER_DEATH;
    if (many || died_bytes >= SCAN_BYTES)
        (void)limbo_reclaim(store);
}
