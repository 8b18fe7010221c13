#include "os/mailbox.h"

#include "base/check.h"
#include "base/status.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* First in, first out, linked through the jobs. */
struct job_queue {
    struct mailbox_job *first;
    struct mailbox_job *last; /* Meaningless while first is NULL. */
};

/* Shared: everything below `lock` is touched with it held. Invariant: fd is readable
 * exactly when `done` is not empty. */
struct mailbox {
    pthread_t helper;
    int fd;
    pthread_mutex_t lock;
    pthread_cond_t wake; /* Signalled by submit and destroy. */
    struct job_queue todo;
    struct job_queue done;
    bool stop;
};

static void
push(struct job_queue *queue, struct mailbox_job *job)
{
    job->next = NULL;
    if (queue->first == NULL)
        queue->first = job;
    else
        queue->last->next = job;
    queue->last = job;
}

static struct mailbox_job *
pop(struct job_queue *queue)
{
    struct mailbox_job *job = queue->first;
    if (job != NULL)
        queue->first = job->next;
    return job;
}

/* The next job, or NULL when the mailbox is being destroyed. */
static struct mailbox_job *
wait_for_job(struct mailbox *box)
{
    struct mailbox_job *job = NULL;
    pthread_mutex_lock(&box->lock);
    while (!box->stop && box->todo.first == NULL)
        pthread_cond_wait(&box->wake, &box->lock);
    if (!box->stop)
        job = pop(&box->todo);
    pthread_mutex_unlock(&box->lock);
    return job;
}

static void
give_back(struct mailbox *box, struct mailbox_job *job)
{
    pthread_mutex_lock(&box->lock);
    if (box->done.first == NULL) {
        int result = eventfd_write(box->fd, 1);
        DS_ASSERT(result == 0); /* The counter is 0 here: it cannot block. */
    }
    push(&box->done, job);
    pthread_mutex_unlock(&box->lock);
}

static void *
help(void *arg)
{
    struct mailbox *box = arg;
    struct mailbox_job *job;
    while ((job = wait_for_job(box)) != NULL) {
        job->run(job);
        give_back(box, job);
    }
    return NULL;
}

/* Signals are for the loop thread: the helper starts with all of them blocked. */
static int
start_helper(struct mailbox *box)
{
    sigset_t all, before;
    sigfillset(&all);
    int result = pthread_sigmask(SIG_SETMASK, &all, &before);
    DS_ASSERT(result == 0);
    int started = pthread_create(&box->helper, NULL, help, box);
    result = pthread_sigmask(SIG_SETMASK, &before, NULL);
    DS_ASSERT(result == 0);
    return started;
}

enum ds_status
mailbox_create(struct mailbox **out, struct ds_error *err)
{
    struct mailbox *box = calloc(1, sizeof *box);
    if (box == NULL)
        return ds_fail(err, DS_NO_MEMORY, "helper thread: out of memory");
    box->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (box->fd < 0) {
        free(box);
        return ds_fail_errno(err, "helper thread: eventfd");
    }
    pthread_mutex_init(&box->lock, NULL);
    pthread_cond_init(&box->wake, NULL);
    errno = start_helper(box);
    if (errno != 0) {
        enum ds_status status = ds_fail_errno(err, "helper thread: cannot start it");
        close(box->fd);
        free(box);
        return status;
    }
    *out = box;
    return DS_OK;
}

void
mailbox_destroy(struct mailbox *box)
{
    if (box == NULL)
        return;
    pthread_mutex_lock(&box->lock);
    box->stop = true;
    pthread_cond_signal(&box->wake);
    pthread_mutex_unlock(&box->lock);
    int result = pthread_join(box->helper, NULL);
    DS_ASSERT(result == 0);
    pthread_cond_destroy(&box->wake);
    pthread_mutex_destroy(&box->lock);
    close(box->fd);
    free(box);
}

void
mailbox_submit(struct mailbox *box, struct mailbox_job *job)
{
    DS_ASSERT(job->run != NULL);
    pthread_mutex_lock(&box->lock);
    DS_ASSERT(!box->stop);
    push(&box->todo, job);
    pthread_cond_signal(&box->wake);
    pthread_mutex_unlock(&box->lock);
}

int
mailbox_fd(const struct mailbox *box)
{
    return box->fd;
}

struct mailbox_job *
mailbox_collect(struct mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    struct mailbox_job *job = pop(&box->done);
    if (job != NULL && box->done.first == NULL) {
        eventfd_t count;
        int result = eventfd_read(box->fd, &count);
        DS_ASSERT(result == 0);
    }
    pthread_mutex_unlock(&box->lock);
    if (job != NULL)
        job->next = NULL;
    return job;
}
