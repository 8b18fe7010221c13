#include "worker/waiters.h"

#include "base/check.h"
#include "base/slice.h"

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
    size_t key_count;
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

static void
waiter_end(struct waiter *waiter)
{
    struct worker *worker = waiter->session->worker;
    for (size_t i = 0; i < waiter->key_count; i++) {
        if (waiter->keys[i].missing)
            hmap_remove(&worker->waiting_keys, &waiter->keys[i].node);
        waiter->keys[i].missing = false;
    }
    list_remove(&waiter->link);
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

/* `missing` are slices of `body`; they become slices of the waiter's copy. */
static bool
fill(struct waiter *waiter, struct ds_slice body, const struct ds_slice *missing)
{
    struct hmap *map = &waiter->session->worker->waiting_keys;
    waiter->body = malloc(body.len);
    if (waiter->body == NULL || !hmap_reserve(map, map->count + waiter->key_count))
        return false;
    memcpy(waiter->body, body.data, body.len);
    waiter->body_bytes = body.len;
    for (size_t i = 0; i < waiter->key_count; i++) {
        struct waiting_key *wanted = &waiter->keys[i];
        size_t at =
            (size_t)((const uint8_t *)missing[i].data - (const uint8_t *)body.data);
        wanted->waiter = waiter;
        wanted->key = slice(waiter->body + at, missing[i].len);
        wanted->missing = hmap_insert(map, &wanted->node, hash_of(wanted->key));
        DS_ASSERT(wanted->missing); /* Reserved above. */
    }
    waiter->missing_count = waiter->key_count;
    return true;
}

bool
waiters_park(struct session *session, const struct frame_header *header,
             struct ds_slice body, uint32_t wait_ms, const struct ds_slice *missing,
             size_t missing_count, waiter_answer_fn answer)
{
    struct waiter *waiter =
        calloc(1, sizeof *waiter + missing_count * sizeof(struct waiting_key));
    if (waiter == NULL)
        return false;
    waiter->session = session;
    waiter->header = *header;
    waiter->answer = answer;
    waiter->key_count = missing_count;
    if (!fill(waiter, body, missing)) {
        free(waiter->body);
        free(waiter);
        return false;
    }
    list_push_back(&session->waiters, &waiter->link);
    uv_timer_init(&session->worker->loop, &waiter->timer);
    waiter->timer.data = waiter;
    uv_timer_start(&waiter->timer, on_timer, wait_ms, 0);
    return true;
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
