#include "os/mailbox.h"

#include "test.h"

#include <poll.h>
#include <unistd.h>

/* Not atomic on purpose: under ThreadSanitizer the test shows that a job is handed over
 * and not shared. */
struct job {
    struct mailbox_job base;
    uint64_t value;
    int gate; /* Read from before working; -1: none. */
};

static void
add_one(struct mailbox_job *base)
{
    struct job *job = (struct job *)base;
    char byte;
    if (job->gate >= 0 && read(job->gate, &byte, 1) < 0)
        return;
    job->value++;
}

static struct mailbox *
make_box(void)
{
    struct mailbox *box = NULL;
    struct ds_error err = {0};
    CHECK_OK(mailbox_create(&box, &err));
    return box;
}

static int
is_readable(const struct mailbox *box, int timeout_ms)
{
    struct pollfd watched = {.fd = mailbox_fd(box), .events = POLLIN};
    return poll(&watched, 1, timeout_ms);
}

static struct job *
collect_next(struct mailbox *box)
{
    CHECK_INT(is_readable(box, 5000), 1);
    struct mailbox_job *job = mailbox_collect(box);
    CHECK(job != NULL);
    return (struct job *)job;
}

TEST(finished_jobs_come_back_in_order)
{
    enum { JOBS = 1000 };
    static struct job jobs[JOBS];
    struct mailbox *box = make_box();
    for (int i = 0; i < JOBS; i++) {
        jobs[i] = (struct job){.base.run = add_one, .value = (uint64_t)i, .gate = -1};
        mailbox_submit(box, &jobs[i].base);
    }
    for (int i = 0; i < JOBS; i++) {
        struct job *job = collect_next(box);
        CHECK(job == &jobs[i]);
        CHECK_INT(job->value, i + 1);
    }
    mailbox_destroy(box);
}

/* The same job goes back and forth, written by both threads in turn. */
TEST(job_may_be_submitted_again_after_collecting)
{
    struct job job = {.base.run = add_one, .gate = -1};
    struct mailbox *box = make_box();
    for (int i = 0; i < 200; i++) {
        mailbox_submit(box, &job.base);
        CHECK(collect_next(box) == &job);
        job.value++;
    }
    CHECK_INT(job.value, 400);
    mailbox_destroy(box);
}

/* Quiet before, loud until the last one is collected, quiet after. */
TEST(descriptor_is_readable_exactly_while_finished_jobs_wait)
{
    int gate[2];
    CHECK(pipe(gate) == 0);
    struct job first = {.base.run = add_one, .gate = gate[0]};
    struct job second = {.base.run = add_one, .gate = gate[0]};
    struct mailbox *box = make_box();
    CHECK(mailbox_collect(box) == NULL);
    mailbox_submit(box, &first.base);
    mailbox_submit(box, &second.base);
    CHECK_INT(is_readable(box, 20), 0);
    CHECK_INT(write(gate[1], "ab", 1), 1);
    CHECK(collect_next(box) == &first);
    CHECK_INT(is_readable(box, 20), 0);
    CHECK(mailbox_collect(box) == NULL);
    CHECK_INT(write(gate[1], "ab", 1), 1);
    CHECK(collect_next(box) == &second);
    CHECK_INT(is_readable(box, 0), 0);
    mailbox_destroy(box);
    close(gate[0]);
    close(gate[1]);
}

/* The job in progress is waited for, those behind it are never begun. */
TEST(destroy_waits_for_the_job_in_progress_and_drops_the_rest)
{
    int gate[2];
    CHECK(pipe(gate) == 0);
    struct job started = {.base.run = add_one, .gate = -1};
    struct job last = {.base.run = add_one, .gate = gate[0]};
    struct job never = {.base.run = add_one, .gate = gate[0]};
    struct mailbox *box = make_box();
    mailbox_submit(box, &started.base);
    CHECK(collect_next(box) == &started);
    mailbox_submit(box, &last.base);
    mailbox_submit(box, &never.base);
    CHECK_INT(write(gate[1], "x", 1), 1);
    mailbox_destroy(box);
    CHECK(last.value <= 1); /* Whether it had begun is a race; that it ended is not. */
    CHECK_INT(never.value, 0);
    mailbox_destroy(NULL);
    close(gate[0]);
    close(gate[1]);
}

TEST_MAIN(RUN(finished_jobs_come_back_in_order),
          RUN(job_may_be_submitted_again_after_collecting),
          RUN(descriptor_is_readable_exactly_while_finished_jobs_wait),
          RUN(destroy_waits_for_the_job_in_progress_and_drops_the_rest))
