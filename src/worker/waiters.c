#include "worker/waiters.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>
#include <xxhash.h>

/* A key that somebody waits for. However many wait for it, each of them joins and
 * leaves in one step. Owner: worker->waiting_keys, while `places` is not empty. */
struct awaited_key {
    struct hmap_node node; /* In worker->waiting_keys. */
    struct list places;    /* Of struct place. */
    size_t key_bytes;
    uint8_t key[];
};

/* One waiter's place at one key. */
struct place {
    struct list link; /* In awaited->places, unless the key has appeared. */
    struct waiter *waiter;
    struct awaited_key *awaited; /* NULL once it has appeared. */
};

/* Owner: loop thread; freed from the close callback of its timer. */
struct waiter {
    struct list link; /* In session->waiters. */
    struct session *session;
    struct frame_header header;
    waiter_answer_fn answer;
    uv_timer_t timer;
    uint8_t *body;
    size_t body_bytes;
    struct ds_error *refusal; /* Owned; NULL: none of its keys was refused. */
    size_t missing_count;
    size_t place_count; /* One per different key, at most `room`. */
    size_t room;
    struct place places[];
};

/* ---- Keys ---- */

static uint64_t
hash_of(struct ds_slice key)
{
    return XXH3_64bits(key.data, key.len);
}

/* NULL if nobody waits for it. */
static struct awaited_key *
find_awaited(const struct worker *worker, struct ds_slice key, uint64_t hash)
{
    struct hmap_node *node = hmap_chain(&worker->waiting_keys, hash);
    for (; node != NULL; node = node->next) {
        struct awaited_key *awaited = CONTAINER_OF(node, struct awaited_key, node);
        if (node->hash == hash &&
            slice_equal(slice(awaited->key, awaited->key_bytes), key))
            return awaited;
    }
    return NULL;
}

/* NULL when out of memory. */
static struct awaited_key *
find_or_add_awaited(struct worker *worker, struct ds_slice key)
{
    uint64_t hash = hash_of(key);
    struct awaited_key *awaited = find_awaited(worker, key, hash);
    if (awaited != NULL)
        return awaited;
    awaited = malloc(sizeof *awaited + key.len);
    if (awaited == NULL)
        return NULL;
    list_init(&awaited->places);
    awaited->key_bytes = key.len;
    if (key.len > 0)
        memcpy(awaited->key, key.data, key.len);
    if (hmap_insert(&worker->waiting_keys, &awaited->node, hash))
        return awaited;
    free(awaited);
    return NULL;
}

static void
place_leave(struct worker *worker, struct place *place)
{
    struct awaited_key *awaited = place->awaited;
    if (awaited == NULL)
        return;
    place->awaited = NULL;
    list_remove(&place->link);
    if (!list_is_empty(&awaited->places))
        return;
    hmap_remove(&worker->waiting_keys, &awaited->node);
    free(awaited);
}

/* ---- Waiters ---- */

/* What one that waits for `room` keys takes at most, but for the keys' bytes, which are
 * in its body as well. */
static size_t
waiter_bytes(size_t room, size_t body_bytes)
{
    size_t per_key = sizeof(struct place) + sizeof(struct awaited_key);
    return sizeof(struct waiter) + room * per_key + 2 * body_bytes;
}

static void
waiter_free(struct waiter *waiter)
{
    free(waiter->refusal);
    free(waiter->body);
    free(waiter);
}

static void
on_timer_closed(uv_handle_t *handle)
{
    waiter_free(handle->data);
}

static void
leave_all(struct waiter *waiter)
{
    struct session *session = waiter->session;
    for (size_t i = 0; i < waiter->place_count; i++)
        place_leave(session->worker, &waiter->places[i]);
    session_unpark(session, waiter_bytes(waiter->room, waiter->body_bytes));
}

static void
waiter_end(struct waiter *waiter)
{
    leave_all(waiter);
    list_remove(&waiter->link);
    uv_close((uv_handle_t *)&waiter->timer, on_timer_closed);
}

static void
waiter_answer(struct waiter *waiter, uint32_t left_ms)
{
    struct session *session = waiter->session;
    session->refusal = waiter->refusal;
    waiter->answer(session, &waiter->header, slice(waiter->body, waiter->body_bytes),
                   left_ms);
    session->refusal = NULL;
    waiter_end(waiter);
}

static void
on_timer(uv_timer_t *timer)
{
    waiter_answer(timer->data, 0);
}

/* A key that is asked for many times is waited for once: its place was the last taken
 * there. False when out of memory. */
static bool
wait_for(struct waiter *waiter, struct ds_slice key)
{
    struct awaited_key *awaited = find_or_add_awaited(waiter->session->worker, key);
    if (awaited == NULL)
        return false;
    struct place *last = CONTAINER_OF(awaited->places.prev, struct place, link);
    if (!list_is_empty(&awaited->places) && last->waiter == waiter)
        return true;
    DS_ASSERT(waiter->place_count < waiter->room);
    struct place *place = &waiter->places[waiter->place_count++];
    place->waiter = waiter;
    place->awaited = awaited;
    list_push_back(&awaited->places, &place->link);
    return true;
}

static bool
wait_for_all(struct waiter *waiter, const struct ds_slice *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!wait_for(waiter, keys[i]))
            return false;
    }
    waiter->missing_count = waiter->place_count;
    return true;
}

/* NULL when out of memory. */
static struct waiter *
waiter_new(struct session *session, struct ds_slice body, size_t room)
{
    struct waiter *waiter = calloc(1, sizeof *waiter + room * sizeof(struct place));
    uint8_t *copy = malloc(body.len);
    if (waiter == NULL || copy == NULL) {
        free(waiter);
        free(copy);
        return NULL;
    }
    memcpy(copy, body.data, body.len);
    waiter->session = session;
    waiter->body = copy;
    waiter->body_bytes = body.len;
    waiter->room = room;
    return waiter;
}

static void
waiter_start(struct waiter *waiter, uint32_t wait_ms)
{
    list_push_back(&waiter->session->waiters, &waiter->link);
    uv_timer_init(&waiter->session->worker->loop, &waiter->timer);
    waiter->timer.data = waiter;
    uv_timer_start(&waiter->timer, on_timer, wait_ms, 0);
}

enum ds_status
waiters_park(struct session *session, const struct frame_header *header,
             struct ds_slice body, uint32_t wait_ms, const struct ds_slice *missing,
             size_t missing_count, waiter_answer_fn answer, struct ds_error *err)
{
    size_t bytes = waiter_bytes(missing_count, body.len);
    enum ds_status status = session_park(session, bytes, err);
    if (status != DS_OK)
        return status;
    struct waiter *waiter = waiter_new(session, body, missing_count);
    if (waiter == NULL) {
        session_unpark(session, bytes);
        return ds_fail(err, DS_NO_MEMORY, "worker is out of memory");
    }
    waiter->header = *header;
    waiter->answer = answer;
    if (!wait_for_all(waiter, missing, missing_count)) {
        leave_all(waiter);
        waiter_free(waiter);
        return ds_fail(err, DS_NO_MEMORY, "worker is out of memory");
    }
    waiter_start(waiter, wait_ms);
    return DS_OK;
}

/* The first reason stays. Without memory there is none. */
static void
note_refusal(struct waiter *waiter, const struct ds_error *why)
{
    if (why == NULL || waiter->refusal != NULL)
        return;
    waiter->refusal = malloc(sizeof *why);
    if (waiter->refusal != NULL)
        *waiter->refusal = *why;
}

void
waiters_key_settled(struct worker *worker, struct ds_slice key,
                    const struct ds_error *why)
{
    if (worker->waiting_keys.count == 0)
        return;
    struct awaited_key *awaited = find_awaited(worker, key, hash_of(key));
    if (awaited == NULL)
        return;
    bool last;
    do {
        struct place *place = CONTAINER_OF(awaited->places.next, struct place, link);
        struct waiter *waiter = place->waiter;
        last = awaited->places.next == awaited->places.prev;
        place_leave(worker, place); /* The last takes `awaited` along. */
        note_refusal(waiter, why);
        if (--waiter->missing_count == 0)
            waiter_answer(waiter, 0);
    } while (!last);
}

/* Who waits again is not among the old ones. */
static void
look_again(struct session *session, waiter_answer_fn answer)
{
    struct list old = {.next = &old, .prev = &old};
    LIST_FOREACH (link, &session->waiters) {
        if (CONTAINER_OF(link, struct waiter, link)->answer != answer)
            continue;
        list_remove(link);
        list_push_back(&old, link);
    }
    while (!list_is_empty(&old)) {
        struct waiter *waiter = CONTAINER_OF(old.next, struct waiter, link);
        uint64_t left = uv_timer_get_due_in(&waiter->timer);
        waiter_answer(waiter, (uint32_t)min_u64(left, UINT32_MAX));
    }
}

void
waiters_look_again(struct worker *worker, waiter_answer_fn answer)
{
    LIST_FOREACH (link, &worker->sessions)
        look_again(CONTAINER_OF(link, struct session, link), answer);
}

void
waiters_drop(struct session *session)
{
    LIST_FOREACH (link, &session->waiters)
        waiter_end(CONTAINER_OF(link, struct waiter, link));
}
