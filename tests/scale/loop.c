/* The functions of libuv that the worker calls, on virtual time. Nobody runs a loop: what
 * is due happens by itself, and uv_run() only ends what is closing. */
#include "network.h"

#include "base/check.h"
#include "net/watch.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* Of a timer that was started. Owner: the clock. */
struct alarm {
    uv_timer_t *timer; /* NULL: it was stopped, or started anew. */
};

enum { IS_CLOSING = 2 };

struct node *
node_of_loop(const uv_loop_t *loop)
{
    return CONTAINER_OF(loop, struct node, worker.loop);
}

static struct loop_state *
state_of(const uv_loop_t *loop)
{
    return &node_of_loop(loop)->loop;
}

static void
handle_init(uv_loop_t *loop, uv_handle_t *handle)
{
    handle->loop = loop;
    handle->flags = 0;
    handle->close_cb = NULL;
    handle->u.reserved[0] = NULL; /* Its alarm. */
    state_of(loop)->handle_count++;
}

int
uv_loop_init(uv_loop_t *loop)
{
    memset(loop, 0, sizeof *loop);
    struct loop_state *state = state_of(loop);
    DS_ASSERT(state->handle_count == 0);
    state->closing = NULL;
    list_init(&state->closing_conns);
    return 0;
}

int
uv_loop_close(uv_loop_t *loop)
{
    return state_of(loop)->handle_count == 0 ? 0 : UV_EBUSY;
}

uint64_t
uv_now(const uv_loop_t *loop)
{
    (void)loop;
    return scale_now_ns() / SCALE_MS;
}

const char *
uv_strerror(int code)
{
    (void)code;
    return "simulated error";
}

/* ---- Closing ---- */

static void
end_closing(uv_loop_t *loop)
{
    struct loop_state *state = state_of(loop);
    while (state->closing != NULL) {
        uv_handle_t *handle = state->closing;
        state->closing = handle->next_closing;
        state->handle_count--;
        if (handle->close_cb != NULL)
            handle->close_cb(handle);
    }
}

static void
turn(void *arg)
{
    uv_loop_t *loop = arg;
    struct node *node = node_of_loop(loop);
    struct loop_state *state = &node->loop;
    struct cpu_account outer = cpu_enter(&node->tally);
    state->is_turn_due = false;
    node->now_ns = scale_now_ns();
    end_closing(loop);
    network_end_closing(&state->closing_conns);
    cpu_leave(outer);
}

void
loop_need_turn(uv_loop_t *loop)
{
    struct loop_state *state = state_of(loop);
    if (!state->is_turn_due)
        scale_at(scale_now_ns(), turn, loop);
    state->is_turn_due = true;
}

int
uv_run(uv_loop_t *loop, uv_run_mode mode)
{
    struct loop_state *state = state_of(loop);
    (void)mode;
    while (state->closing != NULL || !list_is_empty(&state->closing_conns)) {
        end_closing(loop);
        network_end_closing(&state->closing_conns);
    }
    DS_ASSERT(state->handle_count == 0);
    return 0;
}

static void
forget_alarm(uv_handle_t *handle)
{
    struct alarm *alarm = handle->u.reserved[0];
    if (alarm != NULL)
        alarm->timer = NULL;
    handle->u.reserved[0] = NULL;
}

void
uv_close(uv_handle_t *handle, uv_close_cb on_closed)
{
    struct loop_state *state = state_of(handle->loop);
    DS_ASSERT((handle->flags & IS_CLOSING) == 0);
    forget_alarm(handle);
    handle->flags |= IS_CLOSING;
    handle->close_cb = on_closed;
    handle->next_closing = state->closing;
    state->closing = handle;
    loop_need_turn(handle->loop);
}

/* ---- Timers ---- */

int
uv_timer_init(uv_loop_t *loop, uv_timer_t *timer)
{
    handle_init(loop, (uv_handle_t *)timer);
    return 0;
}

static void
on_alarm(void *arg)
{
    struct alarm *alarm = arg;
    uv_timer_t *timer = alarm->timer;
    free(alarm);
    if (timer == NULL)
        return;
    struct node *node = node_of_loop(timer->loop);
    ((uv_handle_t *)timer)->u.reserved[0] = NULL;
    if (node->is_silent)
        return;
    if (timer->repeat != 0)
        uv_timer_start(timer, timer->timer_cb, timer->repeat, timer->repeat);
    struct cpu_account outer = cpu_enter(&node->tally);
    node->now_ns = scale_now_ns();
    timer->timer_cb(timer);
    cpu_leave(outer);
}

int
uv_timer_start(uv_timer_t *timer, uv_timer_cb on_time, uint64_t ms, uint64_t repeat_ms)
{
    uv_handle_t *handle = (uv_handle_t *)timer;
    if ((handle->flags & IS_CLOSING) != 0)
        return UV_EINVAL;
    struct alarm *alarm = calloc(1, sizeof *alarm);
    DS_ASSERT(alarm != NULL);
    forget_alarm(handle);
    alarm->timer = timer;
    handle->u.reserved[0] = alarm;
    timer->timer_cb = on_time;
    timer->timeout = scale_now_ns() / SCALE_MS + ms;
    timer->repeat = repeat_ms;
    scale_at(scale_now_ns() + ms * SCALE_MS, on_alarm, alarm);
    return 0;
}

int
uv_timer_stop(uv_timer_t *timer)
{
    forget_alarm((uv_handle_t *)timer);
    return 0;
}

uint64_t
uv_timer_get_due_in(const uv_timer_t *timer)
{
    uint64_t now = scale_now_ns() / SCALE_MS;
    return timer->timeout > now ? timer->timeout - now : 0;
}

/* ---- What nothing comes of here: no signals, no clients whose death is watched ---- */

int
uv_signal_init(uv_loop_t *loop, uv_signal_t *handle)
{
    handle_init(loop, (uv_handle_t *)handle);
    return 0;
}

int
uv_signal_start(uv_signal_t *handle, uv_signal_cb on_signal, int number)
{
    handle->signal_cb = on_signal;
    handle->signum = number;
    return 0;
}

int
uv_poll_init(uv_loop_t *loop, uv_poll_t *poll, int fd)
{
    (void)fd;
    handle_init(loop, (uv_handle_t *)poll);
    return 0;
}

/* In place of src/net/watch.c. */
int
watch_start(uv_poll_t *poll, int events, uv_poll_cb on_event)
{
    (void)poll;
    (void)events;
    (void)on_event;
    return 0;
}

int
uv_poll_stop(uv_poll_t *poll)
{
    (void)poll;
    return 0;
}
