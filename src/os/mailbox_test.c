#include "os/mailbox.h"

#include "test.h"

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

/* Not atomic on purpose: under ThreadSanitizer the test shows that a job is handed over
 * and not shared. */
struct job {
    struct mailbox_job base;
    uint64_t value;
    int gate;  /* Read from before working; -1: none. */
    int begun; /* Written to at the beginning; 0: nobody wants to know. */
};

static void
add_one(struct mailbox_job *base)
{
    struct job *job = (struct job *)base;
    char byte;
    if (job->begun != 0 && write(job->begun, "x", 1) != 1)
        return;
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

struct opener {
    int begun; /* Read from before opening. */
    int gate;  /* Written to. */
};

static void *
open_gate_once_begun(void *arg)
{
    const struct opener *opener = arg;
    char byte;
    CHECK_INT(read(opener->begun, &byte, 1), 1);
    CHECK_INT(write(opener->gate, "x", 1), 1);
    return NULL;
}

/* The job in progress is waited for: it has begun and cannot end before destroy() may
 * be waiting. Whether one behind it still begins is a race; if so, it is not cut off,
 * its gate being open. */
TEST(destroy_waits_for_the_job_in_progress)
{
    int begun[2], gate[2], open_gate[2];
    CHECK(pipe(begun) == 0 && pipe(gate) == 0 && pipe(open_gate) == 0);
    CHECK_INT(write(open_gate[1], "x", 1), 1);
    struct job last = {.base.run = add_one, .gate = gate[0], .begun = begun[1]};
    struct job behind = {.base.run = add_one, .gate = open_gate[0]};
    struct opener opener = {.begun = begun[0], .gate = gate[1]};
    struct mailbox *box = make_box();
    mailbox_submit(box, &last.base);
    mailbox_submit(box, &behind.base);
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, open_gate_once_begun, &opener), 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    mailbox_destroy(box);
    CHECK_INT(last.value, 1);
    CHECK(behind.value <= 1);
    mailbox_destroy(NULL);
    int *pipes[] = {begun, gate, open_gate};
    for (size_t i = 0; i < 3; i++) {
        close(pipes[i][0]);
        close(pipes[i][1]);
    }
}

TEST_MAIN(RUN(finished_jobs_come_back_in_order),
          RUN(job_may_be_submitted_again_after_collecting),
          RUN(descriptor_is_readable_exactly_while_finished_jobs_wait),
          RUN(destroy_waits_for_the_job_in_progress))
