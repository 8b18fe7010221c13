/* The functions of libuv that the daemons call, on simulated time and descriptors. Each
 * turn: timers that are due, prepare handles, a few ready descriptors in any order, and
 * the callbacks of what was closed. */
#include "sim.h"

#include "base/check.h"
#include "net/watch.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { IS_ACTIVE = 1, IS_CLOSING = 2, IS_UNREFERENCED = 4, HANDLES_MAX = 512 };

/* Owner: the process that runs the loop. */
struct loop {
    uv_handle_t *handles[HANDLES_MAX];
    size_t count;
};

/* `data` is the daemons'. */
static struct loop *
loop_of(const uv_loop_t *loop)
{
    return loop->active_reqs.unused;
}

static void
handle_init(uv_loop_t *loop, uv_handle_t *handle, uv_handle_type type)
{
    struct loop *self = loop_of(loop);
    DS_ASSERT(self->count < HANDLES_MAX);
    handle->loop = loop;
    handle->type = type;
    handle->flags = 0;
    handle->close_cb = NULL;
    self->handles[self->count++] = handle;
}

int
uv_loop_init(uv_loop_t *loop)
{
    memset(loop, 0, sizeof *loop);
    loop->active_reqs.unused = calloc(1, sizeof(struct loop));
    return 0;
}

int
uv_loop_close(uv_loop_t *loop)
{
    struct loop *self = loop_of(loop);
    if (self->count > 0)
        return UV_EBUSY;
    free(self);
    return 0;
}

uint64_t
uv_now(const uv_loop_t *loop)
{
    (void)loop;
    return sim.now_ns / SIM_MS;
}

const char *
uv_strerror(int code)
{
    (void)code;
    return "simulated error";
}

void
uv_unref(uv_handle_t *handle)
{
    handle->flags |= IS_UNREFERENCED;
}

void
uv_close(uv_handle_t *handle, uv_close_cb on_closed)
{
    DS_ASSERT((handle->flags & IS_CLOSING) == 0);
    handle->flags = (handle->flags & ~(unsigned)IS_ACTIVE) | IS_CLOSING;
    handle->close_cb = on_closed;
}

/* ---- Kinds of handles ---- */

int
uv_timer_init(uv_loop_t *loop, uv_timer_t *timer)
{
    handle_init(loop, (uv_handle_t *)timer, UV_TIMER);
    return 0;
}

int
uv_timer_start(uv_timer_t *timer, uv_timer_cb on_time, uint64_t ms, uint64_t repeat_ms)
{
    if ((timer->flags & IS_CLOSING) != 0)
        return UV_EINVAL;
    timer->timer_cb = on_time;
    timer->timeout = sim.now_ns / SIM_MS + ms;
    timer->repeat = repeat_ms;
    timer->flags |= IS_ACTIVE;
    return 0;
}

int
uv_timer_stop(uv_timer_t *timer)
{
    timer->flags &= ~(unsigned)IS_ACTIVE;
    return 0;
}

uint64_t
uv_timer_get_due_in(const uv_timer_t *timer)
{
    uint64_t now = uv_now(timer->loop);
    return timer->timeout > now ? timer->timeout - now : 0;
}

int
uv_poll_init(uv_loop_t *loop, uv_poll_t *poll, int fd)
{
    handle_init(loop, (uv_handle_t *)poll, UV_POLL);
    poll->io_watcher.fd = fd;
    return 0;
}

int
uv_poll_start(uv_poll_t *poll, int events, uv_poll_cb on_ready)
{
    DS_ASSERT((poll->flags & IS_CLOSING) == 0);
    poll->poll_cb = on_ready;
    poll->io_watcher.events = (unsigned)events;
    poll->flags |= IS_ACTIVE;
    return 0;
}

/* In place of src/net/watch.c. */
int
watch_start(uv_poll_t *poll, int events, uv_poll_cb on_event)
{
    return uv_poll_start(poll, events, on_event);
}

int
uv_poll_stop(uv_poll_t *poll)
{
    poll->flags &= ~(unsigned)IS_ACTIVE;
    return 0;
}

int
uv_prepare_init(uv_loop_t *loop, uv_prepare_t *prepare)
{
    handle_init(loop, (uv_handle_t *)prepare, UV_PREPARE);
    return 0;
}

int
uv_prepare_start(uv_prepare_t *prepare, uv_prepare_cb on_turn)
{
    prepare->prepare_cb = on_turn;
    prepare->flags |= IS_ACTIVE;
    return 0;
}

int
uv_prepare_stop(uv_prepare_t *prepare)
{
    prepare->flags &= ~(unsigned)IS_ACTIVE;
    return 0;
}

/* Nobody sends one: processes are killed. */
int
uv_signal_init(uv_loop_t *loop, uv_signal_t *handle)
{
    handle_init(loop, (uv_handle_t *)handle, UV_SIGNAL);
    return 0;
}

int
uv_signal_start(uv_signal_t *handle, uv_signal_cb on_signal, int number)
{
    handle->signal_cb = on_signal;
    handle->signum = number;
    handle->flags |= IS_ACTIVE;
    return 0;
}

/* ---- Turning ---- */

static bool
is_active(const uv_handle_t *handle, uv_handle_type type)
{
    return handle->type == type && (handle->flags & IS_ACTIVE) != 0;
}

static bool
is_alive(const struct loop *loop)
{
    for (size_t i = 0; i < loop->count; i++) {
        unsigned flags = loop->handles[i]->flags;
        if ((flags & IS_CLOSING) != 0 ||
            ((flags & IS_ACTIVE) != 0 && (flags & IS_UNREFERENCED) == 0))
            return true;
    }
    return false;
}

/* The timer that is due first, if it is. */
static uv_timer_t *
due_timer(const struct loop *loop, uint64_t now_ms)
{
    uv_timer_t *first = NULL;
    for (size_t i = 0; i < loop->count; i++) {
        uv_timer_t *timer = (uv_timer_t *)loop->handles[i];
        if (is_active(loop->handles[i], UV_TIMER) && timer->timeout <= now_ms &&
            (first == NULL || timer->timeout < first->timeout))
            first = timer;
    }
    return first;
}

static bool
run_timers(const struct loop *loop)
{
    uint64_t now_ms = sim.now_ns / SIM_MS;
    uv_timer_t *timer;
    bool any = false;
    for (int i = 0; i < 64 && (timer = due_timer(loop, now_ms)) != NULL; i++) {
        any = true;
        timer->flags &= ~(unsigned)IS_ACTIVE;
        if (timer->repeat != 0) {
            timer->flags |= IS_ACTIVE;
            timer->timeout = now_ms + timer->repeat;
        }
        timer->timer_cb(timer);
    }
    return any;
}

static void
run_prepares(const struct loop *loop)
{
    for (size_t i = 0; i < loop->count; i++) {
        if (is_active(loop->handles[i], UV_PREPARE))
            ((uv_prepare_t *)loop->handles[i])
                ->prepare_cb((uv_prepare_t *)loop->handles[i]);
    }
}

/* What is told of a descriptor; *out_status as in uv_poll_cb. */
static int
ready_events(const uv_poll_t *poll, int *out_status)
{
    int wanted = (int)poll->io_watcher.events;
    short events = (short)(((wanted & UV_READABLE) != 0 ? POLLIN : 0) |
                           ((wanted & UV_WRITABLE) != 0 ? POLLOUT : 0));
    short ready = descriptor_ready(poll->io_watcher.fd, events);
    int told = ((ready & (POLLIN | POLLHUP)) != 0 ? UV_READABLE : 0) |
               ((ready & (POLLOUT | POLLHUP)) != 0 ? UV_WRITABLE : 0);
    *out_status = (ready & POLLERR) != 0 ? UV_EBADF : 0;
    return told & wanted;
}

static bool
is_ready(const uv_poll_t *poll)
{
    int status;
    return ready_events(poll, &status) != 0 || status != 0;
}

/* As libuv: an error ends the watching. */
static void
tell(uv_poll_t *poll)
{
    int status;
    int events = ready_events(poll, &status);
    if (status != 0) {
        (void)uv_poll_stop(poll);
        poll->poll_cb(poll, status, 0);
    } else if (events != 0) {
        poll->poll_cb(poll, 0, events);
    }
}

static bool
run_polls(const struct loop *loop)
{
    uv_poll_t *ready[HANDLES_MAX];
    size_t count = 0;
    for (size_t i = 0; i < loop->count; i++) {
        uv_poll_t *poll = (uv_poll_t *)loop->handles[i];
        if (is_active(loop->handles[i], UV_POLL) && is_ready(poll))
            ready[count++] = poll;
    }
    bool any = count > 0;
    while (count > 0) {
        size_t at = sim_below(count);
        uv_poll_t *poll = ready[at];
        ready[at] = ready[--count];
        if (is_active((uv_handle_t *)poll, UV_POLL))
            tell(poll);
    }
    return any;
}

static bool
run_closed(struct loop *loop)
{
    bool any = false;
    for (size_t i = 0; i < loop->count;) {
        uv_handle_t *handle = loop->handles[i];
        if ((handle->flags & IS_CLOSING) == 0) {
            i++;
            continue;
        }
        any = true;
        loop->count--;
        memmove(&loop->handles[i], &loop->handles[i + 1],
                (loop->count - i) * sizeof(uv_handle_t *));
        if (handle->close_cb != NULL)
            handle->close_cb(handle);
    }
    return any;
}

static void
wait_for_something(const struct loop *loop)
{
    uint64_t until = UINT64_MAX;
    for (size_t i = 0; i < loop->count; i++) {
        const uv_handle_t *handle = loop->handles[i];
        if (is_active(handle, UV_POLL))
            descriptor_watch(((const uv_poll_t *)handle)->io_watcher.fd);
        if (is_active(handle, UV_TIMER)) {
            uint64_t at = ((const uv_timer_t *)handle)->timeout * SIM_MS;
            until = at < until ? at : until;
        }
    }
    sim_block(until);
}

int
uv_run(uv_loop_t *handle, uv_run_mode mode)
{
    struct loop *loop = loop_of(handle);
    while (is_alive(loop)) {
        bool any = run_timers(loop);
        run_prepares(loop);
        any |= run_polls(loop);
        any |= run_closed(loop);
        if (!is_alive(loop))
            break;
        if (any || mode == UV_RUN_NOWAIT)
            sim_yield();
        else
            wait_for_something(loop);
        if (mode == UV_RUN_NOWAIT || (any && mode == UV_RUN_ONCE))
            break;
    }
    return is_alive(loop);
}
