#include "worker/small_values.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "os/checksum.h"
#include "os/clock.h"
#include "worker/arenas.h"
#include "worker/copies.h"
#include "worker/lookup.h"
#include "worker/seal.h"

#include <stdlib.h>
#include <xxhash.h>

/* A value takes at least as much time as so many bytes. */
enum { COST_BYTES_MIN = 256 };

/* So many keys are remembered, each in a place of its own, which it takes from another. */
enum { KNOWN_MAX = 8192 };

struct known_value {
    /* Of the key. Who is taken for another gets that one's value sent. */
    uint64_t hash;
    struct object_name object; /* node 0: none. */
};

/* ---- Who owns the key ---- */

static uint64_t
checksum_of_object(struct worker *worker, const struct object_view *view)
{
    if ((view->flags & SLOT_FLAG_CHECKSUM) != 0)
        return view->checksum;
    uint64_t checksum = checksum_of(worker->arena + view->offset, view->size);
    (void)store_set_checksum(worker->store, view->ref, checksum);
    return checksum;
}

void
small_values_add(struct worker *worker, const struct object_name *has,
                 struct wire_answer *answer, uint32_t *left)
{
    struct object_view view;
    if (answer->answer != KEY_YES || *left < COST_BYTES_MIN ||
        object_name_equal(&answer->object, has) ||
        !lookup_find_named(worker, &answer->object, &view))
        return;
    uint64_t cost = max_u64(view.size, COST_BYTES_MIN);
    if (view.size > KEY_VALUE_BYTES_MAX || cost > *left)
        return;
    *left -= (uint32_t)cost;
    answer->checksum = checksum_of_object(worker, &view);
    answer->value = slice(worker->arena + view.offset, view.size);
    worker->counters.bytes_fetched += view.size;
}

/* ---- Who asks ---- */

static uint64_t
hash_of(struct ds_slice key)
{
    return XXH3_64bits(key.data, key.len);
}

struct object_name
small_values_known(struct worker *worker, struct ds_slice key)
{
    uint64_t hash = hash_of(key);
    const struct known_value *known = worker->known_values;
    struct object_view view;
    if (known != NULL)
        known += hash % KNOWN_MAX;
    if (known == NULL || known->object.node == 0 || known->hash != hash ||
        !lookup_find_named(worker, &known->object, &view))
        return (struct object_name){0};
    return known->object;
}

/* Where there is no memory for it, values are sent again. */
static void
note(struct worker *worker, struct ds_slice key, const struct object_name *object)
{
    uint64_t hash = hash_of(key);
    if (worker->known_values == NULL)
        worker->known_values = calloc(KNOWN_MAX, sizeof *worker->known_values);
    if (worker->known_values != NULL)
        worker->known_values[hash % KNOWN_MAX] = (struct known_value){hash, *object};
}

/* Sealed, if it is what was sent. */
static bool
fill(struct worker *worker, const struct object_view *view,
     const struct wire_answer *answer)
{
    struct ds_error err = {0};
    struct objects_seal seal = {
        .ref = view->ref, .ttl_seconds = copies_ttl_s(worker), .checksum.known = true};
    seal.checksum.value = checksum_copy(worker->arena + view->offset,
                                        answer->value.data, answer->value.len);
    if (seal.checksum.value == answer->checksum)
        return objects_seal(worker, &seal, &err) == DS_OK;
    worker->counters.damaged++;
    log_warn("worker received a damaged value of a key from node %u bytes=%zu",
             answer->object.node, answer->value.len);
    return false;
}

static void
take(struct worker *worker, const struct wire_answer *answer)
{
    struct object_view view;
    uint8_t key[BLOCK_KEY_BYTES];
    wire_object_key(&answer->object, key);
    struct create_request request = {.key = slice(key, sizeof key),
                                     .size = answer->value.len,
                                     .flags = SLOT_FLAG_BLOCK | SLOT_FLAG_COPY};
    struct ds_error err = {0};
    if (store_create(worker->store, &request, clock_boot_ds(), &view, &err) != DS_OK)
        return; /* Whoever fetches it instead tries harder, and says so. */
    if (!fill(worker, &view, answer))
        store_abort(worker->store, view.ref);
}

void
small_values_take(struct worker *worker, struct ds_slice key,
                  const struct wire_answer *answer)
{
    struct arena_id at = {answer->object.node, answer->object.incarnation};
    struct object_view view;
    DS_ASSERT(answer->answer == KEY_YES);
    DS_ASSERT(answer->value.len > 0);
    if (arena_id_equal(at, arenas_own(worker)))
        return;
    if (!lookup_find_named(worker, &answer->object, &view))
        take(worker, answer);
    note(worker, key, &answer->object);
}

void
small_values_close(struct worker *worker)
{
    free(worker->known_values);
    worker->known_values = NULL;
}
