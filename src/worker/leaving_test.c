/* A worker that leaves, beside another one, which is scripted and takes over. */
#include "worker/leaving.h"

#include "worker/keys.h"
#include "worker/leaving_testing.h"

#include <string.h>
#include <unistd.h>

enum { POLL_US = 1000 };

/* How the other one answers, and what it was told. */
static _Atomic uint64_t room_bytes;
static atomic_bool refuses; /* It takes nothing. */
static atomic_int held_at;  /* To that many-th TAKE it does not answer yet. */
static atomic_int takes_seen;
static atomic_int deletes_seen;
static atomic_int ends_seen;
static atomic_bool said_whole; /* By the last TAKE_END. */

/* ---- The other worker ---- */

static bool
reply_with(int fd, const struct frame_header *header, const struct writer *body)
{
    return fake_reply(fd, header, DS_OK, slice(body->data, body->len),
                      (struct ds_slice){0});
}

static bool
reply_flags(int fd, const struct frame_header *header, uint32_t count)
{
    AUTO_WRITER(out);
    int number = atomic_fetch_add(&takes_seen, 1) + 1;
    while (atomic_load(&held_at) == number)
        usleep(POLL_US);
    encode_flags_begin(&out, count);
    for (uint32_t i = 0; i < count; i++)
        write_u8(&out, !atomic_load(&refuses));
    return reply_with(fd, header, &out);
}

static bool
take_end(int fd, const struct frame_header *header, struct ds_slice body)
{
    struct wire_giver giver;
    struct ds_slice arenas;
    struct wire_arena arena;
    AUTO_WRITER(nothing);
    if (!decode_take_end(body, &giver, &arenas) || !next_arena(&arenas, &arena) ||
        giver.node != arena.node || giver.incarnation != arena.incarnation)
        return false;
    atomic_store(&said_whole, arena.is_whole);
    atomic_fetch_add(&ends_seen, 1);
    return reply_with(fd, header, &nothing);
}

WELCOMING(takes_over)
{
    struct wire_giver giver;
    struct ds_slice parts;
    struct lookup lookup;
    struct take_key_list keys;
    AUTO_WRITER(out);
    if (header->type == MESSAGE_TAKE_ROOM) {
        encode_room(&out, atomic_load(&room_bytes));
        return reply_with(fd, header, &out);
    }
    if (header->type == MESSAGE_TAKE && decode_take(body, &giver, &parts) &&
        decode_lookup(parts, &lookup))
        return reply_flags(fd, header, lookup.keys.count);
    if (header->type == MESSAGE_TAKE_KEYS && decode_take_keys(body, &keys))
        return reply_flags(fd, header, keys.count);
    if (header->type == MESSAGE_TAKE_END)
        return take_end(fd, header, body);
    if (header->type != MESSAGE_BLOCK_DELETE)
        return false;
    atomic_fetch_add(&deletes_seen, 1);
    return reply_with(fd, header, &out);
}

/* ---- The cluster ---- */

static void
taker_open(struct pair *pair, struct fixture *f)
{
    atomic_store(&room_bytes, 1 << 30);
    atomic_store(&refuses, false);
    atomic_store(&held_at, 0);
    atomic_store(&takes_seen, 0);
    atomic_store(&deletes_seen, 0);
    atomic_store(&ends_seen, 0);
    pair_open(pair, f, takes_over);
}

static void
taker_close(struct pair *pair)
{
    atomic_store(&held_at, 0);
    pair_close(pair);
}

static struct ds_block_id
put_block(struct caller *client)
{
    struct ds_block_id id;
    struct wire_ref ref;
    CHECK_OK(call_block_create(client, PART_BYTES, &id, &ref));
    CHECK_OK(call_seal(client, ref));
    return id;
}

static void
tell(struct caller *caller, enum leave_action action)
{
    AUTO_WRITER(body);
    encode_leave(&body, action);
    CHECK_OK(caller_call(caller, MESSAGE_LEAVE, bytes_of(&body)));
}

/* Whether the last answer to LEAVE says so. */
static bool
says(const struct caller *caller, const char *text)
{
    struct ds_slice body = body_of(caller);
    return memmem(body.data, body.len, text, strlen(text)) != NULL;
}

static bool
is_said(struct caller *caller, const char *text)
{
    tell(caller, LEAVE_ASK);
    return says(caller, text);
}

/* ---- Leaving ---- */

TEST(a_worker_alone_has_nothing_to_move)
{
    FIXTURE(f, 64);
    CALLER(client, &f);
    say_hello(&client);
    (void)put_block(&client);
    tell(&client, LEAVE_BEGIN);
    CHECK(says(&client, "\"state\": \"nothing\""));
    CHECK(!leaving_is_active(&f.worker));
    (void)put_block(&client);
}

/* The other one says that it leaves, or is there (again). */
static void
renew_other(struct pair *pair, uint32_t flags)
{
    char address[32];
    AUTO_WRITER(body);
    snprintf(address, sizeof address, "127.0.0.1:%u", pair->other.port);
    struct member_renew renewal = {.flags = flags,
                                   .who = {.node = NODE,
                                           .incarnation = INCARNATION,
                                           .address = slice_of_text(address)}};
    encode_member_renew(&body, &renewal);
    CHECK_OK(caller_call(&pair->member, MESSAGE_MEMBER_RENEW, bytes_of(&body)));
}

/* The others leave at the same time: nobody is there any more who could say what room it has,
 * and nobody to whom this worker would be of use. */
TEST(a_worker_that_is_left_alone_has_nobody_to_move_to)
{
    FIXTURE(f, 64);
    struct pair pair;
    pair_open(&pair, &f, says_nothing);
    (void)put_block(&pair.client);
    tell(&pair.client, LEAVE_BEGIN);
    CHECK(says(&pair.client, "\"state\": \"moving\""));
    renew_other(&pair, MEMBER_LEAVES);
    RUN_UNTIL(&f, is_said(&pair.client, "\"state\": \"nothing\""));
    renew_other(&pair, 0);
    RUN_UNTIL(&f, is_said(&pair.client, "\"state\": \"staying\""));
    CHECK(says(&pair.client, "another member came"));
    (void)put_block(&pair.client);
    pair_close(&pair);
}

/* Whoever asked ends it now, and with it what it would take. */
TEST(a_worker_that_has_nothing_takes_nothing_new_either)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct ds_block_id id;
    struct wire_ref unsealed, none;
    taker_open(&pair, &f);
    CHECK_OK(call_block_create(&pair.client, PART_BYTES, &id, &unsealed));
    tell(&pair.client, LEAVE_BEGIN);
    CHECK(says(&pair.client, "\"state\": \"nothing\""));
    CHECK_STATUS(call_block_create(&pair.client, 1, &id, &none), DS_NOT_READY);
    CHECK_STATUS(call_seal(&pair.client, unsealed), DS_NOT_READY);
    tell(&pair.client, LEAVE_CANCEL);
    CHECK(says(&pair.client, "\"state\": \"staying\""));
    CHECK_OK(call_seal(&pair.client, unsealed));
    taker_close(&pair);
}

/* It is sealed, and that told its client, as soon as the owner of its key says so. */
TEST(a_worker_that_is_about_to_seal_something_has_something)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct wire_extent extent;
    AUTO_WRITER(body);
    taker_open(&pair, &f);
    CHECK_OK(call_create(&pair.client, "key", 100, &extent));
    struct wire_filled filled = {.ref = extent.ref};
    encode_seal(&body, 0, false, &filled, 1);
    caller_send(&pair.client, MESSAGE_SEAL, bytes_of(&body));
    RUN_UNTIL(&f, keys_are_binding(&f.worker));
    tell(&pair.as_other, LEAVE_BEGIN);
    CHECK(says(&pair.as_other, "\"state\": \"moving\""));
    CHECK(!caller_is_told(&pair.client));
    taker_close(&pair);
}

TEST(a_worker_that_has_nothing_goes_also_if_nobody_ends_it)
{
    FIXTURE(f, 64);
    struct pair pair;
    taker_open(&pair, &f);
    tell(&pair.client, LEAVE_BEGIN);
    RUN_UNTIL(&f, f.worker.stopping);
    CHECK_INT(atomic_load(&ends_seen), 0);
    taker_close(&pair);
}

TEST(a_worker_stays_where_nobody_has_room)
{
    FIXTURE(f, 64);
    struct pair pair;
    taker_open(&pair, &f);
    (void)put_block(&pair.client);
    atomic_store(&room_bytes, 500);
    tell(&pair.client, LEAVE_BEGIN);
    RUN_UNTIL(&f, is_said(&pair.client, "\"state\": \"staying\""));
    CHECK(says(&pair.client, "no member has room for the 1 objects (0.0 MiB)"));
    CHECK_INT(atomic_load(&takes_seen), 0);
    (void)put_block(&pair.client);
    taker_close(&pair);
}

TEST(a_worker_goes_when_all_know_who_has_its_blocks)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct ds_block_id id;
    struct wire_ref unsealed;
    struct arena_id own = arenas_own(&f.worker);
    taker_open(&pair, &f);
    (void)put_block(&pair.client);
    CHECK_OK(call_block_create(&pair.client, PART_BYTES, &id, &unsealed));
    tell(&pair.client, LEAVE_BEGIN);
    CHECK(is_at(&f, own, own));
    RUN_UNTIL(&f, is_said(&pair.client, "\"state\": \"moved\""));
    CHECK(says(&pair.client, "\"moved_objects\": 1, \"objects\": 1"));
    CHECK(is_at(&f, own, other_arena())); /* Orders are passed on. */
    CHECK_STATUS(call_seal(&pair.client, unsealed), DS_NOT_READY);
    CHECK_STATUS(call_block_create(&pair.client, 1, &id, &unsealed), DS_NOT_READY);
    RUN_UNTIL(&f, atomic_load(&ends_seen) == 1);
    CHECK(atomic_load(&said_whole));
    CHECK(!f.worker.is_leaving);
    say_taken(&pair, (struct wire_arena){own.node, own.incarnation, true});
    RUN_UNTIL(&f, f.worker.stopping);
    taker_close(&pair);
}

TEST(what_is_not_taken_stays_here)
{
    FIXTURE(f, 64);
    struct pair pair;
    taker_open(&pair, &f);
    (void)put_block(&pair.client);
    atomic_store(&refuses, true);
    tell(&pair.client, LEAVE_BEGIN);
    RUN_UNTIL(&f, is_said(&pair.client, "\"state\": \"staying\""));
    CHECK(says(&pair.client, "has no room for, or cannot fetch, 1 of 1 objects"));
    RUN_UNTIL(&f, atomic_load(&ends_seen) == 1);
    CHECK(!atomic_load(&said_whole));
    (void)put_block(&pair.client);
    atomic_store(&refuses, false);
    tell(&pair.client, LEAVE_BEGIN); /* Once more, with more luck. */
    RUN_UNTIL(&f, is_said(&pair.client, "\"state\": \"moved\""));
    taker_close(&pair);
}

TEST(what_is_deleted_while_it_is_taken_is_told)
{
    FIXTURE(f, 64);
    struct pair pair;
    AUTO_WRITER(body);
    taker_open(&pair, &f);
    struct ds_block_id id = put_block(&pair.client);
    atomic_store(&held_at, 1);
    tell(&pair.client, LEAVE_BEGIN);
    RUN_UNTIL(&f, atomic_load(&takes_seen) == 1);
    encode_block_ids(&body, &id, 1);
    CHECK_OK(caller_call(&pair.client, MESSAGE_BLOCK_DELETE, bytes_of(&body)));
    CHECK_INT(atomic_load(&deletes_seen), 0);
    atomic_store(&held_at, 0);
    RUN_UNTIL(&f, is_said(&pair.client, "\"state\": \"moved\""));
    CHECK_INT(atomic_load(&deletes_seen), 1);
    taker_close(&pair);
}

/* It counts as one that nobody adopted there. */
TEST(what_is_adopted_after_it_was_taken_is_offered_again)
{
    FIXTURE(f, 64);
    struct pair pair;
    AUTO_WRITER(body);
    CALLER(before, &f);
    say_hello(&before);
    (void)put(&before, "key", 100); /* Goes after the block. */
    taker_open(&pair, &f);
    struct ds_block_id id = put_block(&pair.client);
    atomic_store(&held_at, 2);
    tell(&pair.client, LEAVE_BEGIN);
    RUN_UNTIL(&f, atomic_load(&takes_seen) == 2);
    CHECK(is_said(&pair.client, "\"moved_objects\": 1"));
    encode_block_ids(&body, &id, 1);
    CHECK_OK(caller_call(&pair.client, MESSAGE_BLOCK_ADOPT, bytes_of(&body)));
    atomic_store(&held_at, 0);
    RUN_UNTIL(&f, is_said(&pair.client, "\"state\": \"moved\""));
    CHECK(says(&pair.client, "\"moved_objects\": 2, \"objects\": 2"));
    CHECK_INT(atomic_load(&takes_seen), 3);
    taker_close(&pair);
}

/* Begins to move one block; the taker does not answer yet. */
static void
begin_and_hold(struct pair *pair)
{
    (void)put_block(&pair->client);
    atomic_store(&held_at, 1);
    tell(&pair->client, LEAVE_BEGIN);
    RUN_UNTIL(pair->f, atomic_load(&takes_seen) == 1);
}

TEST(leaving_is_cancelled)
{
    FIXTURE(f, 64);
    struct pair pair;
    taker_open(&pair, &f);
    begin_and_hold(&pair);
    tell(&pair.client, LEAVE_CANCEL);
    CHECK(says(&pair.client, "\"state\": \"staying\""));
    CHECK(says(&pair.client, "leaving was cancelled"));
    (void)put_block(&pair.client);
    atomic_store(&held_at, 0);
    RUN_UNTIL(&f, atomic_load(&ends_seen) == 1);
    CHECK(!atomic_load(&said_whole));
    RUN_UNTIL(&f, is_said(&pair.client, "\"state\": \"staying\""));
    taker_close(&pair);
}

TEST(who_stays_calls_back_again_what_a_member_says_it_has)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct arena_id own = arenas_own(&f.worker);
    taker_open(&pair, &f);
    begin_and_hold(&pair);
    tell(&pair.client, LEAVE_CANCEL);
    atomic_store(&held_at, 0);
    RUN_UNTIL(&f, atomic_load(&ends_seen) == 1);
    say_taken(&pair, (struct wire_arena){own.node, own.incarnation, false});
    RUN_UNTIL(&f, atomic_load(&ends_seen) == 2);
    CHECK(!atomic_load(&said_whole));
    run_for_ms(&f, 100);
    CHECK(is_said(&pair.client, "\"state\": \"staying\""));
    CHECK(is_at(&f, own, own));
    (void)put_block(&pair.client);
    taker_close(&pair);
}

/* Sends a PUT, but only half of its payload. */
static void
put_half(struct caller *caller, const char *key)
{
    struct put put = {.key = slice_of_text(key)};
    AUTO_WRITER(body);
    encode_put(&body, &put);
    struct frame_header header = {.type = MESSAGE_PUT,
                                  .sequence = ++caller->sequence,
                                  .body_bytes = (uint32_t)body.len,
                                  .payload_bytes = PART_BYTES};
    uint8_t encoded[FRAME_HEADER_BYTES];
    frame_encode(&header, encoded);
    caller_send_bytes(caller, encoded, sizeof encoded);
    caller_send_bytes(caller, body.data, body.len);
    caller_send_bytes(caller, part_bytes, PART_BYTES / 2);
}

static enum ds_status
put_rest(struct caller *caller)
{
    caller_send_bytes(caller, part_bytes, PART_BYTES - PART_BYTES / 2);
    CHECK(caller_receive(caller));
    return (enum ds_status)caller->reply.status;
}

TEST(a_value_that_began_to_arrive_while_leaving_is_refused_also_if_the_worker_stays)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct caller putter;
    taker_open(&pair, &f);
    caller_open_tcp(&putter, &f, f.address);
    say_hello_as_member(&putter);
    begin_and_hold(&pair);
    put_half(&putter, "k");
    for (int i = 0; i < 20; i++)
        turn(&f);
    tell(&pair.client, LEAVE_CANCEL);
    CHECK(says(&pair.client, "\"state\": \"staying\""));
    CHECK_INT(put_rest(&putter), DS_NOT_READY);
    CHECK_INT(stats_of(&f).objects, 1); /* The block. */
    CHECK_INT(stats_of(&f).writing, 0);
    atomic_store(&held_at, 0);
    RUN_UNTIL(&f, atomic_load(&ends_seen) == 1);
    caller_close(&putter);
    taker_close(&pair);
}

TEST(the_room_of_a_value_that_arrives_while_leaving_begins_is_free_again)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct caller putter;
    taker_open(&pair, &f);
    caller_open_tcp(&putter, &f, f.address);
    say_hello_as_member(&putter);
    put_half(&putter, "k");
    RUN_UNTIL(&f, stats_of(&f).writing == 1);
    begin_and_hold(&pair);
    CHECK_INT(put_rest(&putter), DS_NOT_READY);
    CHECK_INT(stats_of(&f).writing, 0);
    atomic_store(&held_at, 0);
    caller_close(&putter);
    taker_close(&pair);
}

TEST(a_worker_stays_when_its_taker_is_lost)
{
    FIXTURE(f, 64);
    struct pair pair;
    taker_open(&pair, &f);
    begin_and_hold(&pair);
    caller_close(&pair.member); /* Suspect, and gone 2 s later. */
    RUN_UNTIL(&f, is_said(&pair.client, "\"state\": \"staying\""));
    CHECK(says(&pair.client, "is lost; 1 objects"));
    (void)put_block(&pair.client);
    taker_close(&pair);
}

TEST_MAIN(
    RUN(a_worker_alone_has_nothing_to_move),
    RUN(a_worker_that_is_left_alone_has_nobody_to_move_to),
    RUN(a_worker_that_has_nothing_takes_nothing_new_either),
    RUN(a_worker_that_is_about_to_seal_something_has_something),
    RUN(a_worker_that_has_nothing_goes_also_if_nobody_ends_it),
    RUN(a_worker_stays_where_nobody_has_room),
    RUN(a_worker_goes_when_all_know_who_has_its_blocks),
    RUN(what_is_not_taken_stays_here), RUN(what_is_deleted_while_it_is_taken_is_told),
    RUN(what_is_adopted_after_it_was_taken_is_offered_again), RUN(leaving_is_cancelled),
    RUN(who_stays_calls_back_again_what_a_member_says_it_has),
    RUN(a_value_that_began_to_arrive_while_leaving_is_refused_also_if_the_worker_stays),
    RUN(the_room_of_a_value_that_arrives_while_leaving_begins_is_free_again),
    RUN(a_worker_stays_when_its_taker_is_lost))
