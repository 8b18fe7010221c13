/* Goal: no order of the steps of a reader, overwriter, deleter, reclaimer, allocator and
 * recovery gives a reader bytes that were not the key's, hides what is there while
 * nothing happens, or loses a byte of the arena. Method: interleave.h. That the search
 * would see an accident is shown by leaving out each part of the protocol. */
#include "interleave.h"

#include "store/fixture.h"

static void
check_none(struct interleave_options options)
{
    struct interleave_result result = interleave(&options);
    CHECK_INT(result.accidents, 0);
    CHECK_INT(result.unfound, 0);
    CHECK_INT(result.leaks, 0);
    CHECK(result.hits > 50);
    CHECK(result.states > 500);
}

static bool
is_found_without(enum omission omission, const char *script, uint32_t buffered,
                 uint32_t kills)
{
    struct interleave_options options = {
        .script = script,
        .gets = 1,
        .buffered = buffered,
        .kills = kills,
        .omission = omission,
    };
    return interleave(&options).accidents > 0;
}

/* All scripts of two operations, and then one that uses room and slots again. */
TEST(no_order_of_reader_overwriter_deleter_and_allocator_gives_wrong_bytes)
{
    static const char operations[] = {'O', 'D', 'B', 'T', 'E'};
    for (size_t first = 0; first < sizeof operations; first++)
        for (size_t second = 0; second < sizeof operations; second++) {
            char script[] = {operations[first], operations[second], 'B', '\0'};
            check_none((struct interleave_options){.script = script, .gets = 1});
        }
}

/* The same pin word names one extent after the other. */
TEST(nor_when_the_reader_goes_on_to_a_second_get)
{
    check_none((struct interleave_options){.script = "OB", .gets = 2});
}

TEST(nor_when_stores_are_late)
{
    check_none((struct interleave_options){.script = "OB", .gets = 1, .buffered = 2});
    check_none((struct interleave_options){.script = "EB", .gets = 1, .buffered = 3});
}

/* Killed in the last operation it is killed after it as well: recovery is always run
 * against a reader, and so is what uses the memory next. */
TEST(nor_when_the_worker_is_killed_at_any_step)
{
    check_none((struct interleave_options){.script = "OB", .gets = 1, .kills = 1});
    check_none((struct interleave_options){.script = "DB", .gets = 1, .kills = 1});
}

TEST(nor_when_it_is_killed_again_in_its_recovery)
{
    check_none((struct interleave_options){.script = "O", .gets = 1, .kills = 2});
}

/* ---- Room that was lent ---- */

static struct interleave_options
lent(const char *script)
{
    return (struct interleave_options){.script = script, .lends = true, .gets = 1};
}

/* Of two extents one is lent; the second put that is kept takes it back. */
TEST(no_order_lets_a_client_write_to_room_that_was_taken_back)
{
    static const char operations[] = {'O', 'D', 'B', 'T'};
    for (size_t first = 0; first < sizeof operations; first++)
        for (size_t second = 0; second < sizeof operations; second++) {
            char script[] = {'B', operations[first], operations[second], 'O', '\0'};
            check_none(lent(script));
        }
}

TEST(nor_when_it_writes_twice_or_stores_are_late_or_the_worker_is_killed)
{
    struct interleave_options twice = lent("BO"), late = lent("BO"), kill = lent("BO");
    twice.gets = 2;
    late.buffered = 2;
    kill.kills = 1;
    check_none(twice);
    check_none(late);
    check_none(kill);
}

static bool
is_found_when_lent(enum omission omission, uint32_t buffered)
{
    struct interleave_options options = lent("BO");
    options.omission = omission;
    options.buffered = buffered;
    return interleave(&options).accidents > 0;
}

TEST(without_a_part_of_the_protocol_lent_room_is_written_to_that_was_taken_back)
{
    CHECK(is_found_when_lent(OMIT_READER_FENCE, 1));
    CHECK(is_found_when_lent(OMIT_RECHECK, 0));
    CHECK(is_found_when_lent(OMIT_SCAN, 0));
    CHECK(is_found_when_lent(OMIT_WORDS_USED, 0));
    CHECK(is_found_when_lent(OMIT_PIN_UNTIL_READ, 0));
}

/* ---- What is found when a part of the protocol is missing ---- */

TEST(without_the_readers_fence_wrong_bytes_are_found)
{
    CHECK(is_found_without(OMIT_READER_FENCE, "OB", 1, 0));
}

/* A death and a scan without a reply in between, which would be a fence as well. */
TEST(without_the_workers_fence_wrong_bytes_are_found)
{
    CHECK(is_found_without(OMIT_WORKER_FENCE, "EB", 3, 0));
}

TEST(without_the_second_look_at_the_commit_word_wrong_bytes_are_found)
{
    CHECK(is_found_without(OMIT_RECHECK, "OB", 0, 0));
}

TEST(without_generations_wrong_bytes_are_found)
{
    CHECK(is_found_without(OMIT_GENERATION, "OB", 0, 0));
}

TEST(without_a_scan_wrong_bytes_are_found)
{
    CHECK(is_found_without(OMIT_SCAN, "OB", 0, 0));
}

TEST(with_a_scan_before_the_death_wrong_bytes_are_found)
{
    CHECK(is_found_without(OMIT_SCAN_AFTER, "EB", 0, 0));
}

TEST(without_the_count_of_words_wrong_bytes_are_found)
{
    CHECK(is_found_without(OMIT_WORDS_USED, "OB", 0, 0));
}

TEST(without_the_epoch_older_bytes_are_found_in_recovery)
{
    CHECK(is_found_without(OMIT_EPOCH, "OB", 0, 1));
}

TEST(with_the_pin_released_too_early_wrong_bytes_are_found)
{
    CHECK(is_found_without(OMIT_PIN_UNTIL_READ, "OB", 0, 0));
}

TEST_MAIN(
    RUN(no_order_of_reader_overwriter_deleter_and_allocator_gives_wrong_bytes),
    RUN(nor_when_the_reader_goes_on_to_a_second_get), RUN(nor_when_stores_are_late),
    RUN(nor_when_the_worker_is_killed_at_any_step),
    RUN(nor_when_it_is_killed_again_in_its_recovery),
    RUN(no_order_lets_a_client_write_to_room_that_was_taken_back),
    RUN(nor_when_it_writes_twice_or_stores_are_late_or_the_worker_is_killed),
    RUN(without_a_part_of_the_protocol_lent_room_is_written_to_that_was_taken_back),
    RUN(without_the_readers_fence_wrong_bytes_are_found),
    RUN(without_the_workers_fence_wrong_bytes_are_found),
    RUN(without_the_second_look_at_the_commit_word_wrong_bytes_are_found),
    RUN(without_generations_wrong_bytes_are_found),
    RUN(without_a_scan_wrong_bytes_are_found),
    RUN(with_a_scan_before_the_death_wrong_bytes_are_found),
    RUN(without_the_count_of_words_wrong_bytes_are_found),
    RUN(without_the_epoch_older_bytes_are_found_in_recovery),
    RUN(with_the_pin_released_too_early_wrong_bytes_are_found))
