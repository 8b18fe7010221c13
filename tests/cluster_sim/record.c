#include "sim.h"

#include "base/check.h"

#include <string.h>

/* What is known of an event beside what the history has. */
struct note {
    bool is_open;         /* record_open() */
    uint32_t puts_before; /* Of its key, that were begun; */
    uint32_t puts_open;   /* and had not ended. */
};

static struct history_event events[HISTORY_EVENTS_MAX];
static struct note notes[HISTORY_EVENTS_MAX];
static uint32_t event_count;
static uint32_t moment;
static uint32_t puts_begun[KEYS]; /* Deletes, too. */
static uint32_t puts_open[KEYS];

void
record_reset(void)
{
    event_count = 0;
    moment = 0;
    memset(puts_begun, 0, sizeof puts_begun);
    memset(puts_open, 0, sizeof puts_open);
}

static bool
is_change(const struct history_event *event)
{
    return event->operation != OPERATION_READ && event->operation != OPERATION_EXIST;
}

uint32_t
record_begin(uint32_t key, enum operation operation, uint32_t value, uint32_t by)
{
    DS_ASSERT(event_count < HISTORY_EVENTS_MAX);
    DS_ASSERT(key < KEYS);
    notes[event_count] =
        (struct note){.puts_before = puts_begun[key], .puts_open = puts_open[key]};
    events[event_count] = (struct history_event){.key = key,
                                                 .value = value,
                                                 .by = by,
                                                 .operation = operation,
                                                 .outcome = OUTCOME_UNKNOWN,
                                                 .may_repeat = true,
                                                 .may_clear = true,
                                                 .begin = ++moment,
                                                 .begin_ns = virtual_now_ns()};
    puts_begun[key] += is_change(&events[event_count]);
    puts_open[key] += is_change(&events[event_count]);
    return event_count++;
}

/* A change that met with trouble, or with another change, on its way is asked for again by
 * the nodes, and may take effect again; a set may have taken the old value with it before. */
void
record_end(uint32_t number, enum outcome outcome, uint32_t value, uint64_t troubles)
{
    struct history_event *event = &events[number];
    DS_ASSERT(event->end == 0);
    bool is_put =
        event->operation == OPERATION_PUT || event->operation == OPERATION_PUT_ABSENT;
    bool was_whole = run.whole_since_ns != 0 && run.whole_since_ns <= event->begin_ns;
    bool had_trouble = troubles != run_troubles() || !was_whole;
    puts_open[event->key] -= is_change(event);
    bool met_another = notes[number].puts_open > 0 ||
                       puts_begun[event->key] > notes[number].puts_before + 1;
    event->may_repeat = had_trouble || (is_put && met_another);
    event->may_clear = had_trouble && is_put;
    event->outcome = outcome;
    event->end = ++moment;
    event->end_ns = virtual_now_ns();
    if (event->operation == OPERATION_READ || event->operation == OPERATION_EXIST)
        event->value = value;
}

uint32_t
record_open(uint32_t key, enum operation operation, uint32_t value)
{
    uint32_t number = record_begin(key, operation, value, 0);
    events[number].may_clear = false;
    events[number].outcome = OUTCOME_MAYBE;
    notes[number].is_open = true;
    return number;
}

void
record_close(uint32_t number)
{
    DS_ASSERT(notes[number].is_open && events[number].end == 0);
    puts_open[events[number].key]--;
    events[number].end = ++moment;
    events[number].end_ns = virtual_now_ns();
}

void
record_forget_before(uint64_t ns)
{
    for (uint32_t i = 0; i < event_count; i++) {
        struct history_event *event = &events[i];
        if (event->outcome != OUTCOME_UNKNOWN || event->end == 0 || event->end_ns > ns)
            continue;
        event->outcome = OUTCOME_MAYBE;
        event->end = ++moment;
    }
}

/* ---- The check ---- */

static double
seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

/* The whole story of the key into the trace, for whoever replays the seed. */
static void
tell_story(uint32_t key)
{
    for (uint32_t i = 0; i < event_count; i++) {
        const struct history_event *event = &events[i];
        if (event->key == key)
            trace("key=%u %u..%u (%.6f to %.6f) client=%u %s value=%u %s%s", key,
                  event->begin, event->end, seconds(event->begin_ns),
                  seconds(event->end_ns), event->by,
                  history_operation_name(event->operation), event->value,
                  history_outcome_name(event->outcome),
                  event->may_repeat ? " or more" : "");
    }
}

void
record_check(void)
{
    struct history history = {.events = events,
                              .count = event_count,
                              .moment = moment,
                              .repeats_max = 1,
                              .may_miss = losses_may_miss,
                              .may_see = losses_may_see};
    struct history_problem problem;
    for (uint32_t key = 0; key < KEYS; key++) {
        if (history_check_key(&history, key, &problem))
            continue;
        if (problem.gave_up != NULL) {
            trace("key %u: the check gives up: %s", key, problem.gave_up);
            run.unchecked++;
            continue;
        }
        const struct history_event *event = problem.event;
        tell_story(key);
        cluster_fail("key %u: no order of what was done explains that %s value=%u by "
                     "client %u ended so at %.6f, moment %u",
                     key, history_operation_name(event->operation), event->value,
                     event->by, seconds(event->end_ns), event->end);
    }
}
