#include "worker/waiters.h"

#include "base/check.h"
#include "worker/fixture.h"

#include <stdio.h>
#include <stdlib.h>

enum { LONG_MS = 60000 };

static const char *const a_and_b[] = {"a", "b"};

TEST(a_lookup_waits_until_all_its_keys_are_there)
{
    FIXTURE(f, 64);
    CALLER(reader, &f);
    CALLER(writer, &f);
    say_hello(&reader);
    say_hello(&writer);
    send_lookup(&reader, a_and_b, 2, LONG_MS);
    (void)put(&writer, "a", 100);
    CHECK(!caller_is_told(&reader));
    (void)put(&writer, "b", 100);
    CHECK(caller_receive(&reader));
    CHECK_INT(found_of(&reader), 2);
    CHECK_INT(f.worker.waiting_keys.count, 0);
}

TEST(a_lookup_is_answered_at_its_deadline_with_what_is_there)
{
    FIXTURE(f, 64);
    CALLER(reader, &f);
    say_hello(&reader);
    (void)put(&reader, "a", 100);
    uint64_t begin_ms = clock_monotonic_ms();
    send_lookup(&reader, a_and_b, 2, 60);
    CHECK(caller_receive(&reader));
    CHECK(clock_monotonic_ms() - begin_ms >= 60);
    CHECK_INT(found_of(&reader), 1);
}

TEST(what_is_there_already_is_answered_at_once)
{
    FIXTURE(f, 64);
    CALLER(reader, &f);
    say_hello(&reader);
    (void)put(&reader, "a", 100);
    send_lookup(&reader, a_and_b, 1, LONG_MS);
    CHECK(caller_receive(&reader));
    CHECK_INT(found_of(&reader), 1);
}

/* The second that appears ends the wait even if the first has gone meanwhile: the reply
 * says what is there. */
TEST(a_key_that_came_and_went_is_not_waited_for_again)
{
    FIXTURE(f, 64);
    CALLER(reader, &f);
    CALLER(writer, &f);
    say_hello(&reader);
    say_hello(&writer);
    send_lookup(&reader, a_and_b, 2, LONG_MS);
    (void)put(&writer, "a", 100);
    CHECK_OK(call_delete(&writer, "a"));
    (void)put(&writer, "b", 100);
    CHECK(caller_receive(&reader));
    CHECK_INT(found_of(&reader), 1);
}

TEST(a_lookup_goes_with_its_connection)
{
    FIXTURE(f, 64);
    CALLER(writer, &f);
    say_hello(&writer);
    struct caller reader;
    caller_open(&reader, &f);
    say_hello(&reader);
    send_lookup(&reader, a_and_b, 2, LONG_MS);
    RUN_UNTIL(&f, f.worker.waiting_keys.count == 2);
    caller_close(&reader);
    RUN_UNTIL(&f, f.worker.session_count == 1);
    CHECK_INT(f.worker.waiting_keys.count, 0);
    (void)put(&writer, "a", 100); /* Nobody is there to be told. */
    (void)put(&writer, "b", 100);
}

TEST(who_waits_can_ask_for_other_things)
{
    FIXTURE(f, 64);
    CALLER(reader, &f);
    say_hello(&reader);
    send_lookup(&reader, a_and_b, 1, LONG_MS);
    uint32_t lookup = reader.sequence;
    CHECK_OK(caller_call(&reader, MESSAGE_PING, slice(NULL, 0)));
    (void)put(&reader, "b", 100);
    struct wire_extent extent;
    CHECK_OK(call_create(&reader, "a", 100, &extent));
    AUTO_WRITER(body);
    struct wire_filled object = {.ref = extent.ref};
    encode_seal(&body, 0, false, &object, 1);
    caller_send(&reader, MESSAGE_SEAL, bytes_of(&body));
    CHECK(
        caller_receive(&reader)); /* The seal wakes the lookup before its own reply. */
    CHECK_INT(reader.reply.sequence, lookup);
    CHECK_INT(found_of(&reader), 1);
    CHECK(caller_receive(&reader));
    CHECK_INT(reader.reply.type, MESSAGE_SEAL);
}

/* Else a few requests would keep the loop busy for minutes. */
TEST(a_key_that_is_asked_for_many_times_is_waited_for_once)
{
    FIXTURE(f, 64);
    CALLER(reader, &f);
    say_hello(&reader);
    const char **keys = calloc(LOOKUP_KEYS_MAX, sizeof *keys);
    DS_ASSERT(keys != NULL);
    for (size_t i = 0; i < LOOKUP_KEYS_MAX; i++)
        keys[i] = i % 2 == 0 ? "a" : "b";
    uint64_t begin_ms = clock_monotonic_ms();
    send_lookup(&reader, keys, LOOKUP_KEYS_MAX, LONG_MS);
    RUN_UNTIL(&f, f.worker.waiting_keys.count > 0);
    CHECK_INT(f.worker.waiting_keys.count, 2);
    (void)call_delete(&reader, "c");
    free(keys);
    CHECK(clock_monotonic_ms() - begin_ms < FIXTURE_WAIT_MS / 2);
}

/* The time that a key takes does not grow with how many wait for it. */
TEST(many_may_wait_for_the_same_keys)
{
    enum { KEYS = 1000, READERS = 500 };
    FIXTURE(f, 64);
    CALLER(other, &f);
    struct caller reader;
    static char names[KEYS][8];
    const char *keys[KEYS];
    for (int i = 0; i < KEYS; i++) {
        snprintf(names[i], sizeof names[i], "k%d", i);
        keys[i] = names[i];
    }
    say_hello(&other);
    caller_open(&reader, &f);
    say_hello(&reader);
    uint64_t begin_ms = clock_monotonic_ms();
    for (int i = 0; i < READERS; i++)
        send_lookup(&reader, keys, KEYS, LONG_MS);
    CHECK_OK(caller_call(&reader, MESSAGE_PING, slice(NULL, 0)));
    CHECK_INT(f.worker.waiting_keys.count, KEYS);
    (void)put(&other, "k7", 10);
    CHECK_INT(f.worker.waiting_keys.count, KEYS - 1);
    caller_close(&reader);
    RUN_UNTIL(&f, f.worker.session_count == 1);
    CHECK_INT(f.worker.waiting_keys.count, 0);
    CHECK(clock_monotonic_ms() - begin_ms < FIXTURE_WAIT_MS / 2);
}

TEST(more_keys_than_a_reply_has_room_for_are_refused)
{
    FIXTURE(f, 64);
    CALLER(reader, &f);
    say_hello(&reader);
    const char **keys = calloc(LOOKUP_KEYS_MAX + 1, sizeof *keys);
    DS_ASSERT(keys != NULL);
    for (size_t i = 0; i <= LOOKUP_KEYS_MAX; i++)
        keys[i] = "a";
    send_lookup(&reader, keys, LOOKUP_KEYS_MAX + 1, 0);
    CHECK(caller_receive(&reader));
    CHECK_STATUS(reader.reply.status, DS_INVALID);
    CHECK_CONTAINS((const char *)reader.body, "350001 keys in one request");
    send_lookup(&reader, keys, LOOKUP_KEYS_MAX, 0);
    CHECK(caller_receive(&reader));
    CHECK_INT(found_of(&reader), 0);
    free(keys);
}

/* What it says of each is longer than what LOOKUP says. */
TEST(as_many_keys_may_be_fetched)
{
    FIXTURE(f, 64);
    CALLER(reader, &f);
    AUTO_WRITER(body);
    struct fetched list;
    struct ds_slice *keys = calloc(LOOKUP_KEYS_MAX, sizeof *keys);
    DS_ASSERT(keys != NULL);
    for (size_t i = 0; i < LOOKUP_KEYS_MAX; i++)
        keys[i] = slice_of_text("a");
    say_hello(&reader);
    encode_lookup(&body, &(struct lookup){0}, keys, LOOKUP_KEYS_MAX);
    free(keys);
    CHECK_OK(caller_call(&reader, MESSAGE_FETCH, bytes_of(&body)));
    CHECK(decode_fetched(body_of(&reader), &list));
    CHECK_INT(list.count, LOOKUP_KEYS_MAX);
}

TEST(what_one_connection_may_have_waiting_is_bounded)
{
    FIXTURE(f, 64);
    CALLER(reader, &f);
    CALLER(writer, &f);
    say_hello(&reader);
    say_hello(&writer);
    for (int i = 0; i < 1025; i++)
        send_lookup(&reader, a_and_b, 1, LONG_MS);
    CHECK(caller_receive(&reader));
    CHECK_STATUS(reader.reply.status, DS_FULL);
    CHECK_INT(reader.reply.sequence, reader.sequence);
    CHECK_CONTAINS((const char *)reader.body, "1024 requests of this connection");
    (void)put(&writer, "a", 100);
    for (int i = 0; i < 1024; i++) {
        CHECK(caller_receive(&reader));
        CHECK_INT(found_of(&reader), 1);
    }
    send_lookup(&reader, a_and_b + 1, 1, 1); /* There is room again. */
    CHECK(caller_receive(&reader));
    CHECK_INT(found_of(&reader), 0);
}

TEST(the_bytes_that_one_connection_may_have_waiting_are_bounded)
{
    FIXTURE(f, 64);
    CALLER(reader, &f);
    say_hello(&reader);
    static char text[FRAME_BODY_BYTES_MAX / 4]; /* Zeros: no legal key, but a body. */
    struct ds_slice key = slice(text, UINT16_MAX);
    struct ds_slice keys[64];
    struct lookup message = {.wait_ms = LONG_MS};
    for (int i = 0; i < 64; i++)
        keys[i] = key;
    AUTO_WRITER(body);
    encode_lookup(&body, &message, keys, 64);
    for (int i = 0; i < 20; i++) /* 4 MiB each. */
        caller_send(&reader, MESSAGE_LOOKUP, bytes_of(&body));
    CHECK(caller_receive(&reader));
    CHECK_STATUS(reader.reply.status, DS_FULL);
    CHECK_CONTAINS((const char *)reader.body, "15 requests of this connection");
}

TEST_MAIN(RUN(a_lookup_waits_until_all_its_keys_are_there),
          RUN(a_lookup_is_answered_at_its_deadline_with_what_is_there),
          RUN(what_is_there_already_is_answered_at_once),
          RUN(a_key_that_came_and_went_is_not_waited_for_again),
          RUN(a_lookup_goes_with_its_connection),
          RUN(who_waits_can_ask_for_other_things),
          RUN(a_key_that_is_asked_for_many_times_is_waited_for_once),
          RUN(many_may_wait_for_the_same_keys),
          RUN(more_keys_than_a_reply_has_room_for_are_refused),
          RUN(as_many_keys_may_be_fetched),
          RUN(what_one_connection_may_have_waiting_is_bounded),
          RUN(the_bytes_that_one_connection_may_have_waiting_are_bounded))
