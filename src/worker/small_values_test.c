/* Values that come with the word of their keys' owner: a worker that is asked, and one that
 * asks another, which is scripted. */
#include "worker/small_values.h"

#include "worker/objects.h"
#include "worker/pair_testing.h"

#include "os/checksum.h"
#include "os/clock.h"

#include <string.h>

enum { VALUE_BYTES = 1000, MANY = 200 };

/* ---- The other worker ---- */

/* Every key of its is this object of its; 0: it is none. */
static _Atomic uint32_t its_generation;
static _Atomic size_t sent_bytes; /* Of its value, with the answer. */
static _Atomic uint64_t checksum_damage;
static _Atomic bool names_our_arena;
static _Atomic uint32_t our_node, our_incarnation;

/* What it was asked. */
static atomic_int finds_seen, wishes_seen, fetches_seen;
static _Atomic uint64_t known_generation; /* To who asked last. */

/* All bytes of an object are the same. */
static const uint8_t *
bytes_of_object(uint64_t generation)
{
    static _Thread_local uint8_t bytes[KEY_VALUE_BYTES_MAX + 1];
    memset(bytes, (int)generation, sizeof bytes);
    return bytes;
}

static struct wire_answer
find_one(const struct wire_binding *binding, bool wants_values)
{
    uint32_t generation = atomic_load(&its_generation);
    struct wire_answer answer = {.answer = KEY_NO};
    atomic_fetch_add(&finds_seen, 1);
    atomic_fetch_add(&wishes_seen, wants_values);
    atomic_store(&known_generation, binding->object.generation);
    if (generation == 0)
        return answer;
    size_t bytes = atomic_load(&sent_bytes);
    answer.answer = KEY_YES;
    answer.object = object_of(generation);
    answer.value = slice(bytes_of_object(generation), bytes);
    answer.checksum =
        checksum_of(answer.value.data, bytes) ^ atomic_load(&checksum_damage);
    if (bytes > KEY_VALUE_BYTES_MAX)
        atomic_store(&sent_bytes, 0); /* It does so only once. */
    if (atomic_load(&names_our_arena)) {
        answer.object.node = atomic_load(&our_node);
        answer.object.incarnation = atomic_load(&our_incarnation);
    }
    return answer;
}

/* What we do not have is gone; what the other one has is there. */
static enum key_answer
check_one(void)
{
    if (!atomic_load(&names_our_arena))
        return KEY_YES;
    atomic_store(&its_generation, 0);
    return KEY_NO;
}

static bool
answer_orders(int fd, const struct frame_header *header, struct key_orders *orders)
{
    struct wire_binding binding;
    AUTO_WRITER(out);
    encode_answers_begin(&out, orders->bindings.count);
    while (next_binding(&orders->bindings, &binding)) {
        struct wire_answer answer = {.answer = KEY_NO};
        if (orders->order == KEY_FIND)
            answer = find_one(&binding, orders->wants_values);
        if (orders->order == KEY_UNBIND_IF_GONE)
            answer.answer = check_one();
        encode_answer(&out, &answer);
    }
    return fake_reply(fd, header, DS_OK, bytes_of(&out), (struct ds_slice){0});
}

static bool
answer_fetch(int fd, const struct frame_header *header, struct lookup *lookup)
{
    AUTO_WRITER(body);
    AUTO_WRITER(payload);
    struct ds_slice key;
    struct object_name name;
    encode_fetched_begin(&body, lookup->keys.count);
    while (next_key(&lookup->keys, &key)) {
        const uint8_t *bytes =
            bytes_of_object(wire_object_name(key, &name) ? name.generation : 0);
        struct wire_value value = {.found = true,
                                   .size = VALUE_BYTES,
                                   .total = VALUE_BYTES,
                                   .checksum = checksum_of(bytes, VALUE_BYTES)};
        atomic_fetch_add(&fetches_seen, 1);
        encode_fetched_value(&body, &value);
        write_bytes(&payload, slice(bytes, VALUE_BYTES));
    }
    return fake_reply(fd, header, DS_OK, bytes_of(&body), bytes_of(&payload));
}

WELCOMING(owns_and_holds)
{
    struct key_orders orders;
    struct lookup lookup;
    if (header->type == MESSAGE_FETCH && decode_lookup(body, &lookup))
        return answer_fetch(fd, header, &lookup);
    return header->type == MESSAGE_KEY_ORDERS && decode_key_orders(body, &orders) &&
           answer_orders(fd, header, &orders);
}

static void
open_pair(struct pair *pair, struct fixture *f)
{
    const struct table_header *table = store_header(f->worker.store);
    atomic_store(&its_generation, 1);
    atomic_store(&sent_bytes, VALUE_BYTES);
    atomic_store(&checksum_damage, 0);
    atomic_store(&names_our_arena, false);
    atomic_store(&our_node, table->node);
    atomic_store(&our_incarnation, table->incarnation);
    pair_open(pair, f, owns_and_holds);
    atomic_store(&finds_seen, 0);
    atomic_store(&wishes_seen, 0);
    atomic_store(&fetches_seen, 0);
}

/* ---- Who owns the key ---- */

static struct object_name
put_bytes(struct pair *pair, struct fixture *f, const char *key, size_t bytes,
          uint8_t byte)
{
    struct wire_extent extent;
    CHECK_OK(call_create(&pair->client, key, bytes, &extent));
    memset(f->worker.arena + extent.offset, byte, bytes);
    CHECK_OK(call_seal(&pair->client, extent.ref));
    return objects_name(&f->worker,
                        (struct object_ref){extent.ref.slot, extent.ref.generation});
}

/* By one who has `has`. */
static struct wire_answer
find_having(struct pair *pair, const char *key, bool wants_values,
            struct object_name has)
{
    struct key_orders orders = {.order = KEY_FIND,
                                .from = NODE,
                                .epoch = epoch_of(pair),
                                .wants_values = wants_values,
                                .bindings.count = 1};
    return order_one(pair, orders,
                     (struct wire_binding){.object = has, .key = slice_of_text(key)});
}

static struct wire_answer
find(struct pair *pair, const char *key, bool wants_values)
{
    return find_having(pair, key, wants_values, (struct object_name){0});
}

/* It is the value of that object. */
static void
check_value(const struct wire_answer *answer, struct object_name object, size_t bytes,
            uint8_t byte)
{
    CHECK_INT(answer->answer, KEY_YES);
    CHECK(object_name_equal(&answer->object, &object));
    CHECK_INT(answer->value.len, bytes);
    CHECK_INT(((const uint8_t *)answer->value.data)[0], byte);
    CHECK_INT(((const uint8_t *)answer->value.data)[bytes - 1], byte);
    CHECK_INT(answer->checksum, checksum_of(answer->value.data, bytes));
}

TEST(a_value_goes_with_the_answer_where_it_is_wanted)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    CHECK_INT(find(&pair, pair.ours, true).value.len, 0); /* There is none. */
    struct object_name object = put_bytes(&pair, &f, pair.ours, 100, 'a');
    struct wire_answer answer = find(&pair, pair.ours, false);
    CHECK_INT(answer.answer, KEY_YES);
    CHECK_INT(answer.value.len, 0);
    CHECK_INT(f.worker.counters.bytes_fetched, 0);
    answer = find(&pair, pair.ours, true);
    check_value(&answer, object, 100, 'a');
    answer = find(&pair, pair.ours, true); /* Its checksum is known now. */
    check_value(&answer, object, 100, 'a');
    CHECK_INT(f.worker.counters.bytes_fetched, 200);
    pair_close(&pair);
}

TEST(the_value_is_that_of_the_object_that_is_answered)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    (void)put_bytes(&pair, &f, pair.ours, 100, 'a');
    struct object_name second = put_bytes(&pair, &f, pair.ours, 200, 'b');
    struct wire_answer answer = find(&pair, pair.ours, true);
    check_value(&answer, second, 200, 'b');
    CHECK_INT(order(&pair, KEY_BIND, pair.ours, object_of(9), 0).answer, KEY_YES);
    answer = find(&pair, pair.ours, true); /* Its holder has it, and we do not. */
    CHECK_INT(answer.object.generation, 9);
    CHECK_INT(answer.value.len, 0);
    CHECK_INT(order(&pair, KEY_UNBIND, pair.ours, object_of(9), 0).answer, KEY_NO);
    CHECK_INT(find(&pair, pair.ours, true).answer, KEY_NO);
    pair_close(&pair);
}

TEST(who_has_the_object_is_not_sent_its_value)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    struct object_name first = put_bytes(&pair, &f, pair.ours, 100, 'a');
    struct wire_answer answer = find_having(&pair, pair.ours, true, first);
    CHECK_INT(answer.answer, KEY_YES);
    CHECK(object_name_equal(&answer.object, &first));
    CHECK_INT(answer.value.len, 0);
    struct object_name second = put_bytes(&pair, &f, pair.ours, 100, 'b');
    answer = find_having(&pair, pair.ours, true, first);
    check_value(&answer, second, 100, 'b');
    pair_close(&pair);
}

TEST(a_value_of_another_node_goes_with_the_answer_where_a_copy_is_here)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    CHECK_INT(order(&pair, KEY_BIND, pair.ours, object_of(7), 0).answer, KEY_YES);
    const char *key = pair.ours;
    send_lookup(&pair.client, &key, 1, 0);
    CHECK(caller_receive(&pair.client));
    CHECK_INT(found_of(&pair.client), 1);
    CHECK_INT(atomic_load(&fetches_seen), 1);
    struct wire_answer answer = find(&pair, pair.ours, true);
    check_value(&answer, object_of(7), VALUE_BYTES, 7);
    pair_close(&pair);
}

TEST(a_large_value_does_not_go_with_the_answer)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    struct object_name most = put_bytes(&pair, &f, pair.ours, KEY_VALUE_BYTES_MAX, 'a');
    struct wire_answer answer = find(&pair, pair.ours, true);
    check_value(&answer, most, KEY_VALUE_BYTES_MAX, 'a');
    (void)put_bytes(&pair, &f, pair.ours, KEY_VALUE_BYTES_MAX + 1, 'a');
    CHECK_INT(find(&pair, pair.ours, true).value.len, 0);
    pair_close(&pair);
}

/* So many keys that we own, from the first on. */
static void
find_keys(const struct fixture *f, char out[MANY][KEY_BYTES])
{
    uint32_t own = store_header(f->worker.store)->node;
    int number = 0;
    for (int i = 0; i < MANY; number++) {
        snprintf(out[i], KEY_BYTES, "many%d", number);
        i += is_owned_by(f, out[i], own);
    }
}

TEST(what_goes_with_one_message_is_bounded)
{
    FIXTURE(f, 64);
    struct pair pair;
    static char keys[MANY][KEY_BYTES];
    struct key_orders orders = {
        .order = KEY_FIND, .from = NODE, .wants_values = true, .bindings.count = MANY};
    struct answer_list list;
    struct wire_answer answer;
    AUTO_WRITER(body);
    open_pair(&pair, &f);
    orders.epoch = epoch_of(&pair);
    find_keys(&f, keys);
    encode_key_orders_begin(&body, &orders);
    for (int i = 0; i < MANY; i++) {
        struct wire_binding binding = {.key = slice_of_text(keys[i])};
        (void)put_bytes(&pair, &f, keys[i], KEY_VALUE_BYTES_MAX, (uint8_t)i);
        encode_binding(&body, &binding);
    }
    CHECK_OK(caller_call(&pair.as_other, MESSAGE_KEY_ORDERS, bytes_of(&body)));
    CHECK(decode_answers(body_of(&pair.as_other), &list));
    CHECK_INT(list.count, MANY);
    for (int i = 0; next_answer(&list, &answer); i++) {
        bool has_room = i < KEY_VALUES_BYTES_MAX / KEY_VALUE_BYTES_MAX;
        CHECK_INT(answer.answer, KEY_YES);
        CHECK_INT(answer.value.len, has_room ? KEY_VALUE_BYTES_MAX : 0);
    }
    pair_close(&pair);
}

/* ---- Who asks ---- */

static bool
is_found(struct pair *pair, const char *key)
{
    send_lookup(&pair->client, &key, 1, 0);
    CHECK(caller_receive(&pair->client));
    return found_of(&pair->client) == 1;
}

/* A copy of the other's object is here, and what it shall be. */
static void
check_copy(const struct fixture *f, uint32_t generation)
{
    struct object_name name = object_of(generation);
    struct object_view view;
    uint8_t key[BLOCK_KEY_BYTES];
    wire_object_key(&name, key);
    CHECK(store_find(f->worker.store, slice(key, sizeof key), clock_boot_ds(), &view));
    CHECK_INT(view.size, VALUE_BYTES);
    CHECK(memcmp(f->worker.arena + view.offset, bytes_of_object(generation),
                 VALUE_BYTES) == 0);
    CHECK_INT(view.flags & (SLOT_FLAG_COPY | SLOT_FLAG_BLOCK | SLOT_FLAG_CHECKSUM),
              SLOT_FLAG_COPY | SLOT_FLAG_BLOCK | SLOT_FLAG_CHECKSUM);
    CHECK_INT(view.checksum, checksum_of(bytes_of_object(generation), VALUE_BYTES));
    store_check(f->worker.store);
}

TEST(a_value_that_comes_along_is_not_fetched)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    CHECK(is_found(&pair, pair.theirs));
    check_copy(&f, 1);
    CHECK_INT(atomic_load(&known_generation), 0);
    CHECK(is_found(&pair, pair.theirs));
    CHECK_INT(atomic_load(&known_generation), 1);
    CHECK_INT(stats_of(&f).copies, 1);
    CHECK_INT(f.worker.counters.seals, 1);
    CHECK_INT(atomic_load(&fetches_seen), 0);
    CHECK_INT(atomic_load(&finds_seen), 2);
    pair_close(&pair);
}

TEST(without_replication_it_is_there_for_a_second)
{
    FIXTURE(f, 64);
    struct pair pair;
    f.flags.enable_data_replication = false;
    open_pair(&pair, &f);
    for (int i = 0; i < 2; i++) {
        CHECK(is_found(&pair, pair.theirs));
        CHECK_INT(stats_of(&f).copies, 1);
        store_tick(f.worker.store, clock_boot_ds() + 15);
        CHECK_INT(stats_of(&f).copies, 0);
    }
    CHECK_INT(atomic_load(&fetches_seen), 0);
    pair_close(&pair);
}

TEST(a_value_that_does_not_come_along_is_fetched)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    atomic_store(&sent_bytes, 0);
    CHECK(is_found(&pair, pair.theirs));
    check_copy(&f, 1);
    CHECK_INT(atomic_load(&fetches_seen), 1);
    CHECK_INT(f.worker.counters.damaged, 0);
    pair_close(&pair);
}

TEST(a_value_that_is_damaged_is_fetched)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    atomic_store(&checksum_damage, 1);
    CHECK(is_found(&pair, pair.theirs));
    check_copy(&f, 1);
    CHECK_INT(atomic_load(&fetches_seen), 1);
    CHECK_INT(f.worker.counters.damaged, 1);
    CHECK_INT(stats_of(&f).copies, 1);
    CHECK_INT(stats_of(&f).writing, 0);
    pair_close(&pair);
}

/* The answer as a whole is nonsense, and is asked for again. */
TEST(a_value_of_too_many_bytes_is_no_harm)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    atomic_store(&sent_bytes, KEY_VALUE_BYTES_MAX + 1);
    CHECK(is_found(&pair, pair.theirs));
    check_copy(&f, 1);
    CHECK_INT(atomic_load(&finds_seen), 2);
    CHECK_INT(atomic_load(&fetches_seen), 1);
    pair_close(&pair);
}

TEST(an_overwritten_value_is_not_read_again)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    CHECK(is_found(&pair, pair.theirs));
    atomic_store(&its_generation, 2);
    CHECK(is_found(&pair, pair.theirs));
    check_copy(&f, 2);
    CHECK_INT(stats_of(&f).copies, 2);
    CHECK_INT(atomic_load(&fetches_seen), 0);
    atomic_store(&its_generation, 0);
    CHECK(!is_found(&pair, pair.theirs));
    pair_close(&pair);
}

/* Two keys of one object; its value is taken once. */
TEST(values_of_a_batch_come_together)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    const char *keys[] = {pair.theirs, pair.theirs};
    send_lookup(&pair.client, keys, 2, 0);
    CHECK(caller_receive(&pair.client));
    CHECK_INT(found_of(&pair.client), 2);
    CHECK_INT(f.worker.counters.seals, 1);
    CHECK_INT(atomic_load(&fetches_seen), 0);
    pair_close(&pair);
}

TEST(who_wants_no_value_takes_none)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct ds_slice key;
    AUTO_WRITER(body);
    open_pair(&pair, &f);
    key = slice_of_text(pair.theirs);
    encode_keys(&body, &key, 1);
    CHECK_OK(caller_call(&pair.client, MESSAGE_EXIST, bytes_of(&body)));
    CHECK_INT(atomic_load(&finds_seen), 1);
    CHECK_INT(atomic_load(&wishes_seen), 0);
    CHECK_INT(stats_of(&f).copies, 0);
    pair_close(&pair);
}

/* What is ours is in our table, or gone. */
TEST(a_value_of_our_own_arena_is_not_taken)
{
    FIXTURE(f, 64);
    struct pair pair;
    open_pair(&pair, &f);
    atomic_store(&names_our_arena, true);
    CHECK(!is_found(&pair, pair.theirs));
    CHECK_INT(stats_of(&f).copies, 0);
    CHECK_INT(stats_of(&f).objects, 0);
    pair_close(&pair);
}

/* With no room for a copy it is as with any other: the lookup says so. */
TEST(a_value_for_which_there_is_no_room_is_no_harm)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct wire_extent extent;
    open_pair(&pair, &f);
    while (call_create(&pair.client, "filler", 1 << 20, &extent) == DS_OK)
        continue;
    while (call_create(&pair.client, "filler", 64, &extent) == DS_OK)
        continue;
    const char *key = pair.theirs;
    send_lookup(&pair.client, &key, 1, 0);
    CHECK(caller_receive(&pair.client));
    CHECK_INT(pair.client.reply.status, DS_FULL);
    CHECK_INT(stats_of(&f).copies, 0);
    pair_close(&pair);
}

TEST_MAIN(RUN(a_value_goes_with_the_answer_where_it_is_wanted),
          RUN(the_value_is_that_of_the_object_that_is_answered),
          RUN(who_has_the_object_is_not_sent_its_value),
          RUN(a_value_of_another_node_goes_with_the_answer_where_a_copy_is_here),
          RUN(a_large_value_does_not_go_with_the_answer),
          RUN(what_goes_with_one_message_is_bounded),
          RUN(a_value_that_comes_along_is_not_fetched),
          RUN(without_replication_it_is_there_for_a_second),
          RUN(a_value_that_does_not_come_along_is_fetched),
          RUN(a_value_that_is_damaged_is_fetched),
          RUN(a_value_of_too_many_bytes_is_no_harm),
          RUN(an_overwritten_value_is_not_read_again),
          RUN(values_of_a_batch_come_together), RUN(who_wants_no_value_takes_none),
          RUN(a_value_of_our_own_arena_is_not_taken),
          RUN(a_value_for_which_there_is_no_room_is_no_harm))
