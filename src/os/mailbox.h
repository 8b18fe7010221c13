/* A helper thread that works on one job at a time and hands it back to the loop.
 *
 * The only place where two threads of a daemon meet. The loop thread submits a job, the
 * helper runs job->run(job) and then puts it into the box; the loop polls
 * mailbox_fd() and collects finished jobs. A job belongs to the helper from submit to
 * collect: a hand-over, not sharing. */
#ifndef OS_MAILBOX_H
#define OS_MAILBOX_H

#include <datasystem/status.h>

#include <stdbool.h>

struct mailbox;

/* Embed it first in the real job. */
struct mailbox_job {
    void (*run)(struct mailbox_job *job); /* In the helper thread. */
    struct mailbox_job *next;             /* Private to the mailbox. */
};

DS_MUST_USE enum ds_status mailbox_create(struct mailbox **out, struct ds_error *err);

/* Waits for the job in progress; jobs not begun are dropped (their owner still has
 * them). Accepts NULL. */
void mailbox_destroy(struct mailbox *box);

void mailbox_submit(struct mailbox *box, struct mailbox_job *job);

/* Readable while finished jobs wait. */
int mailbox_fd(const struct mailbox *box);

/* Next finished job or NULL. */
struct mailbox_job *mailbox_collect(struct mailbox *box);

#endif
