/* Fault injection: the n-th call of a process to the C library fails.
 *
 * Only for tests. fault.c has a wrapper for every function that can fail for want of
 * memory, descriptors or luck; a program is linked with `--wrap=FUNCTION` for each of
 * them (tests/fault/CMakeLists.txt), so that calls from our code and from libuv's
 * archive come here, and nothing of it is in what is shipped.
 *
 * A test steers it through one page, struct fault_control, which it shares with the
 * process under test: its own page (fault_use()), or a file named by the environment's
 * FAULT_CONTROL, which a daemon maps when it starts. Processes are told apart by their
 * level: 0 is the one that was executed, 1 a child that it forked, and so on. */
#ifndef OS_FAULT_H
#define OS_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    FAULT_NAME_BYTES = 32,
    FAULT_SHORT = -1, /* In place of an errno: the call moves a single byte. */
};

/* Shared: the test writes what is wanted while `armed` is false; what comes back is
 * read after it is false again. */
struct fault_control {
    _Atomic bool armed;
    uint32_t level;              /* Of the process whose calls count. */
    uint64_t nth;                /* This call fails, 1 being the first; 0: none. */
    uint64_t run;                /* And so many in all from there on. */
    bool same;                   /* Of those, only calls of the same function. */
    uint32_t variant;            /* Which of the function's ways to fail. */
    char only[FAULT_NAME_BYTES]; /* Calls of this function alone count; "": all. */

    _Atomic uint64_t calls;      /* Counted while armed. */
    _Atomic uint64_t failures;   /* Calls that were made to fail. */
    uint32_t variants;           /* Of the first of them, */
    int number;                  /* its errno, or FAULT_SHORT, */
    uint64_t caller;             /* where it was called: an address for addr2line, */
    char name[FAULT_NAME_BYTES]; /* and its name. */

    _Atomic int64_t allocations;  /* Not freed yet, by the process at `level`. */
    _Atomic int64_t mapped_bytes; /* Not unmapped yet, the same. */
};

/* From now on `control` steers this process; NULL: nothing does. */
void fault_use(struct fault_control *control);

/* Calls of this thread do not count until it says so: they are the test's own. */
void fault_mute(bool muted);

#endif
