/* A big part that is passed on from node to node: a worker that is told to get it from
 * another one than its source, one that is the source, and one in between. */
#include "worker/relays.h"

#include "worker/peers_testing.h"

#include "os/checksum.h"
#include "os/clock.h"

#include <unistd.h>

enum {
    RELAY = 8,    /* The node that is to pass it on. */
    STRANGER = 9, /* One that is no member. */
    COUNTER = 1,
    PART_BYTES = (9 << 20) + 100, /* Five ranges, the last of which is not full. */
    RANGE = 2 << 20,
    POLL_US = 1000,
};

static uint8_t part_bytes[PART_BYTES];
static _Atomic uint32_t relay_node;  /* That the source sends others to. */
static _Atomic uint64_t source_sent; /* Bytes. */
static _Atomic uint64_t relay_sent;
static atomic_bool is_held; /* The source sends the first range only. */

/* ---- The other workers ---- */

static bool
reply_value(int fd, const struct frame_header *header, const struct wire_value *value,
            struct ds_slice bytes)
{
    AUTO_WRITER(body);
    encode_fetched_begin(&body, 1);
    encode_fetched_value(&body, value);
    return fake_reply(fd, header, DS_OK, slice(body.data, body.len), bytes);
}

/* What is right to say to a FETCH. */
static bool
read_fetch(const struct frame_header *header, struct ds_slice body,
           struct lookup *lookup, struct wire_value *value, struct ds_slice *bytes)
{
    if (header->type != MESSAGE_FETCH || !decode_lookup(body, lookup) ||
        lookup->keys.count != 1 || lookup->range_offset >= PART_BYTES)
        return false;
    uint64_t left = PART_BYTES - lookup->range_offset;
    *bytes = slice(part_bytes + lookup->range_offset,
                   lookup->range_bytes < left ? lookup->range_bytes : left);
    *value = (struct wire_value){.found = true,
                                 .size = bytes->len,
                                 .total = PART_BYTES,
                                 .checksum = checksum_of(bytes->data, bytes->len)};
    return true;
}

/* Sends those on who can be, and else gives it. */
WELCOMING(is_source)
{
    struct lookup lookup;
    struct wire_value value;
    struct ds_slice bytes;
    if (!read_fetch(header, body, &lookup, &value, &bytes))
        return false;
    if ((lookup.flags & LOOKUP_RELAY) != 0 && atomic_load(&relay_node) != 0) {
        value.size = value.checksum = 0;
        value.relay = (struct wire_place){atomic_load(&relay_node), INCARNATION};
        return reply_value(fd, header, &value, (struct ds_slice){0});
    }
    while (lookup.range_offset > 0 && atomic_load(&is_held))
        usleep(POLL_US);
    atomic_fetch_add(&source_sent, bytes.len);
    return reply_value(fd, header, &value, bytes);
}

WELCOMING(passes_it_on)
{
    struct lookup lookup;
    struct wire_value value;
    struct ds_slice bytes;
    if (!read_fetch(header, body, &lookup, &value, &bytes))
        return false;
    atomic_fetch_add(&relay_sent, bytes.len);
    return reply_value(fd, header, &value, bytes);
}

WELCOMING(has_lost_it)
{
    struct wire_value nothing = {0};
    (void)body;
    return header->type == MESSAGE_FETCH &&
           reply_value(fd, header, &nothing, (struct ds_slice){0});
}

HANDLER(hangs_up_at_once)
{
    (void)peer;
    (void)body;
    (void)payload;
    return is_hello(header) && welcome(fd, header);
}

HANDLER(ends_after_the_first_range)
{
    struct lookup lookup;
    if (header->type == MESSAGE_FETCH && decode_lookup(body, &lookup) &&
        lookup.range_offset > 0)
        return false;
    return passes_it_on(peer, fd, header, body, payload);
}

WELCOMING(damages_a_range)
{
    struct lookup lookup;
    struct wire_value value;
    struct ds_slice bytes;
    if (!read_fetch(header, body, &lookup, &value, &bytes))
        return false;
    value.checksum ^= lookup.range_offset == RANGE;
    return reply_value(fd, header, &value, bytes);
}

/* Nothing is wrong with any range, only with all of them. */
WELCOMING(says_another_checksum)
{
    struct lookup lookup;
    struct wire_value value;
    struct ds_slice bytes;
    if (!read_fetch(header, body, &lookup, &value, &bytes))
        return false;
    value.whole = (struct wire_checksum){true, 1};
    return reply_value(fd, header, &value, bytes);
}

/* It does not know that one either. */
WELCOMING(sends_on_as_well)
{
    struct lookup lookup;
    struct wire_value value;
    struct ds_slice bytes;
    if (!read_fetch(header, body, &lookup, &value, &bytes))
        return false;
    value.size = value.checksum = 0;
    value.relay = (struct wire_place){NODE, INCARNATION};
    return reply_value(fd, header, &value, (struct ds_slice){0});
}

/* ---- The cluster ---- */

struct three {
    struct fixture *f;
    struct fake_peer source, relay;
    struct caller source_member, relay_member;
    struct caller client;
};

static void
three_open(struct three *three, struct fixture *f, fake_handler_fn relay)
{
    for (size_t i = 0; i < PART_BYTES; i++)
        part_bytes[i] = (uint8_t)(i * 31 + i / 251);
    three->f = f;
    atomic_store(&relay_node, RELAY);
    atomic_store(&source_sent, 0);
    atomic_store(&relay_sent, 0);
    atomic_store(&is_held, false);
    fake_peer_start_tcp(&three->source, is_source);
    fake_peer_start_tcp(&three->relay, relay);
    join(f, &three->source_member, &three->source);
    join_as(f, &three->relay_member, &three->relay, RELAY, "another");
    caller_open(&three->client, f);
    say_hello(&three->client);
}

static void
three_close(struct three *three)
{
    store_check(three->f->worker.store);
    caller_close(&three->client);
    caller_close(&three->relay_member);
    caller_close(&three->source_member);
    fake_peer_stop(&three->relay);
    fake_peer_stop(&three->source);
}

static void
part_key(uint8_t out[BLOCK_KEY_BYTES])
{
    wire_block_key(wire_block_id((struct block_birth){NODE, INCARNATION, 0}, COUNTER),
                   0, out);
}

static void
send_ask(struct caller *caller, enum message_type type, struct lookup lookup,
         struct ds_slice key)
{
    AUTO_WRITER(body);
    encode_lookup(&body, &lookup, &key, 1);
    caller_send(caller, type, bytes_of(&body));
}

static void
check_is_copied(struct three *three)
{
    uint8_t key[BLOCK_KEY_BYTES];
    struct object_view view;
    part_key(key);
    send_ask(&three->client, MESSAGE_LOOKUP, (struct lookup){.flags = LOOKUP_BLOCKS},
             slice(key, sizeof key));
    CHECK(caller_receive(&three->client));
    CHECK_INT(found_of(&three->client), 1);
    CHECK(store_find(three->f->worker.store, slice(key, sizeof key), clock_boot_ds(),
                     &view));
    CHECK_INT(view.size, PART_BYTES);
    CHECK(memcmp(three->f->worker.arena + view.offset, part_bytes, PART_BYTES) == 0);
    CHECK_INT(view.checksum, checksum_of(part_bytes, PART_BYTES));
}

/* ---- Who is told to ask another one ---- */

TEST(what_another_one_passes_on_is_fetched_there)
{
    FIXTURE(f, 64);
    struct three three;
    three_open(&three, &f, passes_it_on);
    check_is_copied(&three);
    CHECK_INT(atomic_load(&source_sent), 0);
    CHECK_INT(atomic_load(&relay_sent), PART_BYTES);
    three_close(&three);
}

/* Whatever the other one does, it comes from the source then. */
static void
check_comes_from_source(fake_handler_fn relay, uint32_t node, uint64_t damaged)
{
    FIXTURE(f, 64);
    struct three three;
    three_open(&three, &f, relay);
    atomic_store(&relay_node, node);
    check_is_copied(&three);
    CHECK(atomic_load(&source_sent) > 0);
    CHECK_INT(f.worker.counters.damaged, damaged);
    three_close(&three);
}

TEST(what_another_one_does_not_pass_on_comes_from_its_source)
{
    check_comes_from_source(has_lost_it, RELAY, 0);
    check_comes_from_source(hangs_up_at_once, RELAY, 0);
    check_comes_from_source(ends_after_the_first_range, RELAY, 0);
    check_comes_from_source(sends_on_as_well, RELAY, 0);
    check_comes_from_source(passes_it_on, STRANGER, 0);
}

TEST(what_was_damaged_on_its_way_comes_from_its_source)
{
    check_comes_from_source(damages_a_range, RELAY, 1);
    check_comes_from_source(says_another_checksum, RELAY, 1);
}

/* ---- The source ---- */

/* Fetches the first range of it as a worker does; the node that it is to ask, or 0. */
static uint32_t
ask_as(struct caller *caller, struct ds_slice key, uint32_t node)
{
    struct lookup lookup = {.flags = LOOKUP_BLOCKS | LOOKUP_RANGE | LOOKUP_RELAY,
                            .range_bytes = RANGE,
                            .asker = {node, INCARNATION}};
    struct fetched list;
    struct wire_value value;
    send_ask(caller, MESSAGE_FETCH, lookup, key);
    CHECK(caller_receive(caller));
    CHECK_OK(caller->reply.status);
    CHECK(decode_fetched(body_of(caller), &list));
    CHECK(next_value(&list, &value));
    CHECK(value.found);
    CHECK(value.total > RELAY_BYTES_MIN || value.relay.node == 0);
    CHECK_INT(caller->reply.payload_bytes, value.relay.node == 0 ? value.size : 0);
    return value.relay.node;
}

static void
make_part(struct three *three, uint64_t bytes, uint8_t out_key[BLOCK_KEY_BYTES])
{
    struct ds_block_id id;
    struct wire_ref ref;
    CHECK_OK(call_block_create(&three->client, bytes, &id, &ref));
    CHECK_OK(call_seal(&three->client, ref));
    wire_block_key(id, 0, out_key);
}

TEST(the_first_two_are_served_and_others_sent_to_those_before_them)
{
    FIXTURE(f, 64);
    struct three three;
    uint8_t bytes[BLOCK_KEY_BYTES];
    three_open(&three, &f, passes_it_on);
    make_part(&three, RELAY_BYTES_MIN + 1, bytes);
    struct ds_slice key = slice(bytes, sizeof bytes);
    CHECK_INT(ask_as(&three.client, key, NODE), 0);
    CHECK_INT(ask_as(&three.client, key, RELAY), 0);
    CHECK_INT(ask_as(&three.client, key, 20), NODE);
    CHECK_INT(ask_as(&three.client, key, 21), NODE);
    CHECK_INT(ask_as(&three.client, key, 22), RELAY);
    CHECK_INT(ask_as(&three.client, key, 23), RELAY);
    CHECK_INT(ask_as(&three.client, key, 22), RELAY); /* Again: nobody's place moves. */
    CHECK_INT(ask_as(&three.client, key, 24), NODE);  /* 20 is no member. */
    CHECK_INT(ask_as(&three.client, key, NODE), 0);
    relays_tick(&f.worker, clock_monotonic_ms() + 60000);
    CHECK_INT(ask_as(&three.client, key, 22), 0);
    three_close(&three);
}

TEST(what_is_small_is_sent_to_everybody)
{
    FIXTURE(f, 64);
    struct three three;
    uint8_t bytes[BLOCK_KEY_BYTES];
    three_open(&three, &f, passes_it_on);
    make_part(&three, RELAY_BYTES_MIN, bytes);
    for (uint32_t node = NODE; node < NODE + 5; node++)
        CHECK_INT(ask_as(&three.client, slice(bytes, sizeof bytes), node), 0);
    three_close(&three);
}

/* ---- In between ---- */

static void
check_range(struct caller *caller, uint64_t offset, uint64_t bytes)
{
    CHECK(caller_receive(caller));
    CHECK_OK(caller->reply.status);
    CHECK_INT(caller->reply.payload_bytes, bytes);
    CHECK(memcmp(caller->payload, part_bytes + offset, bytes) == 0);
}

static void
send_ask_range(struct caller *caller, struct ds_slice key, uint64_t offset)
{
    struct lookup lookup = {.flags = LOOKUP_BLOCKS | LOOKUP_RANGE,
                            .range_offset = offset,
                            .range_bytes = RANGE};
    send_ask(caller, MESSAGE_FETCH, lookup, key);
}

TEST(each_range_is_passed_on_when_it_has_arrived)
{
    FIXTURE(f, 64);
    struct three three;
    uint8_t bytes[BLOCK_KEY_BYTES];
    struct ds_slice key = slice(bytes, sizeof bytes);
    three_open(&three, &f, passes_it_on);
    CALLER(third, &f);
    CALLER(fourth, &f);
    say_hello_as_member(&third);
    say_hello_as_member(&fourth);
    part_key(bytes);
    atomic_store(&relay_node, 0);
    atomic_store(&is_held, true);
    send_ask_range(&third, key, 0); /* Which makes this worker get it. */
    check_range(&third, 0, RANGE);
    CHECK_INT(stats_of(&f).objects, 0);
    send_ask_range(&fourth, key, 0); /* It is there already. */
    check_range(&fourth, 0, RANGE);
    send_ask_range(&third, key, (uint64_t)4 * RANGE);
    send_ask_range(&fourth, key, RANGE);
    CHECK(!caller_is_told(&third));
    CHECK(!caller_is_told(&fourth));
    atomic_store(&is_held, false);
    check_range(&third, (uint64_t)4 * RANGE, PART_BYTES - 4 * RANGE);
    check_range(&fourth, RANGE, RANGE);
    check_is_copied(&three);
    CHECK_INT(atomic_load(&source_sent), PART_BYTES);
    three_close(&three);
}

/* Who waits for a range hears that it will not come. */
TEST(who_waits_for_a_range_of_what_is_lost_is_told)
{
    FIXTURE(f, 64);
    struct three three;
    uint8_t bytes[BLOCK_KEY_BYTES];
    struct fetched list;
    struct wire_value value;
    three_open(&three, &f, passes_it_on);
    CALLER(third, &f);
    say_hello_as_member(&third);
    part_key(bytes);
    atomic_store(&relay_node, 0);
    atomic_store(&is_held, true);
    send_ask_range(&third, slice(bytes, sizeof bytes), 0);
    check_range(&third, 0, RANGE);
    send_ask_range(&third, slice(bytes, sizeof bytes), RANGE);
    CHECK(!caller_is_told(&third));
    caller_close(&three.source_member); /* No member any more, 2 s later. */
    CHECK(caller_receive(&third));
    CHECK(decode_fetched(body_of(&third), &list));
    CHECK(next_value(&list, &value));
    CHECK(!value.found);
    atomic_store(&is_held, false);
    three_close(&three);
}

TEST_MAIN(RUN(what_another_one_passes_on_is_fetched_there),
          RUN(what_another_one_does_not_pass_on_comes_from_its_source),
          RUN(what_was_damaged_on_its_way_comes_from_its_source),
          RUN(the_first_two_are_served_and_others_sent_to_those_before_them),
          RUN(what_is_small_is_sent_to_everybody),
          RUN(each_range_is_passed_on_when_it_has_arrived),
          RUN(who_waits_for_a_range_of_what_is_lost_is_told))
