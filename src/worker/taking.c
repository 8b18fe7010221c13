/* Taking over what a node has that leaves the cluster, as it asks for it (leaving.h).
 *
 *      TAKE       parts of blocks ──► fetched as copies are (copies.h) ──► ours, not copies
 *      TAKE_KEYS  users' objects  ──► fetched, unsealed ──► KEY_MOVE to the keys' owners
 *                      ──► who has them lets go ──► sealed
 *      TAKE_END   the blocks are ours, and all members hear of it (arenas.h); or they are
 *                 not, and copies again
 *
 * What is answered is in the table, so a worker that is killed and started again goes on.
 * Owner: loop thread. */
#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "wire/leaving.h"
#include "worker/arenas.h"
#include "worker/copies.h"
#include "worker/keys.h"
#include "worker/leaving.h"
#include "worker/lookup.h"
#include "worker/objects.h"
#include "worker/owners.h"
#include "worker/seal.h"

#include <stdlib.h>

/* More are not asked for by one message. */
enum { TAKE_MAX = 4096 };

/* What it has of users' keys is checked once more when it was away: who owned such a key
 * may be gone by then, with the giver. */
static bool
may_take(const struct worker *worker)
{
    return !leaving_is_active(worker) && !owners_was_away(worker);
}

static enum ds_status
check_may_take(const struct worker *worker, struct ds_error *err)
{
    if (may_take(worker))
        return DS_OK;
    return ds_fail(
        err, DS_NOT_READY,
        leaving_is_active(worker)
            ? "the worker at %s leaves the cluster as well"
            : "the worker at %s was no member of the cluster for a while, and "
              "does not know yet what is current of what it has",
        worker->flags->worker_address);
}

/* ---- TAKE_ROOM ---- */

/* Copies go when room is short. */
static void
add_copy(const struct object_view *view, struct ds_slice key, void *arg)
{
    uint64_t *bytes = arg;
    (void)key;
    if ((view->flags & SLOT_FLAG_COPY) != 0)
        *bytes += extent_bytes(view->size);
}

void
handle_take_room(struct session *session, const struct frame_header *header,
                 struct ds_slice body)
{
    struct worker *worker = session->worker;
    struct store_stats stats;
    uint64_t copies = 0;
    AUTO_WRITER(writer);
    if (session->kind != SESSION_TCP || body.len != 0) {
        session_reject(session, "malformed TAKE_ROOM");
        return;
    }
    store_stats(worker->store, &stats);
    store_each(worker->store, add_copy, &copies);
    uint64_t room = stats.arena.total_bytes - stats.arena.used_bytes + copies;
    encode_room(&writer, may_take(worker) ? room : 0);
    session_reply(session, header, &writer);
}

/* ---- TAKE ---- */

/* What was a copy is ours from now on, unless its node stays after all. What was born here is
 * ours anyway. */
static bool
keep(struct worker *worker, struct ds_slice key, uint32_t flags)
{
    uint8_t kind = (flags & LOOKUP_PROVISIONAL) != 0 ? SLOT_FLAG_PROVISIONAL : 0;
    struct object_view view;
    if (!wire_is_block_key(key) ||
        !store_find(worker->store, key, clock_boot_ds(), &view))
        return false;
    if (arena_id_equal(arenas_birth(key), arenas_own(worker)))
        return (view.flags & SLOT_FLAG_COPY) == 0;
    return arenas_is_noted(worker, arenas_birth(key)) &&
           store_set_kind(worker->store, key, kind, clock_boot_ds());
}

/* All that could be fetched is here; what is not may have been evicted for the rest. */
static void
answer_take(struct session *session, const struct frame_header *header,
            struct ds_slice body, uint32_t left_ms)
{
    struct lookup message;
    struct ds_slice key;
    bool decoded = decode_lookup(body, &message);
    AUTO_WRITER(writer);
    (void)left_ms;
    DS_ASSERT(decoded);
    bool stays = !leaving_is_active(session->worker); /* It may have begun meanwhile. */
    encode_flags_begin(&writer, message.keys.count);
    while (next_key(&message.keys, &key))
        write_u8(&writer, stays && keep(session->worker, key, message.flags));
    session_reply(session, header, &writer);
}

/* From now on it is known who gives them, and all members hear of it. */
static enum ds_status
note_arenas(struct worker *worker, struct key_list keys, const struct wire_giver *giver,
            struct ds_error *err)
{
    struct ds_slice key;
    while (next_key(&keys, &key)) {
        struct arena_id own = arenas_own(worker);
        if (wire_is_block_key(key) && !arena_id_equal(arenas_birth(key), own) &&
            !arenas_note(worker, arenas_birth(key), giver))
            return ds_fail(err, DS_NO_MEMORY, "worker has no memory for another arena");
    }
    return DS_OK;
}

void
handle_take(struct session *session, const struct frame_header *header,
            struct ds_slice body)
{
    struct wire_giver giver;
    struct ds_slice lookup;
    struct lookup message;
    struct ds_error err = {0};
    if (session->kind != SESSION_TCP || !decode_take(body, &giver, &lookup) ||
        !decode_lookup(lookup, &message) || (message.flags & LOOKUP_BLOCKS) == 0 ||
        message.keys.count > TAKE_MAX) {
        session_reject(session, "malformed TAKE");
        return;
    }
    enum ds_status status = check_may_take(session->worker, &err);
    if (status == DS_OK)
        status = note_arenas(session->worker, message.keys, &giver, &err);
    if (status == DS_OK)
        status = lookup_blocks(session, header, lookup, answer_take, &err);
    if (status != DS_OK)
        conn_reply_error(session->conn, header, &err);
}

/* ---- TAKE_KEYS ---- */

/* Objects of one request that are fetched. Owner: itself, until the last has arrived. */
struct take_keys {
    struct key_request *request;
    uint32_t open_count; /* Objects under way. */
    struct take_item {
        struct copy_take take;
        struct take_keys *all;
        struct key_item *item;
    } items[];
};

static void
abort_object(struct worker *worker, const struct object_name *object)
{
    if (object->node != 0)
        store_abort(worker->store,
                    (struct object_ref){object->slot, object->generation});
}

/* Its owner has spoken. */
static void
on_moved(struct key_request *request, struct key_item *item)
{
    struct worker *worker = request->worker;
    const struct object_name *object = &item->change.object;
    struct objects_seal seal = {.ref = {object->slot, object->generation},
                                .checksum = item->checksum};
    struct ds_error err = {0};
    uint64_t now = clock_boot_ds();
    if (item->answer.answer != KEY_YES) {
        abort_object(worker, object);
    } else if (objects_seal(worker, &seal, &err) != DS_OK) {
        log_warn("worker lost a user's object that it took over reason=\"%s\"",
                 err.message);
    } else if (item->answer.ttl_ds != 0) {
        (void)store_set_expiry(worker->store, item->change.key,
                               objects_expiry_ds(item->answer.ttl_ds, now), now);
    }
}

/* 1: it is here, or was another object by now, which is its sender's no more. */
static void
reply_taken(struct key_request *request)
{
    AUTO_WRITER(writer);
    encode_flags_begin(&writer, request->count);
    for (uint32_t i = 0; i < request->count; i++) {
        const struct key_item *item = &request->items[i];
        bool is_said = item->is_done && (item->answer.answer == KEY_YES ||
                                         item->answer.answer == KEY_NO);
        write_u8(&writer, is_said);
        if (!item->is_done)
            abort_object(request->worker, &item->change.object);
    }
    if (request->session != NULL)
        session_reply(request->session, &request->header, &writer);
    keys_free(request);
}

static const struct key_request_ops move_ops = {.on_item = on_moved,
                                                .finish = reply_taken};

static void
close_object(struct take_keys *all)
{
    DS_ASSERT(all->open_count > 0);
    if (--all->open_count > 0)
        return;
    struct key_request *request = all->request;
    free(all);
    request->open_count--;
    keys_start(request, 0);
}

static void
on_arrived(struct worker *worker, struct copy_take *take)
{
    struct take_item *item = CONTAINER_OF(take, struct take_item, take);
    struct key_item *its = item->item;
    if (take->has_arrived) {
        its->change.object = objects_name(worker, take->ref);
        its->checksum = (struct wire_checksum){true, take->checksum};
    } else {
        its->answer.answer = KEY_LOST; /* Of this item alone: it did not arrive. */
        its->is_done = true;
    }
    close_object(item->all);
}

/* Each is fetched; the last that arrives goes on. */
static void
fetch_all(struct take_keys *all, struct take_key_list list)
{
    struct key_request *request = all->request;
    struct wire_take_key wanted;
    all->open_count = 1;
    request->open_count++;
    for (uint32_t i = 0; next_take_key(&list, &wanted); i++) {
        struct take_item *item = &all->items[i];
        struct ds_slice body = slice(request->body, request->body_bytes);
        item->all = all;
        item->item = keys_add(request, keys_in_body(request, body, wanted.key));
        item->item->change.was = wanted.object;
        item->take =
            (struct copy_take){.key = item->item->change.key,
                               .flags = wanted.is_evictable ? SLOT_FLAG_EVICTABLE : 0,
                               .done = on_arrived};
        all->open_count++;
        if (!copies_take(request->worker, &wanted.object, &item->take))
            on_arrived(request->worker, &item->take);
    }
    copies_ask(request->worker);
    close_object(all);
}

static enum ds_status
take_keys(struct session *session, const struct frame_header *header,
          struct ds_slice body, uint32_t count, struct ds_error *err)
{
    struct key_request *request;
    struct take_key_list list;
    enum ds_status status = check_may_take(session->worker, err);
    if (status != DS_OK)
        return status;
    struct take_keys *all = calloc(1, sizeof *all + count * sizeof all->items[0]);
    if (all == NULL)
        return ds_fail(err, DS_NO_MEMORY, "worker is out of memory");
    status = keys_new(session, header, body, count, &move_ops, &request, err);
    if (status != DS_OK) {
        free(all);
        return status;
    }
    request->order = KEY_MOVE;
    all->request = request;
    bool decoded = decode_take_keys(slice(request->body, request->body_bytes), &list);
    DS_ASSERT(decoded);
    fetch_all(all, list);
    return DS_OK;
}

void
handle_take_keys(struct session *session, const struct frame_header *header,
                 struct ds_slice body)
{
    struct take_key_list list;
    struct ds_error err = {0};
    if (session->kind != SESSION_TCP || !decode_take_keys(body, &list) ||
        list.count > TAKE_MAX) {
        session_reject(session, "malformed TAKE_KEYS");
        return;
    }
    if (take_keys(session, header, body, list.count, &err) != DS_OK)
        conn_reply_error(session->conn, header, &err);
}

/* ---- TAKE_END ---- */

/* What a worker that leaves as well is given now would go with it, but for what it had said
 * before that it has. */
static enum ds_status
end_one(struct worker *worker, const struct wire_arena *arena,
        const struct wire_giver *giver, struct ds_error *err)
{
    struct arena_id born = {arena->node, arena->incarnation};
    if (arena_id_equal(born, arenas_own(worker)))
        return DS_OK;
    if (!arena->is_whole) {
        arenas_give_up(worker, born);
        return DS_OK;
    }
    enum ds_status status =
        arenas_is_whole(worker, born) ? DS_OK : check_may_take(worker, err);
    if (status == DS_OK && !arenas_take(worker, born, giver))
        status = ds_fail(err, DS_NO_MEMORY, "worker is out of memory");
    return status;
}

void
handle_take_end(struct session *session, const struct frame_header *header,
                struct ds_slice body)
{
    struct worker *worker = session->worker;
    struct wire_giver giver;
    struct ds_slice arenas;
    struct wire_arena arena;
    struct ds_error err = {0};
    enum ds_status status = DS_OK;
    if (session->kind != SESSION_TCP || !decode_take_end(body, &giver, &arenas) ||
        arenas.len > ARENAS_MAX * WIRE_ARENA_BYTES) {
        session_reject(session, "malformed TAKE_END");
        return;
    }
    while (status == DS_OK && next_arena(&arenas, &arena))
        status = end_one(worker, &arena, &giver, &err);
    if (status == DS_OK)
        conn_reply(session->conn, header, (struct ds_slice){0});
    else
        conn_reply_error(session->conn, header, &err);
}
