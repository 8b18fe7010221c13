#include "worker/checksums.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/status.h"
#include "os/checksum.h"
#include "os/clock.h"
#include "os/mailbox.h"
#include "worker/pace.h"
#include "worker/populate.h"
#include "worker/worker.h"

#include <stdlib.h>

enum {
    STEP_BYTES = 4 << 20,  /* At once, in the helper: less than a millisecond. */
    SLOTS_PER_TICK = 8192, /* Looked at for something to do. */
};

/* In the helper thread from submit to collect. */
struct checksum_job {
    struct mailbox_job job;
    const uint8_t *data;
    uint64_t bytes;
    uint64_t busy_ns;
    struct checksum_run run;
};

/* Owner: loop thread, but for `job` while `busy`. */
struct checksums {
    struct worker *worker;
    struct mailbox *box;
    uv_poll_t done;
    uv_timer_t rest;
    int open_handles;          /* Freed when both are closed. */
    struct object_view object; /* Held while `at_work`. */
    uint64_t done_bytes;       /* Of it. */
    uint32_t cursor;           /* Slot to look at next. */
    bool at_work;
    bool busy;
    bool resting;
    struct checksum_job job;
};

static void
run_job(struct mailbox_job *base)
{
    struct checksum_job *job = CONTAINER_OF(base, struct checksum_job, job);
    uint64_t begin = clock_thread_ns();
    checksum_add(&job->run, job->data, job->bytes);
    job->busy_ns = clock_thread_ns() - begin;
}

static void
submit(struct checksums *checksums)
{
    DS_ASSERT(checksums->at_work);
    DS_ASSERT(!checksums->busy);
    const struct object_view *object = &checksums->object;
    struct checksum_job *job = &checksums->job;
    job->job = (struct mailbox_job){.run = run_job};
    job->data = checksums->worker->arena + object->offset + checksums->done_bytes;
    job->bytes = min_u64(STEP_BYTES, object->size - checksums->done_bytes);
    checksums->busy = true;
    mailbox_submit(checksums->box, &job->job);
}

static void
begin(struct checksums *checksums)
{
    checksums->at_work = true;
    checksums->done_bytes = 0;
    store_hold(checksums->worker->store, &checksums->object);
    checksum_begin(&checksums->job.run);
    submit(checksums);
}

static void
let_go(struct checksums *checksums)
{
    checksums->at_work = false;
    store_unhold(checksums->worker->store, checksums->object.offset);
}

/* It may have been deleted, or got its checksum by a FETCH: then this one is dropped. */
static void
finish(struct checksums *checksums)
{
    uint64_t checksum = checksum_end(&checksums->job.run);
    let_go(checksums);
    (void)store_set_checksum(checksums->worker->store, checksums->object.ref, checksum);
}

static void
look_for_work(struct checksums *checksums)
{
    struct worker *worker = checksums->worker;
    if (!checksums->at_work && !worker->stopping &&
        populate_is_done(worker->populate) &&
        store_next_without_checksum(worker->store, &checksums->cursor, SLOTS_PER_TICK,
                                    &checksums->object))
        begin(checksums);
}

static void
on_rest_over(uv_timer_t *timer)
{
    struct checksums *checksums = timer->data;
    checksums->resting = false;
    if (checksums->at_work)
        submit(checksums);
    else
        look_for_work(checksums);
}

static void
on_done(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct checksums *checksums = poll->data;
    if (mailbox_collect(checksums->box) == NULL)
        return;
    checksums->busy = false;
    checksums->done_bytes += checksums->job.bytes;
    if (checksums->done_bytes == checksums->object.size)
        finish(checksums);
    checksums->resting = true;
    uv_timer_start(&checksums->rest, on_rest_over, pace_rest_ms(checksums->job.busy_ns),
                   0);
}

void
checksums_tick(struct checksums *checksums)
{
    if (!checksums->resting)
        look_for_work(checksums);
}

static enum ds_status
watch_helper(struct checksums *checksums, struct ds_error *err)
{
    uv_loop_t *loop = &checksums->worker->loop;
    int result = uv_poll_init(loop, &checksums->done, mailbox_fd(checksums->box));
    if (result < 0)
        return ds_fail(err, DS_IO, "cannot watch the helper thread: %s",
                       uv_strerror(result));
    result = uv_timer_init(loop, &checksums->rest);
    DS_ASSERT(result == 0);
    checksums->rest.data = checksums;
    checksums->done.data = checksums;
    checksums->open_handles = 2;
    result = uv_poll_start(&checksums->done, UV_READABLE, on_done);
    DS_ASSERT(result == 0);
    return DS_OK;
}

enum ds_status
checksums_start(struct worker *worker, struct checksums **out, struct ds_error *err)
{
    struct checksums *checksums = NULL;
    if (posix_memalign((void **)&checksums, alignof(struct checksums),
                       sizeof *checksums) != 0)
        return ds_fail(err, DS_NO_MEMORY, "worker is out of memory");
    *checksums = (struct checksums){.worker = worker};
    enum ds_status status = mailbox_create(&checksums->box, err);
    if (status == DS_OK)
        status = watch_helper(checksums, err);
    if (status != DS_OK) {
        mailbox_destroy(checksums->box);
        free(checksums);
        return status;
    }
    *out = checksums;
    return DS_OK;
}

static void
on_handle_closed(uv_handle_t *handle)
{
    struct checksums *checksums = handle->data;
    if (--checksums->open_handles > 0)
        return;
    mailbox_destroy(checksums->box);
    if (checksums->at_work)
        let_go(checksums);
    free(checksums);
}

void
checksums_stop(struct checksums *checksums)
{
    if (checksums == NULL)
        return;
    uv_poll_stop(&checksums->done);
    uv_close((uv_handle_t *)&checksums->done, on_handle_closed);
    uv_close((uv_handle_t *)&checksums->rest, on_handle_closed);
}
