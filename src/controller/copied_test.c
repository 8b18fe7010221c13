#include "controller/copied.h"

#include "test.h"

enum { NOW = 1000, LEASE = 1040, LATER = 1041, JOURNAL = 5, ANOTHER = 6 };

static struct copied
on(void)
{
    struct copied copied = {.state = COPIED_UNKNOWN};
    copied_set(&copied, true);
    return copied;
}

/* Asked and answered: nothing is waited for until the lease ends. */
static struct copied
settled(void)
{
    struct copied copied = on();
    CHECK(copied_begin_request(&copied, JOURNAL));
    CHECK(copied_end_request(&copied, copied.asked, LEASE));
    return copied;
}

TEST(without_copies_nothing_waits)
{
    struct copied copied = {.state = COPIED_OFF};
    copied_note_written(&copied);
    CHECK(!copied_must_wait(&copied, NOW));
    CHECK_INT(copied_take_ticket(&copied), 0);
    CHECK(copied_covers(&copied, 0));
    CHECK(!copied_begin_request(&copied, JOURNAL));
}

TEST(as_long_as_nobody_knows_everything_waits)
{
    struct copied copied = {.state = COPIED_UNKNOWN};
    CHECK(copied_must_wait(&copied, NOW));
    uint64_t ticket = copied_take_ticket(&copied);
    CHECK(!copied_covers(&copied, ticket));
    CHECK(!copied_begin_request(&copied, JOURNAL));
    copied_set(&copied, false);
    CHECK(copied_covers(&copied, ticket));
}

TEST(what_was_written_waits_for_the_answer_about_it)
{
    struct copied copied = settled();
    CHECK(!copied_must_wait(&copied, NOW));
    copied_note_written(&copied);
    CHECK(copied_must_wait(&copied, NOW));
    uint64_t first = copied_take_ticket(&copied);
    CHECK(copied_begin_request(&copied, JOURNAL));
    copied_note_written(&copied);
    uint64_t second = copied_take_ticket(&copied);
    CHECK(!copied_begin_request(&copied, JOURNAL)); /* One at a time. */
    CHECK(!copied_covers(&copied, first));
    CHECK(copied_end_request(&copied, copied.asked, LEASE));
    CHECK(copied_covers(&copied, first));
    CHECK(!copied_covers(&copied, second));
    CHECK(copied_begin_request(&copied, JOURNAL));
    CHECK(copied_end_request(&copied, copied.asked, LEASE));
    CHECK(copied_covers(&copied, second));
    CHECK(!copied_must_wait(&copied, NOW));
}

TEST(a_read_waits_for_what_is_under_way_and_for_a_lease)
{
    struct copied copied = settled();
    CHECK(copied_must_wait(&copied, LATER));
    uint64_t ticket = copied_take_ticket(&copied);
    CHECK(copied_begin_request(&copied, JOURNAL)); /* Though nothing was written. */
    CHECK(copied_must_wait(&copied, NOW));
    CHECK(copied_end_request(&copied, copied.asked, 0)); /* True of then, no lease. */
    CHECK(copied_covers(&copied, ticket));
    CHECK(copied_must_wait(&copied, NOW));
}

TEST(an_answer_that_was_not_asked_for_counts_for_nothing)
{
    struct copied copied = settled();
    CHECK(!copied_end_request(&copied, copied.asked, LATER));
    copied_note_written(&copied);
    CHECK(copied_begin_request(&copied, JOURNAL));
    CHECK(!copied_end_request(&copied, copied.asked - 1, LATER));
    CHECK(!copied_end_request(&copied, copied.asked + 1, LATER));
}

TEST(a_journal_that_was_written_anew_is_asked_about_at_once)
{
    struct copied copied = settled();
    copied_note_written(&copied);
    uint64_t ticket = copied_take_ticket(&copied);
    CHECK(copied_begin_request(&copied, JOURNAL));
    uint64_t old = copied.asked;
    copied_note_written(&copied);
    CHECK(copied_begin_request(&copied, ANOTHER));
    CHECK(!copied_end_request(&copied, old, LEASE));
    CHECK(copied_end_request(&copied, copied.asked, LEASE));
    CHECK(copied_covers(&copied, ticket));
}

TEST(a_worker_that_comes_back_is_asked_again)
{
    struct copied copied = settled();
    copied_note_written(&copied);
    uint64_t ticket = copied_take_ticket(&copied);
    CHECK(copied_begin_request(&copied, JOURNAL));
    copied_set(&copied, true);
    CHECK(!copied_covers(&copied, ticket));
    CHECK(copied_begin_request(&copied, JOURNAL));
    CHECK(copied_end_request(&copied, copied.asked, LEASE));
    CHECK(copied_covers(&copied, ticket));
}

TEST_MAIN(RUN(without_copies_nothing_waits),
          RUN(as_long_as_nobody_knows_everything_waits),
          RUN(what_was_written_waits_for_the_answer_about_it),
          RUN(a_read_waits_for_what_is_under_way_and_for_a_lease),
          RUN(an_answer_that_was_not_asked_for_counts_for_nothing),
          RUN(a_journal_that_was_written_anew_is_asked_about_at_once),
          RUN(a_worker_that_comes_back_is_asked_again))
