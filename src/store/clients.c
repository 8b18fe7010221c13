/* Clients, and the objects that end with them. */
#include "store/internal.h"

#include "base/check.h"
#include "base/planted.h"

enum ds_status
store_client_add(struct store *store, const struct client_identity *identity,
                 uint32_t *out_region, struct ds_error *err)
{
    return pins_add(&store->pins, identity, out_region, err);
}

bool
store_client_get(const struct store *store, uint32_t region,
                 struct client_identity *out)
{
    if (region >= store->pins.region_count || !store->pins.used[region])
        return false;
    const struct pin_region *shared = pins_region(&store->pins, region);
    *out = (struct client_identity){
        .pid = shared->pid,
        .pid_start_time = shared->pid_start_time,
        .token = shared->token,
        .has_mark = atomic_load(&shared->state) == PIN_REGION_MARKED,
    };
    return true;
}

static bool
is_writing(const struct store *store, const struct pending *pending)
{
    return slot_state_of(table_slot(&store->table, pending->slot)) == SLOT_WRITING;
}

/* Backwards: object_die() fills the hole with the last one, which was seen already. */
static void
abort_writing_of(struct store *store, uint32_t client)
{
    for (uint32_t i = store->pending_count; i > 0; i--) {
        struct pending *pending = &store->pending[i - 1];
        if (pending->client == client && !pending->kept && is_writing(store, pending) &&
            !PLANTED(LEAKED_WRITING))
            object_die(store, pending->slot);
    }
}

bool
client_is_known(const struct store *store, uint32_t client)
{
    return client == 0 || store->pins.used[client - 1];
}

void
pending_orphan(struct store *store, struct pending *pending)
{
    struct slot *slot = table_slot(&store->table, pending->slot);
    DS_ASSERT(slot_is_provisional(slot));
    STEP_STORE(slot->client, 0, "orphan client");
    pending->client = 0;
}

bool
store_client_has_mapped(const struct store *store, uint32_t region)
{
    const struct pin_region *words = pins_region(&store->pins, region);
    return atomic_load_explicit(&words->words_used, memory_order_acquire) > 0;
}

static void
orphan_provisional_of(struct store *store, uint32_t client)
{
    for (uint32_t i = 0; i < store->pending_count; i++) {
        if (store->pending[i].client == client)
            pending_orphan(store, &store->pending[i]);
    }
}

/* The region is free last: a worker that ends before it finds the dead client again. */
void
store_client_remove(struct store *store, uint32_t region)
{
    DS_ASSERT(region < store->pins.region_count);
    abort_writing_of(store, region + 1);
    orphan_provisional_of(store, region + 1);
    pins_remove(&store->pins, region);
    store_checkpoint(store);
}

/* The pending entry of a WRITING object of `client`, or NULL. */
static struct pending *
writing_entry(const struct store *store, struct object_ref ref, uint32_t client)
{
    if (ref.slot >= table_slots_used(&store->table))
        return NULL;
    const struct slot *slot = table_slot(&store->table, ref.slot);
    if (slot_commit(slot) != commit_word(ref.generation, SLOT_WRITING))
        return NULL;
    struct pending *pending = &store->pending[store->link[ref.slot]];
    return pending->client == client ? pending : NULL;
}

bool
store_find_writing(const struct store *store, struct object_ref ref, uint32_t client,
                   struct object_view *out)
{
    if (client == 0 || writing_entry(store, ref, client) == NULL)
        return false;
    view_of(store, ref.slot, out);
    return true;
}

void
store_client_keep_only(struct store *store, uint32_t region,
                       const struct object_ref *keep, size_t keep_count)
{
    for (size_t i = 0; i < keep_count; i++) {
        struct pending *pending = writing_entry(store, keep[i], region + 1);
        if (pending != NULL && !PLANTED(RESUME_DROPS))
            pending->kept = true;
    }
    abort_writing_of(store, region + 1);
    for (uint32_t i = 0; i < store->pending_count; i++)
        store->pending[i].kept = false;
    store_checkpoint(store);
}

void
store_abort_request(struct store *store, uint32_t client, uint32_t sequence)
{
    for (uint32_t i = store->pending_count; i > 0; i--) {
        struct pending *pending = &store->pending[i - 1];
        if (pending->client == client && pending->sequence == sequence &&
            is_writing(store, pending))
            object_die(store, pending->slot);
    }
    store_checkpoint(store);
}

void
store_client_copy_pins(struct store *store, uint32_t from, uint32_t to)
{
    pins_copy(&store->pins, from, to);
}

void
store_client_provisional(struct store *store, uint32_t client, store_orphan_fn fn,
                         void *arg)
{
    for (uint32_t i = 0; i < store->pending_count; i++) {
        const struct pending *pending = &store->pending[i];
        if (pending->client != client || is_writing(store, pending))
            continue;
        const struct slot *slot = table_slot(&store->table, pending->slot);
        fn(table_key(&store->table, slot), arg);
    }
}
