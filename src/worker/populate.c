#include "worker/populate.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/status.h"
#include "os/clock.h"
#include "os/mailbox.h"
#include "os/memfile.h"
#include "worker/creates.h"
#include "worker/pace.h"

#include <stdlib.h>

enum {
    FIRST_BYTES = 64 << 20, /* Backed before the worker reports ready. */
    STEP_BYTES = 16 << 20,
    COLLAPSE_TRIES_MAX = 100, /* Of one step, while a page of it is in other use. */
    COLLAPSE_RETRY_MS = 100,
};

/* In the helper thread from submit to collect. */
struct populate_job {
    struct mailbox_job job;
    int fd;
    uint8_t *place;   /* This part of the arena. */
    bool is_collapse; /* Onto huge pages, or else to be populated. */
    uint64_t offset;
    uint64_t bytes;
    enum ds_status status;
    struct ds_error err;
    uint64_t busy_ns;
};

/* Owner: loop thread, but for `job` while `busy`. */
struct populate {
    struct worker *worker;
    struct mailbox *box;
    uv_poll_t done;
    uv_timer_t rest;
    int open_handles; /* Freed when both are closed. */
    struct populate_job job;
    bool busy;
    bool hurry;
    bool failed;
    uint64_t populated;
    uint64_t total;
    bool wants_huge_pages;
    uint64_t collapsed; /* Up to here all is on huge pages. */
    int collapse_tries; /* Of the step after that, all in vain. */
};

static void
run_job(struct mailbox_job *base)
{
    struct populate_job *job = CONTAINER_OF(base, struct populate_job, job);
    uint64_t begin = clock_thread_ns();
    if (job->is_collapse) {
        job->status = memfile_collapse(job->place, job->bytes, &job->err);
    } else {
        job->status = memfile_populate(job->fd, job->offset, job->bytes, &job->err);
        if (job->status == DS_OK) /* So that the loop does not have to. */
            memfile_prefault(job->place, job->bytes);
    }
    job->busy_ns = clock_thread_ns() - begin;
}

static void
prepare_job(struct populate *populate, uint64_t bytes)
{
    populate->job = (struct populate_job){
        .job.run = run_job,
        .fd = populate->worker->resources->arena_fd,
        .place = populate->worker->arena + populate->populated,
        .offset = populate->populated,
        .bytes = min_u64(bytes, populate->total - populate->populated),
    };
}

static void
prepare_collapse(struct populate *populate)
{
    populate->job = (struct populate_job){
        .job.run = run_job,
        .place = populate->worker->arena + populate->collapsed,
        .is_collapse = true,
        .offset = populate->collapsed,
        .bytes = min_u64(STEP_BYTES, populate->populated - populate->collapsed),
    };
}

/* A failure costs speed only. */
static void
finish_collapse(struct populate *populate)
{
    const struct populate_job *job = &populate->job;
    if (job->status == DS_TIMEOUT && ++populate->collapse_tries < COLLAPSE_TRIES_MAX)
        return;
    populate->collapse_tries = 0;
    populate->collapsed = job->offset + job->bytes;
    if (job->status != DS_OK) {
        populate->wants_huge_pages = false;
        log_warn("worker thp stopped at=%ju reason=\"%s\"", (uintmax_t)job->offset,
                 job->err.message);
    } else if (populate->collapsed == populate->populated) {
        log_info("worker thp done bytes=%ju", (uintmax_t)populate->collapsed);
    }
}

static void
finish_job(struct populate *populate)
{
    const struct populate_job *job = &populate->job;
    if (job->is_collapse) {
        finish_collapse(populate);
        return;
    }
    if (job->status != DS_OK) {
        log_error("worker populate stopped at=%ju reason=\"%s\"",
                  (uintmax_t)job->offset, job->err.message);
        populate->failed = true;
        return;
    }
    if (job->offset + job->bytes <= populate->populated)
        return; /* populate_step_now() was there first. */
    populate->populated = job->offset + job->bytes;
    store_set_populated(populate->worker->store, populate->populated);
}

static bool
has_work(const struct populate *populate)
{
    return !populate_is_done(populate) ||
           (populate->wants_huge_pages && populate->collapsed < populate->populated);
}

static void
submit(struct populate *populate)
{
    if (populate->busy || !has_work(populate))
        return;
    populate->busy = true;
    if (populate_is_done(populate))
        prepare_collapse(populate);
    else
        prepare_job(populate, STEP_BYTES);
    mailbox_submit(populate->box, &populate->job.job);
}

static void
on_rest_over(uv_timer_t *timer)
{
    submit(timer->data);
}

static void
on_done(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct populate *populate = poll->data;
    while (mailbox_collect(populate->box) != NULL) {
        populate->busy = false;
        finish_job(populate);
    }
    creates_retry(populate->worker);
    populate->hurry = !populate_is_done(populate) &&
                      !list_is_empty(&populate->worker->parked_creates);
    uint64_t rest = populate->hurry ? 0 : pace_rest_ms(populate->job.busy_ns);
    if (populate->collapse_tries > 0)
        rest = max_u64(rest, COLLAPSE_RETRY_MS);
    uv_timer_start(&populate->rest, on_rest_over, rest, 0);
}

void
populate_hurry(struct populate *populate)
{
    if (populate_is_done(populate))
        return;
    populate->hurry = true;
    submit(populate);
}

bool
populate_is_done(const struct populate *populate)
{
    return populate->failed || populate->populated == populate->total;
}

bool
populate_step_now(struct populate *populate)
{
    if (populate_is_done(populate))
        return false;
    uint64_t offset = populate->populated;
    uint64_t bytes = min_u64(STEP_BYTES, populate->total - offset);
    struct ds_error err = {0};
    if (memfile_populate(populate->worker->resources->arena_fd, offset, bytes, &err) !=
        DS_OK) {
        log_error("worker populate stopped at=%ju reason=\"%s\"", (uintmax_t)offset,
                  err.message);
        populate->failed = true;
        return false;
    }
    populate->populated = offset + bytes;
    store_set_populated(populate->worker->store, populate->populated);
    return true;
}

static enum ds_status
populate_first(struct populate *populate, struct ds_error *err)
{
    uint64_t wanted = min_u64(FIRST_BYTES, populate->total);
    if (populate->worker->flags->shared_memory_populate)
        wanted = populate->total;
    if (populate->populated < wanted) {
        prepare_job(populate, wanted - populate->populated);
        run_job(&populate->job.job);
        if (populate->job.status != DS_OK) {
            *err = populate->job.err;
            return populate->job.status;
        }
        populate->populated = wanted;
    }
    store_set_populated(populate->worker->store, populate->populated);
    return DS_OK;
}

static enum ds_status
watch_helper(struct populate *populate, struct ds_error *err)
{
    uv_loop_t *loop = &populate->worker->loop;
    int result = uv_poll_init(loop, &populate->done, mailbox_fd(populate->box));
    if (result < 0)
        return ds_fail(err, DS_IO, "cannot watch the helper thread: %s",
                       uv_strerror(result));
    result = uv_timer_init(loop, &populate->rest);
    DS_ASSERT(result == 0);
    populate->rest.data = populate;
    populate->done.data = populate;
    populate->open_handles = 2;
    result = uv_poll_start(&populate->done, UV_READABLE, on_done);
    DS_ASSERT(result == 0);
    return DS_OK;
}

enum ds_status
populate_start(struct worker *worker, uint64_t already, struct populate **out,
               struct ds_error *err)
{
    struct populate *populate = calloc(1, sizeof *populate);
    if (populate == NULL)
        return ds_fail(err, DS_NO_MEMORY, "worker is out of memory");
    populate->worker = worker;
    populate->total = worker->resources->geometry.arena_bytes;
    populate->populated = already;
    populate->wants_huge_pages =
        worker->flags->enable_thp && !worker->flags->enable_huge_tlb;
    enum ds_status status = populate_first(populate, err);
    if (status == DS_OK)
        status = mailbox_create(&populate->box, err);
    if (status == DS_OK)
        status = watch_helper(populate, err);
    if (status != DS_OK) {
        mailbox_destroy(populate->box);
        free(populate);
        return status;
    }
    submit(populate);
    *out = populate;
    return DS_OK;
}

static void
on_handle_closed(uv_handle_t *handle)
{
    struct populate *populate = handle->data;
    if (--populate->open_handles > 0)
        return;
    mailbox_destroy(populate->box);
    free(populate);
}

void
populate_stop(struct populate *populate)
{
    if (populate == NULL)
        return;
    uv_poll_stop(&populate->done);
    uv_close((uv_handle_t *)&populate->done, on_handle_closed);
    uv_close((uv_handle_t *)&populate->rest, on_handle_closed);
}
