/* scale: what the membership of many workers costs.
 *
 *   scale [--nodes 10,100,1000] [--seed N] [--keys N] [--json] [--check]
 *
 * Prints a table for each number of nodes. Counts, bytes and virtual times follow from the
 * seed; the processor's times are measured. --check holds the counts to what they should be,
 * and ends with 1 if they are not. */
#include "base/log.h"
#include "check.h"
#include "machine.h"
#include "measure.h"
#include "nodes.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS_MAX = 8 };

struct options {
    uint32_t nodes[RUNS_MAX];
    size_t count;
    uint64_t seed;
    uint32_t keys_per_node;
    bool is_json;
    bool checks;
};

static const char usage[] =
    "Usage: scale [--nodes 10,100,1000] [--seed N] [--keys N] [--json] [--check]\n";

/* ---- Output ---- */

static double
ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static double
mb(uint64_t bytes)
{
    return (double)bytes / 1e6;
}

/* Of the workers, without the metastore. */
static double
mean_cpu_ms(const struct result *r)
{
    return ms(r->total.cpu_ns - r->metastore.cpu_ns) / (double)r->members;
}

static void
print_text(const struct result *results, size_t count)
{
    printf("| event | members | all know them | and their keys | messages | MB "
           "| reports | sent again | metastore: messages | MB | CPU "
           "| a worker, at most: messages | MB | CPU, mean | longest |\n"
           "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < count; i++) {
        const struct result *r = &results[i];
        printf("| %s | %u | %.0f ms | %.0f ms | %ju | %.3f | %ju | %ju | %ju | %.3f "
               "| %.1f ms | %ju | %.3f | %.2f ms | %.1f ms |\n",
               r->name, r->members, ms(r->members_ns), ms(r->keys_ns),
               (uintmax_t)r->total.messages, mb(r->total.bytes), (uintmax_t)r->reports,
               (uintmax_t)r->reports_refused, (uintmax_t)r->metastore.messages,
               mb(r->metastore.bytes), ms(r->metastore.cpu_ns),
               (uintmax_t)r->busiest.messages, mb(r->busiest.bytes), mean_cpu_ms(r),
               ms(r->busiest.longest_ns));
    }
    printf("\n");
    for (size_t i = 0; i < count; i++) {
        const struct result *r = &results[i];
        if (r->done_ns > 0)
            printf("%s: done after %.2f ms, %ju bytes, %ju were asked\n", r->name,
                   ms(r->done_ns), (uintmax_t)r->total.bytes, (uintmax_t)r->asked);
        if (r->connections > 0)
            printf("%s: %ju new connections, %ju found a backlog full\n", r->name,
                   (uintmax_t)r->connections, (uintmax_t)r->connections_late);
    }
    printf("a ring was built in %.2f ms\n\n", ms(machine_ring_ns));
}

static void
print_tally(const char *name, const struct tally *tally)
{
    printf("\"%s\": {\"messages\": %ju, \"bytes\": %ju, \"cpu_us\": %ju, "
           "\"longest_us\": %ju}, ",
           name, (uintmax_t)tally->messages, (uintmax_t)tally->bytes,
           (uintmax_t)(tally->cpu_ns / VIRTUAL_US),
           (uintmax_t)(tally->longest_ns / VIRTUAL_US));
}

static void
print_json(uint32_t nodes, const struct result *results, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct result *r = &results[i];
        printf("{\"nodes\": %u, \"event\": \"%s\", \"members\": %u, ", nodes, r->name,
               r->members);
        print_tally("total", &r->total);
        print_tally("metastore", &r->metastore);
        print_tally("busiest", &r->busiest);
        printf("\"duration_us\": %ju, \"members_us\": %ju, \"keys_us\": %ju, "
               "\"done_us\": %ju, \"reports\": %ju, \"reports_refused\": %ju, "
               "\"reports_bytes\": %ju, \"renewals\": %ju, \"asked\": %ju, "
               "\"connections\": %ju, \"connections_late\": %ju}\n",
               (uintmax_t)(r->duration_ns / VIRTUAL_US),
               (uintmax_t)(r->members_ns / VIRTUAL_US),
               (uintmax_t)(r->keys_ns / VIRTUAL_US),
               (uintmax_t)(r->done_ns / VIRTUAL_US), (uintmax_t)r->reports,
               (uintmax_t)r->reports_refused, (uintmax_t)r->reports_bytes,
               (uintmax_t)r->renewals, (uintmax_t)r->asked, (uintmax_t)r->connections,
               (uintmax_t)r->connections_late);
    }
}

/* ---- Options ---- */

static bool
parse_nodes(const char *text, struct options *out)
{
    out->count = 0;
    while (*text != '\0') {
        char *end;
        unsigned long nodes = strtoul(text, &end, 10);
        if (out->count == RUNS_MAX || nodes < 8 || nodes > 10000 || end == text ||
            (*end != ',' && *end != '\0'))
            return false;
        out->nodes[out->count++] = (uint32_t)nodes;
        text = *end == ',' ? end + 1 : end;
    }
    return out->count > 0;
}

static bool
parse(int argc, char **argv, struct options *out)
{
    static const struct option known[] = {
        {"nodes", required_argument, NULL, 'n'}, {"seed", required_argument, NULL, 's'},
        {"keys", required_argument, NULL, 'k'},  {"json", no_argument, NULL, 'j'},
        {"check", no_argument, NULL, 'c'},       {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (option == 'n' && parse_nodes(optarg, out))
            continue;
        if (option == 's')
            out->seed = strtoull(optarg, NULL, 10);
        else if (option == 'k')
            out->keys_per_node = (uint32_t)strtoul(optarg, NULL, 10);
        else if (option == 'j')
            out->is_json = true;
        else if (option == 'c')
            out->checks = true;
        else
            return false;
    }
    return optind == argc && out->keys_per_node > 0 && out->keys_per_node <= 1000000;
}

int
main(int argc, char **argv)
{
    struct options options = {
        .nodes = {10, 100, 1000}, .count = 3, .seed = 1, .keys_per_node = 16};
    struct result results[RESULTS_MAX];
    if (!parse(argc, argv, &options)) {
        fputs(usage, stderr);
        return 2;
    }
    log_set_sink(NULL, NULL, LOG_NONE);
    cpu_is_measured = true;
    for (size_t i = 0; i < options.count; i++) {
        uint32_t nodes = options.nodes[i];
        size_t count = measure(nodes, options.seed, options.keys_per_node, results);
        if (options.is_json)
            print_json(nodes, results, count);
        else
            print_text(results, count);
        fflush(stdout);
        if (options.checks)
            check_results(results, count, nodes);
    }
    return 0;
}
