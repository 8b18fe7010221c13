#include "worker/waiters.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>
#include <xxhash.h>

struct waiting_key {
    struct hmap_node node; /* In worker->waiting_keys, unless it has appeared. */
    struct waiter *waiter;
    struct ds_slice key; /* In the waiter's body. */
    bool missing;
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
    size_t missing_count;
    size_t key_count; /* Different ones, at most `room`. */
    size_t room;
    struct waiting_key keys[];
};

static uint64_t
hash_of(struct ds_slice key)
{
    return XXH3_64bits(key.data, key.len);
}

static void
on_timer_closed(uv_handle_t *handle)
{
    struct waiter *waiter = handle->data;
    free(waiter->body);
    free(waiter);
}

static size_t
waiter_bytes(size_t key_count, size_t body_bytes)
{
    return sizeof(struct waiter) + key_count * sizeof(struct waiting_key) + body_bytes;
}

static void
waiter_end(struct waiter *waiter)
{
    struct session *session = waiter->session;
    for (size_t i = 0; i < waiter->key_count; i++) {
        if (waiter->keys[i].missing)
            hmap_remove(&session->worker->waiting_keys, &waiter->keys[i].node);
        waiter->keys[i].missing = false;
    }
    list_remove(&waiter->link);
    session_unpark(session, waiter_bytes(waiter->room, waiter->body_bytes));
    uv_close((uv_handle_t *)&waiter->timer, on_timer_closed);
}

static void
waiter_answer(struct waiter *waiter)
{
    waiter->answer(waiter->session, &waiter->header,
                   slice(waiter->body, waiter->body_bytes));
    waiter_end(waiter);
}

static void
on_timer(uv_timer_t *timer)
{
    waiter_answer(timer->data);
}

static bool
waits_for(const struct waiter *waiter, struct ds_slice key, uint64_t hash)
{
    const struct hmap *map = &waiter->session->worker->waiting_keys;
    for (struct hmap_node *node = hmap_chain(map, hash); node; node = node->next) {
        struct waiting_key *wanted = CONTAINER_OF(node, struct waiting_key, node);
        if (wanted->waiter == waiter && node->hash == hash &&
            slice_equal(wanted->key, key))
            return true;
    }
    return false;
}

/* `key` is a slice of `body`; it becomes one of the waiter's copy. A key that is asked
 * for many times is waited for once. */
static void
wait_for(struct waiter *waiter, struct ds_slice body, struct ds_slice key)
{
    uint64_t hash = hash_of(key);
    if (waits_for(waiter, key, hash))
        return;
    size_t at = (size_t)((const uint8_t *)key.data - (const uint8_t *)body.data);
    struct waiting_key *wanted = &waiter->keys[waiter->key_count++];
    wanted->waiter = waiter;
    wanted->key = slice(waiter->body + at, key.len);
    wanted->missing =
        hmap_insert(&waiter->session->worker->waiting_keys, &wanted->node, hash);
    DS_ASSERT(wanted->missing); /* Reserved by waiter_new(). */
}

/* NULL when out of memory. */
static struct waiter *
waiter_new(struct session *session, struct ds_slice body, size_t room)
{
    struct hmap *map = &session->worker->waiting_keys;
    struct waiter *waiter = calloc(1, waiter_bytes(room, 0));
    uint8_t *copy = malloc(body.len);
    if (waiter == NULL || copy == NULL || !hmap_reserve(map, map->count + room)) {
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
    for (size_t i = 0; i < missing_count; i++)
        wait_for(waiter, body, missing[i]);
    waiter->missing_count = waiter->key_count;
    list_push_back(&session->waiters, &waiter->link);
    uv_timer_init(&session->worker->loop, &waiter->timer);
    waiter->timer.data = waiter;
    uv_timer_start(&waiter->timer, on_timer, wait_ms, 0);
    return DS_OK;
}

/* One that waits for `key` and has not been told; NULL if there is none. */
static struct waiting_key *
find_waiting(struct worker *worker, struct ds_slice key, uint64_t hash)
{
    struct hmap_node *node = hmap_chain(&worker->waiting_keys, hash);
    for (; node != NULL; node = node->next) {
        struct waiting_key *wanted = CONTAINER_OF(node, struct waiting_key, node);
        if (node->hash == hash && slice_equal(wanted->key, key))
            return wanted;
    }
    return NULL;
}

void
waiters_key_appeared(struct worker *worker, struct ds_slice key)
{
    if (worker->waiting_keys.count == 0)
        return;
    uint64_t hash = hash_of(key);
    struct waiting_key *wanted;
    while ((wanted = find_waiting(worker, key, hash)) != NULL) {
        hmap_remove(&worker->waiting_keys, &wanted->node);
        wanted->missing = false;
        struct waiter *waiter = wanted->waiter;
        if (--waiter->missing_count == 0)
            waiter_answer(waiter);
    }
}

void
waiters_drop(struct session *session)
{
    LIST_FOREACH (link, &session->waiters)
        waiter_end(CONTAINER_OF(link, struct waiter, link));
}
