/* A real datasystem_worker of the test's own: its folder, its port, its processes. */
#ifndef TESTS_SUPPORT_WORKER_PROCESS_H
#define TESTS_SUPPORT_WORKER_PROCESS_H

#include "test.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct worker_process {
    char folder[TEST_FOLDER_BYTES];
    uint16_t port;
    pid_t supervisor;
    bool unseeing;
};

/* Runs one with an arena of `arena_mb`, and waits until it serves. worker_stop() ends
 * both of its processes and removes the folder. */
void worker_start(struct worker_process *worker, int arena_mb);
void worker_stop(struct worker_process *worker);

/* The same in a pid namespace of its own, as in a container: it cannot see the pids of
 * its clients. Only root can. */
void worker_start_unseeing(struct worker_process *worker, int arena_mb);

/* Another worker at the same port and in the same folder, with new memory. */
void worker_replace(struct worker_process *worker, int arena_mb);

/* The process that does the work: it comes back when killed. */
pid_t worker_child(const struct worker_process *worker);
void worker_kill_child(const struct worker_process *worker);

/* A number from the worker's counters. */
struct ds_client;
uint64_t worker_stat(struct ds_client *client, const char *name);

#endif
