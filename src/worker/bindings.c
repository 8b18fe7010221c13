#include "worker/bindings.h"

#include "base/check.h"
#include "base/slice.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

void
bindings_init(struct bindings *bindings)
{
    hmap_init(&bindings->map);
    bindings->deleted_count = 0;
}

void
bindings_fini(struct bindings *bindings)
{
    HMAP_FOREACH (node, &bindings->map) {
        struct binding *binding = CONTAINER_OF(node, struct binding, hash);
        DS_ASSERT(list_is_empty(&binding->changes));
        free(binding);
    }
    hmap_fini(&bindings->map);
}

struct ds_slice
binding_key(const struct binding *binding)
{
    return slice(binding->key, binding->key_bytes);
}

static struct binding *
find(const struct bindings *bindings, struct ds_slice key, uint64_t hash)
{
    struct hmap_node *node = hmap_chain(&bindings->map, hash);
    for (; node != NULL; node = node->next) {
        struct binding *binding = CONTAINER_OF(node, struct binding, hash);
        if (node->hash == hash && slice_equal(binding_key(binding), key))
            return binding;
    }
    return NULL;
}

struct binding *
bindings_find(const struct bindings *bindings, struct ds_slice key)
{
    return find(bindings, key, XXH3_64bits(key.data, key.len));
}

struct binding *
bindings_get(struct bindings *bindings, struct ds_slice key)
{
    uint64_t hash = XXH3_64bits(key.data, key.len);
    struct binding *binding = find(bindings, key, hash);
    if (binding != NULL)
        return binding;
    binding = calloc(1, sizeof *binding + key.len);
    if (binding == NULL)
        return NULL;
    list_init(&binding->changes);
    binding->key_bytes = key.len;
    memcpy(binding->key, key.data, key.len);
    if (hmap_insert(&bindings->map, &binding->hash, hash))
        return binding;
    free(binding);
    return NULL;
}

void
bindings_settle(struct bindings *bindings, struct binding *binding)
{
    if (binding->object.node != 0 || binding->is_deleted ||
        !list_is_empty(&binding->changes))
        return;
    hmap_remove(&bindings->map, &binding->hash);
    free(binding);
}

void
bindings_set_deleted(struct bindings *bindings, struct binding *binding,
                     bool is_deleted)
{
    bindings->deleted_count += is_deleted;
    bindings->deleted_count -= binding->is_deleted;
    binding->is_deleted = is_deleted;
}
