/* A worker that takes over what another one has, which is scripted and leaves. */
#include "worker/leaving_testing.h"

#include "meta/members.h"
#include "os/checksum.h"
#include "worker/owners_internal.h"

enum { COUNTER = 1 };

/* Any part that it is asked for. */
WELCOMING(has_parts)
{
    struct wire_value value = {.found = true,
                               .size = PART_BYTES,
                               .total = PART_BYTES,
                               .checksum = checksum_of(part_bytes, PART_BYTES)};
    AUTO_WRITER(out);
    (void)body;
    if (header->type != MESSAGE_FETCH)
        return false;
    encode_fetched_begin(&out, 1);
    encode_fetched_value(&out, &value);
    return fake_reply(fd, header, DS_OK, slice(out.data, out.len),
                      slice(part_bytes, sizeof part_bytes));
}

static struct ds_block_id
born_there(uint32_t incarnation)
{
    return wire_block_id((struct block_birth){NODE, incarnation, 0}, COUNTER);
}

static const struct wire_giver the_other = {NODE, INCARNATION, 0};

/* The only flag of the reply. */
static bool
take_from(struct pair *pair, struct wire_giver giver, struct ds_block_id id,
          uint32_t flags)
{
    uint8_t key[BLOCK_KEY_BYTES];
    uint32_t count;
    const uint8_t *taken;
    struct lookup lookup = {.flags = LOOKUP_BLOCKS | flags};
    AUTO_WRITER(body);
    wire_block_key(id, 0, key);
    struct ds_slice one = slice(key, sizeof key);
    encode_take_begin(&body, &giver);
    encode_lookup(&body, &lookup, &one, 1);
    CHECK_OK(caller_call(&pair->as_other, MESSAGE_TAKE, bytes_of(&body)));
    CHECK(decode_flags(body_of(&pair->as_other), &count, &taken));
    CHECK_INT(count, 1);
    return taken[0] != 0;
}

static bool
take(struct pair *pair, struct ds_block_id id, uint32_t flags)
{
    return take_from(pair, the_other, id, flags);
}

static void
end_taking(struct pair *pair, struct arena_id born, bool is_whole)
{
    AUTO_WRITER(arenas);
    AUTO_WRITER(body);
    encode_arena(&arenas, &(struct wire_arena){born.node, born.incarnation, is_whole});
    encode_take_end(&body, &the_other, bytes_of(&arenas));
    CHECK_OK(caller_call(&pair->as_other, MESSAGE_TAKE_END, bytes_of(&body)));
}

/* All hear that its process is that one by now. */
static void
say_restarts(struct pair *pair, uint32_t restarts)
{
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", pair->other.port);
    AUTO_WRITER(body);
    struct member_renew renewal = {.who = {.node = NODE,
                                           .incarnation = INCARNATION,
                                           .restarts = restarts,
                                           .address = slice_of_text(address)}};
    encode_member_renew(&body, &renewal);
    CHECK_OK(caller_call(&pair->member, MESSAGE_MEMBER_RENEW, bytes_of(&body)));
    RUN_UNTIL(pair->f,
              membership_find(pair->f->worker.membership, NODE)->restarts == restarts);
}

TEST(what_is_taken_over_is_no_copy)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct arena_id own = arenas_own(&f.worker);
    pair_open(&pair, &f, has_parts);
    CHECK(take(&pair, born_there(INCARNATION), 0));
    CHECK_INT(stats_of(&f).objects, 1);
    CHECK_INT(stats_of(&f).copies, 0);
    CHECK(is_at(&f, other_arena(), other_arena())); /* Its word still counts. */
    CHECK(take(&pair, born_there(INCARNATION), 0));
    end_taking(&pair, other_arena(), true);
    CHECK(is_at(&f, other_arena(), own));
    CHECK(!take(&pair, born_there(INCARNATION + 1), 0)); /* Nobody has that one. */
    end_taking(&pair, other_arena(), false);
    CHECK_INT(stats_of(&f).copies, 1);
    CHECK(is_at(&f, other_arena(), other_arena()));
    pair_close(&pair);
}

/* The list of members still says another one when it gives. */
TEST(what_a_process_gave_is_ours_until_another_one_takes_its_place)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct wire_giver second = {NODE, INCARNATION, 1};
    pair_open(&pair, &f, has_parts);
    CHECK(take_from(&pair, second, born_there(INCARNATION), 0));
    run_for_ms(&f, 300);
    say_restarts(&pair, 1);
    run_for_ms(&f, 300);
    CHECK(arenas_is_noted(&f.worker, other_arena()));
    CHECK_INT(stats_of(&f).copies, 0);
    say_restarts(&pair, 2); /* It does not leave. */
    RUN_UNTIL(&f, !arenas_is_noted(&f.worker, other_arena()));
    CHECK_INT(stats_of(&f).copies, 1);
    pair_close(&pair);
}

TEST(what_a_lost_node_had_given_is_ours)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct arena_id own = arenas_own(&f.worker);
    pair_open(&pair, &f, has_parts);
    CHECK(take(&pair, born_there(INCARNATION), LOOKUP_PROVISIONAL));
    caller_close(&pair.member); /* Suspect, and gone 2 s later. */
    RUN_UNTIL(&f, is_at(&f, other_arena(), own));
    RUN_UNTIL(&f, !list_is_empty(&f.worker.orphans)); /* Nobody adopted it. */
    pair_close(&pair);
}

/* Its node was lost while it gave it to the other one, which leaves now: that has the rest. */
TEST(what_was_inherited_in_part_is_taken_by_several_requests)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct arena_id lost = {11, 12};
    struct block_birth birth = {lost.node, lost.incarnation, 0};
    pair_open(&pair, &f, has_parts);
    say_taken(&pair, (struct wire_arena){lost.node, lost.incarnation, false});
    RUN_UNTIL(&f, is_at(&f, lost, other_arena()));
    CHECK(take(&pair, wire_block_id(birth, 1), 0));
    run_for_ms(&f, 300);
    CHECK(is_at(&f, lost, other_arena()));
    CHECK(take(&pair, wire_block_id(birth, 2), 0));
    CHECK_INT(stats_of(&f).objects, 2);
    CHECK_INT(stats_of(&f).copies, 0);
    caller_close(&pair.member); /* Gone 2 s later. */
    RUN_UNTIL(&f, is_at(&f, lost, arenas_own(&f.worker)));
    pair_close(&pair);
}

TEST(a_worker_that_is_started_again_knows_what_it_took_over)
{
    FIXTURE(f, 64);
    struct pair pair;
    pair_open(&pair, &f, has_parts);
    CHECK(take(&pair, born_there(INCARNATION), 0));
    pair_close(&pair);
    fixture_stop(&f);
    fixture_start_again(&f);
    CHECK(is_at(&f, other_arena(), arenas_own(&f.worker)));
    AUTO_WRITER(told);
    arenas_encode(&f.worker, &told);
    CHECK_INT(told.len, WIRE_ARENA_BYTES);
}

/* It says so of blocks of a node that had left before; the record ends with it. */
TEST(blocks_are_looked_for_where_a_member_says_that_they_are)
{
    FIXTURE(f, 64);
    struct pair pair;
    struct arena_id left = {11, 12}, nobody = {0};
    pair_open(&pair, &f, has_parts);
    CHECK(is_at(&f, left, nobody));
    say_taken(&pair, (struct wire_arena){11, 12, false});
    RUN_UNTIL(&f, is_at(&f, left, other_arena()));
    say_taken(&pair, (struct wire_arena){11, 12, true});
    RUN_UNTIL(&f, is_at(&f, left, other_arena()));
    caller_close(&pair.member);
    RUN_UNTIL(&f, is_at(&f, left, nobody));
    pair_close(&pair);
}

/* What owners would say of it when it is asked about is of what it had before. */
TEST(who_was_away_takes_nothing_before_it_knows_its_keys)
{
    FIXTURE(f, 64);
    struct pair pair;
    uint64_t room = 0;
    AUTO_WRITER(arenas);
    AUTO_WRITER(body);
    pair_open(&pair, &f, has_parts);
    f.worker.owners->was_away = true;
    CHECK_OK(caller_call(&pair.as_other, MESSAGE_TAKE_ROOM, (struct ds_slice){0}));
    CHECK(decode_room(body_of(&pair.as_other), &room));
    CHECK_INT(room, 0);
    encode_arena(&arenas, &(struct wire_arena){NODE, INCARNATION, true});
    encode_take_end(&body, &the_other, bytes_of(&arenas));
    CHECK_STATUS(caller_call(&pair.as_other, MESSAGE_TAKE_END, bytes_of(&body)),
                 DS_NOT_READY);
    CHECK(!arenas_is_noted(&f.worker, other_arena()));
    f.worker.owners->was_away = false;
    CHECK_OK(caller_call(&pair.as_other, MESSAGE_TAKE_ROOM, (struct ds_slice){0}));
    CHECK(decode_room(body_of(&pair.as_other), &room));
    CHECK(room > 0);
    pair_close(&pair);
}

TEST_MAIN(RUN(who_was_away_takes_nothing_before_it_knows_its_keys),
          RUN(what_is_taken_over_is_no_copy),
          RUN(what_a_process_gave_is_ours_until_another_one_takes_its_place),
          RUN(what_a_lost_node_had_given_is_ours),
          RUN(what_was_inherited_in_part_is_taken_by_several_requests),
          RUN(a_worker_that_is_started_again_knows_what_it_took_over),
          RUN(blocks_are_looked_for_where_a_member_says_that_they_are))
