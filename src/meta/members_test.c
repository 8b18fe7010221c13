#include "meta/members.h"

#include "base/slice.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEASE_MS = 1000 };

static const struct members_past nothing;

static struct member
worker(uint32_t node)
{
    struct member member = {.node = node, .incarnation = 100 + node};
    snprintf(member.address, sizeof member.address, "10.0.0.%u:31501", node);
    return member;
}

static struct members *
open_members(struct members_past past, uint64_t now_ms)
{
    struct members *members = NULL;
    CHECK_OK(members_create(LEASE_MS, past, now_ms, &members, NULL));
    return members;
}

static enum ds_status
renew(struct members *members, uint32_t node, struct members_past past, uint64_t now_ms)
{
    struct member who = worker(node);
    return members_renew(members, &who, past, now_ms, NULL);
}

static bool
has(const struct members *members, uint32_t node)
{
    for (size_t i = 0; i < members_count(members); i++) {
        if (members_at(members, i)->node == node)
            return true;
    }
    return false;
}

TEST(what_a_member_says_of_its_queues_makes_a_new_version)
{
    struct members *members = open_members(nothing, 0);
    struct member who = worker(2);
    char text[] = "train";
    CHECK_OK(renew(members, 1, nothing, 0));
    uint64_t before = members_version(members);
    who.queues = slice_of_text(text);
    CHECK_OK(members_renew(members, &who, nothing, 0, NULL));
    text[0] = 'T'; /* It has a copy. */
    CHECK(slice_equal(members_at(members, 1)->queues, slice_of_text("train")));
    CHECK(members_version(members) != before);
    before = members_version(members);
    uint64_t epoch = members_epoch(members);
    who.queues = slice_of_text("train");
    CHECK_OK(members_renew(members, &who, nothing, 1, NULL));
    CHECK_INT(members_version(members), before);
    who.queues = slice_of_text("");
    CHECK_OK(members_renew(members, &who, nothing, 1, NULL));
    CHECK(members_version(members) != before);
    CHECK_INT(members_at(members, 1)->queues.len, 0);
    CHECK_INT(members_epoch(members), epoch);
    who.queues = slice_of_text("eval");
    CHECK_OK(members_renew(members, &who, nothing, 1, NULL));
    members_tick(members, LEASE_MS); /* The first goes, the second stays as it is. */
    CHECK_INT(members_count(members), 1);
    CHECK(slice_equal(members_at(members, 0)->queues, slice_of_text("eval")));
    members_destroy(members);
}

TEST(who_comes_after_another_waits_longer_and_tells_epochs_that_nobody_else_can)
{
    struct members_past past = {7, 3};
    struct members *members = open_members(past, 0);
    members_come_after_another(members, 5 * LEASE_MS);
    CHECK_OK(renew(members, 1, past, 0));
    CHECK(!members_lack_only(members, 3)); /* The second is missing as well. */
    members_tick(members, LEASE_MS - 1);
    CHECK_OK(renew(members, 1, past, LEASE_MS - 1));
    CHECK_OK(renew(members, 2, past, LEASE_MS - 1));
    CHECK(members_lack_only(members, 3));
    CHECK(!members_lack_only(members, 1)); /* It is not that one which is missing. */
    members_tick(members, LEASE_MS);
    CHECK(members_is_settling(members));
    members_settle(members);
    CHECK(members_epoch(members) > 7 + 1000);
    CHECK_INT(members_at(members, 0)->since, 7);
    CHECK_OK(
        renew(members, 3, past, LEASE_MS)); /* Too late: it was none for a while. */
    CHECK_INT(members_at(members, 2)->since, members_epoch(members));
    members_destroy(members);
}

TEST(one_that_comes_twice_while_it_settles_is_counted_once)
{
    struct members_past past = {7, 2};
    struct members *members = open_members(past, 0);
    members_come_after_another(members, 9 * LEASE_MS);
    CHECK_OK(renew(members, 1, past, 0));
    members_tick(members, LEASE_MS); /* Its lease has ended. */
    CHECK_INT(members_count(members), 0);
    CHECK_OK(renew(members, 1, past, LEASE_MS));
    CHECK(members_is_settling(members)); /* The other one has not come. */
    CHECK_OK(renew(members, 2, past, LEASE_MS));
    CHECK(!members_is_settling(members));
    members_destroy(members);
    members = open_members(past, 0);
    CHECK_OK(renew(members, 1, past, 0));
    CHECK(members_leave(members, 1, 101)); /* It will not come. */
    CHECK_OK(renew(members, 2, past, 0));
    CHECK(!members_is_settling(members));
    members_destroy(members);
}

TEST(what_a_member_took_over_is_kept_as_long_as_it_is_one)
{
    struct members *members = open_members(nothing, 0);
    struct member who = worker(2);
    char arenas[] = "123456789";
    CHECK_OK(renew(members, 1, nothing, 0));
    who.arenas = slice_of_text(arenas);
    CHECK_OK(members_renew(members, &who, nothing, 0, NULL));
    arenas[0] = 'x'; /* It has a copy. */
    CHECK(slice_equal(members_at(members, 1)->arenas, slice_of_text("123456789")));
    uint64_t before = members_version(members);
    uint64_t epoch = members_epoch(members);
    who.arenas = slice_of_text("");
    CHECK_OK(members_renew(members, &who, nothing, 1, NULL));
    CHECK(members_version(members) != before);
    CHECK_INT(members_epoch(members), epoch);
    CHECK_INT(members_at(members, 1)->arenas.len, 0);
    who.arenas = slice_of_text("987654321");
    CHECK_OK(members_renew(members, &who, nothing, 1, NULL));
    CHECK(members_leave(members, 1, 101)); /* What the other says stays as it is. */
    CHECK(slice_equal(members_at(members, 0)->arenas, slice_of_text("987654321")));
    members_destroy(members);
}

TEST(each_change_makes_a_new_epoch_and_a_renewal_none)
{
    struct members *members = open_members(nothing, 0);
    CHECK_INT(members_epoch(members), 0);
    CHECK_OK(renew(members, 2, nothing, 0));
    CHECK_OK(renew(members, 1, nothing, 0));
    CHECK_INT(members_epoch(members), 2);
    CHECK_OK(renew(members, 2, members_past(members), 10));
    CHECK_INT(members_epoch(members), 2);
    CHECK_INT(members_at(members, 0)->node, 1);
    CHECK_TEXT(members_at(members, 1)->address, "10.0.0.2:31501");
    CHECK(members_leave(members, 1, 101));
    CHECK(!members_leave(members, 1, 101));
    CHECK_INT(members_epoch(members), 3);
    members_destroy(members);
}

TEST(a_member_is_gone_when_its_lease_ends)
{
    struct members *members = open_members(nothing, 0);
    CHECK_OK(renew(members, 1, nothing, 0));
    CHECK_OK(renew(members, 2, nothing, 500));
    members_tick(members, LEASE_MS - 1);
    CHECK_INT(members_count(members), 2);
    members_tick(members, LEASE_MS);
    CHECK(!has(members, 1) && has(members, 2));
    CHECK_INT(members_epoch(members), 3);
    members_destroy(members);
}

TEST(a_suspect_has_until_then_to_renew)
{
    struct members *members = open_members(nothing, 0);
    CHECK_OK(renew(members, 1, nothing, 0));
    CHECK_OK(renew(members, 2, nothing, 0));
    members_suspect(members, 1, 101, 200);
    members_suspect(members, 2, 102, 200);
    members_suspect(members, 2, 999, 1); /* Not this arena. */
    CHECK_OK(renew(members, 2, members_past(members), 150));
    members_tick(members, 200);
    CHECK(!has(members, 1) && has(members, 2));
    members_destroy(members);
}

TEST(a_node_id_that_is_taken_is_refused)
{
    struct ds_error err = {0};
    struct members *members = open_members(nothing, 0);
    CHECK_OK(renew(members, 1, nothing, 0));
    struct member thief = worker(2);
    thief.node = 1;
    CHECK_STATUS(members_renew(members, &thief, nothing, 1, &err), DS_EXISTS);
    CHECK_CONTAINS(err.message, "10.0.0.1:31501");
    members_tick(members, LEASE_MS);
    CHECK_OK(members_renew(members, &thief, nothing, LEASE_MS, &err));
    members_destroy(members);
}

/* Only one can listen there: the one before is dead. */
TEST(who_comes_to_an_address_replaces_who_was_there)
{
    struct members *members = open_members(nothing, 0);
    CHECK_OK(renew(members, 1, nothing, 0));
    struct member next = worker(1);
    next.node = 7;
    CHECK_OK(members_renew(members, &next, nothing, 1, NULL));
    CHECK(!has(members, 1) && has(members, 7));
    next.incarnation = 5; /* A new arena: what the old one had is gone. */
    uint64_t before = members_epoch(members);
    CHECK_OK(members_renew(members, &next, nothing, 2, NULL));
    CHECK_INT(members_count(members), 1);
    CHECK_INT(members_epoch(members), before + 1);
    members_destroy(members);
}

TEST(who_has_no_node_or_no_address_is_refused)
{
    struct members *members = open_members(nothing, 0);
    struct member nowhere = {.node = 1};
    CHECK_STATUS(members_renew(members, &nowhere, nothing, 0, NULL), DS_INVALID);
    CHECK_STATUS(renew(members, 0, nothing, 0), DS_INVALID);
    members_destroy(members);
}

TEST(after_a_restart_nobody_is_told_before_all_are_back)
{
    struct members_past past = {.epoch = 40, .count = 2};
    struct members *members = open_members(past, 0);
    CHECK_OK(renew(members, 1, past, 10));
    CHECK_OK(renew(members, 1, past, 11)); /* Twice is not two. */
    CHECK_OK(renew(members, 3, nothing, 12));
    CHECK_INT(members_epoch(members), 0);
    CHECK_INT(members_past(members).epoch, 40);
    CHECK_INT(members_past(members).count, 2);
    CHECK_OK(renew(members, 2, past, 20));
    CHECK_INT(members_epoch(members), 41);
    CHECK_INT(members_count(members), 3);
    members_destroy(members);
}

TEST(after_a_restart_who_does_not_come_back_is_gone_after_a_lease)
{
    struct members_past past = {.epoch = 40, .count = 2};
    struct members *members = open_members(past, 0);
    CHECK_OK(renew(members, 1, past, 500));
    members_tick(members, LEASE_MS - 1);
    CHECK_INT(members_epoch(members), 0);
    members_tick(members, LEASE_MS);
    CHECK_INT(members_epoch(members), 41);
    CHECK_INT(members_count(members), 1);
    members_destroy(members);
}

/* Its file was lost as well: a member that comes back knows. */
TEST(a_forgotten_epoch_is_learnt_from_those_that_belonged_to_it)
{
    struct members_past past = {.epoch = 40, .count = 2};
    struct members *members = open_members(nothing, 0);
    CHECK_OK(renew(members, 3, nothing, 0));
    CHECK_INT(members_epoch(members), 1);
    CHECK_OK(renew(members, 1, past, 10));
    CHECK_INT(members_epoch(members), 0);
    CHECK_OK(renew(members, 2, past, 20));
    CHECK_INT(members_epoch(members), 41);
    CHECK_INT(members_count(members), 3);
    members_destroy(members);
}

enum { NODES = 6, EVENTS = 4000 };

/* Bits of those that belong. */
static uint32_t
set_of(const struct members *members)
{
    uint32_t set = 0;
    for (size_t i = 0; i < members_count(members); i++)
        set |= 1u << members_at(members, i)->node;
    return set;
}

/* Something happens to `node`; `known` is what it was told last. */
static struct members *
happen(struct members *members, uint32_t node, struct members_past *known,
       uint64_t dice, uint64_t now_ms)
{
    struct members_past past = members_past(members);
    switch (dice) {
    case 0:
        (void)members_leave(members, node, 100 + node);
        *known = nothing;
        return members;
    case 1:
        members_destroy(members);
        return open_members(past, now_ms);
    case 2:
        members_suspect(members, node, 100 + node, now_ms + 50);
        return members;
    default:
        CHECK_OK(renew(members, node, *known, now_ms));
        if (members_epoch(members) > 0)
            *known = members_past(members);
        return members;
    }
}

TEST(an_epoch_names_one_set_of_members_and_never_goes_back)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t random = seed, now_ms = 0, last = 0;
        uint32_t last_set = 0;
        struct members_past known[NODES + 1] = {0};
        struct members *members = open_members(nothing, 0);
        for (int i = 0; i < EVENTS; i++) {
            uint32_t node = 1 + (uint32_t)(test_random(&random) % NODES);
            now_ms += test_random(&random) % 100;
            members =
                happen(members, node, &known[node], test_random(&random) % 20, now_ms);
            members_tick(members, now_ms);
            uint64_t epoch = members_epoch(members);
            if (epoch == 0)
                continue;
            CHECK(epoch > last || (epoch == last && set_of(members) == last_set));
            last = epoch;
            last_set = set_of(members);
        }
        CHECK(last > 0);
        members_destroy(members);
    }
}

/* It says so by `since`; to others it is one that they know, or not. */
TEST(who_was_no_member_for_a_while_is_told_from_who_was)
{
    struct members *members = open_members(nothing, 0);
    struct member who = worker(1);
    CHECK_OK(renew(members, 1, nothing, 0));
    CHECK_OK(renew(members, 2, nothing, 0));
    CHECK_INT(members_at(members, 0)->since, 1);
    CHECK_INT(members_at(members, 1)->since, 2);
    who.restarts = 1;
    CHECK_OK(members_renew(members, &who, members_past(members), 10, NULL));
    CHECK_INT(members_epoch(members), 3); /* Another process, the same member. */
    CHECK_INT(members_at(members, 0)->since, 1);
    members_suspect(members, 1, 101, 20);
    members_tick(members, 20);
    CHECK_OK(members_renew(members, &who, members_past(members), 30, NULL));
    CHECK_INT(members_epoch(members), 5);
    CHECK_INT(members_at(members, 0)->since, 5);
    who.incarnation++;
    CHECK_OK(members_renew(members, &who, members_past(members), 40, NULL));
    CHECK_INT(members_at(members, 0)->since, 6);
    members_destroy(members);
}

TEST(who_is_lost_may_serve_for_a_while_and_who_says_goodbye_does_not)
{
    struct members *members = open_members(nothing, 0);
    CHECK_OK(renew(members, 1, nothing, 0));
    CHECK_OK(renew(members, 2, nothing, 100));
    CHECK(members_leave(members, 2, 102));
    CHECK_INT(members_lapse_ms(members, 100), 0);
    CHECK_INT(members_away_ms(members, 100), 0);
    CHECK_OK(renew(members, 2, nothing, 200));
    members_suspect(members, 2, 102, 300);
    members_tick(members, 300);
    CHECK(!has(members, 2));
    CHECK_INT(members_lapse_ms(members, 300),
              200 + member_key_lease_ms(LEASE_MS) - 300);
    CHECK(members_away_ms(members, 300) >= MEMBER_AWAY_MS);
    CHECK_INT(members_lapse_ms(members, 200 + member_key_lease_ms(LEASE_MS)), 0);
    CHECK_INT(members_away_ms(members, 300 + LEASE_MS + MEMBER_AWAY_MS), 0);
    members_destroy(members);
}

TEST(while_it_settles_only_who_knows_the_last_epoch_may_serve)
{
    struct members_past past = {.epoch = 7, .count = 2},
                        older = {.epoch = 6, .count = 2};
    struct members *members = open_members(past, 0);
    CHECK_OK(renew(members, 1, past, 10));
    CHECK_OK(renew(members, 2, older, 10));
    CHECK(members_is_settling(members));
    CHECK(members_may_serve(members, 1, 101));
    CHECK(!members_may_serve(members, 2, 102));
    CHECK(!members_may_serve(members, 1, 999));
    CHECK(members_lapse_ms(members, 10) > 0);
    CHECK_OK(renew(members, 3, past, 20));
    CHECK_INT(members_epoch(members), 8);
    CHECK(members_may_serve(members, 2, 102));
    CHECK_INT(members_at(members, 0)->since, 7);
    CHECK_INT(members_at(members, 1)->since, 8);
    members_destroy(members);
}

TEST(after_a_restart_a_member_says_since_when_it_belonged)
{
    struct members_past past = {.epoch = 7, .count = 3};
    struct members *members = open_members(past, 0);
    struct member first = worker(1), second = worker(2), third = worker(3);
    first.since = 4;
    third.since = 8; /* Cannot be. */
    CHECK_OK(members_renew(members, &first, past, 0, NULL));
    CHECK_OK(members_renew(members, &second, past, 0, NULL)); /* Does not know it. */
    CHECK_OK(members_renew(members, &third, past, 0, NULL));
    CHECK_INT(members_epoch(members), 8);
    CHECK_INT(members_at(members, 0)->since, 4);
    CHECK_INT(members_at(members, 1)->since, 7);
    CHECK_INT(members_at(members, 2)->since, 7);
    struct member fourth = worker(4);
    fourth.since = 4; /* Who comes later was none for a while. */
    CHECK_OK(members_renew(members, &fourth, past, 10, NULL));
    CHECK_INT(members_at(members, 3)->since, 9);
    members_destroy(members);
}

/* Nobody could be heard meanwhile; it is not they who were silent. */
TEST(who_stood_still_itself_takes_nobody_for_lost)
{
    enum { STILL_MS = 9 * LEASE_MS };
    struct members *members = open_members(nothing, 0);
    CHECK_OK(renew(members, 1, nothing, 0));
    CHECK_OK(renew(members, 2, nothing, 0));
    members_tick(members, 100);
    CHECK_OK(renew(members, 2, nothing, STILL_MS)); /* Heard before the tick. */
    members_tick(members, STILL_MS);
    CHECK_INT(members_count(members), 2);
    members_tick(members, STILL_MS + 300);
    CHECK_INT(members_count(members), 2);
    members_tick(members,
                 STILL_MS + 600); /* The first should have been heard by now. */
    CHECK_INT(members_count(members), 1);
    members_tick(members, STILL_MS + LEASE_MS);
    CHECK_INT(members_count(members), 0);
    members_destroy(members);
}

TEST(slow_ticks_end_leases_all_the_same)
{
    struct members *members = open_members(nothing, 0);
    CHECK_OK(renew(members, 1, nothing, 0));
    for (uint64_t now_ms = 600; now_ms <= 6000; now_ms += 600)
        members_tick(members, now_ms);
    CHECK_INT(members_count(members), 0);
    members_destroy(members);
}

TEST_MAIN(
    RUN(who_stood_still_itself_takes_nobody_for_lost),
    RUN(slow_ticks_end_leases_all_the_same),
    RUN(who_comes_after_another_waits_longer_and_tells_epochs_that_nobody_else_can),
    RUN(one_that_comes_twice_while_it_settles_is_counted_once),
    RUN(who_was_no_member_for_a_while_is_told_from_who_was),
    RUN(who_is_lost_may_serve_for_a_while_and_who_says_goodbye_does_not),
    RUN(while_it_settles_only_who_knows_the_last_epoch_may_serve),
    RUN(what_a_member_says_of_its_queues_makes_a_new_version),
    RUN(what_a_member_took_over_is_kept_as_long_as_it_is_one),
    RUN(each_change_makes_a_new_epoch_and_a_renewal_none),
    RUN(a_member_is_gone_when_its_lease_ends), RUN(a_suspect_has_until_then_to_renew),
    RUN(a_node_id_that_is_taken_is_refused),
    RUN(who_comes_to_an_address_replaces_who_was_there),
    RUN(who_has_no_node_or_no_address_is_refused),
    RUN(after_a_restart_a_member_says_since_when_it_belonged),
    RUN(after_a_restart_nobody_is_told_before_all_are_back),
    RUN(after_a_restart_who_does_not_come_back_is_gone_after_a_lease),
    RUN(a_forgotten_epoch_is_learnt_from_those_that_belonged_to_it),
    RUN(an_epoch_names_one_set_of_members_and_never_goes_back))
