/* What clients do, in processes of their own; and what goes wrong meanwhile. */
#ifndef TESTS_SIM_WORKLOAD_H
#define TESTS_SIM_WORKLOAD_H

#include "sim.h"

struct workload {
    uint32_t operations_wanted;
    uint32_t faults_wanted;
    bool has_queue;
    bool has_faults;
};

struct counts {
    uint32_t operations; /* That have ended, in a living client. */
    uint32_t done;       /* Of them with success, */
    uint32_t full;       /* for want of room. */
    uint32_t faults;
    uint32_t kills;
    uint32_t clients;
};

/* Runs as the body of sim_run(): clients and faults until both are enough, then quiet,
 * then all that is left is looked at. */
struct workload_run {
    struct workload workload;
    struct counts counts;
};
void workload_main(void *workload_run);

/* faults.c: one fault, chosen at random. */
void fault_happens(struct counts *counts, bool has_queue);

/* The processes of clients. */
enum { CLIENTS_AT_ONCE = 5 };
struct process *workload_random_client(void);

#endif
