/* What happens to a cluster, one after the other, and what each costs. */
#ifndef TESTS_SCALE_MEASURE_H
#define TESTS_SCALE_MEASURE_H

#include "cluster.h"

/* From its beginning until all that run know the members, and what their keys are. */
struct result {
    const char *name;
    uint32_t members;     /* In the end. */
    uint64_t duration_ns; /* Of what is counted. */
    uint64_t members_ns;  /* Until all know the members; 0: they stay the same. */
    uint64_t keys_ns;     /* And what their keys are. */
    uint64_t done_ns;     /* And until what was to happen has: a look-up, a takeover. */
    struct tally metastore; /* Sent by it, and its time. */
    struct tally busiest;   /* Of the other workers: each figure is the largest. */
    struct tally total;
    uint64_t reports;         /* KEY_REPORT that were accepted, */
    uint64_t reports_refused; /* and that came too early, and were sent again. */
    uint64_t reports_bytes;
    uint64_t renewals;
    uint64_t asked; /* JOURNAL_ASK */
    uint64_t connections;
    uint64_t connections_late;
};

enum { RESULTS_MAX = 16 };

/* All events with so many members. Returns how many results there are. */
size_t
measure(uint32_t members, uint64_t seed, uint32_t keys_per_node, struct result *out);

#endif
