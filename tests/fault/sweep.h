/* What sweep.c and starts.c share. */
#ifndef TESTS_FAULT_SWEEP_H
#define TESTS_FAULT_SWEEP_H

#include "daemons.h"
#include "load.h"

enum { USED_UNKNOWN = -1 };

/* What a process of its own found out. Shared with it. */
struct outcome {
    char report[LOAD_REPORT_BYTES];
    int64_t used_bytes; /* Of the arena, once everybody has left. */
    uint64_t restarts;
    bool is_done;
};

/* What the target has when it is at rest. */
struct rest {
    int64_t allocations;
    int64_t mapped_bytes;
    int64_t used_bytes;
    int fds;
    pid_t pid;
};

struct target {
    const char *name;
    uint32_t level; /* Of the process in which faults happen. */
    bool in_worker; /* Which process that is; neither: this program's child. */
    bool in_controller;
    bool over_tcp;
    bool starts;   /* Faults happen while it starts, not in service, */
    bool restarts; /* or while it starts again after a crash. */
};

/* Owner: main(). */
struct sweep {
    const struct target *target;
    const char *program;
    uint64_t nth;  /* 0: all of them, */
    uint64_t step; /* or only each so-manieth. */
    int variant;   /* -1: all of them. */
    uint64_t run;
    bool same;
    const char *only;
    struct daemons daemons;
    struct outcome *outcome;
    struct rest rest;
    char report[LOAD_REPORT_BYTES];
    unsigned runs;
    unsigned failures;
};

/* Notes why a run failed; returns false. */
__attribute__((format(printf, 2, 3))) bool
sweep_fail(struct sweep *sweep, const char *format, ...);

/* Runs `work` in a child, which is killed when it hangs, and takes its report. */
typedef void (*work_fn)(struct sweep *sweep, struct load *load);
bool sweep_run_child(struct sweep *sweep, work_fn work);

/* One n of a target that starts. False: the report says why. */
bool run_start(struct sweep *sweep);
bool run_restart(struct sweep *sweep);

#endif
