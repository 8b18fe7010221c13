/* cluster_sim: runs seeds of several nodes.
 *
 *   cluster_sim --seed N [--count COUNT] [--operations N] [--no-faults] [--trace]
 *               [--twice] [--hash] [--plant BUG]
 *   cluster_sim --plant-each [--seed N] [--count COUNT]
 *
 * Each seed makes at least so many operations (500) and meets 12 faults. --twice runs each
 * seed again, which must be the same to the last bit; --hash prints what tells. Ends with 0
 * if all went well; else the first seed that did not is named, with the command that repeats
 * it. --plant runs them with a bug of src/base/planted.h; --plant-each with each of those
 * that are for several nodes, and all have to be found. */
#include "planted.h"
#include "sim.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FAULTS_WANTED = 12 };

static const enum planted_bug FIRST_BUG = PLANTED_UNASKED_HOLDER;
static const enum planted_bug LAST_BUG = PLANTED_COUNT - 1;

struct options {
    uint64_t seed;
    uint64_t count;
    uint32_t operations;
    bool no_faults;
    bool twice;
    bool print_hash;
    bool plants_each;
    const char *plant;
};

static struct options options = {.seed = 1, .count = 1, .operations = 500};

static const char usage[] =
    "Usage: cluster_sim [--seed N] [--count N] [--operations N] [--no-faults]\n"
    "                   [--trace] [--twice] [--hash] [--plant BUG]\n"
    "       cluster_sim --plant-each [--seed N] [--count N]\n";

static void
print_replay(void)
{
    fprintf(stdout,
            "cluster_sim: repeat with: cluster_sim --seed %ju --operations %u%s%s%s "
            "--trace\n",
            (uintmax_t)run.seed, options.operations,
            options.no_faults ? " --no-faults" : "",
            options.plant != NULL ? " --plant " : "",
            options.plant != NULL ? options.plant : "");
    fflush(stdout); /* NOLINT(bugprone-signal-handler,cert-sig30-c): see on_crash() */
}

/* An assertion of the product, or worse. The process is lost in any case: what is said may
 * fail, but mostly does not.
 * NOLINTBEGIN(bugprone-signal-handler,cert-sig30-c) */
static void
on_crash(int number)
{
    signal(number, SIG_DFL);
    fprintf(stdout, "cluster_sim: seed %ju: %s\n", (uintmax_t)run.seed,
            strsignal(number));
    print_replay();
    raise(number);
}
/* NOLINTEND(bugprone-signal-handler,cert-sig30-c) */

static void
on_fail(const char *text)
{
    fprintf(stdout, "cluster_sim: seed %ju: %s\n", (uintmax_t)run.seed, text);
    print_replay();
}

struct totals {
    uint64_t operations, done, full, faults, unchecked;
};

static void
run_one(uint64_t seed, struct totals *totals)
{
    run = (struct run){.seed = seed,
                       .operations_wanted = options.operations,
                       .faults_wanted = options.no_faults ? 0 : FAULTS_WANTED};
    run_seed();
    totals->operations += run.operations;
    totals->done += run.done;
    totals->full += run.full;
    totals->faults += run.faults;
    totals->unchecked += run.unchecked;
}

static void
run_options(uint64_t seed, struct totals *totals)
{
    run_one(seed, totals);
    uint64_t hash = run.hash;
    if (options.twice) {
        run_one(seed, totals);
        if (hash != run.hash)
            cluster_fail("seed %ju: the second time went another way", (uintmax_t)seed);
    }
    if (options.print_hash)
        fprintf(stdout, "%ju %016jx\n", (uintmax_t)seed, (uintmax_t)hash);
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
            is_tracing = true;
            break;
        case 'h':
            options.print_hash = true;
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
        default:
            return false;
        }
    }
    return optind == argc;
}

/* A failure ends the process, which is one for each bug. */
static const char *
run_quietly(uint64_t seed)
{
    struct totals totals = {0};
    run_one(seed, &totals);
    return NULL;
}

static int
plant_each(void)
{
    struct planted_search search = {.first = FIRST_BUG,
                                    .last = LAST_BUG,
                                    .first_seed = options.seed,
                                    .seed_count = options.count,
                                    .out = stdout,
                                    .run_seed = run_quietly};
    cluster_on_fail = planted_tell;
    return planted_find_all(&search) == 0 ? 0 : 1;
}

int
main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    if (options.plants_each)
        return plant_each();
    cluster_on_fail = on_fail;
    signal(SIGABRT, on_crash);
    signal(SIGSEGV, on_crash);
    struct totals totals = {0};
    for (uint64_t seed = options.seed; seed < options.seed + options.count; seed++)
        run_options(seed, &totals);
    fprintf(stdout,
            "cluster_sim: %ju seeds, %ju operations (%ju done, %ju full), %ju faults, "
            "%ju keys not checked\n",
            (uintmax_t)options.count, (uintmax_t)totals.operations,
            (uintmax_t)totals.done, (uintmax_t)totals.full, (uintmax_t)totals.faults,
            (uintmax_t)totals.unchecked);
    return 0;
}
