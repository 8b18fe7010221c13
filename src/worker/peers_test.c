/* A worker that gives orders to another one, and tells it of orphans. */
#include "worker/peers_testing.h"

#include "base/check.h"
#include "wire/leaving.h"
#include "worker/metastore.h"

#include <sys/resource.h>

/* Ids of even counters are there. It hangs up some times before it answers. */
static atomic_int orders_seen;

WELCOMING(obeys)
{
    struct block_id_list ids;
    struct ds_block_id id;
    AUTO_WRITER(flags);
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

WELCOMING(has_no_memory)
{
    (void)body;
    return fake_reply(fd, header, DS_NO_MEMORY, (struct ds_slice){0},
                      (struct ds_slice){0});
}

/* Has the blocks of that node alone. */
static bool
adopts(int fd, const struct frame_header *header, struct ds_slice body, uint32_t node)
{
    struct block_id_list ids;
    struct ds_block_id id;
    AUTO_WRITER(flags);
    if (!decode_block_ids(body, &ids))
        return false;
    encode_flags_begin(&flags, ids.count);
    while (next_block_id(&ids, &id))
        write_u8(&flags, wire_block_birth(&id).node == node);
    return fake_reply(fd, header, DS_OK, slice(flags.data, flags.len),
                      (struct ds_slice){0});
}

enum { LEFT = 5 }; /* A node that left before, and gave NODE its blocks. */

WELCOMING(took_from_the_other)
{
    return adopts(fd, header, body, NODE);
}

WELCOMING(took_from_who_left)
{
    return adopts(fd, header, body, LEFT);
}

/* Whose orphans it was told of. */
static atomic_int orphans_told;
static _Atomic uint16_t orphans_queue;

WELCOMING(judges)
{
    struct orphans_found found;
    struct ds_block_id id;
    if (header->type != MESSAGE_ORPHANS_FOUND || !decode_orphans_found(body, &found) ||
        found.is_anybodys)
        return false;
    while (next_block_id(&found.ids, &id)) {
        atomic_store(&orphans_queue, wire_block_birth(&id).queue);
        atomic_fetch_add(&orphans_told, 1);
    }
    return fake_reply(fd, header, DS_OK, (struct ds_slice){0}, (struct ds_slice){0});
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

/* As while all descriptors are in use. */
static void
let_connect(bool may)
{
    static struct rlimit before;
    struct rlimit none;
    if (!may)
        CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = before;
    none.rlim_cur = 3;
    CHECK(setrlimit(RLIMIT_NOFILE, may ? &before : &none) == 0);
}

/* By the last reply, which is one to an adoption. */
static void
check_all_there(const struct caller *client, uint32_t wanted)
{
    uint32_t count;
    const uint8_t *flags;
    CHECK_OK(client->reply.status);
    CHECK(decode_flags(body_of(client), &count, &flags));
    CHECK_INT(count, wanted);
    for (uint32_t i = 0; i < count; i++)
        CHECK_INT(flags[i], 1);
}

/* It is a member, so its blocks are not gone. */
TEST(orders_for_a_node_that_cannot_be_reached_wait)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    struct ds_block_id id =
        wire_block_id((struct block_birth){NODE, INCARNATION, 0}, 2);
    AUTO_WRITER(body);
    atomic_store(&hang_ups_left, 0);
    fake_peer_start_tcp(&other, obeys);
    join(&f, &member, &other);
    say_hello(&client);
    run_for_ms(&f, 100);
    fake_peer_drop_connections(&other);
    run_for_ms(&f, 100);
    let_connect(false);
    encode_block_ids(&body, &id, 1);
    caller_send(&client, MESSAGE_BLOCK_ADOPT, bytes_of(&body));
    run_for_ms(&f, 300);
    bool is_told = caller_is_told(&client);
    let_connect(true);
    CHECK(!is_told);
    CHECK(caller_receive(&client));
    check_all_there(&client, 1);
    caller_close(&member);
    fake_peer_stop(&other);
}

static void
renew_as(struct caller *member, const struct fake_peer *peer, uint32_t node,
         struct wire_arena arena)
{
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", peer->port);
    AUTO_WRITER(arenas);
    AUTO_WRITER(body);
    encode_arena(&arenas, &arena);
    struct member_renew renewal = {.who = {.node = node,
                                           .incarnation = INCARNATION,
                                           .address = slice_of_text(address),
                                           .arenas = slice(arenas.data, arenas.len)}};
    encode_member_renew(&body, &renewal);
    CHECK_OK(caller_call(member, MESSAGE_MEMBER_RENEW, bytes_of(&body)));
}

/* It had blocks of two arenas, which two others were being given. */
TEST(orders_for_a_node_that_goes_are_given_to_all_that_have_its_blocks)
{
    FIXTURE(f, 64);
    struct fake_peer other, first, second;
    struct caller members[3];
    CALLER(client, &f);
    struct ds_block_id ids[2] = {
        wire_block_id((struct block_birth){NODE, INCARNATION, 0}, 2),
        wire_block_id((struct block_birth){LEFT, INCARNATION, 0}, 2)};
    struct wire_arena its = {NODE, INCARNATION, false},
                      left = {LEFT, INCARNATION, false}, left_whole = left;
    AUTO_WRITER(body);
    left_whole.is_whole = true;
    fake_peer_start_tcp(&other, says_nothing);
    fake_peer_start_tcp(&first, took_from_the_other);
    fake_peer_start_tcp(&second, took_from_who_left);
    join(&f, &members[0], &other);
    renew_as(&members[0], &other, NODE, left_whole);
    caller_open_metastore(&members[1], &f);
    renew_as(&members[1], &first, NODE + 1, its);
    caller_open_metastore(&members[2], &f);
    renew_as(&members[2], &second, NODE + 2, left);
    RUN_UNTIL(&f, membership_count(f.worker.membership) == 4);
    say_hello(&client);
    encode_block_ids(&body, ids, 2);
    caller_send(&client, MESSAGE_BLOCK_ADOPT, bytes_of(&body));
    run_for_ms(&f, 100);
    CHECK(!caller_is_told(&client));
    caller_close(&members[0]);
    CHECK(caller_receive(&client));
    check_all_there(&client, 2);
    caller_close(&members[1]);
    caller_close(&members[2]);
    fake_peer_stop(&other);
    fake_peer_stop(&first);
    fake_peer_stop(&second);
}

TEST(an_order_that_a_node_refuses_is_not_done)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    struct ds_block_id id =
        wire_block_id((struct block_birth){NODE, INCARNATION, 0}, 2);
    AUTO_WRITER(body);
    fake_peer_start_tcp(&other, has_no_memory);
    join(&f, &member, &other);
    say_hello(&client);
    encode_block_ids(&body, &id, 1);
    CHECK_STATUS(caller_call(&client, MESSAGE_BLOCK_DELETE, bytes_of(&body)),
                 DS_NOT_READY);
    caller_close(&member);
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
                 DS_NOT_READY); /* Somebody may be about to go on with it. */
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

/* All members come at once when they hear of a change. */
TEST(there_is_room_for_each_member_beside_the_strangers)
{
    enum { SILENT = WORKER_UNPROVEN_MAX + 2 };
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    struct caller *silent = calloc(SILENT + 1, sizeof *silent);
    DS_ASSERT(silent != NULL);
    fake_peer_start_tcp(&other, obeys);
    join(&f, &member, &other);
    RUN_UNTIL(&f, f.worker.unproven_count == 0);
    for (uint32_t i = 0; i < SILENT; i++) {
        caller_open(&silent[i], &f);
        RUN_UNTIL(&f, f.worker.unproven_count == i + 1);
    }
    CHECK(!caller_is_told(&silent[0]));
    caller_open(&silent[SILENT], &f);
    RUN_UNTIL(&f, caller_is_told(&silent[0]));
    CHECK_INT(f.worker.unproven_count, SILENT);
    for (int i = 0; i <= SILENT; i++)
        caller_close(&silent[i]);
    free(silent);
    caller_close(&member);
    fake_peer_stop(&other);
}

TEST_MAIN(RUN(a_queue_of_another_node_is_found_there),
          RUN(orphans_are_told_to_the_node_of_their_controller),
          RUN(orders_for_blocks_go_to_the_nodes_where_they_are),
          RUN(orders_for_a_node_that_goes_are_done),
          RUN(orders_for_a_node_that_cannot_be_reached_wait),
          RUN(orders_for_a_node_that_goes_are_given_to_all_that_have_its_blocks),
          RUN(an_order_that_a_node_refuses_is_not_done),
          RUN(there_is_room_for_each_member_beside_the_strangers))
