#include "worker/arenas.h"

#include "base/check.h"
#include "base/log.h"
#include "base/planted.h"
#include "base/slice.h"
#include "meta/members.h"
#include "os/clock.h"
#include "wire/block_id.h"
#include "wire/leaving.h"
#include "worker/leaving.h"
#include "worker/membership.h"
#include "worker/orphans.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Owner: worker->taken. */
struct taken {
    struct list link;
    struct arena_id born;
    bool is_whole;         /* Its giver said so. */
    struct arena_id giver; /* It was born there, or taken over before. */
    bool knows_process;    /* Of its giver: it said so, or was a member. */
    uint32_t restarts;
    bool is_inherited; /* Its giver is gone. */
};

struct arena_id
arenas_own(const struct worker *worker)
{
    const struct table_header *table = store_header(worker->store);
    return (struct arena_id){table->node, table->incarnation};
}

bool
arena_id_equal(struct arena_id one, struct arena_id other)
{
    return one.node == other.node && one.incarnation == other.incarnation;
}

struct arena_id
arenas_birth(struct ds_slice key)
{
    struct ds_block_id id;
    memcpy(&id, key.data, sizeof id);
    struct block_birth birth = wire_block_birth(&id);
    return (struct arena_id){birth.node, birth.incarnation};
}

static struct taken *
find_taken(const struct worker *worker, struct arena_id born)
{
    LIST_FOREACH (link, &worker->taken) {
        struct taken *taken = CONTAINER_OF(link, struct taken, link);
        if (arena_id_equal(taken->born, born))
            return taken;
    }
    return NULL;
}

static const struct member *
member_of(const struct worker *worker, struct arena_id born)
{
    const struct membership *membership = worker->membership;
    const struct member *member =
        membership == NULL ? NULL : membership_find(membership, born.node);
    return member != NULL && member->incarnation == born.incarnation ? member : NULL;
}

/* ---- Where they are ---- */

/* What a node that is gone had not given us yet is lost, what it had is ours. As long as it is
 * there it has the rest, also of what it took over itself. */
static bool
has_become_ours(const struct worker *worker, const struct taken *taken)
{
    struct arena_id born = taken->born;
    bool is_whole = false;
    if (taken->is_whole)
        return true;
    (void)membership_find_taker(worker->membership, born.node, born.incarnation,
                                &is_whole);
    return !is_whole && member_of(worker, born) == NULL &&
           member_of(worker, taken->giver) == NULL;
}

static bool
is_ours(const struct worker *worker, struct arena_id born)
{
    const struct taken *taken = find_taken(worker, born);
    return arena_id_equal(born, arenas_own(worker)) ||
           (taken != NULL && has_become_ours(worker, taken));
}

struct arena_id
arenas_find(const struct worker *worker, struct arena_id born)
{
    struct arena_id nobody = {0};
    bool is_whole = false;
    if (is_ours(worker, born))
        return leaving_is_handed_over(worker) ? leaving_taker(worker)
                                              : arenas_own(worker);
    const struct member *taker = membership_find_taker(worker->membership, born.node,
                                                       born.incarnation, &is_whole);
    if (!is_whole && member_of(worker, born) != NULL)
        return born;
    return taker == NULL ? nobody : (struct arena_id){taker->node, taker->incarnation};
}

bool
arenas_is_here(const struct worker *worker, struct arena_id born)
{
    return arena_id_equal(arenas_find(worker, born), arenas_own(worker));
}

/* ---- Taking over ---- */

/* The list of members may be an old one. */
static void
hear_giver(struct taken *taken, const struct wire_giver *giver)
{
    taken->giver = (struct arena_id){giver->node, giver->incarnation};
    taken->knows_process = true;
    taken->restarts = giver->restarts;
}

static void
note_process(const struct worker *worker, struct taken *taken)
{
    const struct member *member = member_of(worker, taken->giver);
    if (member == NULL || taken->knows_process)
        return;
    taken->knows_process = true;
    taken->restarts = member->restarts;
}

static struct taken *
add(struct worker *worker, struct arena_id born)
{
    struct taken *taken = find_taken(worker, born);
    if (taken != NULL)
        return taken;
    size_t count = 0;
    LIST_FOREACH (link, &worker->taken)
        count++;
    taken = count < ARENAS_MAX ? calloc(1, sizeof *taken) : NULL;
    if (taken == NULL)
        return NULL;
    taken->born = taken->giver = born;
    list_push_back(&worker->taken, &taken->link);
    membership_queues_changed(worker->membership);
    return taken;
}

bool
arenas_note(struct worker *worker, struct arena_id born, const struct wire_giver *giver)
{
    struct taken *taken = add(worker, born);
    if (taken != NULL)
        hear_giver(taken, giver);
    return taken != NULL;
}

bool
arenas_is_noted(const struct worker *worker, struct arena_id born)
{
    return find_taken(worker, born) != NULL;
}

bool
arenas_is_whole(const struct worker *worker, struct arena_id born)
{
    const struct taken *taken = find_taken(worker, born);
    return taken != NULL && taken->is_whole;
}

bool
arenas_take(struct worker *worker, struct arena_id born, const struct wire_giver *giver)
{
    struct taken *taken = add(worker, born);
    if (taken == NULL)
        return false;
    hear_giver(taken, giver);
    if (!taken->is_whole)
        log_info("worker took over the blocks of node %" PRIu32, born.node);
    taken->is_whole = true;
    membership_queues_changed(worker->membership);
    orphans_collect_born(worker, born);
    return true;
}

/* ---- What is in the table ---- */

static bool
is_own_part(const struct object_view *view, struct ds_slice key)
{
    return (view->flags & (SLOT_FLAG_BLOCK | SLOT_FLAG_COPY)) == SLOT_FLAG_BLOCK &&
           wire_is_block_key(key);
}

/* Keys of what is given up. */
struct given_up {
    struct arena_id born;
    struct writer keys;
};

static void
collect(const struct object_view *view, struct ds_slice key, void *arg)
{
    struct given_up *given_up = arg;
    if (is_own_part(view, key) && arena_id_equal(arenas_birth(key), given_up->born))
        write_bytes(&given_up->keys, key);
}

void
arenas_give_up(struct worker *worker, struct arena_id born)
{
    struct given_up given_up = {.born = born};
    struct taken *taken = find_taken(worker, born);
    if (taken == NULL)
        return;
    store_each(worker->store, collect, &given_up);
    struct reader reader = reader_of(given_up.keys.data, given_up.keys.len);
    while (reader_left(&reader) > 0)
        (void)store_set_kind(worker->store, read_bytes(&reader, BLOCK_KEY_BYTES),
                             SLOT_FLAG_COPY, clock_boot_ds());
    log_info("worker keeps copies of %zu blocks' parts of node %" PRIu32
             ", which stays",
             given_up.keys.len / BLOCK_KEY_BYTES, born.node);
    writer_fini(&given_up.keys);
    list_remove(&taken->link);
    free(taken);
    membership_queues_changed(worker->membership);
}

static void
recover(const struct object_view *view, struct ds_slice key, void *arg)
{
    struct worker *worker = arg;
    if (!is_own_part(view, key))
        return;
    struct arena_id born = arenas_birth(key);
    if (!arena_id_equal(born, arenas_own(worker)))
        (void)add(worker, born);
}

void
arenas_recover(struct worker *worker)
{
    if (!PLANTED(LOST_ARENA))
        store_each(worker->store, recover, worker);
}

void
arenas_tick(struct worker *worker)
{
    LIST_FOREACH (link, &worker->taken) {
        struct taken *taken = CONTAINER_OF(link, struct taken, link);
        const struct member *giver = member_of(worker, taken->giver);
        note_process(worker, taken);
        if (giver != NULL && giver->restarts > taken->restarts) {
            arenas_give_up(worker, taken->born);
            continue;
        }
        bool is_inherited = !taken->is_whole &&
                            membership_count(worker->membership) > 0 &&
                            has_become_ours(worker, taken);
        if (is_inherited && !taken->is_inherited)
            orphans_collect_born(worker, taken->born);
        taken->is_inherited = is_inherited;
    }
}

/* ---- Telling ---- */

void
arenas_encode(const struct worker *worker, struct writer *out)
{
    LIST_FOREACH (link, &worker->taken) {
        const struct taken *taken = CONTAINER_OF(link, struct taken, link);
        struct wire_arena arena = {taken->born.node, taken->born.incarnation,
                                   taken->is_whole};
        if (out->len / WIRE_ARENA_BYTES < ARENAS_MAX)
            encode_arena(out, &arena);
    }
}

void
arenas_encode_ours(const struct worker *worker, bool is_whole, struct writer *out)
{
    struct arena_id own = arenas_own(worker);
    encode_arena(out, &(struct wire_arena){own.node, own.incarnation, is_whole});
    LIST_FOREACH (link, &worker->taken) {
        const struct taken *taken = CONTAINER_OF(link, struct taken, link);
        struct wire_arena arena = {taken->born.node, taken->born.incarnation, is_whole};
        if (has_become_ours(worker, taken))
            encode_arena(out, &arena);
    }
}

void
arenas_close(struct worker *worker)
{
    LIST_FOREACH (link, &worker->taken) {
        list_remove(link);
        free(CONTAINER_OF(link, struct taken, link));
    }
}
