/* Checksums that come after the seal: finding what has none, and setting it. */
#include "store/internal.h"

#include "base/check.h"

bool
store_set_checksum(struct store *store, struct object_ref ref, uint64_t checksum)
{
    if (ref.slot >= table_slots_used(&store->table))
        return false;
    struct slot *slot = table_slot(&store->table, ref.slot);
    if (slot_commit(slot) != commit_word(ref.generation, SLOT_SEALED) ||
        slot_has_checksum(slot))
        return false;
    DS_ASSERT(store->unchecked_count > 0);
    store->unchecked_count--;
    /* Readers look at the flag first: with it the number is there. */
    uint64_t place = slot->place | (uint64_t)SLOT_FLAG_CHECKSUM << 16;
    STEP_STORE(slot->checksum, checksum, "checksum");
    __atomic_store_n(&slot->place, place, __ATOMIC_RELEASE);
    step_reached("checksum flag");
    store_checkpoint(store);
    return true;
}

bool
store_next_without_checksum(const struct store *store, uint32_t *cursor,
                            uint32_t slots_max, struct object_view *out)
{
    uint32_t used = table_slots_used(&store->table);
    for (uint32_t i = 0; store->unchecked_count > 0 && i < slots_max; i++) {
        uint32_t index = *cursor < used ? *cursor : 0;
        const struct slot *slot = table_slot(&store->table, index);
        *cursor = index + 1;
        if (slot_state_of(slot) != SLOT_SEALED || slot_has_checksum(slot))
            continue;
        view_of(store, index, out);
        return true;
    }
    return false;
}
