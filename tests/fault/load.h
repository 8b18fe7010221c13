/* A short workload over worker and controller that knows what was promised: whatever
 * was acknowledged must be read back, and what failed may be there or not. */
#ifndef TESTS_FAULT_LOAD_H
#define TESTS_FAULT_LOAD_H

#include <datasystem/datasystem.h>

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { LOAD_KEYS = 6, LOAD_ROWS = 2, LOAD_REPORT_BYTES = 1024 };

/* Another client of the worker, in a process of its own, which is killed in the end. */
struct load_peer {
    pid_t pid;
    int to;
    int from;
};

/* Owner: the process that runs it. */
struct load {
    uint16_t port;
    const char *queue_address; /* NULL: without a queue. */
    bool over_tcp;
    bool is_calm;  /* Nothing is made to fail: every error is a mistake. */
    char name[32]; /* Begins every key, so that runs do not meet. */
    struct ds_client *client;
    struct ds_queue *queue;
    struct load_peer peer;
    /* What a read may find: bit 0 nothing, bit v the value of version v. */
    uint32_t allowed[LOAD_KEYS];
    uint32_t rows[LOAD_ROWS]; /* Bit 0: no such row; bit 1: with its block. */
    bool block_is_known;      /* `block` was created, */
    bool block_may_be_ours;   /* and no controller has acknowledged it. */
    struct ds_block_id block;
    struct ds_buffer *held;
    char report[LOAD_REPORT_BYTES]; /* What went wrong; "": nothing. */
};

/* Starts the peer, which must not be counted: before faults are injected. */
void load_begin(struct load *load);

/* Every kind of call once. */
void load_run(struct load *load);

/* For a worker that crashes in between: puts some values and holds one; afterwards that
 * one still has its bytes, while others take what room there is. */
void load_hold(struct load *load);
void load_check_held(struct load *load);

/* From here on nothing fails. The same client and a new one see all that was promised;
 * then everything is deleted and closed. */
void load_end(struct load *load);

/* Notes what went wrong, for a reader of the test's output. */
__attribute__((format(printf, 2, 3))) void
load_fail(struct load *load, const char *format, ...);

/* A client of the test's own, or NULL with a note. */
struct ds_client *load_open_client(struct load *load);

#endif
