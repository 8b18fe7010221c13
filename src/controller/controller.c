#include "controller/controller.h"

#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "controller/blocks.h"
#include "controller/session.h"
#include "net/run.h"
#include "net/watch.h"
#include "os/supervisor.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_CANNOT_START = 1 };

/* ---- Requests ---- */

static bool
brings_blocks(const struct controller *controller, const struct queue_request *request)
{
    return controller->worker != NULL && request->has_blocks;
}

/* Room for everything that must not fail once the request was applied. */
static enum ds_status
reserve(struct controller *controller, const struct call *call, struct ds_error *err)
{
    if (!replies_reserve(controller->replies, call->id) ||
        (brings_blocks(controller, call->request) &&
         !worker_link_reserve(controller->worker, call->request->blocks.count)))
        return ds_fail(err, DS_NO_MEMORY, "the controller is out of memory");
    if (controller->journal == NULL ||
        !queue_operation_changes(call->request->operation))
        return DS_OK;
    return journal_reserve(controller->journal, call->bytes.len, err);
}

static void
settle(struct controller *controller, const struct call *call, struct ds_slice reply)
{
    const struct queue_request *request = call->request;
    bool changes = queue_operation_changes(request->operation);
    replies_keep(controller->replies, call->id, changes ? reply : slice(NULL, 0));
    if (changes && controller->journal != NULL)
        controller_write_down(controller, RECORD_REQUEST, call->id, call->bytes);
    const struct blocks_request *blocks = &request->blocks;
    for (uint32_t i = 0; brings_blocks(controller, request) && i < blocks->count; i++) {
        if (queue_knows_block(controller->queue, &blocks->ids[i]))
            worker_link_adopt(controller->worker, blocks->ids[i]);
    }
    blocks_delete_dead(controller);
}

static enum ds_status
apply(struct controller *controller, const struct call *call, struct writer *reply,
      struct ds_error *err)
{
    enum ds_status status = reserve(controller, call, err);
    if (status != DS_OK)
        return status;
    status = queue_apply(controller->queue, call->request, reply, err);
    if (status == DS_OK)
        settle(controller, call, slice(reply->data, reply->len));
    else
        replies_keep(controller->replies, call->id, slice(NULL, 0));
    return status;
}

enum ds_status
controller_call(struct controller *controller, const struct call *call,
                struct writer *reply, struct ds_error *err)
{
    struct ds_slice kept;
    switch (replies_find(controller->replies, call->id, &kept)) {
    case REPLY_KEPT:
        write_bytes(reply, kept);
        if (reply->failed)
            return ds_fail(err, DS_NO_MEMORY, "the controller is out of memory");
        return DS_OK;
    case REPLY_TOO_LATE:
        return ds_fail(err, DS_INVALID,
                       "%s: this request came after a later one of the same client and "
                       "was not applied",
                       queue_operation_name(call->request->operation));
    case REPLY_UNKNOWN:
        break;
    }
    return apply(controller, call, reply, err);
}

enum ds_status
controller_ask(struct controller *controller, const struct queue_request *request,
               struct writer *reply, struct ds_error *err)
{
    DS_ASSERT(!queue_operation_changes(request->operation));
    return queue_apply(controller->queue, request, reply, err);
}

/* ---- Ending ---- */

static void
set_deadline(struct controller *controller, uv_timer_cb on_deadline, uint64_t ms)
{
    int result = uv_timer_start(&controller->deadline, on_deadline, ms, 0);
    DS_ASSERT(result == 0);
}

/* The last step: once every handle but the signals' is closed, the loop ends. */
static void
end(struct controller *controller)
{
    if (controller->ended)
        return;
    controller->ended = true;
    controller_flush(controller);
    sessions_close(controller);
    worker_link_close(controller->worker);
    uv_close((uv_handle_t *)&controller->deadline, NULL);
    uv_close((uv_handle_t *)&controller->patience, NULL);
    uv_close((uv_handle_t *)&controller->turn, NULL);
}

static void
on_goodbye_deadline(uv_timer_t *timer)
{
    end(timer->data);
}

/* Blocks are deleted, or their time is up: answer who asked for the end. */
static void
say_goodbye(struct controller *controller)
{
    if (controller->ended || controller->has_said_goodbye)
        return;
    controller->has_said_goodbye = true;
    set_deadline(controller, on_goodbye_deadline, CONTROLLER_GOODBYE_MS);
    controller_flush(controller);
    controller->goodbyes++; /* So that sending at once does not end it half-way. */
    sessions_say_goodbye(controller);
    controller_goodbye_done(controller);
}

void
controller_goodbye_done(struct controller *controller)
{
    DS_ASSERT(controller->goodbyes > 0);
    controller->goodbyes--;
    if (controller->goodbyes == 0)
        end(controller);
}

static void
on_queue_ended(void *arg)
{
    say_goodbye(arg);
}

/* Nobody shall go on with the queue elsewhere. The worker may be away: then the deadline
 * ends the wait. */
static void
on_flushed(void *arg)
{
    struct controller *controller = arg;
    if (controller->copied.state == COPIED_OFF)
        say_goodbye(controller);
    else
        worker_link_end_queue(controller->worker, on_queue_ended, controller);
}

static void
on_flush_deadline(uv_timer_t *timer)
{
    struct controller *controller = timer->data;
    log_warn("controller stopping: the worker did not acknowledge all deletions");
    if (controller->copied.state != COPIED_OFF)
        worker_link_end_queue(controller->worker, NULL, NULL);
    say_goodbye(controller);
}

/* A worker that is there gets its time; one that is away is not worth the wait. */
static void
on_first_flush_deadline(uv_timer_t *timer)
{
    struct controller *controller = timer->data;
    if (worker_link_is_up(controller->worker))
        set_deadline(controller, on_flush_deadline,
                     CONTROLLER_STOP_MS - CONTROLLER_STOP_WITHOUT_WORKER_MS);
    else
        on_flush_deadline(timer);
}

/* Forgets everything. If a full disk keeps that out of the journal, a process that is
 * killed while it ends comes back with the queue as it was, and ends once more. */
static void
purge(struct controller *controller)
{
    struct queue_request request = {.operation = QUEUE_PURGE};
    static const char bytes[] = "\x91\xa5purge"; /* MessagePack: ["purge"]. */
    struct call call = {.request = &request, .bytes = slice(bytes, sizeof bytes - 1)};
    struct ds_error err = {0};
    AUTO_WRITER(reply);
    enum ds_status status = controller_call(controller, &call, &reply, &err);
    if (status == DS_FULL)
        status = queue_apply(controller->queue, &request, &reply, &err);
    if (status != DS_OK)
        log_error("controller purge reason=\"%s\"", err.message);
    blocks_delete_dead(controller);
}

static void
stop_listening(struct controller *controller)
{
    listener_close(controller->listener);
    listener_close(controller->tcp_listener);
    controller->listener = controller->tcp_listener = NULL;
}

void
controller_stop(struct controller *controller, const char *why)
{
    if (controller->stopping)
        return;
    controller->stopping = true;
    log_info("controller stopping reason=\"%s\"", why);
    stop_listening(controller);
    purge(controller);
    if (controller->worker == NULL) {
        say_goodbye(controller);
        return;
    }
    set_deadline(controller, on_first_flush_deadline,
                 CONTROLLER_STOP_WITHOUT_WORKER_MS);
    worker_link_flush(controller->worker, on_flushed, controller);
}

void
controller_leave(struct controller *controller, const char *why)
{
    if (controller->ended)
        return;
    controller->stopping = true;
    log_warn("controller leaves its queue to another reason=\"%s\"", why);
    stop_listening(controller);
    end(controller);
}

static void
on_signal(uv_signal_t *handle, int number)
{
    controller_stop(handle->data, strsignal(number));
}

static void
on_owner_end(uv_poll_t *watch, int status, int events)
{
    (void)status;
    (void)events;
    struct controller *controller = watch->data;
    (void)uv_poll_stop(watch);
    if (controller->options->term > QUEUE_TERM_FIRST)
        controller_leave(controller, "its worker has ended");
    else
        controller_stop(controller, "its owner has ended");
}

/* ---- Starting ---- */

static void
on_accept(int fd, void *arg)
{
    session_open(arg, fd, false);
}

static void
on_accept_tcp(int fd, void *arg)
{
    session_open(arg, fd, true);
}

/* Signals alone do not keep the loop going. */
static void
watch_signal(struct controller *controller, uv_signal_t *handle, int number)
{
    int result = uv_signal_init(&controller->loop, handle);
    DS_ASSERT(result == 0);
    handle->data = controller;
    result = uv_signal_start(handle, on_signal, number);
    DS_ASSERT(result == 0);
    uv_unref((uv_handle_t *)handle);
}

static void
start_handles(struct controller *controller)
{
    int result = uv_timer_init(&controller->loop, &controller->deadline);
    DS_ASSERT(result == 0);
    controller->deadline.data = controller;
    result = uv_timer_init(&controller->loop, &controller->patience);
    DS_ASSERT(result == 0);
    controller->patience.data = controller;
    result = uv_prepare_init(&controller->loop, &controller->turn);
    DS_ASSERT(result == 0);
    controller->turn.data = controller;
    watch_signal(controller, &controller->terminate, SIGTERM);
    watch_signal(controller, &controller->interrupt, SIGINT);
}

/* As a signal, it does not keep the loop going. */
static enum ds_status
watch_owner(struct controller *controller, struct ds_error *err)
{
    int fd = controller->options->owner_fd;
    if (fd < 0)
        return DS_OK;
    int result = uv_poll_init(&controller->loop, &controller->owner_end, fd);
    if (result == 0) {
        controller->watches_owner = true;
        controller->owner_end.data = controller;
        uv_unref((uv_handle_t *)&controller->owner_end);
        result = watch_start(&controller->owner_end, UV_READABLE, on_owner_end);
    }
    if (result < 0)
        return ds_fail(err, DS_IO, "cannot watch its owner: %s", uv_strerror(result));
    return DS_OK;
}

/* What an earlier session left is over; only its blocks must still be deleted. */
static enum ds_status
end_foreign_session(struct controller *controller, struct ds_error *err)
{
    log_warn("controller journal of another session: deleting its blocks file=%s",
             controller->options->journal.path);
    purge(controller);
    controller_flush(controller);
    return journal_take_over(controller->journal, err);
}

/* Fills the queue with what the journal says. */
static enum ds_status
open_journal(struct controller *controller, struct ds_error *err)
{
    const struct journal_options *options = &controller->options->journal;
    if (options->path == NULL)
        return DS_OK;
    bool is_foreign = false;
    enum ds_status status =
        journal_open(options, controller->queue, controller->replies,
                     &controller->journal, &is_foreign, err);
    if (status == DS_OK && is_foreign)
        status = end_foreign_session(controller, err);
    return status;
}

/* A relative path is of use in this folder only: nobody is sent there. */
static void
name_place(struct controller *controller)
{
    const struct controller_options *options = controller->options;
    snprintf(controller->address, sizeof controller->address, "unix:%s",
             options->socket_path);
    struct queue_place *place = &controller->serve.place;
    place->address = slice_of_text(controller->address);
    place->term = options->term;
    if (options->socket_path[0] == '/')
        place->name = slice_of_text(options->journal.session);
    if (options->tcp_fd < 0)
        return;
    const char *format = strchr(options->host, ':') != NULL ? "[%s]:%u" : "%s:%u";
    snprintf(controller->tcp_address, sizeof controller->tcp_address, format,
             options->host, options->port);
    place->tcp_address = slice_of_text(controller->tcp_address);
}

/* Only a queue that others can find, and reach, can be gone on with elsewhere. */
static void
want_copies(struct controller *controller)
{
    const struct controller_options *options = controller->options;
    const struct queue_place *place = &controller->serve.place;
    const char *journal = options->journal.path;
    if (options->worker_socket_path == NULL || place->name.len == 0 ||
        place->tcp_address.len == 0 || journal == NULL || journal[0] != '/' ||
        options->copies_max == 0)
        return;
    controller->serve.copies_max = options->copies_max;
    controller->serve.journal_path = slice_of_text(journal);
    /* A process before this one may have. */
    controller->serve.has_answered =
        place->term == QUEUE_TERM_FIRST || controller->restarts > 0;
    controller->copied.state = COPIED_UNKNOWN;
}

static enum ds_status
listen_to_clients(struct controller *controller, struct ds_error *err)
{
    const struct controller_options *options = controller->options;
    enum ds_status status =
        listener_create(&controller->loop, options->listen_fd, on_accept, controller,
                        &controller->listener, err);
    if (status == DS_OK && options->tcp_fd >= 0)
        status = listener_create(&controller->loop, options->tcp_fd, on_accept_tcp,
                                 controller, &controller->tcp_listener, err);
    return status;
}

static enum ds_status
start(struct controller *controller, struct ds_error *err)
{
    struct queue_options options = {
        .limits = queue_limits_default(),
        .reports_dead = controller->options->worker_socket_path == NULL,
    };
    enum ds_status status = watch_owner(controller, err);
    if (status == DS_OK)
        status = queue_create(&options, &controller->queue, err);
    if (status == DS_OK)
        status = replies_create(&controller->replies, err);
    if (status == DS_OK)
        status = open_journal(controller, err);
    if (status == DS_OK)
        status = blocks_open_link(controller, err);
    if (status == DS_OK)
        status = listen_to_clients(controller, err);
    if (status == DS_OK)
        blocks_redrive(controller);
    return status;
}

/* Whoever started us reads this, and then the end of the stream. */
static void
announce(const struct controller *controller)
{
    const struct controller_options *options = controller->options;
    log_info("controller ready socket=%s address=%s worker=%s owner=\"%s\" restarts=%d",
             options->socket_path,
             options->tcp_fd >= 0 ? controller->tcp_address : "none",
             options->worker_socket_path != NULL ? options->worker_socket_path : "none",
             options->owner, controller->restarts);
    supervisor_child_is_up();
    fputs("ready\n", stdout);
    fflush(stdout);
    if (freopen("/dev/null", "w", stdout) == NULL)
        log_warn("controller cannot redirect its standard output");
}

/* From here on a signal changes nothing: we are ending, and must not be cut short while
 * the socket's files are still there. */
static void
stop_watching(struct controller *controller)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    uv_close((uv_handle_t *)&controller->terminate, NULL);
    uv_close((uv_handle_t *)&controller->interrupt, NULL);
    if (controller->watches_owner)
        uv_close((uv_handle_t *)&controller->owner_end, NULL);
    int left = uv_run(&controller->loop, UV_RUN_DEFAULT);
    DS_ASSERT(left == 0);
}

static void
fini(struct controller *controller)
{
    stop_watching(controller);
    if (controller->stopping && controller->journal != NULL)
        journal_remove(controller->journal);
    journal_close(controller->journal);
    replies_destroy(controller->replies);
    queue_destroy(controller->queue);
    int busy = uv_loop_close(&controller->loop);
    DS_ASSERT(busy == 0);
}

int
controller_run(const struct controller_options *options, int restarts)
{
    struct controller controller = {.options = options, .restarts = restarts};
    struct ds_error err = {0};
    list_init(&controller.sessions);
    list_init(&controller.strangers);
    list_init(&controller.held);
    int result = uv_loop_init(&controller.loop);
    if (result < 0) {
        fprintf(stderr, "transfer_queue_controller: cannot make an event loop: %s\n",
                uv_strerror(result));
        return restarts > 0 ? SUPERVISOR_CRASH_EXIT : EXIT_CANNOT_START;
    }
    name_place(&controller);
    want_copies(&controller);
    start_handles(&controller);
    enum ds_status status = start(&controller, &err);
    if (status == DS_OK) {
        /* What libuv aborts for is to happen before we say that we are ready. */
        (void)uv_run(&controller.loop, UV_RUN_NOWAIT);
        announce(&controller);
    } else {
        log_error("controller cannot start reason=\"%s\"", err.message);
        fprintf(stderr, "transfer_queue_controller: %s\n", err.message);
        stop_listening(&controller);
        end(&controller);
    }
    run_loop(&controller.loop);
    log_info("controller ended");
    fini(&controller);
    if (status == DS_NO_MEMORY || (status != DS_OK && restarts > 0))
        return SUPERVISOR_CRASH_EXIT; /* Perhaps it can a little later. */
    return status == DS_OK ? EXIT_SUCCESS : EXIT_CANNOT_START;
}
