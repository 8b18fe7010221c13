#include "controller/controller.h"

#include "base/check.h"
#include "base/log.h"
#include "base/status.h"
#include "controller/session.h"
#include "os/files.h"
#include "os/sockets.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BACKLOG = 512, EXIT_CANNOT_START = 1 };

/* ---- Requests ---- */

/* What cannot be told to the worker now stays in the queue for the next time. */
static void
delete_dead_blocks(struct controller *controller)
{
    struct ds_block_id id;
    while (controller->worker != NULL && queue_peek_dead(controller->queue, &id)) {
        if (!worker_link_delete(controller->worker, id)) {
            log_error("controller delete reason=\"out of memory, will try again\"");
            return;
        }
        queue_pop_dead(controller->queue);
    }
}

static bool
brings_blocks(const struct controller *controller, const struct queue_request *request)
{
    return controller->worker != NULL && request->operation == QUEUE_KV_PUT &&
           request->has_blocks;
}

enum ds_status
controller_apply(struct controller *controller, const struct queue_request *request,
                 struct writer *reply, struct ds_error *err)
{
    bool adopts = brings_blocks(controller, request);
    const struct blocks_request *blocks = &request->blocks;
    if (adopts && !worker_link_reserve(controller->worker, blocks->count))
        return ds_fail(err, DS_NO_MEMORY, "the controller is out of memory");
    enum ds_status status = queue_apply(controller->queue, request, reply, err);
    if (status != DS_OK)
        return status;
    for (uint32_t i = 0; adopts && i < blocks->count; i++) {
        if (queue_knows_block(controller->queue, &blocks->ids[i]))
            worker_link_adopt(controller->worker, blocks->ids[i]);
    }
    delete_dead_blocks(controller);
    return DS_OK;
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
    sessions_close(controller);
    worker_link_close(controller->worker);
    uv_close((uv_handle_t *)&controller->deadline, NULL);
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
    if (controller->ended)
        return;
    set_deadline(controller, on_goodbye_deadline, CONTROLLER_GOODBYE_MS);
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
on_flushed(void *arg)
{
    say_goodbye(arg);
}

static void
on_flush_deadline(uv_timer_t *timer)
{
    log_warn("controller stopping: the worker did not acknowledge all deletions");
    say_goodbye(timer->data);
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

static void
purge(struct controller *controller)
{
    struct queue_request request = {.operation = QUEUE_PURGE};
    struct ds_error err = {0};
    AUTO_WRITER(reply);
    if (controller_apply(controller, &request, &reply, &err) != DS_OK)
        log_error("controller purge reason=\"%s\"", err.message);
}

void
controller_stop(struct controller *controller, const char *why)
{
    if (controller->stopping)
        return;
    controller->stopping = true;
    log_info("controller stopping reason=\"%s\"", why);
    listener_close(controller->listener);
    purge(controller);
    if (controller->worker == NULL) {
        say_goodbye(controller);
        return;
    }
    set_deadline(controller, on_first_flush_deadline,
                 CONTROLLER_STOP_WITHOUT_WORKER_MS);
    worker_link_flush(controller->worker, on_flushed, controller);
}

static void
on_signal(uv_signal_t *handle, int number)
{
    controller_stop(handle->data, strsignal(number));
}

/* ---- Starting ---- */

static void
on_accept(int fd, void *arg)
{
    session_open(arg, fd);
}

/* "/run/q" of "/run/q/socket"; "." of "socket". */
static void
folder_of(const char *path, char *out, size_t out_bytes)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        snprintf(out, out_bytes, ".");
    else
        snprintf(out, out_bytes, "%.*s", (int)(slash == path ? 1 : slash - path), path);
}

static void
lock_path_of(const struct controller *controller, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "%s.lock", controller->options->socket_path);
}

/* One controller per socket: a second one must not take a living one's away. */
static enum ds_status
open_socket(struct controller *controller, struct ds_error *err)
{
    const char *path = controller->options->socket_path;
    char folder[4096];
    char lock[4096 + 8];
    if (strlen(path) >= sizeof folder)
        return ds_fail(err, DS_INVALID, "--socket: the path is too long");
    folder_of(path, folder, sizeof folder);
    lock_path_of(controller, lock, sizeof lock);
    enum ds_status status = files_make_private_folder(folder, err);
    if (status == DS_OK)
        status = files_lock(lock, &controller->lock_fd, err);
    if (status == DS_OK)
        status = socket_listen_unix(path, BACKLOG, &controller->listen_fd, err);
    if (status == DS_OK)
        status = listener_create(&controller->loop, controller->listen_fd, on_accept,
                                 controller, &controller->listener, err);
    return status;
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
    watch_signal(controller, &controller->terminate, SIGTERM);
    watch_signal(controller, &controller->interrupt, SIGINT);
    signal(SIGPIPE, SIG_IGN); /* Nobody may be left to read "ready". */
}

static enum ds_status
start(struct controller *controller, struct ds_error *err)
{
    const char *worker_path = controller->options->worker_socket_path;
    struct queue_options options = {
        .limits = queue_limits_default(),
        .reports_dead = worker_path == NULL,
    };
    enum ds_status status = queue_create(&options, &controller->queue, err);
    if (status == DS_OK)
        status = open_socket(controller, err);
    if (status == DS_OK && worker_path != NULL)
        status = worker_link_open(&controller->loop, worker_path, controller->queue,
                                  &controller->worker, err);
    return status;
}

/* Whoever started us reads this, and then the end of the stream. */
static void
announce(const struct controller *controller)
{
    const struct controller_options *options = controller->options;
    log_info("controller ready socket=%s worker=%s owner=\"%s\"", options->socket_path,
             options->worker_socket_path != NULL ? options->worker_socket_path : "none",
             options->owner);
    fputs("ready\n", stdout);
    fflush(stdout);
    if (freopen("/dev/null", "w", stdout) == NULL)
        log_warn("controller cannot redirect its standard output");
}

/* Files go only if they are ours: the lock says so. */
static void
close_socket(struct controller *controller)
{
    char lock[4096 + 8];
    lock_path_of(controller, lock, sizeof lock);
    if (controller->listen_fd >= 0)
        files_remove(controller->options->socket_path);
    socket_close(controller->listen_fd);
    if (controller->lock_fd >= 0)
        files_remove(lock);
    socket_close(controller->lock_fd);
}

/* From here on a signal changes nothing: we are ending, and must not be cut short while
 * the socket's files are still there. */
static void
stop_watching_signals(struct controller *controller)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    uv_close((uv_handle_t *)&controller->terminate, NULL);
    uv_close((uv_handle_t *)&controller->interrupt, NULL);
    int left = uv_run(&controller->loop, UV_RUN_DEFAULT);
    DS_ASSERT(left == 0);
}

static void
fini(struct controller *controller)
{
    stop_watching_signals(controller);
    close_socket(controller);
    queue_destroy(controller->queue);
    int busy = uv_loop_close(&controller->loop);
    DS_ASSERT(busy == 0);
}

int
controller_run(const struct controller_options *options)
{
    struct controller controller = {
        .options = options,
        .listen_fd = -1,
        .lock_fd = -1,
    };
    struct ds_error err = {0};
    list_init(&controller.sessions);
    int result = uv_loop_init(&controller.loop);
    DS_ASSERT(result == 0);
    start_handles(&controller);
    enum ds_status status = start(&controller, &err);
    if (status == DS_OK) {
        announce(&controller);
    } else {
        log_error("controller cannot start reason=\"%s\"", err.message);
        fprintf(stderr, "transfer_queue_controller: %s\n", err.message);
        listener_close(controller.listener);
        end(&controller);
    }
    result = uv_run(&controller.loop, UV_RUN_DEFAULT);
    DS_ASSERT(result == 0);
    log_info("controller ended");
    fini(&controller);
    return status == DS_OK ? EXIT_SUCCESS : EXIT_CANNOT_START;
}
