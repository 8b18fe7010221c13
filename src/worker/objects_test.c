#include "worker/objects.h"

#include "base/check.h"
#include "base/list.h"
#include "worker/fixture.h"
#include "worker/populate.h"

#include <stdlib.h>

enum { MIB = 1 << 20 };

/* ---- Creates that wait while the arena is populated: 64 MiB are there at the start ----
 */

TEST(a_create_waits_for_the_arena_to_be_populated)
{
    FIXTURE(f, 160);
    CALLER(writer, &f);
    struct wire_extent extent;
    say_hello(&writer);
    CHECK(!populate_is_done(f.worker.populate));
    CHECK_OK(call_create(&writer, "a", 120 * MIB, &extent));
    CHECK(extent.offset + 120 * MIB <= store_header(f.worker.store)->populated);
    CHECK(list_is_empty(&f.worker.parked_creates));
    CHECK_OK(call_seal(&writer, extent.ref));
}

static void
run_until_parked(struct fixture *fixture)
{
    RUN_UNTIL(fixture, !list_is_empty(&fixture->worker.parked_creates));
}

TEST(a_create_that_waits_stops_nobody_else)
{
    FIXTURE(f, 160);
    CALLER(writer, &f);
    CALLER(other, &f);
    say_hello(&writer);
    say_hello(&other);
    send_create(&writer, "a", 120 * MIB);
    run_until_parked(&f);
    CHECK_OK(caller_call(&other, MESSAGE_PING, slice(NULL, 0)));
    (void)put(&other, "b", 1000);
    CHECK(caller_receive(&writer));
    CHECK_STATUS(writer.reply.status, DS_OK);
}

/* There is room for one of them only; who asked first gets it. */
TEST(creates_wait_in_line)
{
    FIXTURE(f, 160);
    CALLER(first, &f);
    CALLER(second, &f);
    say_hello(&first);
    say_hello(&second);
    send_create(&first, "a", 120 * MIB);
    run_until_parked(&f);
    send_create(&second, "b", 100 * MIB);
    CHECK(caller_receive(&first));
    CHECK_STATUS(first.reply.status, DS_OK);
    CHECK(caller_receive(&second));
    CHECK_STATUS(second.reply.status, DS_FULL);
    CHECK_CONTAINS((const char *)second.body, "Shared memory no space in arena");
}

TEST(a_create_that_can_never_fit_fails_at_once)
{
    FIXTURE(f, 160);
    CALLER(writer, &f);
    struct wire_extent extent;
    say_hello(&writer);
    CHECK_STATUS(call_create(&writer, "a", 161 * MIB, &extent), DS_FULL);
    CHECK(!populate_is_done(f.worker.populate));
    CHECK_CONTAINS((const char *)writer.body, "Shared memory no space in arena");
}

TEST(a_create_that_waits_goes_with_its_connection)
{
    FIXTURE(f, 160);
    struct caller writer;
    caller_open(&writer, &f);
    say_hello(&writer);
    send_create(&writer, "a", 120 * MIB);
    run_until_parked(&f);
    caller_close(&writer);
    RUN_UNTIL(&f, f.worker.session_count == 0);
    CHECK(list_is_empty(&f.worker.parked_creates));
    RUN_UNTIL(&f, populate_is_done(f.worker.populate));
    CHECK_INT(stats_of(&f).writing, 0);
}

/* ---- Batches ---- */

static enum ds_status
call_create_two(struct caller *caller, uint64_t first, uint64_t second)
{
    const struct ds_slice keys[] = {slice_of_text("a"), slice_of_text("b")};
    const uint64_t sizes[] = {first, second};
    AUTO_WRITER(body);
    encode_create(&body, 0, DS_NONE_L2_CACHE, keys, sizes, 2);
    return caller_call(caller, MESSAGE_CREATE, bytes_of(&body));
}

TEST(a_batch_is_created_whole_or_not_at_all)
{
    FIXTURE(f, 64);
    CALLER(writer, &f);
    say_hello(&writer);
    CHECK_STATUS(call_create_two(&writer, 100, 65 * MIB), DS_FULL);
    CHECK_INT(stats_of(&f).writing, 0);
    CHECK_STATUS(call_create_two(&writer, 100, 0), DS_INVALID);
    CHECK_CONTAINS((const char *)writer.body, "should be bigger than zero");
    CHECK_INT(stats_of(&f).writing, 0);
    CHECK_OK(call_create_two(&writer, 100, MIB));
    CHECK_INT(stats_of(&f).writing, 2);
}

TEST(more_objects_than_a_reply_has_room_for_are_refused)
{
    FIXTURE(f, 64);
    CALLER(writer, &f);
    say_hello(&writer);
    AUTO_WRITER(body);
    write_u32(&body, 0);
    write_u8(&body, DS_NONE_L2_CACHE);
    write_u32(&body, CREATE_OBJECTS_MAX + 1);
    for (uint32_t i = 0; i <= CREATE_OBJECTS_MAX; i++) {
        write_u64(&body, 1);
        write_short_bytes(&body, slice_of_text("a"));
    }
    CHECK_STATUS(caller_call(&writer, MESSAGE_CREATE, bytes_of(&body)), DS_INVALID);
    CHECK_CONTAINS((const char *)writer.body, "500001 objects in one request");
    CHECK_INT(stats_of(&f).writing, 0);
}

/* ---- Values through the socket ---- */

static void
send_put(struct caller *caller, const char *key, const void *value, size_t bytes)
{
    struct put message = {.write_mode = DS_NONE_L2_CACHE, .key = slice_of_text(key)};
    uint8_t head[FRAME_HEADER_BYTES];
    AUTO_WRITER(body);
    encode_put(&body, &message);
    struct frame_header header = {.type = MESSAGE_PUT,
                                  .sequence = ++caller->sequence,
                                  .body_bytes = (uint32_t)body.len,
                                  .payload_bytes = bytes};
    frame_encode(&header, head);
    caller_send_bytes(caller, head, sizeof head);
    caller_send_bytes(caller, body.data, body.len);
    caller_send_bytes(caller, value, bytes / 2); /* The rest is up to the test. */
}

static bool
value_is(struct caller *caller, const char *key, const void *value, size_t bytes)
{
    struct ds_slice name = slice_of_text(key);
    struct lookup message = {0};
    AUTO_WRITER(body);
    encode_lookup(&body, &message, &name, 1);
    CHECK_OK(caller_call(caller, MESSAGE_FETCH, bytes_of(&body)));
    return caller->reply.payload_bytes == bytes &&
           memcmp(caller->payload, value, bytes) == 0;
}

enum { VALUE_BYTES = 3 * MIB };

static uint8_t *
make_value(void)
{
    uint8_t *value = malloc(VALUE_BYTES);
    DS_ASSERT(value != NULL);
    for (size_t i = 0; i < VALUE_BYTES; i++)
        value[i] = (uint8_t)(i * 7 + i / 251);
    return value;
}

static void
send_rest(struct caller *caller, const uint8_t *value)
{
    caller_send_bytes(caller, value + VALUE_BYTES / 2, VALUE_BYTES - VALUE_BYTES / 2);
}

static struct object_ref
arriving(const struct fixture *fixture)
{
    LIST_FOREACH (link, &fixture->worker.sessions) {
        const struct session *session = CONTAINER_OF(link, struct session, link);
        if (session->put_open)
            return session->put.ref;
    }
    return (struct object_ref){.slot = SLOT_NONE};
}

TEST(a_value_arrives_while_its_client_says_what_it_holds)
{
    FIXTURE(f, 64);
    CALLER(writer, &f);
    CALLER(other, &f);
    uint8_t *value = make_value();
    say_hello(&writer);
    send_put(&writer, "a", value, VALUE_BYTES);
    RUN_UNTIL(&f, arriving(&f).slot != SLOT_NONE);
    CHECK_OK(say_hello_again(&other, &writer.welcome, NULL, 0,
                             HELLO_SHARED_MEMORY | HELLO_RESUME));
    send_rest(&writer, value);
    CHECK(caller_receive(&writer));
    CHECK_STATUS(writer.reply.status, DS_OK);
    CHECK(value_is(&other, "a", value, VALUE_BYTES));
    free(value);
}

/* Its object is given up half-way: the rest must not land in what comes after it. */
TEST(a_value_that_is_given_up_keeps_its_bytes_until_it_has_arrived)
{
    FIXTURE(f, 64);
    CALLER(writer, &f);
    CALLER(other, &f);
    uint8_t *value = make_value();
    say_hello(&writer);
    say_hello(&other);
    send_put(&writer, "a", value, VALUE_BYTES);
    RUN_UNTIL(&f, arriving(&f).slot != SLOT_NONE);
    struct wire_ref ref = {arriving(&f).slot, arriving(&f).generation};
    AUTO_WRITER(body);
    encode_refs(&body, &ref, 1);
    CHECK_OK(caller_call(&other, MESSAGE_ABORT, bytes_of(&body)));
    (void)store_tick(f.worker.store, 0);
    CHECK_INT(stats_of(&f).dead, 1);
    struct wire_extent extent = put(&other, "b", VALUE_BYTES);
    memset(f.worker.arena + extent.offset, 0, VALUE_BYTES);
    send_rest(&writer, value);
    CHECK(caller_receive(&writer));
    CHECK_STATUS(writer.reply.status, DS_INVALID);
    for (size_t i = 0; i < VALUE_BYTES; i += 4096)
        CHECK_INT(f.worker.arena[extent.offset + i], 0);
    RUN_UNTIL(&f, stats_of(&f).dead == 0);
    free(value);
}

TEST(half_a_value_leaves_nothing)
{
    FIXTURE(f, 64);
    struct caller writer;
    uint8_t *value = make_value();
    caller_open_tcp(&writer, &f, f.address);
    struct welcome nobody = {0};
    CHECK_OK(say_hello_again(&writer, &nobody, NULL, 0, 0));
    send_put(&writer, "a", value, VALUE_BYTES);
    RUN_UNTIL(&f, arriving(&f).slot != SLOT_NONE);
    caller_close(&writer);
    RUN_UNTIL(&f, f.worker.session_count == 0);
    RUN_UNTIL(&f, stats_of(&f).arena.used_bytes == 0);
    CHECK_INT(f.closed_lines, 1);
    free(value);
}

TEST_MAIN(RUN(a_create_waits_for_the_arena_to_be_populated),
          RUN(a_create_that_waits_stops_nobody_else), RUN(creates_wait_in_line),
          RUN(a_create_that_can_never_fit_fails_at_once),
          RUN(a_create_that_waits_goes_with_its_connection),
          RUN(a_batch_is_created_whole_or_not_at_all),
          RUN(more_objects_than_a_reply_has_room_for_are_refused),
          RUN(a_value_arrives_while_its_client_says_what_it_holds),
          RUN(a_value_that_is_given_up_keeps_its_bytes_until_it_has_arrived),
          RUN(half_a_value_leaves_nothing))
