/* A worker that asks another one, which says what no worker of ours says. */
#include "worker/peers.h"

#include "fake_peer.h"
#include "os/checksum.h"
#include "worker/fixture.h"
#include "worker/membership.h"
#include "worker/metastore.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { NODE = 7, INCARNATION = 9, COUNTER = 1, PART_BYTES = 100000 };

static uint8_t part_bytes[PART_BYTES];

/* ---- The other worker ---- */

static bool
is_hello(const struct frame_header *header)
{
    return header->type == MESSAGE_HELLO;
}

static bool
welcome(int fd, const struct frame_header *header)
{
    AUTO_WRITER(body);
    encode_welcome(&body, &(struct welcome){.node = NODE, .incarnation = INCARNATION});
    return fake_reply(fd, header, DS_OK, slice(body.data, body.len),
                      (struct ds_slice){0});
}

/* One value that is said to be `said` bytes, with so many behind it. */
static bool
reply_value(int fd, const struct frame_header *header, struct wire_value said,
            size_t bytes)
{
    AUTO_WRITER(body);
    encode_fetched_begin(&body, 1);
    encode_fetched_value(&body, &said);
    return fake_reply(fd, header, DS_OK, slice(body.data, body.len),
                      slice(part_bytes, bytes));
}

static struct wire_value
right_value(void)
{
    return (struct wire_value){.found = true,
                               .size = PART_BYTES,
                               .checksum = checksum_of(part_bytes, PART_BYTES)};
}

#define HANDLER(name)                                                         \
    static bool name(struct fake_peer *peer, int fd,                          \
                     const struct frame_header *header, struct ds_slice body, \
                     struct ds_slice payload)

HANDLER(has_it)
{
    struct lookup lookup;
    (void)peer;
    (void)payload;
    if (is_hello(header))
        return welcome(fd, header);
    return decode_lookup(body, &lookup) && lookup.flags == LOOKUP_BLOCKS &&
           lookup.keys.count == 1 && reply_value(fd, header, right_value(), PART_BYTES);
}

HANDLER(has_it_not)
{
    (void)peer;
    (void)body;
    (void)payload;
    return is_hello(header) ? welcome(fd, header)
                            : reply_value(fd, header, (struct wire_value){0}, 0);
}

HANDLER(sends_damaged_bytes)
{
    struct wire_value value = right_value();
    (void)peer;
    (void)body;
    (void)payload;
    value.checksum ^= 1;
    return is_hello(header) ? welcome(fd, header)
                            : reply_value(fd, header, value, PART_BYTES);
}

HANDLER(sends_less_than_it_says)
{
    (void)peer;
    (void)body;
    (void)payload;
    return is_hello(header) ? welcome(fd, header)
                            : reply_value(fd, header, right_value(), PART_BYTES - 1);
}

HANDLER(sends_bytes_of_nothing)
{
    (void)peer;
    (void)body;
    (void)payload;
    return is_hello(header)
               ? welcome(fd, header)
               : reply_value(fd, header, (struct wire_value){0}, PART_BYTES);
}

HANDLER(sends_nonsense)
{
    (void)peer;
    (void)body;
    (void)payload;
    return is_hello(header) ? welcome(fd, header)
                            : fake_reply(fd, header, DS_OK, slice(part_bytes, 77),
                                         slice(part_bytes, 1000));
}

HANDLER(refuses)
{
    (void)peer;
    (void)body;
    (void)payload;
    return is_hello(header)
               ? welcome(fd, header)
               : fake_reply(fd, header, DS_NO_MEMORY, slice_of_text("not now"),
                            (struct ds_slice){0});
}

HANDLER(hangs_up)
{
    (void)peer;
    (void)body;
    (void)payload;
    return is_hello(header) && welcome(fd, header);
}

HANDLER(speaks_another_version)
{
    (void)peer;
    (void)body;
    (void)payload;
    return fake_reply(fd, header, DS_MISMATCH, slice_of_text("protocol 1"),
                      (struct ds_slice){0});
}

HANDLER(says_nothing)
{
    (void)peer;
    (void)body;
    (void)payload;
    return !is_hello(header) || welcome(fd, header);
}

/* Ids of even counters are there. It hangs up some times before it answers. */
static atomic_int hang_ups_left;
static atomic_int orders_seen;

HANDLER(obeys)
{
    struct block_id_list ids;
    struct ds_block_id id;
    AUTO_WRITER(flags);
    (void)peer;
    (void)payload;
    if (is_hello(header))
        return welcome(fd, header);
    if (atomic_fetch_sub(&hang_ups_left, 1) > 0 || !decode_block_ids(body, &ids))
        return false;
    encode_flags_begin(&flags, ids.count);
    while (next_block_id(&ids, &id)) {
        struct reader reader = reader_of(id.bytes, sizeof id.bytes);
        CHECK(read_u32(&reader) == NODE && read_u32(&reader) == INCARNATION);
        write_u8(&flags, read_u64(&reader) % 2 == 0);
        atomic_fetch_add(&orders_seen, 1);
    }
    bool is_adopt = header->type == MESSAGE_BLOCK_ADOPT;
    return fake_reply(fd, header, DS_OK,
                      is_adopt ? slice(flags.data, flags.len) : (struct ds_slice){0},
                      (struct ds_slice){0});
}

/* Whose orphans it was told of. */
static atomic_int orphans_told;
static _Atomic uint16_t orphans_queue;

HANDLER(judges)
{
    struct orphans_found found;
    struct ds_block_id id;
    (void)peer;
    (void)payload;
    if (is_hello(header))
        return welcome(fd, header);
    if (header->type != MESSAGE_ORPHANS_FOUND || !decode_orphans_found(body, &found) ||
        found.is_anybodys)
        return false;
    while (next_block_id(&found.ids, &id)) {
        atomic_store(&orphans_queue, wire_block_birth(&id).queue);
        atomic_fetch_add(&orphans_told, 1);
    }
    return fake_reply(fd, header, DS_OK, (struct ds_slice){0}, (struct ds_slice){0});
}

/* ---- The cluster ---- */

static void
on_joined(struct worker *worker)
{
    (void)worker;
}

/* `other` belongs to the cluster of the worker, and the worker knows it. It says that it
 * has the controller of a queue. */
static void
join_with(struct fixture *fixture, struct caller *member, const struct fake_peer *other,
          const char *queue)
{
    struct queue_place place = {.name = slice_of_text(queue),
                                .tcp_address = slice_of_text("10.0.0.7:31600")};
    AUTO_WRITER(queues);
    encode_queue_place(&queues, &place);
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", other->port);
    struct member_renew renewal = {.who = {.node = NODE,
                                           .incarnation = INCARNATION,
                                           .address = slice_of_text(address),
                                           .queues = slice(queues.data, queues.len)}};
    AUTO_WRITER(body);
    CHECK_OK(membership_open(&fixture->worker, on_joined, &fixture->worker.membership,
                             NULL));
    encode_member_renew(&body, &renewal);
    caller_open_metastore(member, fixture);
    CHECK_OK(caller_call(member, MESSAGE_MEMBER_RENEW, bytes_of(&body)));
    RUN_UNTIL(fixture, membership_find(fixture->worker.membership, NODE) != NULL);
}

static void
join(struct fixture *fixture, struct caller *member, const struct fake_peer *other)
{
    join_with(fixture, member, other, "train");
}

static void
send_block_lookup(struct caller *caller, uint32_t incarnation)
{
    uint8_t key[BLOCK_KEY_BYTES];
    wire_block_key(wire_block_id((struct block_birth){NODE, incarnation, 0}, COUNTER),
                   0, key);
    struct ds_slice keys = slice(key, sizeof key);
    struct lookup lookup = {.flags = LOOKUP_BLOCKS};
    AUTO_WRITER(body);
    encode_lookup(&body, &lookup, &keys, 1);
    caller_send(caller, MESSAGE_LOOKUP, bytes_of(&body));
}

static bool
is_found(struct caller *caller, uint32_t incarnation)
{
    send_block_lookup(caller, incarnation);
    CHECK(caller_receive(caller));
    return found_of(caller) == 1;
}

static void
fill_part(void)
{
    for (size_t i = 0; i < PART_BYTES; i++)
        part_bytes[i] = (uint8_t)(i * 31 + i / 251);
}

TEST(a_part_is_fetched_once_and_kept_as_a_copy)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    fill_part();
    fake_peer_start_tcp(&other, has_it);
    join(&f, &member, &other);
    say_hello(&client);
    CHECK(is_found(&client, INCARNATION));
    CHECK_INT(stats_of(&f).copies, 1);
    CHECK(is_found(&client, INCARNATION));
    CHECK_INT(f.worker.counters.seals, 1);
    CHECK(!is_found(&client, INCARNATION + 1)); /* An arena that is nobody's. */
    caller_close(&member);
    fake_peer_stop(&other);
}

/* Whoever asked hears that it is gone, and nothing stays behind. */
static void
check_is_gone(fake_handler_fn handler)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    fill_part();
    fake_peer_start_tcp(&other, handler);
    join(&f, &member, &other);
    say_hello(&client);
    CHECK(!is_found(&client, INCARNATION));
    CHECK(!is_found(&client, INCARNATION));
    CHECK_INT(stats_of(&f).objects, 0);
    CHECK_INT(stats_of(&f).writing, 0);
    store_tick(f.worker.store, clock_boot_ds());
    CHECK_INT(stats_of(&f).arena.used_bytes, 0);
    store_check(f.worker.store);
    caller_close(&member);
    fake_peer_stop(&other);
}

TEST(a_worker_that_does_not_give_it_is_no_harm)
{
    check_is_gone(has_it_not);
    check_is_gone(sends_damaged_bytes);
    check_is_gone(sends_less_than_it_says);
    check_is_gone(sends_bytes_of_nothing);
    check_is_gone(sends_nonsense);
    check_is_gone(refuses);
    check_is_gone(hangs_up);
    check_is_gone(speaks_another_version);
}

/* As one that is cut off: until it is no member any more. */
TEST(a_worker_that_says_nothing_is_given_up_when_it_is_no_member)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    fake_peer_start_tcp(&other, says_nothing);
    join(&f, &member, &other);
    say_hello(&client);
    send_block_lookup(&client, INCARNATION);
    RUN_UNTIL(&f, fake_peer_accepted(&other) == 1);
    CHECK(!caller_is_told(&client));
    caller_close(&member); /* Suspect, and gone 2 s later. */
    CHECK(caller_receive(&client));
    CHECK_INT(found_of(&client), 0);
    fake_peer_stop(&other);
}

/* Blocks 2 and 3 of the other node, one of nobody's arena, and one of our own. */
static void
four_blocks(struct fixture *fixture, struct caller *client, struct ds_block_id out[4])
{
    struct wire_ref ref;
    out[0] = wire_block_id((struct block_birth){NODE, INCARNATION, 0}, 2);
    out[1] = wire_block_id((struct block_birth){NODE, INCARNATION + 1, 0}, 2);
    CHECK_OK(call_block_create(client, 4096, &out[2], &ref));
    CHECK_OK(call_seal(client, ref));
    out[3] = wire_block_id((struct block_birth){NODE, INCARNATION, 0}, 3);
    CHECK_INT(stats_of(fixture).objects, 1);
}

TEST(orders_for_blocks_go_to_the_nodes_where_they_are)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    struct ds_block_id ids[4];
    uint32_t count;
    const uint8_t *flags;
    atomic_store(&hang_ups_left, 4);
    atomic_store(&orders_seen, 0);
    fake_peer_start_tcp(&other, obeys);
    join(&f, &member, &other);
    say_hello(&client);
    four_blocks(&f, &client, ids);
    AUTO_WRITER(body);
    encode_block_ids(&body, ids, 4);
    CHECK_OK(caller_call(&client, MESSAGE_BLOCK_ADOPT, bytes_of(&body)));
    CHECK(decode_flags(body_of(&client), &count, &flags));
    CHECK_INT(count, 4);
    CHECK(flags[0] && !flags[1] && flags[2] && !flags[3]);
    CHECK_INT(atomic_load(&orders_seen), 2);
    CHECK_OK(caller_call(&client, MESSAGE_BLOCK_DELETE, bytes_of(&body)));
    CHECK_INT(body_of(&client).len, 0);
    CHECK_INT(atomic_load(&orders_seen), 4);
    CHECK_INT(stats_of(&f).objects, 0);
    caller_close(&member);
    fake_peer_stop(&other);
}

/* Its blocks are gone with it, so there is nothing left to do. */
TEST(orders_for_a_node_that_goes_are_done)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    CALLER(impatient, &f);
    struct ds_block_id id =
        wire_block_id((struct block_birth){NODE, INCARNATION, 0}, 2);
    AUTO_WRITER(body);
    fake_peer_start_tcp(&other, says_nothing);
    join(&f, &member, &other);
    say_hello(&client);
    say_hello(&impatient);
    encode_block_ids(&body, &id, 1);
    caller_send(&client, MESSAGE_BLOCK_DELETE, bytes_of(&body));
    caller_send(&impatient, MESSAGE_BLOCK_ADOPT, bytes_of(&body));
    RUN_UNTIL(&f, fake_peer_accepted(&other) == 1);
    caller_close(&impatient);
    CHECK(!caller_is_told(&client));
    caller_close(&member);
    CHECK(caller_receive(&client));
    CHECK_OK(client.reply.status);
    fake_peer_stop(&other);
}

TEST(a_queue_of_another_node_is_found_there)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    struct queue_place place = {.name = slice_of_text("train")};
    AUTO_WRITER(body);
    fake_peer_start_tcp(&other, obeys);
    join_with(&f, &member, &other, "train");
    say_hello(&client);
    encode_queue_place(&body, &place);
    CHECK_OK(caller_call(&client, MESSAGE_QUEUE_FIND, bytes_of(&body)));
    CHECK(decode_queue_place(body_of(&client), &place));
    CHECK(slice_equal(place.tcp_address, slice_of_text("10.0.0.7:31600")));
    CHECK_INT(place.address.len, 0);
    writer_clear(&body);
    encode_queue_place(&body, &(struct queue_place){.name = slice_of_text("eval")});
    CHECK_STATUS(caller_call(&client, MESSAGE_QUEUE_FIND, bytes_of(&body)),
                 DS_NOT_FOUND);
    caller_close(&member);
    fake_peer_stop(&other);
}

/* A client of queue `name` seals a block, and leaves. */
static void
leave_an_orphan(struct fixture *fixture, const char *name)
{
    struct ds_block_id id;
    struct wire_ref ref;
    CALLER(client, fixture);
    CALLER(farewell, fixture);
    client.queue = wire_queue_tag(slice_of_text(name));
    say_hello(&client);
    CHECK_OK(call_block_create(&client, 4096, &id, &ref));
    CHECK_OK(call_seal(&client, ref));
    CHECK_OK(call_leave(&farewell, &client.welcome, HELLO_SHARED_MEMORY));
}

TEST(orphans_are_told_to_the_node_of_their_controller)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    atomic_store(&orphans_told, 0);
    fake_peer_start_tcp(&other, judges);
    join_with(&f, &member, &other, "train");
    leave_an_orphan(&f, "eval"); /* Of a queue that is nowhere. */
    leave_an_orphan(&f, "train");
    RUN_UNTIL(&f, atomic_load(&orphans_told) == 1);
    CHECK_INT(atomic_load(&orphans_queue), wire_queue_tag(slice_of_text("train")));
    CHECK_INT(stats_of(&f).objects, 2); /* Nothing goes without its word. */
    caller_close(&member);
    fake_peer_stop(&other);
}

TEST_MAIN(RUN(a_queue_of_another_node_is_found_there),
          RUN(orphans_are_told_to_the_node_of_their_controller),
          RUN(a_part_is_fetched_once_and_kept_as_a_copy),
          RUN(a_worker_that_does_not_give_it_is_no_harm),
          RUN(a_worker_that_says_nothing_is_given_up_when_it_is_no_member),
          RUN(orders_for_blocks_go_to_the_nodes_where_they_are),
          RUN(orders_for_a_node_that_goes_are_done))
