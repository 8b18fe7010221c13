/* Which keys' owners are gone, of three nodes. */
#include "worker/lost_owners.h"

#include "base/slice.h"
#include "meta/ring.h"
#include "test.h"

#include <stdio.h>

enum { NODES = 3, KEY_BYTES = 16 };

static const uint32_t nodes[NODES] = {10, 20, 30};

/* A key of each. */
static char keys[NODES][KEY_BYTES];

static void
find_keys(void)
{
    struct ring *ring;
    CHECK_OK(ring_create(nodes, NODES, &ring, NULL));
    for (uint32_t i = 0; i < NODES; i++) {
        int n = 0;
        do
            snprintf(keys[i], KEY_BYTES, "key%d", n++);
        while (ring_owner(ring, ring_position(slice_of_text(keys[i]))) != nodes[i]);
    }
    ring_destroy(ring);
}

/* An epoch after which one of them is gone: it has left, or is another process. */
static void
lose_as(struct lost_owners *lost, uint32_t node, bool has_left)
{
    struct past_member members[NODES];
    for (uint32_t i = 0; i < NODES; i++)
        members[i] = (struct past_member){nodes[i], 1, nodes[i] == node,
                                          nodes[i] == node && has_left};
    CHECK(lost_owners_add(lost, members, NODES));
}

static void
lose(struct lost_owners *lost, uint32_t node)
{
    lose_as(lost, node, true);
}

static bool
none_since(struct lost_owners *lost, uint32_t node, uint32_t key)
{
    return lost_owners_none_since(lost, node, 1, slice_of_text(keys[key]));
}

TEST(the_keys_of_who_is_gone_had_a_lost_owner)
{
    struct lost_owners lost;
    lost_owners_init(&lost);
    find_keys();
    CHECK(!lost_owners_had(&lost, slice_of_text(keys[0])));
    lose(&lost, 10);
    CHECK(lost_owners_had(&lost, slice_of_text(keys[0])));
    CHECK(!lost_owners_had(&lost, slice_of_text(keys[1])));
    CHECK(lost_owners_has(&lost, 10, 1));
    CHECK(!lost_owners_has(&lost, 10, 2));
    CHECK(!lost_owners_has(&lost, 20, 1));
    lost_owners_forget(&lost);
    CHECK(!lost_owners_had(&lost, slice_of_text(keys[0])));
}

/* What was deleted before it went it knows itself. */
TEST(only_who_went_after_the_one_that_is_back_matters)
{
    struct lost_owners lost;
    lost_owners_init(&lost);
    find_keys();
    lose(&lost, 10);
    lose(&lost, 20);
    CHECK(none_since(&lost, 20, 0));
    CHECK(none_since(&lost, 20, 1));
    CHECK(none_since(&lost, 10, 0));
    CHECK(!none_since(&lost, 10, 1));
    CHECK(none_since(&lost, 10, 2));
    lost_owners_forget(&lost);
}

/* It had gone before we were there. */
TEST(of_one_that_was_never_seen_to_go_all_matter)
{
    struct lost_owners lost;
    lost_owners_init(&lost);
    find_keys();
    lose(&lost, 10);
    CHECK(!none_since(&lost, 30, 0));
    CHECK(none_since(&lost, 30, 1));
    lost_owners_forget(&lost);
}

/* It missed nothing while another process took its place. */
TEST(who_was_only_started_again_did_not_leave)
{
    struct lost_owners lost;
    lost_owners_init(&lost);
    find_keys();
    lose_as(&lost, 10, false);
    CHECK(lost_owners_had(&lost, slice_of_text(keys[0])));
    CHECK(!lost_owners_has(&lost, 10, 1));
    lose(&lost, 20);
    lose_as(&lost, 30, false);
    lose_as(&lost, 20, false);
    CHECK(lost_owners_has(&lost, 20, 1));
    CHECK(!none_since(&lost, 20, 2));
    lost_owners_forget(&lost);
}

static void
tell(const struct lost_owners *from, struct lost_owners *to)
{
    AUTO_WRITER(told);
    lost_owners_encode(from, &told);
    CHECK(lost_owners_hear(to, slice(told.data, told.len)));
}

/* Told twice: it is the same. */
TEST(who_came_later_is_told_of_those_that_went_before)
{
    struct lost_owners elder, joiner;
    lost_owners_init(&elder);
    lost_owners_init(&joiner);
    find_keys();
    lose(&elder, 10);
    lose(&elder, 20);
    lose(&joiner, 30); /* Behind both. */
    for (int i = 0; i < 2; i++) {
        tell(&elder, &joiner);
        CHECK(lost_owners_has(&joiner, 10, 1));
        CHECK(none_since(&joiner, 10, 0));
        CHECK(!none_since(&joiner, 10, 1));
        CHECK(!none_since(&joiner, 10, 2));
        CHECK(none_since(&joiner, 20, 1));
        CHECK(none_since(&joiner, 30, 2));
    }
    lost_owners_forget(&elder);
    lost_owners_forget(&joiner);
}

/* Hours of a cluster whose nodes come and go. */
TEST(of_too_many_epochs_the_latest_are_told)
{
    struct lost_owners elder, joiner;
    lost_owners_init(&elder);
    lost_owners_init(&joiner);
    find_keys();
    lose(&elder, 20);
    for (int i = 0; i < 100000; i++)
        lose(&elder, 30);
    lose(&elder, 10);
    tell(&elder, &joiner);
    CHECK(none_since(&joiner, 10, 1));
    CHECK(none_since(&joiner, 30, 1));
    CHECK(!lost_owners_has(&joiner, 20, 1));
    CHECK(!none_since(&joiner, 20, 1)); /* It may have been anybody's before. */
    lost_owners_forget(&elder);
    lost_owners_forget(&joiner);
}

TEST_MAIN(RUN(who_came_later_is_told_of_those_that_went_before),
          RUN(of_too_many_epochs_the_latest_are_told),
          RUN(the_keys_of_who_is_gone_had_a_lost_owner),
          RUN(only_who_went_after_the_one_that_is_back_matters),
          RUN(who_was_only_started_again_did_not_leave),
          RUN(of_one_that_was_never_seen_to_go_all_matter))
