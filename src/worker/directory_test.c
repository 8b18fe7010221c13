/* A worker as the owner and as the holder of users' keys, beside another one, which is
 * scripted. */
#include "worker/directory.h"

#include "worker/objects.h"
#include "worker/owners_internal.h"
#include "worker/pair_testing.h"

enum { TTL_DS = 600 };

/* What the other one was told, and what it answers. */
static atomic_int drops_seen;
static atomic_int binds_seen;
static _Atomic uint64_t dropped_generation;
static _Atomic uint64_t older_generation; /* It has this one first; 0: none. */
static atomic_bool has_nothing;           /* When it is asked. */

static void
answer_one(const struct key_orders *orders, const struct wire_binding *binding,
           struct wire_answer *out)
{
    *out = (struct wire_answer){.answer = KEY_YES};
    if (orders->order == KEY_BIND)
        atomic_fetch_add(&binds_seen, 1);
    if (orders->order == KEY_ASK && atomic_load(&has_nothing))
        out->answer = KEY_NO;
    if (orders->order != KEY_DROP && orders->order != KEY_ASK)
        return;
    if (orders->order == KEY_DROP) {
        atomic_fetch_add(&drops_seen, 1);
        atomic_store(&dropped_generation, binding->object.generation);
    }
    uint64_t older = atomic_exchange(&older_generation, 0);
    if (older != 0)
        *out = (struct wire_answer){
            .answer = KEY_NO, .object = object_of((uint32_t)older), .ttl_ds = TTL_DS};
}

WELCOMING(takes_orders)
{
    struct key_orders orders;
    struct wire_binding binding;
    struct wire_answer answer;
    AUTO_WRITER(out);
    if (header->type != MESSAGE_KEY_ORDERS || !decode_key_orders(body, &orders))
        return false;
    encode_answers_begin(&out, orders.bindings.count);
    while (next_binding(&orders.bindings, &binding)) {
        answer_one(&orders, &binding, &answer);
        encode_answer(&out, &answer);
    }
    return fake_reply(fd, header, DS_OK, slice(out.data, out.len),
                      (struct ds_slice){0});
}

static void
open_pair(struct pair *pair, struct fixture *f)
{
    atomic_store(&drops_seen, 0);
    atomic_store(&binds_seen, 0);
    atomic_store(&older_generation, 0);
    atomic_store(&has_nothing, false);
    pair_open(pair, f, takes_orders);
}

static struct wire_answer
move(struct pair *pair, const char *key, struct object_name object,
     struct object_name was)
{
    struct key_orders orders = {
        .order = KEY_MOVE, .from = NODE, .epoch = epoch_of(pair), .bindings.count = 1};
    return order_one(
        pair, orders,
        (struct wire_binding){.object = object, .was = was, .key = slice_of_text(key)});
}

static bool
is_found(struct fixture *f, const char *key)
{
    struct object_view view;
    return store_find(f->worker.store, slice_of_text(key), clock_boot_ds(), &view);
}

/* ---- As the owner ---- */

TEST(a_holder_drops_its_object_before_another_takes_its_place)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct object_name none = {0};
    open_pair(&pair, &f);
    CHECK_INT(order(&pair, KEY_FIND, pair.ours, none, 0).answer, KEY_NO);
    CHECK_INT(order(&pair, KEY_BIND, pair.ours, object_of(1), 0).answer, KEY_YES);
    struct wire_answer found = order(&pair, KEY_FIND, pair.ours, none, 0);
    struct object_name first = object_of(1);
    CHECK_INT(found.answer, KEY_YES);
    CHECK(object_name_equal(&found.object, &first));
    CHECK_INT(atomic_load(&drops_seen), 0);
    (void)put(&pair.client, pair.ours, 100);
    CHECK_INT(atomic_load(&drops_seen), 1);
    CHECK_INT(atomic_load(&dropped_generation), 1);
    found = order(&pair, KEY_FIND, pair.ours, none, 0);
    CHECK_INT(found.object.node, store_header(f.worker.store)->node);
    CHECK_INT(directory_count(f.worker.directory), 0);
    pair_close(&pair);
}

/* What it is asked to drop was never sealed there: it has the one before. */
TEST(a_holder_with_an_older_object_is_told_again)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    CHECK_INT(order(&pair, KEY_BIND, pair.ours, object_of(2), 0).answer, KEY_YES);
    atomic_store(&older_generation, 1);
    CHECK_OK(call_delete(&pair.client, pair.ours));
    CHECK_INT(atomic_load(&drops_seen), 2);
    CHECK_INT(atomic_load(&dropped_generation), 1);
    CHECK_INT(order(&pair, KEY_FIND, pair.ours, (struct object_name){0}, 0).answer,
              KEY_NO);
    pair_close(&pair);
}

/* The other one takes over what we, who own the key, have; its time goes on. */
TEST(an_object_is_moved_if_it_still_is_its_keys)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct object_view view;
    struct object_name none = {0}, moved = object_of(1);
    open_pair(&pair, &f);
    struct ds_slice key = slice_of_text(pair.ours);
    (void)put(&pair.client, pair.ours, 100);
    uint64_t now = clock_boot_ds();
    CHECK(store_set_expiry(f.worker.store, key, (uint32_t)now + 600, now));
    CHECK(store_find(f.worker.store, key, now, &view));
    struct object_name was = objects_name(&f.worker, view.ref), other = was;
    other.generation++;
    CHECK_INT(move(&pair, pair.ours, moved, other).answer, KEY_NO);
    CHECK(store_find(f.worker.store, key, now, &view));
    struct wire_answer answer = move(&pair, pair.ours, moved, was);
    CHECK_INT(answer.answer, KEY_YES);
    CHECK(answer.ttl_ds > 500 && answer.ttl_ds <= 600);
    CHECK(!store_find(f.worker.store, key, now, &view));
    struct wire_answer found = order(&pair, KEY_FIND, pair.ours, none, 0);
    CHECK(object_name_equal(&found.object, &moved));
    CHECK_INT(move(&pair, pair.ours, moved, was).answer, KEY_YES); /* Said again. */
    CHECK_INT(atomic_load(&drops_seen), 0);
    pair_close(&pair);
}

/* Who has it is told to let go of it first, and what that one has instead counts. */
TEST(an_object_of_another_node_is_moved_when_that_has_let_go)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct object_name none = {0}, first = object_of(1), second = object_of(2);
    open_pair(&pair, &f);
    CHECK_INT(order(&pair, KEY_BIND, pair.ours, first, 0).answer, KEY_YES);
    atomic_store(&older_generation, 3);
    CHECK_INT(move(&pair, pair.ours, second, first).answer, KEY_NO);
    struct wire_answer found = order(&pair, KEY_FIND, pair.ours, none, 0);
    CHECK_INT(found.object.generation, 3);
    struct wire_answer answer = move(&pair, pair.ours, second, object_of(3));
    CHECK_INT(answer.answer, KEY_YES);
    CHECK(answer.ttl_ds > TTL_DS - 100 && answer.ttl_ds <= TTL_DS);
    CHECK_INT(atomic_load(&drops_seen), 2);
    found = order(&pair, KEY_FIND, pair.ours, none, 0);
    CHECK(object_name_equal(&found.object, &second));
    pair_close(&pair);
}

/* What its key was bound to last came to nothing there, or did not: then that counts. */
TEST(an_object_is_moved_if_its_holder_still_has_it)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct object_name none = {0}, moved = object_of(3);
    open_pair(&pair, &f);
    CHECK_INT(order(&pair, KEY_BIND, pair.ours, object_of(2), 0).answer, KEY_YES);
    atomic_store(&older_generation, 1);
    CHECK_INT(move(&pair, pair.ours, moved, object_of(1)).answer, KEY_YES);
    CHECK_INT(atomic_load(&drops_seen), 1);
    CHECK_INT(atomic_load(&dropped_generation), 1);
    CHECK_INT(move(&pair, pair.ours, object_of(4), object_of(1)).answer, KEY_NO);
    CHECK_INT(atomic_load(&drops_seen), 1);
    struct wire_answer found = order(&pair, KEY_FIND, pair.ours, none, 0);
    CHECK(object_name_equal(&found.object, &moved));
    pair_close(&pair);
}

TEST(an_object_of_no_member_is_not_bound_and_a_key_of_others_not_answered)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct object_name none = {0}, stranger = {NODE, INCARNATION + 1, 1, 1};
    open_pair(&pair, &f);
    CHECK_INT(order(&pair, KEY_BIND, pair.ours, stranger, 0).answer, KEY_MOVED);
    CHECK_INT(order(&pair, KEY_FIND, pair.theirs, none, 0).answer, KEY_MOVED);
    CHECK_INT(order(&pair, KEY_UNBIND, pair.theirs, none, 0).answer, KEY_MOVED);
    CHECK_INT(directory_count(f.worker.directory), 0);
    pair_close(&pair);
}

/* A node that is killed between the binding and the seal has nothing, and whoever sets the key
 * if it is absent must not be told that it is there. */
TEST(what_its_holder_does_not_have_is_absent)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);

    CHECK_INT(order(&pair, KEY_BIND, pair.ours, object_of(1), 0).answer, KEY_YES);
    CHECK_INT(order(&pair, KEY_BIND_IF_ABSENT, pair.ours, object_of(2), 0).answer,
              KEY_NO);
    atomic_store(&has_nothing, true);
    CHECK_INT(order(&pair, KEY_BIND_IF_ABSENT, pair.ours, object_of(2), 0).answer,
              KEY_YES);
    struct wire_answer found =
        order(&pair, KEY_FIND, pair.ours, (struct object_name){0}, 0);
    CHECK_INT(found.object.generation, 2);

    pair_close(&pair);
}

/* Its node was killed before it sealed it, and who is back has what was its key before. */
TEST(what_was_bound_to_nothing_had_taken_the_place_of_what_was_there)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct object_name none = {0};
    open_pair(&pair, &f);
    f.worker.owners->away_ms = UINT64_MAX;
    atomic_store(&has_nothing, true);
    CHECK_INT(order(&pair, KEY_BIND, pair.ours, object_of(2), 0).answer, KEY_YES);
    CHECK_INT(order(&pair, KEY_UNBIND_IF_GONE, pair.ours, object_of(2), 0).answer,
              KEY_NO);
    struct wire_binding older = {.object = object_of(1),
                                 .key = slice_of_text(pair.ours)};
    CHECK_INT(directory_take_report(&f.worker, &older), KEY_NO);
    CHECK_INT(order(&pair, KEY_FIND, pair.ours, none, 0).answer, KEY_NO);
    pair_close(&pair);
}

/* What was sent before its sender was no member for a while, and comes late, is not done: it
 * was asked for elsewhere, and others may have changed the key since. */
TEST(an_order_of_the_past_is_not_obeyed)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);

    CHECK_INT(order(&pair, KEY_BIND, pair.ours, object_of(1), 0).answer, KEY_YES);
    uint64_t since = membership_find(f.worker.membership, NODE)->since;
    struct key_orders late = {
        .order = KEY_UNBIND, .from = NODE, .epoch = since - 1, .bindings.count = 1};
    struct wire_binding binding = {.key = slice_of_text(pair.ours)};
    CHECK_INT(order_one(&pair, late, binding).answer, KEY_MOVED);
    late.epoch = since;
    late.restarts = 1; /* Of another process, which is not there yet, or no more. */
    CHECK_INT(order_one(&pair, late, binding).answer, KEY_MOVED);
    struct wire_answer found =
        order(&pair, KEY_FIND, pair.ours, (struct object_name){0}, 0);
    CHECK_INT(found.answer, KEY_YES);
    CHECK_INT(found.object.generation, 1);

    pair_close(&pair);
}

/* It may have been on its way since before the key was deleted: of who reported already, and
 * has been a member since, we know all. */
TEST(a_report_of_the_past_is_not_believed)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct object_name none = {0};
    open_pair(&pair, &f);
    struct wire_binding binding = {.object = object_of(1),
                                   .key = slice_of_text(pair.ours)};
    uint64_t epoch = owners_epoch(f.worker.owners);
    report_of(&f, &pair.as_other, epoch - 1, &binding);
    CHECK_INT(order(&pair, KEY_FIND, pair.ours, none, 0).answer, KEY_NO);
    report_of(&f, &pair.as_other, epoch, &binding);
    CHECK_INT(order(&pair, KEY_FIND, pair.ours, none, 0).answer, KEY_NO);
    CHECK_INT(order(&pair, KEY_BIND, pair.ours, object_of(1), 0).answer, KEY_YES);
    report_of(&f, &pair.as_other, epoch, &binding);
    CHECK_INT(order(&pair, KEY_FIND, pair.ours, none, 0).answer, KEY_YES);
    pair_close(&pair);
}

/* ---- As the holder ---- */

TEST(an_object_is_sealed_when_the_owner_of_its_key_has_bound_it)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    (void)put(&pair.client, pair.theirs, 100);
    CHECK_INT(atomic_load(&binds_seen), 1);
    CHECK(is_found(&f, pair.theirs));
    pair_close(&pair);
}

TEST(a_holder_obeys_the_owner_alone)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    struct wire_extent extent = put(&pair.client, pair.theirs, 100);
    struct object_ref ref = {extent.ref.slot, extent.ref.generation};
    struct object_name object = objects_name(&f.worker, ref), other = object;
    uint64_t now = clock_boot_ds();
    other.generation++;
    CHECK(store_set_expiry(f.worker.store, slice_of_text(pair.theirs),
                           (uint32_t)now + TTL_DS, now));
    CHECK_INT(order(&pair, KEY_DROP, pair.theirs, object, NODE + 1).answer, KEY_MOVED);
    struct key_orders late = {
        .order = KEY_DROP, .from = NODE, .restarts = 1, .bindings.count = 1};
    struct wire_binding binding = {.object = object, .key = slice_of_text(pair.theirs)};
    CHECK_INT(order_one(&pair, late, binding).answer, KEY_MOVED);
    late.restarts = 0; /* Of before it became a member. */
    CHECK_INT(order_one(&pair, late, binding).answer, KEY_MOVED);
    CHECK_INT(order(&pair, KEY_ASK, pair.theirs, object, NODE).answer, KEY_YES);
    struct wire_answer answer = order(&pair, KEY_DROP, pair.theirs, other, NODE);
    CHECK_INT(answer.answer, KEY_NO);
    CHECK(object_name_equal(&answer.object, &object));
    CHECK(answer.ttl_ds > TTL_DS - 100 && answer.ttl_ds <= TTL_DS);
    CHECK(is_found(&f, pair.theirs));
    CHECK_INT(order(&pair, KEY_DROP, pair.theirs, object, NODE).answer, KEY_YES);
    CHECK(!is_found(&f, pair.theirs));
    CHECK_INT(order(&pair, KEY_DROP, pair.theirs, object, NODE).answer, KEY_NO);
    pair_close(&pair);
}

/* Nobody can tell it of changes any more, so it believes nothing itself. */
TEST(without_a_lease_a_worker_owns_and_believes_nothing)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    (void)put(&pair.client, pair.ours, 100);
    CHECK(directory_is_here(&f.worker, slice_of_text(pair.ours)));
    owners_set_lease(&f.worker, clock_boot_ds());
    CHECK(!owners_is_current(&f.worker));
    CHECK(!directory_is_here(&f.worker, slice_of_text(pair.ours)));
    CHECK_INT(owners_find(&f.worker, slice_of_text(pair.ours)).node, 0);
    CHECK_INT(owners_find(&f.worker, slice_of_text(pair.theirs)).node, NODE);
    pair_close(&pair);
}

TEST_MAIN(RUN(what_was_bound_to_nothing_had_taken_the_place_of_what_was_there),
          RUN(a_holder_drops_its_object_before_another_takes_its_place),
          RUN(an_object_is_moved_if_it_still_is_its_keys),
          RUN(an_object_of_another_node_is_moved_when_that_has_let_go),
          RUN(an_object_is_moved_if_its_holder_still_has_it),
          RUN(a_holder_with_an_older_object_is_told_again),
          RUN(an_object_of_no_member_is_not_bound_and_a_key_of_others_not_answered),
          RUN(what_its_holder_does_not_have_is_absent),
          RUN(an_order_of_the_past_is_not_obeyed),
          RUN(a_report_of_the_past_is_not_believed),
          RUN(an_object_is_sealed_when_the_owner_of_its_key_has_bound_it),
          RUN(a_holder_obeys_the_owner_alone),
          RUN(without_a_lease_a_worker_owns_and_believes_nothing))
