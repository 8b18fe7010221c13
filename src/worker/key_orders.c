/* KEY_ORDERS: what other workers ask of us as the owner of keys, and tell us as the holder
 * of objects. */
#include "base/check.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "worker/keys.h"
#include "worker/objects.h"
#include "worker/small_values.h"
#include "worker/waiters.h"

#include <stdlib.h>

/* ---- To the owner of keys ---- */

static void
reply(struct key_request *request)
{
    if (request->session != NULL) {
        AUTO_WRITER(body);
        encode_answers_begin(&body, request->count);
        for (uint32_t i = 0; i < request->count; i++)
            encode_answer(&body, &request->items[i].answer);
        session_reply(request->session, &request->header, &body);
    }
    keys_free(request);
}

static const struct key_request_ops change_ops = {.finish = reply};

/* One of us two was no member for a while since that was sent, or who sent it was killed. It has
 * asked somebody else by then, and been answered: done now, it would undo what came later. */
static bool
is_of_the_past(const struct worker *worker, const struct key_orders *orders)
{
    return worker->membership != NULL && !PLANTED(LATE_ORDER) &&
           !owners_stayed_since(worker, orders->from, orders->restarts, orders->epoch);
}

/* Or who sends it knows of an epoch that we do not know, and has reported what it has: what we
 * would bind now we may have to forget with that epoch. */
static bool
is_of_another_time(const struct worker *worker, const struct key_orders *orders)
{
    bool is_ahead = orders->epoch > owners_epoch(worker->owners);
    return (is_ahead && worker->membership != NULL && !PLANTED(LATE_ORDER)) ||
           is_of_the_past(worker, orders);
}

static void
reply_moved(struct session *session, const struct frame_header *header, uint32_t count)
{
    AUTO_WRITER(body);
    encode_answers_begin(&body, count);
    for (uint32_t i = 0; i < count; i++)
        encode_answer(&body, &(struct wire_answer){.answer = KEY_MOVED});
    session_reply(session, header, &body);
}

/* Each item is done at once, or when its change is. */
static void
change_all(struct session *session, const struct frame_header *header,
           struct ds_slice body, const struct key_orders *orders)
{
    struct key_request *request;
    struct ds_error err = {0};
    struct binding_list list = orders->bindings;
    struct wire_binding binding;
    if (keys_new(session, header, body, list.count, &change_ops, &request, &err) !=
        DS_OK) {
        conn_reply_error(session->conn, header, &err);
        return;
    }
    request->order = orders->order;
    request->may_pass_on = false;
    while (next_binding(&list, &binding)) {
        struct key_item *item =
            keys_add(request, keys_in_body(request, body, binding.key));
        item->change.object = binding.object;
        item->change.was = binding.was;
        item->change.ttl_ds = binding.ttl_ds;
    }
    keys_start(request, 0);
}

/* KEY_MOVED where it is not ours to say. */
static void
find(struct worker *worker, struct ds_slice key, struct wire_answer *out)
{
    struct key_owner owner = owners_find(worker, key);
    *out = (struct wire_answer){.answer = KEY_MOVED};
    if (owners_is_self(worker, &owner))
        directory_find(worker, key, out);
}

static void
reply_found(struct session *session, const struct frame_header *header,
            const struct key_orders *orders)
{
    struct binding_list list = orders->bindings;
    struct wire_binding binding;
    uint32_t left = orders->wants_values ? KEY_VALUES_BYTES_MAX : 0;
    AUTO_WRITER(writer);
    encode_answers_begin(&writer, list.count);
    while (next_binding(&list, &binding)) {
        struct wire_answer answer;
        find(session->worker, binding.key, &answer);
        small_values_add(session->worker, &binding.object, &answer, &left);
        encode_answer(&writer, &answer);
    }
    session_reply(session, header, &writer);
}

/* What is nowhere, as long as all of it is ours to say; else there is nothing to wait
 * for. */
static size_t
find_missing(struct worker *worker, struct binding_list list, struct ds_slice *out)
{
    struct wire_binding binding;
    size_t count = 0;
    while (next_binding(&list, &binding)) {
        struct wire_answer answer;
        find(worker, binding.key, &answer);
        if (answer.answer == KEY_MOVED)
            return 0;
        if (answer.answer == KEY_NO)
            out[count++] = binding.key;
    }
    return count;
}

void
key_orders_find(struct session *session, const struct frame_header *header,
                struct ds_slice body, uint32_t left_ms)
{
    struct key_orders orders;
    struct ds_error err = {0};
    bool decoded = decode_key_orders(body, &orders);
    DS_ASSERT(decoded);
    struct ds_slice *missing =
        calloc((size_t)orders.bindings.count + 1, sizeof *missing);
    enum ds_status status = DS_OK;
    size_t count = 0;
    if (missing == NULL)
        status = ds_fail(&err, DS_NO_MEMORY, "worker is out of memory");
    else if (left_ms > 0)
        count = find_missing(session->worker, orders.bindings, missing);
    if (count > 0)
        status = waiters_park(session, header, body, left_ms, missing, count,
                              key_orders_find, &err);
    if (status != DS_OK)
        conn_reply_error(session->conn, header, &err);
    else if (count == 0)
        reply_found(session, header, &orders);
    free(missing);
}

/* ---- To the holder of an object ---- */

/* The object is sealed, about to be, or neither. */
enum object_is { IS_NOTHING, IS_BEING_BOUND, IS_SEALED };

static enum key_answer
obey(struct worker *worker, enum key_order order, const struct wire_binding *binding,
     enum object_is is)
{
    uint64_t now = clock_boot_ds();
    if (is == IS_NOTHING)
        return KEY_NO;
    if (order != KEY_DROP && is == IS_BEING_BOUND)
        return KEY_MOVED; /* Soon: ask again. */
    if (order == KEY_ASK)
        return KEY_YES;
    if (order == KEY_SET_EXPIRY)
        return store_set_expiry(worker->store, binding->key,
                                objects_expiry_ds(binding->ttl_ds, now), now)
                   ? KEY_YES
                   : KEY_NO;
    /* Before what is being bound is sealed, its key is still the older object. */
    (void)store_delete(worker->store, binding->key, now);
    return KEY_YES;
}

/* Who owns a key no more has no say in it. */
static void
answer_as_holder(struct worker *worker, const struct key_orders *orders,
                 const struct wire_binding *binding, struct wire_answer *out)
{
    const struct object_name *object = &binding->object;
    struct object_view view = {0};
    enum object_is is = IS_NOTHING;
    *out = (struct wire_answer){.answer = KEY_MOVED};
    if (owners_find(worker, binding->key).node != orders->from ||
        is_of_the_past(worker, orders))
        return;
    uint64_t now = clock_boot_ds();
    bool has_one = store_find(worker->store, binding->key, now, &view);
    struct object_name ours = objects_name(worker, view.ref);
    if (has_one && object_name_equal(&ours, object))
        is = IS_SEALED;
    else if (keys_is_binding(worker, object) &&
             objects_is_unsealed(worker,
                                 (struct object_ref){object->slot, object->generation}))
        is = IS_BEING_BOUND;
    if (orders->order == KEY_DROP && !PLANTED(UNHEARD_DROP))
        keys_drop_key(worker, binding->key); /* There may be others, bound before it. */
    out->answer = obey(worker, orders->order, binding, is);
    if (out->answer == KEY_NO && has_one && orders->order != KEY_SET_EXPIRY) {
        out->object = ours;
        out->ttl_ds = objects_left_ds(view.expires_ds, now);
    }
}

static void
obey_all(struct session *session, const struct frame_header *header,
         struct key_orders *orders)
{
    struct wire_binding binding;
    AUTO_WRITER(writer);
    encode_answers_begin(&writer, orders->bindings.count);
    while (next_binding(&orders->bindings, &binding)) {
        struct wire_answer answer;
        answer_as_holder(session->worker, orders, &binding, &answer);
        encode_answer(&writer, &answer);
    }
    session_reply(session, header, &writer);
}

void
handle_key_orders(struct session *session, const struct frame_header *header,
                  struct ds_slice body)
{
    struct key_orders orders;
    if (session->kind != SESSION_TCP || !decode_key_orders(body, &orders))
        session_reject(session, "malformed KEY_ORDERS");
    else if (orders.order == KEY_FIND)
        key_orders_find(session, header, body, orders.wait_ms);
    else if (orders.order <= KEY_EXPIRE && is_of_another_time(session->worker, &orders))
        reply_moved(session, header, orders.bindings.count);
    else if (orders.order <= KEY_EXPIRE)
        change_all(session, header, body, &orders);
    else
        obey_all(session, header, &orders);
}
