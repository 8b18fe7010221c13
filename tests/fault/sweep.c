/* fault_sweep TARGET [options]: the n-th call into the C library fails, for every n.
 *
 * Each n, and each way in which that call can fail, is one run of the workload in
 * load.c with real processes, in one of which (the target) the fault happens. A run
 * passes when nobody crashes or hangs, all that was acknowledged is read back, errors
 * say what happened, and no memory, mapping, descriptor or byte of the arena is lost.
 * A failed run prints the command that repeats it. */
#include "sweep.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    RUN_SECONDS_MAX = 60, /* Then it hangs. */
    SETTLE_TRIES = 1500,
    SETTLE_US = 2000,
    WARM_RUNS = 3,
    FAILURES_MAX = 20, /* Enough to read. */
};

bool
sweep_fail(struct sweep *sweep, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(sweep->report, sizeof sweep->report, format, args);
    va_end(args);
    return false;
}

static struct fault_control *
control_of(const struct sweep *sweep)
{
    return sweep->daemons.control;
}

/* ---- The workload, in a child ---- */

static int64_t
number_in(const char *json, const char *name)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\": ", name);
    const char *at = strstr(json, quoted);
    return at == NULL ? 0 : (int64_t)strtoull(at + strlen(quoted), NULL, 10);
}

/* Waits until the arena is as full as it was at rest; the first time, until it is empty,
 * or has been given time enough for that (what is being hashed is held for a moment). */
static void
check_arena(const struct sweep *sweep, struct load *load, struct outcome *outcome)
{
    char *json = NULL;
    struct ds_error err = {0};
    struct ds_client *client = load_open_client(load);
    int64_t wanted = sweep->rest.used_bytes;
    for (int i = 0; client != NULL && i < SETTLE_TRIES; i++) {
        if (ds_client_stats(client, &json, &err) != DS_OK) {
            load_fail(load, "stats afterwards: %s", err.message);
            break;
        }
        outcome->used_bytes = number_in(json, "memory_used_bytes") +
                              number_in(json, "memory_deleted_but_held_bytes");
        outcome->restarts = (uint64_t)number_in(json, "restarts");
        free(json);
        if (outcome->used_bytes == (wanted == USED_UNKNOWN ? 0 : wanted))
            break;
        usleep(SETTLE_US);
    }
    if (wanted != USED_UNKNOWN && outcome->used_bytes != wanted)
        load_fail(load, "%jd bytes of the arena are in use, %jd were before",
                  (intmax_t)outcome->used_bytes, (intmax_t)wanted);
    ds_client_close(client);
}

static void
check_own(struct load *load, const struct fault_control *control,
          const struct rest *before)
{
    int64_t allocations = atomic_load(&control->allocations) - before->allocations;
    int64_t mapped = atomic_load(&control->mapped_bytes) - before->mapped_bytes;
    int fds = test_open_fds() - before->fds;
    if (allocations != 0)
        load_fail(load, "%jd allocations were not freed", (intmax_t)allocations);
    if (mapped != 0)
        load_fail(load, "%jd bytes are still mapped", (intmax_t)mapped);
    if (fds != 0)
        load_fail(load, "%d descriptors are still open", fds);
}

static void
serve_load(struct sweep *sweep, struct load *load)
{
    struct fault_control *control = control_of(sweep);
    bool is_target = !sweep->target->in_worker && !sweep->target->in_controller;
    if (is_target)
        fault_use(control);
    load_begin(load);
    struct rest before = {.allocations = atomic_load(&control->allocations),
                          .mapped_bytes = atomic_load(&control->mapped_bytes),
                          .fds = test_open_fds() - 2 /* Pipes of the peer. */};
    atomic_store(&control->armed, !sweep->target->starts);
    load_run(load);
    atomic_store(&control->armed, false);
    load_end(load);
    if (is_target)
        check_own(load, control, &before);
    fault_use(NULL);
}

static bool
is_calm(const struct sweep *sweep)
{
    return control_of(sweep)->nth == 0 || sweep->target->starts ||
           sweep->target->restarts;
}

static bool
needs_controller(const struct target *target)
{
    return !target->in_worker || (!target->starts && !target->restarts);
}

static void
be_child(struct sweep *sweep, work_fn work)
{
    static struct load load;
    load = (struct load){.port = sweep->daemons.port,
                         .queue_address = needs_controller(sweep->target)
                                              ? sweep->daemons.queue_address
                                              : NULL,
                         .over_tcp = sweep->target->over_tcp,
                         .is_calm = is_calm(sweep)};
    snprintf(load.name, sizeof load.name, "k%u", sweep->runs);
    alarm(RUN_SECONDS_MAX);
    work(sweep, &load);
    check_arena(sweep, &load, sweep->outcome);
    memcpy(sweep->outcome->report, load.report, sizeof load.report);
    sweep->outcome->is_done = true;
    _exit(0);
}

bool
sweep_run_child(struct sweep *sweep, work_fn work)
{
    int status = 0;
    *sweep->outcome = (struct outcome){0};
    pid_t pid = fork();
    if (pid == 0)
        be_child(sweep, work);
    waitpid(pid, &status, 0);
    atomic_store(&control_of(sweep)->armed, false);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        return sweep_fail(sweep, "a client hung for %d s", RUN_SECONDS_MAX);
    if (WIFSIGNALED(status))
        return sweep_fail(sweep, "a client crashed: %s", strsignal(WTERMSIG(status)));
    if (!sweep->outcome->is_done)
        return sweep_fail(sweep, "a client ended with %d", WEXITSTATUS(status));
    if (sweep->outcome->report[0] != '\0')
        return sweep_fail(sweep, "%s", sweep->outcome->report);
    return true;
}

/* ---- A target in service ---- */

static pid_t
target_pid(const struct sweep *sweep)
{
    if (sweep->target->in_worker)
        return child_of(sweep->daemons.worker);
    return sweep->target->in_controller ? child_of(sweep->daemons.controller) : 0;
}

static struct rest
rest_now(struct sweep *sweep)
{
    pid_t pid = target_pid(sweep);
    return (struct rest){
        .allocations = atomic_load(&control_of(sweep)->allocations),
        .mapped_bytes = atomic_load(&control_of(sweep)->mapped_bytes),
        .used_bytes = sweep->outcome->used_bytes,
        .fds = pid == 0 ? 0 : fds_of(pid),
        .pid = pid,
    };
}

/* A controller remembers the last reply of everybody who ever asked (two allocations for
 * each, bounded in src/queue/replies.h), and every run is somebody new. */
enum { REMEMBERED_MAX = 4 };

static bool
is_at_rest(struct sweep *sweep, const struct rest *now)
{
    struct rest *rest = &sweep->rest;
    int64_t more = now->allocations - rest->allocations;
    int64_t more_max = sweep->target->in_controller ? REMEMBERED_MAX : 0;
    if (more < 0 || more > more_max || now->mapped_bytes != rest->mapped_bytes ||
        now->fds != rest->fds)
        return false;
    rest->allocations = now->allocations;
    return true;
}

static void
give_up(const struct sweep *sweep, const char *why)
{
    printf("%s: %s\n", sweep->target->name, why);
    exit(EXIT_FAILURE);
}

/* Starts whatever is to run all the time. */
static void
serve(struct sweep *sweep)
{
    int status = 0;
    const struct target *target = sweep->target;
    bool starts = target->starts || target->restarts;
    if (starts && target->in_worker)
        return;
    worker_begin(&sweep->daemons, target->in_worker);
    if (!worker_serves(&sweep->daemons, &status))
        give_up(sweep, "the worker does not start");
    if (starts)
        return;
    controller_begin(&sweep->daemons, target->in_controller);
    if (!controller_serves(&sweep->daemons, &status))
        give_up(sweep, "the controller does not start");
}

static void
prepare(struct sweep *sweep, uint64_t nth, uint32_t variant)
{
    struct fault_control *control = control_of(sweep);
    control->level = sweep->target->level;
    control->nth = nth;
    control->run = sweep->run;
    control->same = sweep->same;
    control->variant = variant;
    snprintf(control->only, sizeof control->only, "%s", sweep->only);
    control->variants = 0;
    control->name[0] = '\0';
    atomic_store(&control->calls, 0);
    atomic_store(&control->failures, 0);
}

static bool run_once(struct sweep *sweep);
static bool begin_again(struct sweep *sweep);

/* What is so when nothing fails: buffers have their size, tables have grown. */
static bool
warm_up(struct sweep *sweep)
{
    sweep->rest.used_bytes = USED_UNKNOWN;
    if (sweep->target->starts || sweep->target->restarts) {
        prepare(sweep, 0, 0);
        sweep->runs++;
        return run_once(sweep);
    }
    for (int i = 0; i < WARM_RUNS; i++) {
        prepare(sweep, 0, 0);
        sweep->runs++;
        if (!sweep_run_child(sweep, serve_load))
            return false;
        usleep(SETTLE_US * 100);
        sweep->rest = rest_now(sweep);
    }
    printf("%s: %ju calls; at rest %jd allocations, %d descriptors, %jd bytes\n",
           sweep->target->name, (uintmax_t)atomic_load(&control_of(sweep)->calls),
           (intmax_t)sweep->rest.allocations, sweep->rest.fds,
           (intmax_t)sweep->rest.used_bytes);
    return true;
}

/* A controller that could not write its journal starts again from it, on purpose. */
static bool
may_restart(struct sweep *sweep)
{
    return sweep->target->in_controller &&
           strcmp(control_of(sweep)->name, "pwrite") == 0;
}

static bool
check_target(struct sweep *sweep)
{
    struct rest now = rest_now(sweep);
    if (now.pid != sweep->rest.pid && may_restart(sweep))
        return begin_again(sweep);
    if (now.pid != sweep->rest.pid)
        return sweep_fail(sweep, "the %s ended and was started again",
                          sweep->target->in_worker ? "worker" : "controller");
    for (int i = 0; i < SETTLE_TRIES; i++) {
        if (is_at_rest(sweep, &now))
            return true;
        usleep(SETTLE_US);
        now = rest_now(sweep);
    }
    return sweep_fail(
        sweep,
        "the target does not come to rest: %jd allocations more, %jd mapped "
        "bytes more, %d descriptors more",
        (intmax_t)(now.allocations - sweep->rest.allocations),
        (intmax_t)(now.mapped_bytes - sweep->rest.mapped_bytes),
        now.fds - sweep->rest.fds);
}

static bool
is_gone(pid_t *pid)
{
    if (*pid != 0 && waitpid(*pid, NULL, WNOHANG) == *pid)
        *pid = 0;
    return *pid == 0;
}

static bool
run_once(struct sweep *sweep)
{
    if (sweep->target->starts)
        return run_start(sweep);
    if (sweep->target->restarts)
        return run_restart(sweep);
    bool passed = sweep_run_child(sweep, serve_load);
    if (is_gone(&sweep->daemons.worker) || is_gone(&sweep->daemons.controller))
        return sweep_fail(sweep, "a daemon has ended");
    if (passed && (sweep->target->in_worker || sweep->target->in_controller))
        passed = check_target(sweep);
    return passed;
}

/* ---- All n ---- */

static void
explain(struct sweep *sweep, uint64_t nth, uint32_t variant)
{
    const struct fault_control *control = control_of(sweep);
    char number[64];
    if (control->number == FAULT_SHORT)
        snprintf(number, sizeof number, "one byte only");
    else
        snprintf(number, sizeof number, "%s", strerror(control->number));
    printf("FAILED %s n=%ju variant=%u: %s (%s) called at 0x%jx\n       %s\n"
           "       again: %s %s --nth %ju --variant %u%s%s%s\n",
           sweep->target->name, (uintmax_t)nth, variant, control->name, number,
           (uintmax_t)control->caller, sweep->report, sweep->program,
           sweep->target->name, (uintmax_t)nth, variant, sweep->same ? " --same" : "",
           sweep->only[0] == '\0' ? "" : " --only ", sweep->only);
    fflush(stdout);
}

static void
stop(struct sweep *sweep)
{
    (void)controller_end(&sweep->daemons);
    (void)worker_end(&sweep->daemons);
}

/* A new start for the daemons: what failed may have left them in any state. */
static bool
begin_again(struct sweep *sweep)
{
    struct fault_control *control = control_of(sweep);
    uint64_t failures = atomic_load(&control->failures);
    uint32_t variants = control->variants;
    stop(sweep);
    serve(sweep);
    bool done = warm_up(sweep);
    atomic_store(&control->failures, failures);
    control->variants = variants;
    return done;
}

/* One run. False when there is no n-th call any more. */
static bool
run_one(struct sweep *sweep, uint64_t nth, uint32_t variant)
{
    prepare(sweep, nth, variant);
    sweep->runs++;
    bool passed = run_once(sweep);
    if (passed)
        return atomic_load(&control_of(sweep)->failures) > 0;
    explain(sweep, nth, variant);
    sweep->failures++;
    if (!begin_again(sweep))
        give_up(sweep, sweep->report);
    return atomic_load(&control_of(sweep)->failures) > 0;
}

static void
run_variants(struct sweep *sweep, uint64_t nth, bool *out_past_end)
{
    uint32_t variants = 1;
    for (uint32_t i = 0; i < variants; i++) {
        if (sweep->variant >= 0 && i != (uint32_t)sweep->variant) {
            variants = (uint32_t)sweep->variant + 1;
            continue;
        }
        *out_past_end = !run_one(sweep, nth, i);
        if (*out_past_end)
            return;
        if (sweep->variant < 0)
            variants = control_of(sweep)->variants;
    }
}

static void
run_all(struct sweep *sweep)
{
    serve(sweep);
    if (!warm_up(sweep)) {
        printf("FAILED without any fault: %s\n", sweep->report);
        sweep->failures++;
        return;
    }
    bool past_end = false;
    uint64_t nth = sweep->nth == 0 ? 1 : sweep->nth;
    while (!past_end && sweep->failures < FAILURES_MAX) {
        run_variants(sweep, nth, &past_end);
        if (sweep->nth != 0)
            break;
        nth += sweep->step;
    }
}

/* ---- Options ---- */

static const struct target targets[] = {
    {.name = "client", .level = 1},
    {.name = "client_tcp", .level = 1, .over_tcp = true},
    {.name = "worker", .level = 1, .in_worker = true},
    {.name = "worker_tcp", .level = 1, .in_worker = true, .over_tcp = true},
    {.name = "controller", .level = 1, .in_controller = true},
    {.name = "supervisor_start", .in_worker = true, .starts = true},
    {.name = "worker_start", .level = 1, .in_worker = true, .starts = true},
    {.name = "worker_restart", .level = 1, .in_worker = true, .restarts = true},
    {.name = "keeper_start", .in_controller = true, .starts = true},
    {.name = "controller_start", .level = 1, .in_controller = true, .starts = true},
};

static const struct target *
target_named(const char *name)
{
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        if (strcmp(targets[i].name, name) == 0)
            return &targets[i];
    }
    return NULL;
}

static bool
take_option(struct sweep *sweep, int code)
{
    switch (code) {
    case 'n':
        sweep->nth = strtoull(optarg, NULL, 10);
        return true;
    case 'v':
        sweep->variant = atoi(optarg);
        return true;
    case 's':
        sweep->step = strtoull(optarg, NULL, 10);
        return sweep->step > 0;
    case 'a':
        sweep->same = true;
        sweep->run = UINT64_MAX;
        return true;
    case 'o':
        sweep->only = optarg;
        return true;
    default:
        return false;
    }
}

static bool
parse(struct sweep *sweep, int argc, char **argv)
{
    static const struct option options[] = {{"nth", required_argument, NULL, 'n'},
                                            {"variant", required_argument, NULL, 'v'},
                                            {"step", required_argument, NULL, 's'},
                                            {"same", no_argument, NULL, 'a'},
                                            {"only", required_argument, NULL, 'o'},
                                            {NULL, 0, NULL, 0}};
    int code;
    while ((code = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!take_option(sweep, code))
            return false;
    }
    if (optind + 1 == argc)
        sweep->target = target_named(argv[optind]);
    return sweep->target != NULL;
}

int
main(int argc, char **argv)
{
    struct sweep sweep = {
        .program = argv[0], .step = 1, .variant = -1, .run = 1, .only = ""};
    if (!parse(&sweep, argc, argv)) {
        fprintf(stderr,
                "Usage: %s TARGET [--nth N] [--variant V] [--step N] [--same] "
                "[--only FUNCTION]\n",
                argv[0]);
        return 2;
    }
    sweep.outcome = mmap(NULL, sizeof *sweep.outcome, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    daemons_begin(&sweep.daemons);
    run_all(&sweep);
    daemons_end(&sweep.daemons);
    printf("%s: %u runs, %u failed\n", sweep.target->name, sweep.runs, sweep.failures);
    return sweep.failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
