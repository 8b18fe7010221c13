/* sim: runs seeds.
 *
 *   sim --seed N [--count COUNT] [--operations N] [--no-faults] [--trace]
 *       [--twice] [--hash] [--plant BUG]
 *   sim --plant-each [--seed N] [--count COUNT]
 *
 * Each seed makes at least so many operations (500) and meets 5 faults; even ones use the
 * queue as well. --twice runs each
 * seed again, which must be the same to the last bit; --hash prints what tells. Ends with 0
 * if all went well; else the first seed that did not is named, with the command that
 * repeats it. --plant runs them with a bug of src/base/planted.h; --plant-each with each
 * of these in turn, and all have to be found. */
#include "planted.h"
#include "workload.h"

#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    uint64_t seed;
    uint64_t count;
    uint32_t operations;
    bool no_faults;
    bool trace;
    bool print_hash;
    bool twice;
    bool plants_each;
    const char *plant;
};

enum planted_bug planted_bug = PLANTED_NONE;

static struct options options = {.seed = 1, .count = 1, .operations = 500};
static uint64_t current_seed;

static const char usage[] =
    "Usage: sim [--seed N] [--count N] [--operations N] [--no-faults]\n"
    "           [--trace] [--twice] [--hash] [--plant BUG]\n"
    "       sim --plant-each [--seed N] [--count N]\n";

static void
print_replay(void)
{
    fprintf(sim.out, "sim: repeat with: sim --seed %ju --operations %u%s%s%s --trace\n",
            (uintmax_t)current_seed, options.operations,
            options.no_faults ? " --no-faults" : "",
            options.plant != NULL ? " --plant " : "",
            options.plant != NULL ? options.plant : "");
    fflush(sim.out); /* NOLINT(bugprone-signal-handler,cert-sig30-c): see on_crash() */
}

/* An assertion of the product, or worse. The process is lost in any case: what is said
 * may fail, but mostly does not.
 * NOLINTBEGIN(bugprone-signal-handler,cert-sig30-c) */
static void
on_crash(int number)
{
    signal(number, SIG_DFL);
    fprintf(sim.out, "sim: seed %ju: %s\n", (uintmax_t)current_seed, strsignal(number));
    print_replay();
    raise(number);
}
/* NOLINTEND(bugprone-signal-handler,cert-sig30-c) */

enum { FAULTS_WANTED = 5 };
static const enum planted_bug FIRST_BUG = PLANTED_LOST_ACK;
static const enum planted_bug LAST_BUG = PLANTED_KEPT_ORPHAN;

static void
add_counts(struct counts *total, const struct counts *counts)
{
    total->operations += counts->operations;
    total->done += counts->done;
    total->full += counts->full;
    total->faults += counts->faults;
    total->kills += counts->kills;
    total->clients += counts->clients;
}

/* NULL, or what is wrong. */
static const char *
run_once(uint64_t seed, struct counts *total)
{
    struct workload_run run = {
        .workload = {.has_queue = seed % 2 == 0,
                     .operations_wanted = options.operations,
                     .faults_wanted = options.no_faults ? 0 : FAULTS_WANTED,
                     .has_faults = !options.no_faults}};
    if (!sim_run(seed, workload_main, &run))
        return sim.failure;
    add_counts(total, &run.counts);
    if (run.counts.operations < options.operations)
        return "too few operations";
    if (run.counts.faults < run.workload.faults_wanted)
        return "too few faults";
    return NULL;
}

static bool
run_seed(uint64_t seed, struct counts *total)
{
    current_seed = seed;
    const char *failure = run_once(seed, total);
    uint64_t hash = sim.hash;
    if (failure == NULL && options.twice) {
        failure = run_once(seed, total);
        if (failure == NULL && hash != sim.hash)
            failure = "the second time went another way";
    }
    if (options.print_hash)
        fprintf(sim.out, "%ju %016jx\n", (uintmax_t)seed, (uintmax_t)sim.hash);
    if (failure == NULL)
        return true;
    fprintf(sim.out, "sim: seed %ju: %s\n", (uintmax_t)seed, failure);
    print_replay();
    return false;
}

static bool
parse(int argc, char **argv)
{
    static const struct option table[] = {
        {"seed", required_argument, NULL, 's'},
        {"count", required_argument, NULL, 'c'},
        {"operations", required_argument, NULL, 'o'},
        {"no-faults", no_argument, NULL, 'f'},
        {"trace", no_argument, NULL, 't'},
        {"hash", no_argument, NULL, 'h'},
        {"twice", no_argument, NULL, '2'},
        {"plant", required_argument, NULL, 'p'},
        {"plant-each", no_argument, NULL, 'e'},
        {NULL, 0, NULL, 0},
    };
    int code;
    while ((code = getopt_long(argc, argv, "", table, NULL)) != -1) {
        switch (code) {
        case 's':
            options.seed = strtoull(optarg, NULL, 10);
            break;
        case 'c':
            options.count = strtoull(optarg, NULL, 10);
            break;
        case 'o':
            options.operations = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'f':
            options.no_faults = true;
            break;
        case 't':
            options.trace = true;
            break;
        case '2':
            options.twice = true;
            break;
        case 'p':
            options.plant = optarg;
            if (!planted_choose(optarg, FIRST_BUG, LAST_BUG))
                return false;
            break;
        case 'e':
            options.plants_each = true;
            break;
        case 'h':
            options.print_hash = true;
            break;
        default:
            return false;
        }
    }
    return optind == argc;
}

static const char *
run_quietly(uint64_t seed)
{
    struct counts counts = {0};
    if (run_seed(seed, &counts))
        return NULL;
    return sim.failure != NULL ? sim.failure : "not enough was done";
}

static int
plant_each(void)
{
    struct planted_search search = {.first = FIRST_BUG,
                                    .last = LAST_BUG,
                                    .first_seed = options.seed,
                                    .seed_count = options.count,
                                    .out = sim.out,
                                    .run_seed = run_quietly};
    sim.out = fopen("/dev/null", "w");
    return sim.out != NULL && planted_find_all(&search) == 0 ? 0 : 1;
}

int
main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    /* The controller says "ready" to its standard output: that is not ours. */
    sim.out = fdopen(dup(STDOUT_FILENO), "w");
    if (sim.out == NULL || freopen("/dev/null", "w", stdout) == NULL)
        return 2;
    sim.is_tracing = options.trace;
    signal(SIGABRT, on_crash);
    signal(SIGSEGV, on_crash);
    if (options.plants_each)
        return plant_each();
    struct counts total = {0};
    for (uint64_t seed = options.seed; seed < options.seed + options.count; seed++) {
        if (!run_seed(seed, &total))
            return 1;
    }
    fprintf(sim.out,
            "sim: %ju seeds, %u operations (%u done, %u full), %u faults (%u kills), "
            "%u clients\n",
            (uintmax_t)options.count, total.operations, total.done, total.full,
            total.faults, total.kills, total.clients);
    return 0;
}
