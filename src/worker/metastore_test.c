#include "worker/metastore.h"

#include "os/files.h"
#include "worker/fixture.h"
#include "worker/membership.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { A_WHILE_MS = 60000 };

static struct member_renew
renewal_of(uint32_t node)
{
    static char addresses[8][32];
    snprintf(addresses[node], sizeof addresses[node], "10.0.0.%u:31501", node);
    return (struct member_renew){.who = {.node = node,
                                         .incarnation = 100 + node,
                                         .address = slice_of_text(addresses[node])},
                                 .wait_ms = A_WHILE_MS};
}

static void
send_renewal(struct caller *caller, const struct member_renew *message)
{
    AUTO_WRITER(body);
    encode_member_renew(&body, message);
    caller_send(caller, MESSAGE_MEMBER_RENEW, bytes_of(&body));
}

/* What the last reply says, which becomes what the member knows. */
static struct member_list
take_list(const struct caller *caller, struct member_renew *knows)
{
    struct member_list list;
    CHECK_OK(caller->reply.status);
    CHECK(decode_member_list(body_of(caller), &list));
    knows->epoch = list.epoch;
    knows->version = list.version;
    if (list.count > 0)
        knows->count = list.count - 1;
    return list;
}

static struct member_list
renew(struct caller *caller, struct member_renew *message)
{
    send_renewal(caller, message);
    CHECK(caller_receive(caller));
    return take_list(caller, message);
}

static struct member_list
hear(struct caller *caller, struct member_renew *message)
{
    CHECK(caller_receive(caller));
    return take_list(caller, message);
}

TEST(members_hear_who_comes_and_who_leaves)
{
    FIXTURE(f, 64);
    struct caller first, second;
    struct member_renew one = renewal_of(1), two = renewal_of(2);
    caller_open_metastore(&first, &f);
    caller_open_metastore(&second, &f);
    CHECK_INT(renew(&first, &one).count, 1);
    send_renewal(&first, &one); /* Parked: nothing is new. */
    struct member_list list = renew(&second, &two);
    CHECK_INT(list.count, 2);
    CHECK(list.lease_ms > 0);
    struct wire_member member;
    CHECK(next_member(&list, &member));
    CHECK(member.node == 1 && member.incarnation == 101);
    CHECK(slice_equal(member.address, slice_of_text("10.0.0.1:31501")));
    CHECK_INT(hear(&first, &one).epoch, 2);
    send_renewal(&first, &one);
    send_renewal(&second, &two);
    turn(&f);
    two.flags = MEMBER_LEAVES; /* Takes the place of what is parked. */
    CHECK_INT(renew(&second, &two).count, 0);
    list = hear(&first, &one);
    CHECK_INT(list.count, 1);
    CHECK_INT(list.epoch, 3);
    caller_close(&second);
    caller_close(&first);
}

TEST(members_hear_which_queues_others_have)
{
    FIXTURE(f, 64);
    struct caller first, second;
    struct member_renew one = renewal_of(1), two = renewal_of(2);
    struct queue_place place = {.name = slice_of_text("train"),
                                .tcp_address = slice_of_text("10.0.0.2:31600")};
    AUTO_WRITER(queues);
    encode_queue_place(&queues, &place);
    caller_open_metastore(&first, &f);
    caller_open_metastore(&second, &f);
    (void)renew(&second, &two);
    uint64_t epoch = renew(&first, &one).epoch;
    two.epoch = epoch;
    two.version = one.version;
    send_renewal(&first, &one);
    send_renewal(&second, &two); /* Waits, until the next takes its place. */
    turn(&f);
    CHECK(!caller_is_told(&second));
    two.who.queues = slice(queues.data, queues.len);
    struct member_list list = renew(&second, &two);
    CHECK(!caller_is_told(&second)); /* One answer to both. */
    list = hear(&first, &one);
    CHECK_INT(list.epoch, epoch); /* They are the same members. */
    struct wire_member member;
    CHECK(next_member(&list, &member) && member.queues.len == 0);
    CHECK(next_member(&list, &member) && next_member_queue(&member.queues, &place));
    CHECK(slice_equal(place.tcp_address, slice_of_text("10.0.0.2:31600")));
    caller_close(&second);
    caller_close(&first);
}

TEST(a_renewal_is_answered_when_it_has_waited_long_enough)
{
    FIXTURE(f, 64);
    struct caller caller;
    struct member_renew one = renewal_of(1);
    caller_open_metastore(&caller, &f);
    CHECK_INT(renew(&caller, &one).epoch, 1);
    one.wait_ms = 10;
    struct member_list list = renew(&caller, &one);
    CHECK_INT(list.epoch, 1);
    CHECK_INT(list.count, 0);
    caller_close(&caller);
}

/* One that only lost its connection renews over another one in time. */
TEST(who_is_gone_without_a_word_is_told_to_the_others)
{
    FIXTURE(f, 64);
    struct caller first, second, third, third_again;
    struct member_renew one = renewal_of(1), two = renewal_of(2), three = renewal_of(3);
    caller_open_metastore(&first, &f);
    caller_open_metastore(&second, &f);
    caller_open_metastore(&third, &f);
    caller_open_metastore(&third_again, &f);
    (void)renew(&second, &two);
    (void)renew(&third, &three);
    CHECK_INT(renew(&first, &one).count, 3);
    send_renewal(&first, &one);
    caller_close(&second);
    caller_close(&third);
    turn(&f);
    (void)renew(&third_again, &three);
    struct member_list list = hear(&first, &one);
    CHECK_INT(list.count, 2);
    struct wire_member member;
    CHECK(next_member(&list, &member) && member.node == 1);
    CHECK(next_member(&list, &member) && member.node == 3);
    caller_close(&third_again);
    caller_close(&first);
}

static void
check_refused(struct caller *caller, const struct member_renew *message,
              enum ds_status status, const char *words)
{
    send_renewal(caller, message);
    caller_receive_error(caller, status, words);
}

TEST(who_cannot_be_a_member_is_told_why)
{
    FIXTURE(f, 64);
    struct caller first, second;
    struct member_renew one = renewal_of(1), thief = renewal_of(2),
                        stranger = renewal_of(3);
    caller_open_metastore(&first, &f);
    caller_open_metastore(&second, &f);
    (void)renew(&first, &one);
    thief.who.node = 1;
    check_refused(&second, &thief, DS_EXISTS, "10.0.0.1:31501");
    stranger.cluster_name = slice_of_text("green");
    check_refused(&second, &stranger, DS_MISMATCH, "--cluster_name");
    caller_close(&second);
    caller_close(&first);
}

TEST(a_workers_own_port_knows_no_members)
{
    FIXTURE(f, 64);
    CALLER(caller, &f);
    struct member_renew one = renewal_of(1);
    say_hello(&caller);
    send_renewal(&caller, &one);
    check_closed(&caller);
}

/* What a member knew is more than an epoch that anybody is told before it is back. */
TEST(a_metastore_that_is_started_again_waits_for_its_members)
{
    FIXTURE(f, 64);
    struct caller first, second, third;
    struct member_renew one = renewal_of(1), two = renewal_of(2), three = renewal_of(3);
    caller_open_metastore(&first, &f);
    caller_open_metastore(&second, &f);
    (void)renew(&first, &one);
    (void)renew(&second, &two);
    one.epoch = 0;
    CHECK_INT(renew(&first, &one).epoch, 2);
    caller_close(&second);
    caller_close(&first);
    metastore_tick(f.worker.metastore, 0); /* Writes the file. */
    fixture_stop(&f);
    fixture_start_again(&f);

    caller_open_metastore(&first, &f);
    caller_open_metastore(&second, &f);
    caller_open_metastore(&third, &f);
    send_renewal(&third, &three);
    one.wait_ms = 0;
    CHECK_INT(renew(&first, &one).count, 0); /* Its lease is renewed all the same. */
    CHECK(!caller_is_told(&third));
    struct member_list list = renew(&second, &two);
    CHECK_INT(list.count, 4); /* With its own worker, which has the arena of before. */
    CHECK(list.epoch > 2);
    CHECK_INT(hear(&third, &three).count, 4);
    caller_close(&third);
    caller_close(&second);
    caller_close(&first);
}

/* The second one is on its way to ask again when the worker is told to stop. */
TEST(who_stops_stays_until_the_others_know_it)
{
    FIXTURE(f, 64);
    struct caller second;
    struct member_renew two = renewal_of(2);
    fixture_join_cluster(&f);
    RUN_UNTIL(&f, membership_count(f.worker.membership) == 1);
    caller_open_metastore(&second, &f);
    CHECK_INT(renew(&second, &two).count, 2);
    RUN_UNTIL(&f, membership_count(f.worker.membership) == 2);
    worker_end(&f.worker);
    RUN_UNTIL(&f, f.worker.farewell_until_ms != 0);
    f.worker.farewell_until_ms = UINT64_MAX; /* However slow this test is. */
    CHECK_INT(renew(&second, &two).count, 1);
    for (int i = 0; i < 100; i++)
        turn(&f);
    CHECK(!f.worker.stopping);
    send_renewal(&second, &two);
    RUN_UNTIL(&f, f.worker.stopping);
    caller_close(&second);
}

static bool
has_file(const struct fixture *f, const char *text)
{
    char path[PATH_MAX + 32], got[64] = "";
    snprintf(path, sizeof path, "%s/metastore.epoch", f->resources.home);
    return files_read(path, got, sizeof got) && strncmp(got, text, strlen(text)) == 0;
}

static void
stop_for_good(struct fixture *f)
{
    f->worker.is_leaving = true;
    fixture_stop(f);
}

/* One that was lost may only be cut off, and come back with what it knew. */
TEST(epochs_are_forgotten_where_the_last_one_said_goodbye)
{
    FIXTURE(f, 64);
    struct caller caller;
    struct member_renew one = renewal_of(1);
    caller_open_metastore(&caller, &f);
    CHECK_INT(renew(&caller, &one).count, 1);
    caller_close(&caller);
    RUN_UNTIL(&f, has_file(&f, "2 0"));
    stop_for_good(&f);
    CHECK(has_file(&f, "2 0"));

    fixture_start_again(&f);
    caller_open_metastore(&caller, &f);
    (void)renew(&caller, &one);
    one.flags = MEMBER_LEAVES;
    (void)renew(&caller, &one);
    stop_for_good(&f);
    CHECK(!has_file(&f, ""));
    fixture_start_again(&f);
    caller_close(&caller);
}

TEST_MAIN(RUN(epochs_are_forgotten_where_the_last_one_said_goodbye),
          RUN(who_stops_stays_until_the_others_know_it),
          RUN(members_hear_which_queues_others_have),
          RUN(members_hear_who_comes_and_who_leaves),
          RUN(a_renewal_is_answered_when_it_has_waited_long_enough),
          RUN(who_is_gone_without_a_word_is_told_to_the_others),
          RUN(who_cannot_be_a_member_is_told_why),
          RUN(a_workers_own_port_knows_no_members),
          RUN(a_metastore_that_is_started_again_waits_for_its_members))
