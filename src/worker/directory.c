#include "worker/directory_internal.h"

#include "base/check.h"
#include "base/log.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "worker/objects.h"
#include "worker/owners.h"
#include "worker/waiters.h"

#include <inttypes.h>
#include <stdlib.h>

static uint32_t
own_node(const struct worker *worker)
{
    return store_header(worker->store)->node;
}

static bool
is_ours(const struct worker *worker, struct ds_slice key)
{
    struct key_owner owner = owners_find(worker, key);
    return owners_is_self(worker, &owner);
}

bool
directory_is_here(const struct worker *worker, struct ds_slice key)
{
    return worker->membership == NULL ||
           (is_ours(worker, key) &&
            bindings_find(&worker->directory->bindings, key) == NULL);
}

/* ---- What a key of ours is ---- */

static bool
has_expired(const struct binding *binding)
{
    return binding->expires_ds != 0 && clock_boot_ds() >= binding->expires_ds;
}

static bool
is_member(const struct worker *worker, const struct object_name *object)
{
    return peers_know(worker->peers, object->node, object->incarnation);
}

void
directory_find(struct worker *worker, struct ds_slice key, struct wire_answer *out)
{
    const struct binding *binding = bindings_find(&worker->directory->bindings, key);
    struct object_view view;
    *out = (struct wire_answer){.answer = KEY_NO};
    if (directory_is_bound(binding)) {
        if (has_expired(binding))
            return;
        out->object = binding->object;
        out->answer = is_member(worker, &binding->object) ? KEY_YES : KEY_LOST;
    } else if (store_find(worker->store, key, clock_boot_ds(), &view)) {
        out->object = objects_name(worker, view.ref);
        out->answer = KEY_YES;
    }
}

/* ---- Changes ---- */

static void advance(struct worker *worker, struct binding *binding);

static void
finish(struct worker *worker, struct key_change *change, enum key_answer answer)
{
    struct wire_answer said = {.answer = answer};
    if (change->order == KEY_MOVE)
        said.ttl_ds = change->ttl_ds;
    list_remove(&change->link);
    change->done(worker, change, &said);
}

static bool
is_same_holder(const struct object_name *one, const struct object_name *other)
{
    return one->node == other->node && one->incarnation == other->incarnation;
}

static void
encode_ask(const struct peer_request *request, struct writer *body)
{
    const struct key_change *change =
        CONTAINER_OF(request, const struct key_change, request);
    struct key_orders orders = {.from = change->from,
                                .restarts = change->from_restarts,
                                .epoch = change->from_epoch,
                                .bindings.count = 1};
    orders.order = change->order == KEY_EXPIRE ? KEY_SET_EXPIRY
                   : change->only_asks         ? KEY_ASK
                                               : KEY_DROP;
    struct wire_binding binding = {
        .object = change->asked, .ttl_ds = change->ttl_ds, .key = change->key};
    encode_key_orders_begin(body, &orders);
    encode_binding(body, &binding);
}

static void end_ask(struct worker *worker, struct peer_request *request,
                    const struct peer_answer *answer);

static const struct peer_request_ops ask_ops = {
    .type = MESSAGE_KEY_ORDERS, .encode = encode_ask, .end = end_ask};

/* False: its holder is no member, so nobody has it. Else it is asked, or cannot be just
 * now, or may still serve it, which ends the change. */
static bool
ask_holder(struct worker *worker, struct key_change *change)
{
    change->asked = change->binding->object;
    if (!is_member(worker, &change->asked)) {
        bool may_serve = owners_may_be_served(worker) && !PLANTED(NO_LAPSE);
        if (may_serve)
            finish(worker, change, KEY_MOVED);
        return may_serve;
    }
    change->request = (struct peer_request){.ops = &ask_ops,
                                            .node = change->asked.node,
                                            .incarnation = change->asked.incarnation};
    list_init(&change->request.link);
    change->from = own_node(worker);
    change->from_restarts = (uint32_t)worker->restarts;
    change->from_epoch = owners_epoch(worker->owners);
    if (!peers_ask(worker->peers, &change->request)) {
        change->request.ops = NULL;
        finish(worker, change, KEY_MOVED);
    }
    return true;
}

/* Its holder is a member. */
static void
ask_whether_there(struct worker *worker, struct key_change *change)
{
    change->only_asks = true;
    if (!ask_holder(worker, change))
        finish(worker, change, KEY_MOVED);
}

/* Nobody else holds it any more. */
static void
bind_now(struct worker *worker, struct key_change *change)
{
    struct binding *binding = change->binding;
    bool is_local = change->object.node == own_node(worker);
    if (!is_local)
        (void)store_delete(worker->store, change->key, clock_boot_ds());
    directory_set_object(worker, binding,
                         is_local ? (struct object_name){0} : change->object);
    bindings_set_deleted(&worker->directory->bindings, binding, false);
    directory_set_expiry(binding, change->ttl_ds);
    finish(worker, change, KEY_YES);
    if (!is_local)
        waiters_key_settled(worker, binding_key(binding), NULL);
}

static void
unbind(struct worker *worker, struct key_change *change, enum key_answer answer)
{
    change->binding->object = (struct object_name){0};
    directory_remember_deleted(worker, change->binding);
    finish(worker, change, answer);
}

/* It was said before. */
static void
say_again(struct worker *worker, struct key_change *change)
{
    struct binding *binding = change->binding;
    if (directory_is_bound(binding))
        directory_set_object(worker, binding, binding->object);
    finish(worker, change, KEY_YES);
}

static void
begin_bind(struct worker *worker, struct key_change *change)
{
    const struct binding *binding = change->binding;
    struct wire_answer now;
    directory_find(worker, change->key, &now);
    bool is_its_own = is_same_holder(&binding->object, &change->object);
    bool is_of_member =
        change->object.node == own_node(worker) || is_member(worker, &change->object);
    bool is_taken = change->order == KEY_BIND_IF_ABSENT && now.answer == KEY_YES;
    if (!is_of_member) /* It does not know yet that it is none, and asks again then. */
        finish(worker, change, KEY_MOVED);
    else if (now.answer != KEY_NO && object_name_equal(&now.object, &change->object))
        say_again(worker, change);
    else if (is_taken && !directory_is_bound(binding))
        finish(worker, change, KEY_NO);
    else if (is_taken) /* Its node may have been killed before it sealed it. */
        ask_whether_there(worker, change);
    else if (!directory_is_bound(binding) || is_its_own || PLANTED(UNASKED_HOLDER) ||
             !ask_holder(worker, change))
        bind_now(worker, change);
}

/* What is left of the time of an object of ours to say; 0: it is for ever. */
static uint32_t
left_ds(struct worker *worker, const struct key_change *change)
{
    struct object_view view;
    uint64_t now = clock_boot_ds();
    if (directory_is_bound(change->binding))
        return objects_left_ds(change->binding->expires_ds, now);
    bool is_here = store_find(worker->store, change->key, now, &view);
    return is_here ? objects_left_ds(view.expires_ds, now) : 0;
}

/* The same value at another node: whoever has it lets go of it first, as others may change
 * it there. If that has another one by what we know, it is asked: it may have none. */
static void
begin_move(struct worker *worker, struct key_change *change)
{
    struct wire_answer now;
    directory_find(worker, change->key, &now);
    bool is_of_member =
        change->object.node == own_node(worker) || is_member(worker, &change->object);
    bool is_his = is_same_holder(&now.object, &change->was);
    bool may_be_was = object_name_equal(&now.object, &change->was) ||
                      (is_his && directory_is_bound(change->binding));
    change->ttl_ds = left_ds(worker, change);
    change->only_asks = !object_name_equal(&change->binding->object, &change->was) &&
                        !PLANTED(BLIND_MOVE);
    if (!is_of_member || (is_his && now.answer == KEY_LOST))
        finish(worker, change, KEY_MOVED); /* Its holder may be back at once. */
    else if (now.answer == KEY_YES && object_name_equal(&now.object, &change->object))
        say_again(worker, change);
    else if (now.answer != KEY_YES || (!may_be_was && !PLANTED(BLIND_MOVE)))
        finish(worker, change, KEY_NO);
    else if (!directory_is_bound(change->binding) || !ask_holder(worker, change))
        bind_now(worker, change);
}

static void
begin_unbind(struct worker *worker, struct key_change *change)
{
    bool is_table = !directory_is_bound(change->binding) || PLANTED(UNTOLD_DELETE);
    bool was_there =
        is_table && store_delete(worker->store, change->key, clock_boot_ds());
    worker->counters.deletes += was_there;
    if (is_table)
        unbind(worker, change, was_there ? KEY_YES : KEY_NO);
    else if (!ask_holder(worker, change))
        unbind(worker, change, KEY_NO); /* Lost, and now forgotten. */
}

static void
begin_expire(struct worker *worker, struct key_change *change)
{
    uint64_t now = clock_boot_ds();
    uint32_t expires = objects_expiry_ds(change->ttl_ds, now);
    if (!directory_is_bound(change->binding))
        finish(worker, change,
               store_set_expiry(worker->store, change->key, expires, now) ? KEY_YES
                                                                          : KEY_NO);
    else if (has_expired(change->binding) || !ask_holder(worker, change))
        finish(worker, change, KEY_NO);
}

/* Of what is in our own table nobody else needs to be asked. */
static void
begin_check(struct worker *worker, struct key_change *change)
{
    struct wire_answer now;
    directory_find(worker, change->key, &now);
    bool is_same =
        now.answer == KEY_YES && object_name_equal(&now.object, &change->object);
    if (!is_same || !directory_is_bound(change->binding))
        finish(worker, change, is_same ? KEY_YES : KEY_NO);
    else
        ask_whether_there(worker, change);
}

/* It is first in line. */
static void
begin(struct worker *worker, struct key_change *change)
{
    if (!is_ours(worker, change->key))
        finish(worker, change, KEY_MOVED);
    else if (change->order == KEY_UNBIND)
        begin_unbind(worker, change);
    else if (change->order == KEY_EXPIRE)
        begin_expire(worker, change);
    else if (change->order == KEY_MOVE)
        begin_move(worker, change);
    else if (change->order != KEY_UNBIND_IF_GONE)
        begin_bind(worker, change);
    else
        begin_check(worker, change);
}

static bool
is_asking(const struct key_change *change)
{
    return change->request.ops != NULL;
}

/* Begins the first in line, until one asks a holder. */
static void
advance(struct worker *worker, struct binding *binding)
{
    if (binding->is_advancing)
        return;
    binding->is_advancing = true;
    while (!list_is_empty(&binding->changes)) {
        struct key_change *first =
            CONTAINER_OF(binding->changes.next, struct key_change, link);
        if (is_asking(first))
            break;
        begin(worker, first);
    }
    binding->is_advancing = false;
    bindings_settle(&worker->directory->bindings, binding);
}

/* The holder's word; false: there is none, or none that makes sense. */
static bool
read_answer(const struct peer_answer *answer, struct wire_answer *out)
{
    struct answer_list list;
    return answer->header->status == DS_OK && decode_answers(answer->body, &list) &&
           list.count == 1 && next_answer(&list, out) && out->answer <= KEY_YES;
}

static void
take_answer(struct worker *worker, struct key_change *change,
            const struct wire_answer *said)
{
    struct binding *binding = change->binding;
    bool is_there = said->answer == KEY_YES;
    if (change->order == KEY_EXPIRE) {
        if (is_there)
            directory_set_expiry(binding, change->ttl_ds);
        finish(worker, change, said->answer);
        return;
    }
    if (!is_there && said->object.node != 0) {
        directory_set_object(worker, binding,
                             said->object); /* As before a bind that came to
                                                      nothing. */
        directory_set_expiry(binding, said->ttl_ds);
        if (change->order == KEY_MOVE && object_name_equal(&said->object, &change->was))
            return; /* It begins again. */
        if (change->only_asks || change->order == KEY_MOVE ||
            !ask_holder(worker, change))
            finish(worker, change, KEY_NO);
    } else if (change->order == KEY_UNBIND_IF_GONE || (change->only_asks && is_there) ||
               (change->order == KEY_MOVE && !is_there &&
                (change->only_asks || has_expired(binding)))) {
        if (!is_there) { /* What had its place before may come back. */
            binding->object = (struct object_name){0};
            directory_remember_deleted(worker, binding);
        }
        finish(worker, change,
               change->order == KEY_UNBIND_IF_GONE ? said->answer : KEY_NO);
    } else if (change->order == KEY_UNBIND) {
        unbind(worker, change, said->answer);
    } else {
        bind_now(worker,
                 change); /* Also if it had let go before: its answer was lost. */
    }
}

/* Without an answer its holder is no member any more: whoever asked asks again. */
static void
end_ask(struct worker *worker, struct peer_request *request,
        const struct peer_answer *answer)
{
    struct key_change *change = CONTAINER_OF(request, struct key_change, request);
    struct binding *binding = change->binding;
    struct wire_answer said = {.answer = KEY_NO};
    bool is_advancing = binding->is_advancing;
    binding->is_advancing = true;
    change->request.ops = NULL;
    if (answer->header == NULL || !is_ours(worker, change->key) ||
        !object_name_equal(&change->asked, &binding->object) ||
        !read_answer(answer, &said))
        finish(worker, change, KEY_MOVED);
    else
        take_answer(worker, change, &said);
    binding->is_advancing = is_advancing;
    advance(worker, binding);
}

void
directory_change(struct worker *worker, struct key_change *change)
{
    struct wire_answer moved = {.answer = KEY_MOVED};
    change->binding = is_ours(worker, change->key)
                          ? bindings_get(&worker->directory->bindings, change->key)
                          : NULL;
    change->request.ops = NULL;
    change->only_asks = false;
    if (change->binding == NULL) {
        change->done(worker, change, &moved);
        return;
    }
    list_push_back(&change->binding->changes, &change->link);
    advance(worker, change->binding);
}

size_t
directory_count(const struct directory *directory)
{
    return directory == NULL ? 0 : directory->bindings.map.count;
}

/* ---- Life ---- */

enum ds_status
directory_open(struct directory **out, struct ds_error *err)
{
    struct directory *directory = calloc(1, sizeof *directory);
    if (directory == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for the directory of keys");
    bindings_init(&directory->bindings);
    *out = directory;
    return DS_OK;
}

void
directory_close(struct directory *directory)
{
    if (directory == NULL)
        return;
    bindings_fini(&directory->bindings);
    free(directory);
}
