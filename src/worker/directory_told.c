/* What other members tell of keys that this one owns, when the ring changes or one is back
 * (reports.h), and what is forgotten. */
#include "base/planted.h"
#include "base/slice.h"
#include "os/clock.h"
#include "worker/directory_internal.h"
#include "worker/objects.h"
#include "worker/owners.h"
#include "worker/waiters.h"

/* So many deleted keys are remembered, of some 100 bytes each. */
enum { DELETED_MAX = 1000000 };

/* ---- An entry ---- */

bool
directory_is_bound(const struct binding *binding)
{
    return binding != NULL && binding->object.node != 0;
}

void
directory_set_object(const struct worker *worker, struct binding *binding,
                     struct object_name object)
{
    binding->object = object;
    binding->as_of = owners_epoch(worker->owners);
}

void
directory_set_expiry(struct binding *binding, uint32_t ttl_ds)
{
    binding->expires_ds = objects_expiry_ds(ttl_ds, clock_boot_ds());
}

void
directory_remember_deleted(struct worker *worker, struct binding *binding)
{
    struct bindings *bindings = &worker->directory->bindings;
    if (owners_may_come_back(worker) && bindings->deleted_count < DELETED_MAX &&
        !PLANTED(FORGOTTEN_DELETION))
        bindings_set_deleted(bindings, binding, true);
}

/* ---- What is told ---- */

static bool
is_bound_to(const struct binding *binding, const struct object_name *object)
{
    return directory_is_bound(binding) && object_name_equal(&binding->object, object);
}

bool
directory_knows(const struct worker *worker, const struct wire_binding *reported)
{
    const struct bindings *bindings = &worker->directory->bindings;
    return is_bound_to(bindings_find(bindings, reported->key), &reported->object);
}

enum key_answer
directory_take_report(struct worker *worker, const struct wire_binding *reported)
{
    struct bindings *bindings = &worker->directory->bindings;
    struct object_view view;
    if (!owners_is_our_share(worker, reported->key))
        return KEY_YES; /* Another node is told, too. */
    struct binding *binding = bindings_find(bindings, reported->key);
    bool is_same = is_bound_to(binding, &reported->object);
    if (is_same) {
        directory_set_object(worker, binding, reported->object);
        directory_set_expiry(
            binding, reported->ttl_ds); /* Who told us of it did not know that. */
    }
    if (directory_is_bound(binding) && !PLANTED(STALE_BINDING))
        return is_same ? KEY_YES : KEY_NO;
    if (binding != NULL && binding->is_deleted)
        return KEY_NO;
    if (store_find(worker->store, reported->key, clock_boot_ds(), &view)) {
        if (!owners_was_away(worker))
            return KEY_NO;
        (void)store_delete(worker->store, reported->key, clock_boot_ds());
    }
    binding = bindings_get(bindings, reported->key);
    if (binding == NULL)
        return KEY_MOVED;
    directory_set_object(worker, binding, reported->object);
    directory_set_expiry(binding, reported->ttl_ds);
    waiters_key_settled(worker, reported->key, NULL);
    return KEY_YES;
}

void
directory_forget_unsaid(struct worker *worker, const struct key_owner *holder)
{
    struct bindings *bindings = &worker->directory->bindings;
    HMAP_FOREACH (node, &bindings->map) {
        struct binding *binding = CONTAINER_OF(node, struct binding, hash);
        if (binding->object.node != holder->node ||
            binding->object.incarnation != holder->incarnation ||
            binding->as_of >= holder->since)
            continue;
        binding->object = (struct object_name){0};
        directory_remember_deleted(worker, binding);
        bindings_settle(bindings, binding);
    }
}

void
directory_forget(struct worker *worker, bool is_all)
{
    struct directory *directory = worker->directory;
    HMAP_FOREACH (node, &directory->bindings.map) {
        struct binding *binding = CONTAINER_OF(node, struct binding, hash);
        if (!is_all && owners_is_our_share(worker, binding_key(binding)))
            continue;
        binding->object = (struct object_name){0};
        bindings_set_deleted(&directory->bindings, binding, false);
        bindings_settle(&directory->bindings, binding);
    }
}

/* What others owned is told by them once, and again when that was not answered: by then the
 * key may be another. */
static bool
is_news(const struct worker *worker, struct ds_slice key)
{
    return owners_is_our_share(worker, key) && !owners_knew(worker, key);
}

bool
directory_take_deleted(struct worker *worker, struct ds_slice key)
{
    if (!is_news(worker, key))
        return true;
    struct binding *binding = bindings_get(&worker->directory->bindings, key);
    if (binding == NULL)
        return false;
    if (owners_was_away(worker) && !directory_is_bound(binding))
        (void)store_delete(worker->store, key, clock_boot_ds());
    if (!directory_is_bound(binding))
        directory_remember_deleted(worker, binding);
    bindings_settle(&worker->directory->bindings, binding);
    return true;
}

/* An older one of ours is none any more. Its holder may have let go of it and said so already. */
bool
directory_take_known(struct worker *worker, const struct wire_binding *known)
{
    struct bindings *bindings = &worker->directory->bindings;
    struct object_view view;
    if (!is_news(worker, known->key))
        return true;
    struct binding *binding = bindings_get(bindings, known->key);
    bool is_ours = known->object.node == store_header(worker->store)->node;
    if (binding == NULL)
        return false;
    bool has_one = !directory_is_bound(binding) &&
                   store_find(worker->store, known->key, clock_boot_ds(), &view);
    struct object_name here = has_one ? objects_name(worker, view.ref) : known->object;
    bool is_older =
        owners_was_away(worker) && !object_name_equal(&here, &known->object);
    if (has_one && is_older)
        (void)store_delete(worker->store, known->key, clock_boot_ds());
    if (!directory_is_bound(binding) && !is_ours && (!has_one || is_older)) {
        binding->object = known->object;
        binding->as_of = 0;
    }
    bindings_settle(bindings, binding);
    return true;
}

void
directory_each_known(const struct worker *worker, directory_key_fn fn, void *arg)
{
    const struct bindings *bindings = &worker->directory->bindings;
    if (!owners_may_come_back(worker))
        return;
    HMAP_FOREACH (node, &bindings->map) {
        const struct binding *binding = CONTAINER_OF(node, struct binding, hash);
        if (binding->is_deleted || directory_is_bound(binding))
            fn(binding_key(binding), &binding->object, arg);
    }
}

void
directory_forget_deleted(struct worker *worker)
{
    struct bindings *bindings = &worker->directory->bindings;
    if (bindings->deleted_count == 0)
        return;
    HMAP_FOREACH (node, &bindings->map) {
        struct binding *binding = CONTAINER_OF(node, struct binding, hash);
        bindings_set_deleted(bindings, binding, false);
        bindings_settle(bindings, binding);
    }
}

/* Of those that nobody has asked for: their holder's clock may be a little behind. */
void
directory_forget_expired(struct worker *worker)
{
    enum { GRACE_DS = 50 };
    uint64_t now = clock_boot_ds();
    HMAP_FOREACH (node, &worker->directory->bindings.map) {
        struct binding *binding = CONTAINER_OF(node, struct binding, hash);
        if (binding->expires_ds == 0 || binding->expires_ds + GRACE_DS > now ||
            !list_is_empty(&binding->changes))
            continue;
        binding->object = (struct object_name){0};
        bindings_settle(&worker->directory->bindings, binding);
    }
}
