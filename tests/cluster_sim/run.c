#include "sim.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "machine.h"
#include "worker/membership.h"
#include "worker/owners.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    TICK_NS = 10000000, /* So often is looked what has become of things. */
    ANSWER_MS = 2000,   /* When all is whole again, all has an answer so soon. */
    FORM_MS = 20000,    /* All belong, and know their keys, by then. */
    PROGRESS_S = 4000,  /* A seed takes no longer. */
    MEND_MS = 120000,   /* All is whole again so long after the last fault. */
    SETTLE_MS = 30000,  /* What was under way has ended. */
    UNKNOWN_S = 60,     /* What nobody heard of has been done by then, or is not. */
};

struct run run;
bool is_tracing;

/* ---- What is told ---- */

void
run_note(uint64_t what)
{
    run.hash = (run.hash ^ what) * UINT64_C(0x100000001b3);
}

void
trace(const char *format, ...)
{
    va_list arguments;
    if (!is_tracing)
        return;
    fprintf(stdout, "%12.6f ", (double)virtual_now_ns() / 1e9);
    va_start(arguments, format);
    vfprintf(stdout, format, arguments);
    va_end(arguments);
    fputc('\n', stdout);
}

static void
log_line(enum log_level level, const char *line, void *arg)
{
    (void)arg;
    int node = node_running == NULL ? -1 : (int)node_running->index;
    trace("node %d %s %s", node, log_level_name(level), line);
}

uint64_t
run_troubles(void)
{
    return run.troubles + counts.connections_ended;
}

/* ---- Whole ---- */

static bool
knows_all(struct node *node, uint64_t epoch, uint32_t count)
{
    const struct worker *worker = &node->worker;
    struct node_entry entry = node_enter(node, &node->tally);
    bool knows = owners_epoch(worker->owners) == epoch && epoch > 0 &&
                 store_header(worker->store)->known_epoch == epoch &&
                 owners_is_current(worker) && !owners_was_away(worker) &&
                 membership_count(worker->membership) == count;
    node_leave(entry);
    return knows;
}

static bool
runs(const struct node *node)
{
    return node->is_up && !node->is_stalled && !node->is_muted &&
           node->side == cluster.nodes[0].side && !node->worker.is_leaving &&
           !node->worker.stopping;
}

bool
run_is_whole(void)
{
    uint32_t count = 0;
    if (!cluster.nodes[0].is_up || virtual_now_ns() < network_faults.slow_until_ns)
        return false;
    uint64_t epoch = owners_epoch(cluster.nodes[0].worker.owners);
    for (uint32_t i = 0; i < cluster.count; i++)
        count += cluster.nodes[i].has_supervisor;
    for (uint32_t i = 0; i < cluster.count; i++) {
        struct node *node = &cluster.nodes[i];
        if (node->has_supervisor && (!runs(node) || !knows_all(node, epoch, count)))
            return false;
    }
    return !network_holds_something();
}

/* ---- A seed ---- */

static struct store_geometry
choose_geometry(void)
{
    run.is_small = chance_of(1, 4);
    return (struct store_geometry){
        .arena_bytes = run.is_small ? (UINT64_C(32) << 10) << chance_below(2)
                                    : (UINT64_C(256) << 10) << chance_below(2),
        .slot_count = run.is_small ? 64 : 256,
        .bucket_count = chance_of(1, 2) ? 8 : 64,
        .key_heap_bytes = 16 << 10,
        .region_count = 1,
        .words_per_region = 64,
    };
}

static void
open_cluster(void)
{
    network_faults =
        (struct network_faults){.are_on = true, .jitter_ns = chance_below(400000)};
    memset(&counts, 0, sizeof counts);
    struct cluster_options options = {
        .name = "cluster_sim",
        .places = (uint32_t)chance_between(NODES_MIN, NODES_MAX),
        .geometry = choose_geometry(),
        .node_timeout_s = (uint32_t)chance_between(3, 10)};
    cluster_open(&options);
    for (uint32_t i = 0; i < cluster.count; i++) {
        struct node *node = &cluster.nodes[i];
        node->clock_ns = chance_below(100000 * VIRTUAL_S);
        node->wall_ns = (int64_t)chance_below(VIRTUAL_S * 1000000);
        node_start(node);
    }
}

static void
tick(void)
{
    uint64_t now_ns = virtual_now_ns();
    losses_look();
    if (!run_is_whole()) {
        run.whole_since_ns = 0;
    } else {
        if (run.whole_since_ns == 0)
            run.whole_since_ns = now_ns;
        if (losses_are_open())
            losses_close();
        clients_expect_answers(ANSWER_MS);
    }
    faults_tick();
    controllers_tick();
}

static void
run_for_ms(uint64_t ms)
{
    uint64_t until = virtual_now_ns() + ms * VIRTUAL_MS;
    while (virtual_now_ns() < until) {
        virtual_run_until(min_u64(until, virtual_now_ns() + TICK_NS));
        tick();
    }
}

static void
wait_until_whole(uint64_t most_ms, const char *what)
{
    uint64_t until = virtual_now_ns() + most_ms * VIRTUAL_MS;
    while (run.whole_since_ns == 0 || (run.is_ending && !faults_are_over())) {
        if (virtual_now_ns() > until)
            cluster_fail("%s: not all know the members and their keys after %ju ms",
                         what, (uintmax_t)most_ms);
        run_for_ms(TICK_NS / VIRTUAL_MS);
    }
}

static void
wait_for_clients(const char *what)
{
    uint64_t until = virtual_now_ns() + SETTLE_MS * VIRTUAL_MS;
    while (!clients_are_idle() || !blocks_are_idle()) {
        if (virtual_now_ns() > until)
            cluster_fail("%s: a client hangs", what);
        run_for_ms(TICK_NS / VIRTUAL_MS);
    }
}

static void
wait_for_queue(void)
{
    uint64_t until = virtual_now_ns() + MEND_MS * VIRTUAL_MS;
    controllers_look();
    while (!controllers_are_looked_at()) {
        if (virtual_now_ns() > until)
            cluster_fail("the queue has no controller, or several");
        run_for_ms(TICK_NS / VIRTUAL_MS);
    }
}

/* Clients and faults, until there were enough of both. */
static void
work(void)
{
    uint64_t until = virtual_now_ns() + PROGRESS_S * VIRTUAL_S;
    while (run.done < run.operations_wanted || run.faults < run.faults_wanted) {
        if (virtual_now_ns() > until)
            cluster_fail("no progress: %u operations, %u faults", run.operations,
                         run.faults);
        run_for_ms(TICK_NS / VIRTUAL_MS);
        if (run.whole_since_ns != 0)
            record_forget_before(virtual_now_ns() - UNKNOWN_S * VIRTUAL_S);
    }
}

static void
be_calm(void)
{
    trace("quiet from here on");
    faults_end();
    run.is_ending = true;
    wait_until_whole(MEND_MS, "after the faults");
    run_for_ms(SETTLE_MS);
    wait_for_clients("at the end");
    wait_until_whole(MEND_MS, "after the last request");
    run.is_calm = true;
    run.calm_since_ns = virtual_now_ns();
    trace("calm");
    clients_look_at_all();
    blocks_look_at_all();
    wait_for_clients("the last look");
    wait_for_queue();
    wait_until_whole(MEND_MS, "after the last look");
    losses_look();
}

static void
check_stores(void)
{
    for (uint32_t i = 0; i < cluster.count; i++) {
        struct node *node = &cluster.nodes[i];
        struct store_stats stats;
        if (!node->is_up)
            continue;
        store_check(node->worker.store);
        store_stats(node->worker.store, &stats);
        if (stats.writing != 0 || stats.dead != 0)
            cluster_fail("node %u: left behind: unsealed=%ju dead=%ju", i,
                         (uintmax_t)stats.writing, (uintmax_t)stats.dead);
    }
}

void
run_seed(void)
{
    uint64_t seed = run.seed;
    chance_seed(seed);
    log_set_sink(log_line, NULL, is_tracing ? LOG_DEBUG : LOG_NONE);
    record_reset();
    losses_reset();
    values_reset();
    blocks_reset();
    controllers_reset();
    faults_reset();
    virtual_after_each = losses_look;
    open_cluster();
    wait_until_whole(FORM_MS, "at the beginning");
    clients_start();
    blocks_start();
    controllers_start();
    faults_start();
    work();
    be_calm();
    record_check();
    check_stores();
    run_note(virtual_events());
    run.is_over = true;
    virtual_after_each = NULL;
    clients_hang_up();
    controllers_end();
    cluster_close();
    controllers_reset();
    machine_forget_files();
}
