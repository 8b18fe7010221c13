#include "worker/keys.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "worker/small_values.h"

#include <stdlib.h>
#include <string.h>

/* How long anything waits for an owner that answers, and how long KEY_FIND waits at one
 * before it is asked again, if somebody still waits. */
enum { OWNER_WAIT_MS = 20000, FIND_WAIT_MS = 5000 };

/* What one owner is asked. Owner: the peers. */
struct errand {
    struct peer_request peer;
    struct key_request *request;
    struct key_owner owner;
    struct key_owner self; /* As we asked. */
    uint32_t count;
    uint32_t items[]; /* Positions in the request. */
};

/* ---- The end of a request ---- */

static bool
all_done(const struct key_request *request)
{
    for (uint32_t i = 0; i < request->count; i++) {
        if (!request->items[i].is_done)
            return false;
    }
    return true;
}

/* Nothing is under way any more. */
static void
round_end(struct key_request *request)
{
    if (all_done(request) || clock_monotonic_ms() >= request->give_up_at ||
        request->worker->stopping)
        request->ops->finish(request);
    else
        request->is_waiting = true;
}

static void
close_one(struct key_request *request)
{
    DS_ASSERT(request->open_count > 0);
    if (--request->open_count == 0)
        round_end(request);
}

static bool
is_binding(const struct key_request *request)
{
    return request->order == KEY_BIND || request->order == KEY_BIND_IF_ABSENT ||
           request->order == KEY_MOVE;
}

/* What is nowhere may come until the time is up, and an owner may be found. */
static void
say(struct key_item *item, const struct wire_answer *answer)
{
    struct key_request *request = item->request;
    item->is_asked = false;
    item->answer = *answer;
    bool waits = request->order == KEY_FIND && answer->answer == KEY_NO &&
                 clock_monotonic_ms() < request->wait_until;
    bool is_open = answer->answer == KEY_MOVED || item->is_dropped || waits;
    item->is_dropped = false;
    if (is_open && request->may_pass_on)
        return;
    item->is_done = true;
    if (request->ops->on_item != NULL)
        request->ops->on_item(request, item);
    /* Of two that are bound to one key the owner's answers may come the other way round. */
    if (is_binding(request) && request->may_pass_on && answer->answer == KEY_YES)
        keys_drop_key(request->worker, item->change.key);
}

/* ---- Asking an owner ---- */

static uint32_t
left_ms(const struct key_request *request)
{
    uint64_t now = clock_monotonic_ms();
    return now >= request->wait_until ? 0 : (uint32_t)(request->wait_until - now);
}

/* Who asks itself, to wait, has them. */
static bool
wants_values(const struct errand *errand)
{
    return errand->request->wants_values &&
           !owners_is_self(errand->request->worker, &errand->owner);
}

static void
encode(const struct peer_request *peer, struct writer *body)
{
    const struct errand *errand = CONTAINER_OF(peer, const struct errand, peer);
    const struct key_request *request = errand->request;
    struct key_owner self = owners_self(request->worker);
    struct key_orders orders = {.order = request->order,
                                .wait_ms =
                                    (uint32_t)min_u64(left_ms(request), FIND_WAIT_MS),
                                .from = self.node,
                                .restarts = self.restarts,
                                .epoch = owners_epoch(request->worker->owners),
                                .wants_values = wants_values(errand),
                                .bindings.count = errand->count};
    encode_key_orders_begin(body, &orders);
    for (uint32_t i = 0; i < errand->count; i++) {
        const struct key_change *change = &request->items[errand->items[i]].change;
        struct wire_binding binding = {.object = change->object,
                                       .was = change->was,
                                       .ttl_ds = change->ttl_ds,
                                       .key = change->key};
        if (orders.wants_values)
            binding.object = small_values_known(request->worker, change->key);
        encode_binding(body, &binding);
    }
}

/* The answer outlives its message, a value does not. */
static void
take_value(const struct errand *errand, const struct key_item *item,
           struct wire_answer *said)
{
    if (said->answer == KEY_YES && said->value.len > 0 && wants_values(errand))
        small_values_take(errand->request->worker, item->change.key, said);
    said->value = (struct ds_slice){0};
}

/* An owner that is another process by now may have forgotten what it did; and if we were no
 * member for a while since we asked, others have changed what it did. */
static void
end(struct worker *worker, struct peer_request *peer, const struct peer_answer *answer)
{
    struct errand *errand = CONTAINER_OF(peer, struct errand, peer);
    struct key_request *request = errand->request;
    struct answer_list list = {0};
    struct key_owner self = owners_self(worker);
    bool is_said = answer->header != NULL && answer->header->status == DS_OK &&
                   decode_answers(answer->body, &list) && list.count == errand->count &&
                   key_owner_equal(&self, &errand->self);
    for (uint32_t i = 0; i < errand->count; i++) {
        struct key_item *item = &request->items[errand->items[i]];
        struct wire_answer said = {.answer = KEY_MOVED};
        struct key_owner now = owners_find(worker, item->change.key);
        if (is_said)
            is_said = next_answer(&list, &said);
        if (!is_said || (now.node != 0 && !key_owner_equal(&now, &errand->owner)))
            said.answer = KEY_MOVED;
        take_value(errand, item, &said);
        say(item, &said);
    }
    free(errand);
    close_one(request);
}

static const struct peer_request_ops errand_ops = {
    .type = MESSAGE_KEY_ORDERS, .tries_max = 2, .encode = encode, .end = end};

static bool
is_to_ask(const struct key_item *item, const struct key_owner *owner)
{
    struct key_owner its = owners_find(item->request->worker, item->change.key);
    return !item->is_done && !item->is_asked && key_owner_equal(&its, owner);
}

/* All items of that owner from the one at `first` on, as many as one request takes. False:
 * not now. */
static bool
ask_owner(struct key_request *request, uint32_t first, struct key_owner owner)
{
    uint32_t room = (uint32_t)min_u64(request->count - first, KEY_ORDERS_MAX);
    struct errand *errand = calloc(1, sizeof *errand + room * sizeof errand->items[0]);
    if (errand == NULL)
        return false;
    errand->peer = (struct peer_request){
        .ops = &errand_ops, .node = owner.node, .incarnation = owner.incarnation};
    errand->request = request;
    errand->owner = owner;
    errand->self = owners_self(request->worker);
    for (uint32_t i = first; i < request->count && errand->count < room; i++) {
        if (is_to_ask(&request->items[i], &owner))
            errand->items[errand->count++] = i;
    }
    list_init(&errand->peer.link);
    if (!peers_ask(request->worker->peers, &errand->peer)) {
        free(errand);
        return false;
    }
    for (uint32_t i = 0; i < errand->count; i++)
        request->items[errand->items[i]].is_asked = true;
    request->open_count++;
    return true;
}

/* ---- Ours ---- */

static void
on_changed(struct worker *worker, struct key_change *change,
           const struct wire_answer *answer)
{
    struct key_item *item = CONTAINER_OF(change, struct key_item, change);
    struct key_request *request = item->request;
    (void)worker;
    say(item, answer);
    close_one(request);
}

/* Who waits for what is nowhere asks as others do: by a message, which waits. */
static bool
find_here(struct key_item *item)
{
    struct wire_answer answer;
    directory_find(item->request->worker, item->change.key, &answer);
    if (answer.answer == KEY_NO && item->request->may_pass_on &&
        left_ms(item->request) > 0)
        return false;
    say(item, &answer);
    return true;
}

static void
change_here(struct key_item *item)
{
    struct key_request *request = item->request;
    item->change.order = request->order;
    item->change.done = on_changed;
    item->is_asked = true;
    request->open_count++;
    directory_change(request->worker, &item->change);
}

/* ---- A round: every item that is not done is asked for ---- */

/* False: its owner cannot be asked just now. */
static bool
ask(struct key_request *request, uint32_t position, const struct key_owner *owner)
{
    struct worker *worker = request->worker;
    struct key_item *item = &request->items[position];
    bool is_ours = owners_is_self(worker, owner);
    if (owner->node == 0 || (!is_ours && !request->may_pass_on)) {
        say(item, &(struct wire_answer){.answer = KEY_MOVED});
        return true;
    }
    if (!is_ours || (request->order == KEY_FIND && !find_here(item)))
        return ask_owner(request, position, *owner);
    if (request->order != KEY_FIND)
        change_here(item);
    return true;
}

static void
round_begin(struct key_request *request)
{
    struct key_owner away = {0}; /* The last that could not be asked. */
    request->is_waiting = false;
    request->open_count++;
    for (uint32_t i = 0; i < request->count; i++) {
        const struct key_item *item = &request->items[i];
        struct key_owner owner = owners_find(request->worker, item->change.key);
        bool is_away = away.node != 0 && key_owner_equal(&owner, &away);
        if (!item->is_done && !item->is_asked && !is_away && !ask(request, i, &owner))
            away = owner;
    }
    close_one(request);
}

void
keys_retry(struct worker *worker)
{
    LIST_FOREACH (link, &worker->key_requests) {
        struct key_request *request = CONTAINER_OF(link, struct key_request, link);
        if (request->is_waiting)
            round_begin(request);
    }
}

/* ---- Life ---- */

enum ds_status
keys_new(struct session *session, const struct frame_header *header,
         struct ds_slice body, uint32_t room, const struct key_request_ops *ops,
         struct key_request **out, struct ds_error *err)
{
    size_t bytes = sizeof(struct key_request) + room * sizeof(struct key_item);
    bool is_others = header->type == MESSAGE_KEY_ORDERS; /* Short, and counted there. */
    size_t parked = is_others ? 0 : bytes + body.len;
    enum ds_status status = is_others ? DS_OK : session_park(session, parked, err);
    if (status != DS_OK)
        return status;
    struct key_request *request = calloc(1, bytes);
    uint8_t *copy = malloc(body.len + 1);
    if (request == NULL || copy == NULL) {
        free(request);
        free(copy);
        if (!is_others)
            session_unpark(session, parked);
        return ds_fail(err, DS_NO_MEMORY, "worker is out of memory");
    }
    memcpy(copy, body.data, body.len);
    request->ops = ops;
    request->worker = session->worker;
    request->session = session;
    request->header = *header;
    request->body = copy;
    request->body_bytes = body.len;
    request->parked_bytes = parked;
    request->may_pass_on = true;
    list_push_back(&session->worker->key_requests, &request->link);
    list_push_back(&session->key_requests, &request->session_link);
    *out = request;
    return DS_OK;
}

struct key_item *
keys_add(struct key_request *request, struct ds_slice key)
{
    struct key_item *item = &request->items[request->count++];
    item->request = request;
    item->change.key = key;
    list_init(&item->change.link);
    return item;
}

struct ds_slice
keys_in_body(const struct key_request *request, struct ds_slice body,
             struct ds_slice key)
{
    size_t offset = (size_t)((const uint8_t *)key.data - (const uint8_t *)body.data);
    DS_ASSERT(offset + key.len <= request->body_bytes);
    return slice(request->body + offset, key.len);
}

void
keys_start(struct key_request *request, uint32_t wait_ms)
{
    uint64_t now = clock_monotonic_ms();
    request->wait_until = now + wait_ms;
    request->give_up_at = max_u64(request->wait_until, now + OWNER_WAIT_MS);
    round_begin(request);
}

void
keys_start_again(struct key_request *request)
{
    round_begin(request);
}

static void
leave_session(struct key_request *request)
{
    if (request->session == NULL)
        return;
    list_remove(&request->session_link);
    if (request->parked_bytes > 0)
        session_unpark(request->session, request->parked_bytes);
    request->session = NULL;
}

void
keys_free(struct key_request *request)
{
    DS_ASSERT(request->open_count == 0);
    leave_session(request);
    list_remove(&request->link);
    free(request->body);
    free(request);
}

enum ds_status
keys_check(const struct key_request *request, struct ds_error *err)
{
    for (uint32_t i = 0; i < request->count; i++) {
        const struct key_item *item = &request->items[i];
        if (item->is_done && item->answer.answer != KEY_MOVED)
            continue;
        return ds_fail(err, DS_NOT_READY,
                       "the node that knows where '%.*s' is did not say so within "
                       "%d s; try again when the cluster is whole",
                       (int)item->change.key.len, (const char *)item->change.key.data,
                       OWNER_WAIT_MS / 1000);
    }
    return DS_OK;
}

/* An object of ours is to be sealed, as soon as its key's owner says so; not that of another
 * node, which asks us. */
static bool
seals_here(const struct key_request *request)
{
    return request->may_pass_on && is_binding(request);
}

bool
keys_are_binding(const struct worker *worker)
{
    LIST_FOREACH (link, &worker->key_requests) {
        const struct key_request *request =
            CONTAINER_OF(link, const struct key_request, link);
        if (seals_here(request) && !all_done(request))
            return true;
    }
    return false;
}

bool
keys_is_binding(const struct worker *worker, const struct object_name *object)
{
    LIST_FOREACH (link, &worker->key_requests) {
        const struct key_request *request =
            CONTAINER_OF(link, const struct key_request, link);
        for (uint32_t i = 0; is_binding(request) && i < request->count; i++) {
            const struct key_item *item = &request->items[i];
            if (!item->is_done && object_name_equal(&item->change.object, object))
                return true;
        }
    }
    return false;
}

void
keys_drop_key(struct worker *worker, struct ds_slice key)
{
    LIST_FOREACH (link, &worker->key_requests) {
        struct key_request *request = CONTAINER_OF(link, struct key_request, link);
        for (uint32_t i = 0; is_binding(request) && i < request->count; i++) {
            struct key_item *item = &request->items[i];
            if (!item->is_done && slice_equal(item->change.key, key))
                item->is_dropped = item->is_asked;
        }
    }
}

void
keys_drop(struct session *session)
{
    LIST_FOREACH (link, &session->key_requests) {
        struct key_request *request =
            CONTAINER_OF(link, struct key_request, session_link);
        leave_session(request);
        if (request->order == KEY_FIND)
            request->wait_until = request->give_up_at = 0; /* Nobody waits any more. */
        if (request->open_count == 0 && !request->is_waiting)
            keys_free(request); /* It waited for something of the session's. */
    }
}

void
keys_close(struct worker *worker)
{
    LIST_FOREACH (link, &worker->key_requests)
        keys_free(CONTAINER_OF(link, struct key_request, link));
}
