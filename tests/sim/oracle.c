/* Per-key linearizability, checked as in Lowe, "Testing for linearizability" (2017): walk
 * through what happened and keep every state that the key may be in; a pending write is
 * put into the order only when an end demands it. A read changes nothing, so it takes
 * effect in the first state that shows what it saw. */
#include "oracle.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

enum {
    OPERATIONS_MAX = 1 << 16,
    STATES_MAX = 4096,
    PENDING_MAX = 64,
    REPEATS_MAX = 2, /* That the check reckons with. */
};

struct event {
    uint32_t key;
    uint32_t value;
    uint32_t pid;
    enum operation operation;
    enum outcome outcome;
    bool once;             /* Its repeats are recognised. */
    bool may_repeat;       /* It lost a connection. */
    bool is_stored_before; /* See there: after so many wipes, */
    uint32_t wipes;
    bool may_be_lost; /* and there were more. */
    uint32_t losses;  /* Of its process, at the begin. */
    uint32_t begin;   /* Moments; 0: not yet. */
    uint32_t end;
    uint64_t begin_ns;
};

static struct event events[OPERATIONS_MAX];
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
    DS_ASSERT(event_count < OPERATIONS_MAX);
    DS_ASSERT(key < ORACLE_KEYS_MAX);
    const struct process *process = process_current();
    events[event_count] =
        (struct event){.key = key,
                       .value = value,
                       .pid = process == NULL ? 0 : process->pid,
                       .operation = operation,
                       .outcome = OUTCOME_UNKNOWN,
                       .losses = process == NULL ? 0 : process->losses,
                       .may_repeat = true, /* If it never ends. */
                       .begin = ++moment,
                       .begin_ns = sim.now_ns};
    return event_count++;
}

void
oracle_end(uint32_t number, enum outcome outcome, uint32_t value)
{
    struct event *event = &events[number];
    DS_ASSERT(event->end == 0);
    const struct process *process = process_current();
    event->may_repeat = process != NULL && process->losses != event->losses;
    event->outcome = outcome;
    event->end = ++moment;
    event->may_be_lost = event->is_stored_before && event->wipes != wipe_count;
    if (outcome == OUTCOME_NOTHING && event->may_repeat && !event->once)
        event->outcome = OUTCOME_UNKNOWN; /* The first time it may have been done. */
    if (event->operation == OPERATION_READ || event->operation == OPERATION_EXIST)
        event->value = value;
}

void
oracle_takes_effect_once(uint32_t number)
{
    events[number].once = true;
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
    events[number].is_stored_before = true;
    events[number].wipes = wipes;
}

/* ---- The check of one key ---- */

struct state {
    uint32_t value;
    uint64_t writes; /* Pending and not in the order yet, by place in `pending`. */
    uint64_t reads;  /* Pending and not satisfied. */
};

static struct state states[STATES_MAX];
static size_t state_count;
static struct event *pending[PENDING_MAX];
static uint64_t pending_used;
static uint64_t maybe; /* Writes whose outcome is unknown. */

static bool
is_read(const struct event *event)
{
    return event->operation == OPERATION_READ || event->operation == OPERATION_EXIST;
}

static bool
shows(const struct event *read, uint32_t value)
{
    return read->operation == OPERATION_READ ? read->value == value
                                             : (read->value != 0) == (value != 0);
}

static void
satisfy_reads(struct state *state)
{
    for (uint64_t left = state->reads; left != 0; left &= left - 1) {
        int place = __builtin_ctzll(left);
        if (shows(pending[place], state->value))
            state->reads &= ~(UINT64_C(1) << place);
    }
}

static uint32_t
value_after(const struct event *write, uint32_t value)
{
    switch (write->operation) {
    case OPERATION_PUT:
        return write->value;
    case OPERATION_PUT_ABSENT:
        return value == 0 ? write->value : value;
    default:
        return 0;
    }
}

/* Whatever can follow `b` can follow `a`: the same value, no read more to satisfy, and
 * more writes that may happen or not. */
static bool
covers(const struct state *a, const struct state *b)
{
    return a->value == b->value && (a->reads & ~b->reads) == 0 &&
           (b->writes & ~a->writes) == 0 && ((a->writes & ~b->writes) & ~maybe) == 0;
}

static void
add_state(const struct state *state)
{
    for (size_t i = 0; i < state_count; i++)
        if (covers(&states[i], state))
            return;
    if (state_count == STATES_MAX)
        sim_fail("the oracle needs more than %d states", STATES_MAX);
    states[state_count++] = *state;
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

static int
take_place(struct event *event)
{
    if (~pending_used == 0)
        sim_fail("the oracle has more than %d pending operations", PENDING_MAX);
    int place = __builtin_ctzll(~pending_used);
    pending_used |= UINT64_C(1) << place;
    pending[place] = event;
    return place;
}

static void
on_begin(struct event *event)
{
    bool has_end = event->end != 0 && event->outcome == OUTCOME_DONE;
    if (is_read(event) ? !has_end : event->outcome == OUTCOME_NOTHING)
        return;
    uint64_t bit = UINT64_C(1) << take_place(event);
    uint64_t writes = is_read(event) ? 0 : bit;
    if (event->outcome == OUTCOME_UNKNOWN)
        maybe |= writes;
    for (int i = 0; i < REPEATS_MAX && writes != 0 && event->may_repeat && !event->once;
         i++) {
        uint64_t repeat = UINT64_C(1) << take_place(event);
        maybe |= repeat;
        writes |= repeat;
    }
    for (size_t i = 0; i < state_count; i++) {
        states[i].writes |= writes;
        if (is_read(event)) {
            states[i].reads |= bit;
            satisfy_reads(&states[i]);
        }
    }
}

/* Breadth first, so that what is covered is seen to be. */
static struct state open[STATES_MAX];
static size_t open_count;

static void
add_open(const struct state *state)
{
    for (size_t i = 0; i < open_count; i++)
        if (covers(&open[i], state))
            return;
    if (open_count == STATES_MAX)
        sim_fail("the oracle needs more than %d states", STATES_MAX);
    open[open_count++] = *state;
}

/* One more pending write, at this place, comes next after `from`. */
static void
put_into_order(const struct state *from, int place, uint32_t value, uint64_t bit)
{
    struct state to = *from;
    to.writes &= ~(UINT64_C(1) << place);
    to.value = value;
    satisfy_reads(&to);
    if (((to.writes | to.reads) & bit) == 0)
        add_state(&to);
    else
        add_open(&to);
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
            add_open(&states[i]);
        else
            states[kept++] = states[i];
    }
    state_count = kept;
    for (size_t i = 0; i < open_count; i++) {
        for (uint64_t left = open[i].writes; left != 0; left &= left - 1) {
            int place = __builtin_ctzll(left);
            struct state from = open[i];
            put_into_order(&from, place, value_after(pending[place], from.value), bit);
            if (pending[place]->may_be_lost)
                put_into_order(&from, place, 0, bit);
        }
    }
    thin_out();
}

/* These places are free again; what did not happen by now does not happen. */
static void
forget(uint64_t bits)
{
    for (int place = 0; place < PENDING_MAX; place++)
        if ((bits >> place & 1) != 0)
            pending[place] = NULL;
    pending_used &= ~bits;
    maybe &= ~bits;
    for (size_t i = 0; i < state_count; i++)
        states[i].writes &= ~bits;
    thin_out();
}

static const char *
name_of(const struct event *event)
{
    static const char *const names[] = {"put", "put if absent", "delete", "read",
                                        "exist"};
    return names[event->operation];
}

/* The whole story of the key into the trace, for whoever replays the seed. */
static void
tell_story(uint32_t key)
{
    for (uint32_t i = 0; i < event_count; i++) {
        const struct event *event = &events[i];
        if (event->key == key)
            sim_trace("key=%u %u..%u (%.6f) pid=%u %s value=%u %s", key, event->begin,
                      event->end, (double)event->begin_ns / 1e9, event->pid,
                      name_of(event), event->value,
                      event->outcome == OUTCOME_DONE      ? "done"
                      : event->outcome == OUTCOME_NOTHING ? "nothing"
                                                          : "unknown");
    }
}

static void
on_end(struct event *event)
{
    if (event->outcome != OUTCOME_DONE)
        return;
    uint64_t repeats = 0;
    uint64_t bit = 0;
    for (int place = 0; place < PENDING_MAX; place++) {
        if (pending[place] != event)
            continue;
        uint64_t at = UINT64_C(1) << place;
        repeats |= (maybe & at);
        bit |= (maybe & at) != 0 ? 0 : at;
    }
    demand(bit);
    forget(bit | repeats);
    if (state_count > 0)
        return;
    tell_story(event->key);
    sim_fail("key %u: no order of what was done explains that %s value=%u by pid %u "
             "ended so at moment %u",
             event->key, name_of(event), event->value, event->pid, event->end);
}

static void
check_key(uint32_t key)
{
    static struct event *at[2 * OPERATIONS_MAX + 1];
    memset(at, 0, (moment + 1) * sizeof(struct event *));
    for (uint32_t i = 0; i < event_count; i++) {
        if (events[i].key != key)
            continue;
        at[events[i].begin] = &events[i];
        at[events[i].end] = events[i].end != 0 ? &events[i] : NULL;
    }
    for (uint32_t i = 0; i < event_count; i++) {
        if (events[i].end == 0)
            events[i].may_be_lost =
                events[i].is_stored_before && events[i].wipes != wipe_count;
    }
    states[0] = (struct state){0};
    state_count = 1;
    pending_used = 0;
    maybe = 0;
    memset(pending, 0, sizeof pending);
    for (uint32_t now = 1; now <= moment; now++) {
        if (at[now] == NULL)
            continue;
        if (at[now]->begin == now)
            on_begin(at[now]);
        else
            on_end(at[now]);
    }
}

void
oracle_check(void)
{
    for (uint32_t key = 0; key < ORACLE_KEYS_MAX; key++)
        check_key(key);
}

/* ---- Values ---- */

static uint64_t
mix(uint64_t x)
{
    x ^= x >> 31;
    x *= UINT64_C(0x7fb5d329728ea185);
    x ^= x >> 27;
    x *= UINT64_C(0x81dadef4bc2dd44d);
    return x ^ x >> 33;
}

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
