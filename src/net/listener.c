/* Accepting connections. */
#include "net/conn.h"
#include "net/watch.h"

#include "base/check.h"
#include "base/log.h"
#include "base/status.h"
#include "os/sockets.h"

#include <stdlib.h>

enum {
    ACCEPTS_MAX = 32, /* In one turn of the loop. */
    REST_MS = 100,
};

/* Owner: the loop, until the close callbacks of both handles have run. */
struct listener {
    uv_poll_t poll;
    uv_timer_t rest; /* Runs while there are no descriptors left. */
    int handles_open;
    int fd; /* Borrowed. */
    bool closing;
    bool was_short; /* Of descriptors: said once in the log until one is accepted. */
    listener_fn on_accept;
    void *arg;
};

static void listen_again(struct listener *listener);

static void
on_rested(uv_timer_t *timer)
{
    listen_again(timer->data);
}

/* The connection stays in the backlog and would wake the loop at once, again and again.
 */
static void
rest(struct listener *listener, const struct ds_error *err)
{
    if (!listener->was_short)
        log_warn("listener rest reason=\"%s\"", err->message);
    listener->was_short = true;
    (void)uv_poll_stop(&listener->poll);
    int result = uv_timer_start(&listener->rest, on_rested, REST_MS, 0);
    DS_ASSERT(result == 0);
}

static void
rest_after(struct listener *listener, int result)
{
    struct ds_error err = {0};
    (void)ds_fail(&err, DS_IO, "%s", uv_strerror(result));
    rest(listener, &err);
}

static void
on_readable(uv_poll_t *poll, int status, int events)
{
    struct listener *listener = poll->data;
    (void)events;
    if (status < 0) {
        rest_after(listener, status);
        return;
    }
    for (int i = 0; i < ACCEPTS_MAX && !listener->closing; i++) {
        struct ds_error err = {0};
        int fd = -1;
        if (socket_accept(listener->fd, &fd, &err) != DS_OK) {
            rest(listener, &err);
            return;
        }
        if (fd < 0)
            return;
        listener->was_short = false;
        listener->on_accept(fd, listener->arg);
    }
}

static void
listen_again(struct listener *listener)
{
    int result = watch_start(&listener->poll, UV_READABLE, on_readable);
    if (result < 0)
        rest_after(listener, result);
}

enum ds_status
listener_create(uv_loop_t *loop, int fd, listener_fn on_accept, void *arg,
                struct listener **out, struct ds_error *err)
{
    DS_ASSERT(fd >= 0);
    DS_ASSERT(on_accept != NULL);
    struct listener *listener = calloc(1, sizeof *listener);
    int result = listener == NULL ? UV_ENOMEM : uv_poll_init(loop, &listener->poll, fd);
    if (result < 0) {
        free(listener);
        return ds_fail(err, result == UV_ENOMEM ? DS_NO_MEMORY : DS_IO,
                       "cannot watch a listening socket: %s", uv_strerror(result));
    }
    result = uv_timer_init(loop, &listener->rest);
    DS_ASSERT(result == 0);
    listener->poll.data = listener;
    listener->rest.data = listener;
    listener->handles_open = 2;
    listener->fd = fd;
    listener->on_accept = on_accept;
    listener->arg = arg;
    listen_again(listener);
    *out = listener;
    return DS_OK;
}

static void
on_handle_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;
    listener->handles_open--;
    if (listener->handles_open == 0)
        free(listener);
}

void
listener_close(struct listener *listener)
{
    if (listener == NULL || listener->closing)
        return;
    listener->closing = true;
    uv_close((uv_handle_t *)&listener->poll, on_handle_closed);
    uv_close((uv_handle_t *)&listener->rest, on_handle_closed);
}
