/* The functions of libuv that the worker calls, on virtual time. Nobody runs a loop: what
 * is due happens by itself, and uv_run() only ends what is closing. */
#include "network.h"

#include "base/check.h"
#include "machine.h"
#include "net/watch.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* Of a timer that was started. Owner: the clock, or the loop's late_alarms. */
struct alarm {
    struct list link;
    struct node *node;
    uv_timer_t *timer; /* NULL: it was stopped, or started anew. */
    uint64_t due_ns;   /* By the node's monotonic clock. */
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
    state->is_turn_due = false; /* Its end may have come while it stood still. */
    list_init(&state->closing_conns);
    list_init(&state->late_alarms);
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
    return node_monotonic_ns(node_of_loop(loop)) / VIRTUAL_MS;
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
    if (node->is_stalled)
        return; /* loop_go_on() */
    struct node_entry entry = node_enter(node, &node->tally);
    state->is_turn_due = false;
    node->now_ns = virtual_now_ns();
    end_closing(loop);
    network_end_closing(&state->closing_conns);
    node_leave(entry);
}

void
loop_need_turn(uv_loop_t *loop)
{
    struct loop_state *state = state_of(loop);
    if (!state->is_turn_due)
        virtual_at(virtual_now_ns(), turn, loop);
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
alarm_free(struct alarm *alarm)
{
    list_remove(&alarm->link);
    free(alarm);
}

static void
forget_alarm(uv_handle_t *handle)
{
    struct alarm *alarm = handle->u.reserved[0];
    handle->u.reserved[0] = NULL;
    if (alarm == NULL)
        return;
    alarm->timer = NULL;
    if (!list_is_empty(&alarm->link)) /* It is late: nobody else will look at it. */
        alarm_free(alarm);
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

/* It waits until its node goes on, or as long as that has slept. */
static bool
is_late(struct alarm *alarm, virtual_fn again)
{
    uint64_t now_ns = node_monotonic_ns(alarm->node);
    if (alarm->node->is_stalled) {
        list_push_back(&alarm->node->loop.late_alarms, &alarm->link);
        return true;
    }
    if (now_ns < alarm->due_ns)
        virtual_at(virtual_now_ns() + alarm->due_ns - now_ns, again, alarm);
    return now_ns < alarm->due_ns;
}

static void
on_alarm(void *arg)
{
    struct alarm *alarm = arg;
    uv_timer_t *timer = alarm->timer;
    struct node *node = alarm->node;
    if (timer != NULL && is_late(alarm, on_alarm))
        return;
    alarm_free(alarm);
    if (timer == NULL)
        return;
    ((uv_handle_t *)timer)->u.reserved[0] = NULL;
    if (node->is_silent)
        return;
    if (timer->repeat != 0)
        uv_timer_start(timer, timer->timer_cb, timer->repeat, timer->repeat);
    struct node_entry entry = node_enter(node, &node->tally);
    node->now_ns = virtual_now_ns();
    timer->timer_cb(timer);
    node_leave(entry);
}

void
loop_go_on(uv_loop_t *loop)
{
    struct loop_state *state = state_of(loop);
    LIST_FOREACH (link, &state->late_alarms) {
        list_remove(link);
        virtual_at(virtual_now_ns(), on_alarm, CONTAINER_OF(link, struct alarm, link));
    }
    if (state->is_turn_due)
        virtual_at(virtual_now_ns(), turn, loop);
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
    list_init(&alarm->link);
    alarm->node = node_of_loop(timer->loop);
    alarm->timer = timer;
    alarm->due_ns = node_monotonic_ns(alarm->node) + ms * VIRTUAL_MS;
    handle->u.reserved[0] = alarm;
    timer->timer_cb = on_time;
    timer->timeout = uv_now(timer->loop) + ms;
    timer->repeat = repeat_ms;
    virtual_at(virtual_now_ns() + ms * VIRTUAL_MS, on_alarm, alarm);
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
    uint64_t now = uv_now(timer->loop);
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
