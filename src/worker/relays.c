#include "worker/relays.h"

#include "base/check.h"
#include "base/slice.h"
#include "os/clock.h"
#include "wire/block_id.h"
#include "worker/peers.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    FORGET_MS =
        10000, /* After the last who asked: a copy is likely to be there so long. */
    MEMBERS_MAX = 4096, /* Who comes later is served by the source. */
};

/* Those that asked for one object, in their order. Owner: worker->relays. */
struct relay {
    struct hmap_node by_key; /* In worker->relays. */
    uint8_t key[BLOCK_KEY_BYTES];
    uint64_t asked_ms;        /* The last time. */
    struct arena_id *members; /* Owned. */
    size_t count;
    size_t room;
};

static uint64_t
hash_of(struct ds_slice key)
{
    return XXH3_64bits(key.data, key.len);
}

static struct relay *
find(const struct worker *worker, struct ds_slice key)
{
    struct hmap_node *node = hmap_chain(&worker->relays, hash_of(key));
    for (; node != NULL; node = node->next) {
        struct relay *relay = CONTAINER_OF(node, struct relay, by_key);
        if (memcmp(relay->key, key.data, BLOCK_KEY_BYTES) == 0)
            return relay;
    }
    return NULL;
}

/* NULL when out of memory. */
static struct relay *
find_or_add(struct worker *worker, struct ds_slice key)
{
    struct relay *relay = find(worker, key);
    if (relay != NULL)
        return relay;
    relay = calloc(1, sizeof *relay);
    if (relay == NULL)
        return NULL;
    memcpy(relay->key, key.data, BLOCK_KEY_BYTES);
    if (hmap_insert(&worker->relays, &relay->by_key, hash_of(key)))
        return relay;
    free(relay);
    return NULL;
}

static void
forget(struct worker *worker, struct relay *relay)
{
    hmap_remove(&worker->relays, &relay->by_key);
    free(relay->members);
    free(relay);
}

static bool
has_room(struct relay *relay)
{
    if (relay->count < relay->room)
        return true;
    size_t room = relay->room == 0 ? 4 : 2 * relay->room;
    struct arena_id *members =
        room > MEMBERS_MAX ? NULL : realloc(relay->members, room * sizeof *members);
    if (members == NULL)
        return false;
    relay->members = members;
    relay->room = room;
    return true;
}

/* Its place, the last one if it is new; `count` if there is none to be had. */
static size_t
place_of(struct relay *relay, struct arena_id asker)
{
    for (size_t i = 0; i < relay->count; i++) {
        if (arena_id_equal(relay->members[i], asker))
            return i;
    }
    if (!has_room(relay))
        return relay->count;
    relay->members[relay->count] = asker;
    return relay->count++;
}

struct arena_id
relays_join(struct worker *worker, struct ds_slice key, struct arena_id asker)
{
    struct arena_id source = {0};
    DS_ASSERT(key.len == BLOCK_KEY_BYTES);
    struct relay *relay = find_or_add(worker, key);
    if (relay == NULL)
        return source;
    relay->asked_ms = clock_monotonic_ms();
    size_t place = place_of(relay, asker);
    if (place == relay->count)
        return source;
    while (place >= 2) { /* Whose parent has gone asks that one's. */
        place = (place - 2) / 2;
        struct arena_id parent = relay->members[place];
        if (peers_know(worker->peers, parent.node, parent.incarnation))
            return parent;
    }
    return source;
}

void
relays_tick(struct worker *worker, uint64_t now_ms)
{
    HMAP_FOREACH (node, &worker->relays) {
        struct relay *relay = CONTAINER_OF(node, struct relay, by_key);
        if (now_ms - relay->asked_ms >= FORGET_MS)
            forget(worker, relay);
    }
}

void
relays_close(struct worker *worker)
{
    HMAP_FOREACH (node, &worker->relays)
        forget(worker, CONTAINER_OF(node, struct relay, by_key));
    hmap_fini(&worker->relays);
}
