/* Processes, fibers, time and chance. */
#include "sim.h"

#include "base/check.h"
#include "store/store.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif
#ifdef HAS_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

enum {
    STACK_BYTES = 1 << 20,
    WAKES_MAX = 65536,
    SWITCHES_MAX = 40000000, /* A seed that needs more goes in circles. */
};
#define TIME_MAX_NS (20000 * SIM_S)
#define NEVER       UINT64_MAX

struct fiber {
    struct list link;
    struct process *process; /* NULL: of the simulation itself. */
    ucontext_t context;
    uint8_t *stack;
    fiber_fn main;
    void *arg;
    uint64_t wake_ns;
    bool is_runnable;
    bool is_done;
    void *fake_stack; /* AddressSanitizer's. */
};

struct wake {
    uint64_t ns;
    uint32_t pid;
};

struct sim sim;

static struct list fibers = {.next = &fibers, .prev = &fibers};
static struct list processes = {.next = &processes, .prev = &processes};
static struct list spare_fibers = {.next = &spare_fibers, .prev = &spare_fibers};
static struct fiber *current;
static ucontext_t scheduler;
static struct wake wakes[WAKES_MAX]; /* A binary heap. */
static size_t wake_count;
static uint32_t last_pid;
static uint64_t random_state;
static char failure_text[2048];

/* ---- Chance: xorshift64* (Vigna 2016) ---- */

uint64_t
sim_random(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(0x2545f4914f6cdd1d);
}

uint64_t
sim_below(uint64_t count)
{
    DS_ASSERT(count > 0);
    return (sim_random() >> 16) % count;
}

uint64_t
sim_between(uint64_t min, uint64_t max)
{
    return min + sim_below(max - min + 1);
}

bool
sim_chance(uint64_t times, uint64_t of)
{
    return sim_below(of) < times;
}

/* ---- What happened ---- */

void
sim_note(uint64_t what)
{
    sim.hash = (sim.hash ^ what) * UINT64_C(0x9e3779b97f4a7c15);
    sim.hash ^= sim.hash >> 29;
}

void
sim_trace(const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    /* The analyzer takes a va_list that va_start() made for one that nobody made.
     * NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (int i = 0; i < len && i < (int)sizeof line - 1; i++)
        sim_note((uint8_t)line[i]);
    sim_print(line);
}

void
sim_print(const char *line)
{
    if (sim.is_tracing)
        fprintf(sim.out, "%12.6f %-12s %s\n", (double)sim.now_ns / 1e9,
                process_current() != NULL ? process_current()->name : "-", line);
}

void
sim_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    vsnprintf(failure_text, sizeof failure_text, format, args);
    va_end(args);
    sim.failure = failure_text;
    sim_trace("FAILED %s", failure_text);
    if (current != NULL)
        swapcontext(&current->context, &scheduler);
    abort();
}

/* ---- Switching ---- */

static void
before_switch(void **save, const void *bottom, size_t bytes)
{
#ifdef HAS_ASAN
    __sanitizer_start_switch_fiber(save, bottom, bytes);
#else
    (void)save;
    (void)bottom;
    (void)bytes;
#endif
}

static void
after_switch(void *saved)
{
#ifdef HAS_ASAN
    __sanitizer_finish_switch_fiber(saved, NULL, NULL);
#else
    (void)saved;
#endif
}

/* The scheduler's own stack, as AddressSanitizer wants to know it. */
static const void *scheduler_stack;
static size_t scheduler_stack_bytes;

static void
to_scheduler(bool for_ever)
{
    struct fiber *self = current;
    before_switch(for_ever ? NULL : &self->fake_stack, scheduler_stack,
                  scheduler_stack_bytes);
    swapcontext(&self->context, &scheduler);
    after_switch(self->fake_stack);
}

static void
fiber_main(void)
{
#ifdef HAS_ASAN
    __sanitizer_finish_switch_fiber(NULL, &scheduler_stack, &scheduler_stack_bytes);
#endif
    current->main(current->arg);
    current->is_done = true;
    to_scheduler(true);
    abort();
}

static void
run_fiber(struct fiber *fiber)
{
    void *fake = NULL;
    current = fiber;
    sim.switches++;
    before_switch(&fake, fiber->stack, STACK_BYTES);
    swapcontext(&scheduler, &fiber->context);
    after_switch(fake);
    current = NULL;
}

static struct fiber *
fiber_new(struct process *process, fiber_fn main, void *arg)
{
    struct fiber *fiber;
    uint8_t *stack;
    if (list_is_empty(&spare_fibers)) {
        fiber = sim_allocate(sizeof *fiber);
        stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        DS_ASSERT(stack != MAP_FAILED);
    } else {
        fiber = CONTAINER_OF(spare_fibers.next, struct fiber, link);
        list_remove(&fiber->link);
        stack = fiber->stack;
    }
#ifdef HAS_ASAN
    __asan_unpoison_memory_region(stack, STACK_BYTES);
#endif
    *fiber = (struct fiber){.process = process,
                            .stack = stack,
                            .main = main,
                            .arg = arg,
                            .wake_ns = NEVER,
                            .is_runnable = true};
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = stack;
    fiber->context.uc_stack.ss_size = STACK_BYTES;
    fiber->context.uc_link = NULL;
    makecontext(&fiber->context, fiber_main, 0);
    list_push_back(&fibers, &fiber->link);
    if (process != NULL)
        process->fiber_count++;
    return fiber;
}

static void
fiber_end(struct fiber *fiber)
{
    list_remove(&fiber->link);
    list_push_front(&spare_fibers, &fiber->link);
}

/* ---- Waking ---- */

void
process_wake(struct process *process)
{
    if (process == NULL)
        return;
    LIST_FOREACH (link, &fibers) {
        struct fiber *fiber = CONTAINER_OF(link, struct fiber, link);
        if (fiber->process == process)
            fiber->is_runnable = true;
    }
}

void
process_wake_at(const struct process *process, uint64_t ns)
{
    DS_ASSERT(wake_count < WAKES_MAX);
    if (process == NULL)
        return;
    size_t at = wake_count++;
    while (at > 0 && wakes[(at - 1) / 2].ns > ns) {
        wakes[at] = wakes[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    wakes[at] = (struct wake){ns, process->pid};
}

static struct wake
wake_pop(void)
{
    struct wake first = wakes[0];
    struct wake last = wakes[--wake_count];
    size_t at = 0;
    for (size_t child = 1; child < wake_count; child = 2 * at + 1) {
        if (child + 1 < wake_count && wakes[child + 1].ns < wakes[child].ns)
            child++;
        if (wakes[child].ns >= last.ns)
            break;
        wakes[at] = wakes[child];
        at = child;
    }
    wakes[at] = last;
    return first;
}

static void
wake_what_is_due(void)
{
    while (wake_count > 0 && wakes[0].ns <= sim.now_ns)
        process_wake(process_find(wake_pop().pid));
    LIST_FOREACH (link, &fibers) {
        struct fiber *fiber = CONTAINER_OF(link, struct fiber, link);
        if (fiber->wake_ns <= sim.now_ns)
            fiber->is_runnable = true;
    }
}

static bool
may_run(const struct fiber *fiber)
{
    return fiber->is_runnable &&
           (fiber->process == NULL || fiber->process->stalled_until_ns <= sim.now_ns);
}

static struct fiber *
choose(void)
{
    uint32_t count = 0;
    LIST_FOREACH (link, &fibers)
        count += may_run(CONTAINER_OF(link, struct fiber, link));
    if (count == 0)
        return NULL;
    uint64_t wanted = count == 1 ? 0 : sim_below(count);
    LIST_FOREACH (link, &fibers) {
        struct fiber *fiber = CONTAINER_OF(link, struct fiber, link);
        if (may_run(fiber) && wanted-- == 0)
            return fiber;
    }
    return NULL;
}

/* Nobody can run: on to the next thing that happens. */
static bool
pass_time(void)
{
    uint64_t next = wake_count > 0 ? wakes[0].ns : NEVER;
    LIST_FOREACH (link, &fibers) {
        const struct fiber *fiber = CONTAINER_OF(link, struct fiber, link);
        uint64_t at =
            fiber->is_runnable ? fiber->process->stalled_until_ns : fiber->wake_ns;
        next = at < next ? at : next;
    }
    if (next == NEVER)
        return false;
    sim.now_ns = next > sim.now_ns ? next : sim.now_ns;
    return true;
}

void
sim_block(uint64_t until_ns)
{
    current->is_runnable = false;
    current->wake_ns = until_ns;
    to_scheduler(false);
    current->wake_ns = NEVER;
}

void
sim_sleep(uint64_t ns)
{
    uint64_t until = sim.now_ns + ns;
    while (sim.now_ns < until)
        sim_block(until);
}

void
sim_yield(void)
{
    if (current == NULL || sim.failure != NULL)
        return;
    to_scheduler(false);
}

void
sim_yield_rarely(void)
{
    if (current != NULL && current->process != NULL && sim_chance(1, sim.preempt_of))
        sim_yield();
}

/* ---- Processes ---- */

struct process *
process_current(void)
{
    return current == NULL ? NULL : current->process;
}

struct process *
process_find(uint32_t pid)
{
    LIST_FOREACH (link, &processes) {
        struct process *process = CONTAINER_OF(link, struct process, link);
        if (process->pid == pid)
            return process;
    }
    return NULL;
}

struct process *
process_start(const char *name, fiber_fn main, void *arg)
{
    struct process *process = sim_allocate(sizeof *process);
    process->pid = ++last_pid;
    process->is_visible = true;
    snprintf(process->name, sizeof process->name, "%s", name);
    list_init(&process->memory);
    list_push_back(&processes, &process->link);
    fiber_new(process, main, arg);
    return process;
}

void
process_add_fiber(struct process *process, fiber_fn main, void *arg)
{
    fiber_new(process, main, arg);
}

/* Nothing of it runs any more. */
static void
process_end(struct process *process)
{
    struct fiber *before = current;
    current = NULL;
    list_remove(&process->link);
    descriptors_close_of(process);
    descriptors_process_ended(process);
    memory_free_all(process);
    if (process->on_end != NULL)
        process->on_end(process->end_arg);
    sim_free(process);
    current = before;
}

void
process_kill(struct process *process)
{
    bool is_self = process == process_current();
    sim_trace("kill %s pid=%u", process->name, process->pid);
    LIST_FOREACH (link, &fibers) {
        struct fiber *fiber = CONTAINER_OF(link, struct fiber, link);
        if (fiber->process != process)
            continue;
        if (fiber == current)
            fiber->is_done = true;
        else
            fiber_end(fiber);
    }
    if (!is_self) {
        process_end(process);
        return;
    }
    process->fiber_count = 1;
    to_scheduler(true);
}

/* Between two stores to shared memory. */
static void
on_step(const char *name, void *arg)
{
    (void)name;
    (void)arg;
    struct process *process = process_current();
    if (process == NULL)
        return;
    if (process->steps_left > 0 && --process->steps_left == 0) {
        sim_trace("dies at step '%s'", name);
        process_kill(process);
    }
    sim_yield_rarely();
}

/* ---- The whole ---- */

static void
reap(struct fiber *fiber)
{
    struct process *process = fiber->process;
    fiber_end(fiber);
    if (process != NULL && --process->fiber_count == 0)
        process_end(process);
}

static void
clear(void)
{
    LIST_FOREACH (link, &fibers)
        fiber_end(CONTAINER_OF(link, struct fiber, link));
    LIST_FOREACH (link, &processes) {
        struct process *process = CONTAINER_OF(link, struct process, link);
        list_remove(&process->link);
        descriptors_close_of(process);
        memory_free_all(process);
        sim_free(process);
    }
    descriptors_reset();
    disk_reset();
    wake_count = 0;
    last_pid = 100;
}

bool
sim_run(uint64_t seed, fiber_fn body, void *arg)
{
    FILE *out = sim.out;
    bool is_tracing = sim.is_tracing;
    clear();
    sim = (struct sim){.now_ns = 1000 * SIM_S,
                       .seed = seed,
                       .hash = seed,
                       .out = out,
                       .is_tracing = is_tracing};
    random_state = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
    for (int i = 0; i < 8; i++)
        (void)sim_random();
    sim.preempt_of = 1u << sim_between(3, 9);
    /* The kernel's default, or so little that most values take several writes. */
    sim.stream_bytes_max = sim_chance(1, 2) ? 212992 : sim_between(512, 16384);
    store_set_step_hook(on_step, NULL);
    struct fiber *first = fiber_new(NULL, body, arg);
    bool is_over = false;
    while (!is_over && sim.failure == NULL) {
        wake_what_is_due();
        struct fiber *fiber = choose();
        if (fiber == NULL) {
            if (!pass_time())
                sim.failure = "everybody waits, and for nothing";
            continue;
        }
        sim.now_ns += sim_between(100, 2000);
        sim_note(sim.now_ns);
        run_fiber(fiber);
        is_over = fiber == first && fiber->is_done;
        if (fiber->is_done)
            reap(fiber);
        if (sim.switches > SWITCHES_MAX || sim.now_ns > TIME_MAX_NS)
            sim.failure = "it goes on and on";
    }
    store_set_step_hook(NULL, NULL);
    clear();
    return sim.failure == NULL;
}
