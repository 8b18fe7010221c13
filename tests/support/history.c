/* Checked as in Lowe, "Testing for linearizability" (2017): walk through what happened and
 * keep every state that the key may be in; a pending write is put into the order only when
 * an end demands it. A read changes nothing, so it takes effect in the first state that
 * shows what it saw. */
#include "history.h"

#include "base/check.h"

#include <string.h>

enum {
    STATES_MAX = 1 << 14,
    PENDING_MAX = 64,
};

struct state {
    uint32_t value;
    uint64_t writes; /* Pending and not in the order yet, by place in `pending`. */
    uint64_t reads;  /* Pending and not satisfied. */
};

/* A write has several places if it may take effect several times. */
struct pending {
    struct history_event *event;
    bool is_clear; /* What it may do before: the key loses its value. */
};

static const struct history *history;
static const char *gave_up;
static struct state states[STATES_MAX];
static size_t state_count;
static struct pending pending[PENDING_MAX];
static uint64_t pending_used;
static uint64_t maybe; /* Writes that need not happen. */

/* ---- What an operation does ---- */

static bool
is_read(const struct history_event *event)
{
    return event->operation == OPERATION_READ || event->operation == OPERATION_EXIST;
}

static bool
misses(const struct history_event *event, uint32_t value)
{
    return value != 0 && history->may_miss != NULL && history->may_miss(event, value);
}

static bool
sees(const struct history_event *read)
{
    return history->may_see != NULL && history->may_see(read);
}

static bool
shows(const struct history_event *read, uint32_t value)
{
    bool is_same = read->operation == OPERATION_READ
                       ? read->value == value
                       : (read->value != 0) == (value != 0);
    return is_same || (read->value == 0 ? misses(read, value) : sees(read));
}

static void
satisfy_reads(struct state *state)
{
    for (uint64_t left = state->reads; left != 0; left &= left - 1) {
        int place = __builtin_ctzll(left);
        if (shows(pending[place].event, state->value))
            state->reads &= ~(UINT64_C(1) << place);
    }
}

static uint32_t
value_after(const struct pending *write, uint32_t value)
{
    const struct history_event *event = write->event;
    if (write->is_clear)
        return 0;
    switch (event->operation) {
    case OPERATION_PUT:
        return event->value;
    case OPERATION_PUT_ABSENT:
        return value == 0 ? event->value : value;
    case OPERATION_LOSE:
        return value == event->value ? 0 : value;
    default:
        return 0;
    }
}

/* ---- States ---- */

/* Whatever can follow `b` can follow `a`: the same value, no read more to satisfy, and
 * more writes that may happen or not. */
static bool
covers(const struct state *a, const struct state *b)
{
    return a->value == b->value && (a->reads & ~b->reads) == 0 &&
           (b->writes & ~a->writes) == 0 && ((a->writes & ~b->writes) & ~maybe) == 0;
}

static void
add_to(struct state *list, size_t *count, const struct state *state)
{
    for (size_t i = 0; i < *count; i++)
        if (covers(&list[i], state))
            return;
    if (*count == STATES_MAX)
        gave_up = "too many states";
    else
        list[(*count)++] = *state;
}

/* Drops what is covered by another. */
static void
thin_out(void)
{
    for (size_t i = 0; i < state_count; i++) {
        for (size_t j = 0; j < state_count; j++) {
            if (i != j && covers(&states[j], &states[i])) {
                states[i--] = states[--state_count];
                break;
            }
        }
    }
}

/* ---- Begin ---- */

/* Its bit. */
static uint64_t
take_place(struct history_event *event, bool is_clear)
{
    if (~pending_used == 0) {
        gave_up = "too many pending operations";
        return 0;
    }
    int place = __builtin_ctzll(~pending_used);
    pending_used |= UINT64_C(1) << place;
    pending[place] = (struct pending){event, is_clear};
    return UINT64_C(1) << place;
}

/* What it may do beyond taking effect. */
static uint64_t
take_more_places(struct history_event *event)
{
    uint64_t places = 0;
    for (int i = 0; i < history->repeats_max && event->may_repeat; i++)
        places |= take_place(event, false);
    if (event->may_clear)
        places |= take_place(event, true);
    return places;
}

static void
on_begin(struct history_event *event)
{
    bool has_end = event->end != 0 && event->outcome == OUTCOME_DONE;
    if (is_read(event) ? !has_end : event->outcome == OUTCOME_NOTHING)
        return;
    uint64_t bit = take_place(event, false);
    uint64_t writes = 0;
    if (!is_read(event)) {
        uint64_t more = take_more_places(event);
        writes = bit | more;
        maybe |= event->outcome == OUTCOME_DONE ? more : writes;
    }
    for (size_t i = 0; i < state_count; i++) {
        states[i].writes |= writes;
        if (is_read(event)) {
            states[i].reads |= bit;
            satisfy_reads(&states[i]);
        }
    }
}

/* ---- End ---- */

/* Breadth first, so that what is covered is seen to be. */
static struct state open[STATES_MAX];
static size_t open_count;

/* One more pending write, at this place, comes next after `from`. */
static void
put_into_order(const struct state *from, int place, uint32_t value, uint64_t bit)
{
    struct state to = *from;
    to.writes &= ~(UINT64_C(1) << place);
    to.value = value;
    satisfy_reads(&to);
    if (((to.writes | to.reads) & bit) == 0)
        add_to(states, &state_count, &to);
    else
        add_to(open, &open_count, &to);
}

/* Places of one event are as good as each other: the first of them is taken. */
static bool
has_earlier_place(const struct state *from, int place)
{
    uint64_t before = from->writes & ((UINT64_C(1) << place) - 1);
    for (; before != 0; before &= before - 1) {
        const struct pending *other = &pending[__builtin_ctzll(before)];
        if (other->event == pending[place].event &&
            other->is_clear == pending[place].is_clear)
            return true;
    }
    return false;
}

static void
put_each_way(const struct state *from, int place, uint64_t bit)
{
    const struct pending *write = &pending[place];
    const struct history_event *event = write->event;
    if (has_earlier_place(from, place))
        return;
    put_into_order(from, place, value_after(write, from->value), bit);
    if (write->is_clear)
        return;
    if (event->may_be_lost)
        put_into_order(from, place, 0, bit);
    if (event->operation == OPERATION_PUT_ABSENT && misses(event, from->value))
        put_into_order(from, place, event->value, bit);
}

/* Puts pending writes into the order until `bit` is no longer pending; the states where
 * that cannot be are dropped. */
static void
demand(uint64_t bit)
{
    size_t kept = 0;
    open_count = 0;
    for (size_t i = 0; i < state_count; i++) {
        if (((states[i].writes | states[i].reads) & bit) != 0)
            add_to(open, &open_count, &states[i]);
        else
            states[kept++] = states[i];
    }
    state_count = kept;
    for (size_t i = 0; i < open_count; i++) {
        struct state from = open[i];
        for (uint64_t left = from.writes; left != 0; left &= left - 1)
            put_each_way(&from, __builtin_ctzll(left), bit);
    }
    thin_out();
}

/* What need not have happened by now, and does not later: with it, and without. */
static void
try_each(uint64_t bits)
{
    static struct state before[STATES_MAX];
    for (; bits != 0; bits &= bits - 1) {
        uint64_t bit = bits & -bits;
        size_t count = state_count;
        memcpy(before, states, count * sizeof before[0]);
        demand(bit);
        for (size_t i = 0; i < count; i++) {
            before[i].writes &= ~bit;
            add_to(states, &state_count, &before[i]);
        }
    }
}

/* These places are free again; what did not happen by now does not happen. */
static void
forget(uint64_t bits)
{
    for (int place = 0; place < PENDING_MAX; place++)
        if ((bits >> place & 1) != 0)
            pending[place] = (struct pending){0};
    pending_used &= ~bits;
    maybe &= ~bits;
    for (size_t i = 0; i < state_count; i++)
        states[i].writes &= ~bits;
    thin_out();
}

static void
on_end(const struct history_event *event)
{
    if (event->outcome == OUTCOME_NOTHING || event->outcome == OUTCOME_UNKNOWN)
        return;
    uint64_t others = 0;
    uint64_t bit = 0;
    for (int place = 0; place < PENDING_MAX; place++) {
        if (pending[place].event != event)
            continue;
        uint64_t at = UINT64_C(1) << place;
        others |= (maybe & at);
        bit |= (maybe & at) != 0 ? 0 : at;
    }
    if (bit != 0)
        demand(bit);
    try_each(others);
    forget(bit | others);
}

/* ---- One key ---- */

bool
history_check_key(const struct history *which, uint32_t key,
                  struct history_problem *out)
{
    static struct history_event *at[2 * HISTORY_EVENTS_MAX + 1];
    DS_ASSERT(which->moment <= 2 * HISTORY_EVENTS_MAX);
    memset(at, 0, (which->moment + 1) * sizeof(struct history_event *));
    for (uint32_t i = 0; i < which->count; i++) {
        struct history_event *event = &which->events[i];
        if (event->key != key)
            continue;
        at[event->begin] = event;
        at[event->end] = event->end != 0 ? event : NULL;
    }
    history = which;
    gave_up = NULL;
    states[0] = (struct state){0};
    state_count = 1;
    pending_used = 0;
    maybe = 0;
    memset(pending, 0, sizeof pending);
    for (uint32_t now = 1; now <= which->moment; now++) {
        struct history_event *event = at[now];
        if (event == NULL)
            continue;
        if (event->begin == now)
            on_begin(event);
        else
            on_end(event);
        if (state_count == 0 || gave_up != NULL) {
            *out = (struct history_problem){event, gave_up};
            return false;
        }
    }
    return true;
}

const char *
history_operation_name(enum operation operation)
{
    static const char *const names[] = {"put",  "put if absent", "delete",
                                        "read", "exist",         "lose"};
    return names[operation];
}

const char *
history_outcome_name(enum outcome outcome)
{
    static const char *const names[] = {"done", "nothing", "unknown", "maybe"};
    return names[outcome];
}
