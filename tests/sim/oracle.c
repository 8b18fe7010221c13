#include "oracle.h"

#include "mix.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

/* What is known of an event beside what the history has. */
struct note {
    bool once;             /* Its repeats are recognised. */
    bool is_stored_before; /* See there: after so many wipes. */
    uint32_t wipes;
    uint32_t losses; /* Of its process, at the begin. */
};

static struct history_event events[HISTORY_EVENTS_MAX];
static struct note notes[HISTORY_EVENTS_MAX];
static uint32_t event_count;
static uint32_t moment;
static uint32_t last_value;
static uint32_t wipe_count;

void
oracle_reset(void)
{
    event_count = 0;
    moment = 0;
    last_value = 0;
    wipe_count = 0;
}

uint32_t
oracle_new_value(void)
{
    return ++last_value;
}

uint32_t
oracle_begin(uint32_t key, enum operation operation, uint32_t value)
{
    DS_ASSERT(event_count < HISTORY_EVENTS_MAX);
    DS_ASSERT(key < ORACLE_KEYS_MAX);
    const struct process *process = process_current();
    notes[event_count] = (struct note){.losses = process == NULL ? 0 : process->losses};
    events[event_count] =
        (struct history_event){.key = key,
                               .value = value,
                               .by = process == NULL ? 0 : process->pid,
                               .operation = operation,
                               .outcome = OUTCOME_UNKNOWN,
                               .may_repeat = true, /* If it never ends. */
                               .begin = ++moment,
                               .begin_ns = sim.now_ns};
    return event_count++;
}

void
oracle_end(uint32_t number, enum outcome outcome, uint32_t value)
{
    struct history_event *event = &events[number];
    const struct note *note = &notes[number];
    DS_ASSERT(event->end == 0);
    const struct process *process = process_current();
    event->may_repeat = process != NULL && process->losses != note->losses;
    event->outcome = outcome;
    event->end = ++moment;
    event->may_be_lost = note->is_stored_before && note->wipes != wipe_count;
    if (outcome == OUTCOME_NOTHING && event->may_repeat && !note->once)
        event->outcome = OUTCOME_UNKNOWN; /* The first time it may have been done. */
    if (event->operation == OPERATION_READ || event->operation == OPERATION_EXIST)
        event->value = value;
}

void
oracle_takes_effect_once(uint32_t number)
{
    notes[number].once = true;
}

void
oracle_wipe(void)
{
    wipe_count++;
    for (uint32_t key = 0; key < ORACLE_KEYS_MAX; key++)
        oracle_end(oracle_begin(key, OPERATION_CLEAR, 0), OUTCOME_DONE, 0);
}

uint32_t
oracle_wipes(void)
{
    return wipe_count;
}

void
oracle_stored_before(uint32_t number, uint32_t wipes)
{
    notes[number].is_stored_before = true;
    notes[number].wipes = wipes;
}

/* ---- The check ---- */

/* The whole story of the key into the trace, for whoever replays the seed. */
static void
tell_story(uint32_t key)
{
    for (uint32_t i = 0; i < event_count; i++) {
        const struct history_event *event = &events[i];
        if (event->key == key)
            sim_trace("key=%u %u..%u (%.6f) pid=%u %s value=%u %s", key, event->begin,
                      event->end, (double)event->begin_ns / 1e9, event->by,
                      history_operation_name(event->operation), event->value,
                      history_outcome_name(event->outcome));
    }
}

static void
check_key(const struct history *history, uint32_t key)
{
    struct history_problem problem;
    if (history_check_key(history, key, &problem))
        return;
    const struct history_event *event = problem.event;
    tell_story(key);
    if (problem.gave_up != NULL)
        sim_fail("key %u: the oracle gives up: %s", key, problem.gave_up);
    sim_fail("key %u: no order of what was done explains that %s value=%u by pid %u "
             "ended so at moment %u",
             key, history_operation_name(event->operation), event->value, event->by,
             event->end);
}

void
oracle_check(void)
{
    struct history history = {
        .events = events, .count = event_count, .moment = moment, .repeats_max = 2};
    for (uint32_t i = 0; i < event_count; i++) {
        const struct note *note = &notes[i];
        if (events[i].end == 0)
            events[i].may_be_lost = note->is_stored_before && note->wipes != wipe_count;
        events[i].may_repeat = events[i].may_repeat && !note->once;
    }
    for (uint32_t key = 0; key < ORACLE_KEYS_MAX; key++)
        check_key(&history, key);
}

/* ---- Values ---- */

/* 16 bytes to 128 KiB, most of them small; whole words. */
uint64_t
value_bytes(uint32_t value)
{
    uint64_t chance = mix(value ^ sim.seed << 20);
    uint64_t max = chance % 16 < 9    ? 64
                   : chance % 16 < 13 ? 600
                   : chance % 16 < 15 ? 3000
                                      : 16000;
    return 8 * (2 + (chance >> 8) % max);
}

static uint64_t
word_at(uint32_t key, uint32_t value, uint64_t i)
{
    uint64_t first = (uint64_t)value << 16 | key;
    return i == 0 ? first : mix(first) + i * UINT64_C(0x9e3779b97f4a7c15);
}

void
value_write(void *out, uint32_t key, uint32_t value)
{
    uint64_t *words = out;
    uint64_t count = value_bytes(value) / 8;
    for (uint64_t i = 0; i < count; i++) {
        words[i] = word_at(key, value, i);
        if (i % 64 == 63)
            sim_yield_rarely();
    }
}

void
value_check(const void *data, uint64_t bytes, uint32_t key, uint32_t value,
            const char *where)
{
    const uint64_t *words = data;
    if (bytes != value_bytes(value))
        sim_fail("%s: key %u value %u has %ju bytes, not %ju", where, key, value,
                 (uintmax_t)bytes, (uintmax_t)value_bytes(value));
    uint64_t base = mix(word_at(key, value, 0));
    uint64_t wrong = words[0] != word_at(key, value, 0);
    for (uint64_t i = 1; i < bytes / 8; i++) {
        wrong |= words[i] ^ (base + i * UINT64_C(0x9e3779b97f4a7c15));
        if (i % 64 == 63)
            sim_yield_rarely();
    }
    if (wrong != 0)
        sim_fail("%s: bytes of key %u value %u are not what was put", where, key,
                 value);
}

uint32_t
value_read(const void *data, uint64_t bytes, uint32_t key, const char *where)
{
    uint64_t first;
    if (bytes < 16)
        sim_fail("%s: key %u has %ju bytes", where, key, (uintmax_t)bytes);
    memcpy(&first, data, sizeof first);
    uint32_t value = (uint32_t)(first >> 16);
    if ((first & 0xffff) != key || value == 0 || value > last_value)
        sim_fail("%s: bytes of key %u begin as those of key %ju value %u", where, key,
                 (uintmax_t)(first & 0xffff), value);
    value_check(data, bytes, key, value, where);
    return value;
}
