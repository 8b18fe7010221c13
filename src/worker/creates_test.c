#include "worker/creates.h"

#include "worker/fixture.h"

enum { MIB = 1 << 20, WAIT_MS = 20000, SOON_MS = 30 };

/* The arena is 64 MiB, populated from the start. */
static void
send_waiting(struct caller *caller, const char *key, uint64_t size, uint32_t wait_ms)
{
    struct ds_slice name = slice_of_text(key);
    AUTO_WRITER(body);
    encode_create(&body, wait_ms, DS_NONE_L2_CACHE, &name, &size, 1);
    caller_send(caller, MESSAGE_CREATE, bytes_of(&body));
}

static size_t
line_length(const struct fixture *f)
{
    size_t count = 0;
    const struct list *line = &f->worker.parked_creates;
    for (const struct list *link = line->next; link != line; link = link->next)
        count++;
    return count;
}

/* Sends it and sees it into the line. */
static void
wait_in_line(struct caller *caller, const char *key, uint64_t size)
{
    size_t before = line_length(caller->fixture);
    send_waiting(caller, key, size, WAIT_MS);
    RUN_UNTIL(caller->fixture, line_length(caller->fixture) == before + 1);
}

static void
check_made(struct caller *caller)
{
    CHECK(caller_receive(caller));
    CHECK_STATUS(caller->reply.status, DS_OK);
}

TEST(a_create_waits_for_room_and_gets_it)
{
    FIXTURE(f, 64);
    CALLER(a, &f);
    CALLER(b, &f);
    say_hello(&a);
    say_hello(&b);
    (void)put(&a, "big", 60 * MIB);
    wait_in_line(&b, "next", 50 * MIB);
    CHECK(!caller_is_told(&b));
    CHECK_OK(call_delete(&a, "big")); /* Others are served meanwhile. */
    check_made(&b);
    CHECK_INT(line_length(&f), 0);
    CHECK_INT(f.worker.counters.out_of_memory, 0);
}

TEST(a_create_waits_for_the_last_pin_of_what_was_deleted)
{
    FIXTURE(f, 64);
    CALLER(a, &f);
    CALLER(b, &f);
    say_hello(&a);
    say_hello(&b);
    struct wire_extent big = put(&a, "big", 60 * MIB);
    pin(&f, &a.welcome, 0, big);
    CHECK_OK(call_delete(&a, "big"));
    wait_in_line(&b, "next", 50 * MIB);
    unpin(&f, &a.welcome, 0);
    check_made(&b);
}

TEST(a_create_that_waited_in_vain_hears_why)
{
    FIXTURE(f, 64);
    CALLER(a, &f);
    say_hello(&a);
    (void)put(&a, "big", 60 * MIB);
    uint64_t begin_ms = clock_monotonic_ms();
    send_waiting(&a, "next", 50 * MIB, SOON_MS);
    CHECK(caller_receive(&a));
    CHECK(clock_monotonic_ms() >= begin_ms + SOON_MS - 1);
    CHECK_STATUS(a.reply.status, DS_FULL);
    CHECK(memmem(a.body, a.reply.body_bytes, "no space in arena", 17) != NULL);
    CHECK_INT(line_length(&f), 0);
    CHECK_INT(f.worker.counters.out_of_memory, 1);
}

TEST(what_can_never_fit_fails_at_once)
{
    FIXTURE(f, 64);
    CALLER(a, &f);
    say_hello(&a);
    send_waiting(&a, "huge", 65 * MIB, WAIT_MS);
    CHECK(caller_receive(&a));
    CHECK_STATUS(a.reply.status, DS_FULL);
    CHECK(memmem(a.body, a.reply.body_bytes, "larger than the whole arena", 27) !=
          NULL);
}

/* Both would fit into the first room that appears, if it were not for the order. */
TEST(room_goes_to_who_came_first)
{
    FIXTURE(f, 64);
    CALLER(a, &f);
    CALLER(first, &f);
    CALLER(second, &f);
    say_hello(&a);
    say_hello(&first);
    say_hello(&second);
    (void)put(&a, "x", 30 * MIB);
    (void)put(&a, "y", 30 * MIB);
    wait_in_line(&first, "large", 60 * MIB);
    wait_in_line(&second, "smaller", 28 * MIB);
    CHECK_OK(call_delete(&a, "x"));
    for (int i = 0; i < 20; i++)
        turn(&f);
    CHECK(!caller_is_told(&second));
    CHECK_INT(line_length(&f), 2);
    CHECK_OK(call_delete(&a, "y"));
    check_made(&first);
    CHECK(!caller_is_told(&second));
    struct ds_slice none = {0};
    CHECK_OK(caller_call(&a, MESSAGE_PING, none)); /* Nobody else is held up. */
}

/* Eight of 2 MiB would fit beside what is there; the large one, of 40 MiB, lets ten MiB
 * pass in all. */
TEST(small_ones_pass_a_large_one_within_bounds)
{
    FIXTURE(f, 64);
    CALLER(a, &f);
    CALLER(large, &f);
    say_hello(&a);
    say_hello(&large);
    (void)put(&a, "x", 40 * MIB);
    wait_in_line(&large, "large", 40 * MIB);
    for (int i = 0; i < 5; i++) {
        char key[8] = {(char)('0' + i)};
        send_waiting(&a, key, 2 * MIB, WAIT_MS);
        check_made(&a);
    }
    CALLER(late, &f);
    say_hello(&late);
    wait_in_line(&late, "late", 2 * MIB);
    CHECK_OK(call_delete(&a, "x"));
    check_made(&large);
    check_made(&late);
}

TEST(who_leaves_the_line_holds_up_nobody)
{
    FIXTURE(f, 64);
    CALLER(a, &f);
    CALLER(second, &f);
    say_hello(&a);
    say_hello(&second);
    (void)put(&a, "x", 40 * MIB);
    struct caller first;
    caller_open(&first, &f);
    say_hello(&first);
    wait_in_line(&first, "large", 60 * MIB);
    wait_in_line(&second, "next", 20 * MIB);
    caller_close(&first);
    check_made(&second);
    RUN_UNTIL(&f, line_length(&f) == 0);
    CHECK(!uv_is_active((const uv_handle_t *)&f.worker.room_tick));
}

TEST_MAIN(RUN(a_create_waits_for_room_and_gets_it),
          RUN(a_create_waits_for_the_last_pin_of_what_was_deleted),
          RUN(a_create_that_waited_in_vain_hears_why),
          RUN(what_can_never_fit_fails_at_once), RUN(room_goes_to_who_came_first),
          RUN(small_ones_pass_a_large_one_within_bounds),
          RUN(who_leaves_the_line_holds_up_nobody))
