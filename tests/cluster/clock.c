/* Virtual time, chance, and whose processor time it is. */
#include "cluster.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* In the order of their times; of equals the one that was added first. */
struct event {
    uint64_t at_ns;
    uint64_t order;
    virtual_fn run;
    void *arg;
};

#define BEGINNING_NS (1000 * VIRTUAL_S)

/* Invariant: events [0, count) are a heap, where each has CHILDREN ones below it. */
enum { CHILDREN = 4 };
static struct {
    struct event *events;
    size_t count;
    size_t capacity;
    uint64_t order;
    uint64_t now_ns;
} queue = {.now_ns = BEGINNING_NS};

static uint64_t random_state;
static struct cpu_account account;
static uint64_t event_count;
bool cpu_is_measured;
void (*virtual_after_each)(void);

/* ---- What happens next ---- */

uint64_t
virtual_now_ns(void)
{
    return queue.now_ns;
}

static bool
is_before(const struct event *left, const struct event *right)
{
    if (left->at_ns != right->at_ns)
        return left->at_ns < right->at_ns;
    return left->order < right->order;
}

static void
reserve_one(void)
{
    if (queue.count < queue.capacity)
        return;
    queue.capacity = queue.capacity == 0 ? 1024 : 2 * queue.capacity;
    queue.events = realloc(queue.events, queue.capacity * sizeof queue.events[0]);
    DS_ASSERT(queue.events != NULL);
}

void
virtual_at(uint64_t at_ns, virtual_fn run, void *arg)
{
    struct event event = {at_ns < queue.now_ns ? queue.now_ns : at_ns, queue.order++,
                          run, arg};
    reserve_one();
    size_t at = queue.count++;
    while (at > 0 && is_before(&event, &queue.events[(at - 1) / CHILDREN])) {
        queue.events[at] = queue.events[(at - 1) / CHILDREN];
        at = (at - 1) / CHILDREN;
    }
    queue.events[at] = event;
}

/* Of those below `at`; there is one. */
static size_t
first_child(size_t at)
{
    size_t first = CHILDREN * at + 1;
    for (size_t i = first + 1; i <= CHILDREN * (at + 1) && i < queue.count; i++) {
        if (is_before(&queue.events[i], &queue.events[first]))
            first = i;
    }
    return first;
}

static struct event
take_first(void)
{
    struct event first = queue.events[0];
    struct event last = queue.events[--queue.count];
    size_t at = 0;
    while (CHILDREN * at + 1 < queue.count) {
        size_t child = first_child(at);
        if (!is_before(&queue.events[child], &last))
            break;
        queue.events[at] = queue.events[child];
        at = child;
    }
    if (queue.count > 0)
        queue.events[at] = last;
    return first;
}

void
virtual_run_until(uint64_t at_ns)
{
    while (queue.count > 0 && queue.events[0].at_ns <= at_ns) {
        struct event event = take_first();
        queue.now_ns = event.at_ns;
        event_count++;
        event.run(event.arg);
        if (virtual_after_each != NULL)
            virtual_after_each();
    }
    if (queue.now_ns < at_ns)
        queue.now_ns = at_ns;
}

uint64_t
virtual_events(void)
{
    return event_count;
}

void
virtual_clear(void)
{
    while (queue.count > 0) {
        struct event event = take_first();
        queue.now_ns = event.at_ns;
        event.run(event.arg);
    }
    free(queue.events);
    queue.events = NULL;
    queue.capacity = 0;
    event_count = 0;
    queue.now_ns =
        BEGINNING_NS; /* So that the next cluster is as if it were the first. */
}

/* ---- Chance: splitmix64 ---- */

void
chance_seed(uint64_t seed)
{
    random_state = seed;
}

uint64_t
chance_random(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t
chance_below(uint64_t count)
{
    return chance_random() % count;
}

uint64_t
chance_between(uint64_t min, uint64_t max)
{
    return min + chance_below(max - min + 1);
}

bool
chance_of(uint64_t times, uint64_t of)
{
    return chance_below(of) < times;
}

/* ---- Processor time ---- */

uint64_t
cpu_thread_ns(void)
{
    struct timespec now;
    if (!cpu_is_measured)
        return 0;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * VIRTUAL_S + (uint64_t)now.tv_nsec;
}

void
cpu_pause(void)
{
    if (account.whose != NULL)
        account.used_ns += cpu_thread_ns() - account.began_ns;
}

void
cpu_resume(void)
{
    if (account.whose != NULL)
        account.began_ns = cpu_thread_ns();
}

struct cpu_account
cpu_enter(struct tally *whose)
{
    cpu_pause();
    struct cpu_account outer = account;
    account = (struct cpu_account){.whose = whose};
    cpu_resume();
    return outer;
}

void
cpu_leave(struct cpu_account outer)
{
    cpu_pause();
    account.whose->cpu_ns += account.used_ns;
    if (account.whose->longest_ns < account.used_ns)
        account.whose->longest_ns = account.used_ns;
    account = outer;
    cpu_resume();
}

void
cpu_charge(uint64_t ns)
{
    if (account.whose != NULL)
        account.used_ns += ns;
}
