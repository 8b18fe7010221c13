/* A tiny parent that outlives its child's crashes.
 *
 * It holds what must survive (descriptors are inherited by fork) and runs `child` in a
 * forked process, again after each crash: at once the first time, then with a back-off
 * that doubles from 50 ms to 2 s, and no more after 5 crashes within a minute. A child
 * that had come up (supervisor_child_is_up()) and was then killed by SIGKILL did not
 * crash: somebody else ended it, and starting works. It is replaced at once however
 * often that happens, and the count begins anew. The child dies with the supervisor
 * (PR_SET_PDEATHSIG), and may have as many descriptors as the system allows.
 * Single-threaded; must be called before any thread is started. */
#ifndef OS_SUPERVISOR_H
#define OS_SUPERVISOR_H

#include <datasystem/status.h>

struct supervisor_options {
    /* The child's main; its result is the exit code. 0 ends the supervisor too, as does
     * any exit with a code below 64 (a refusal, not a crash). `restarts` counts from 0.
     */
    int (*child)(int restarts, void *arg);

    /* In the supervisor: the child has come up, some milliseconds ago. May be NULL. */
    void (*on_up)(int restarts, void *arg);

    /* In the supervisor: the child crashed and `will_restart` or not. May be NULL. */
    void (*on_crash)(int wait_status, int crashes, int will_restart, void *arg);
    void *arg;
    const char *name; /* For log lines. */
};

enum { SUPERVISOR_CRASH_EXIT = 64, SUPERVISOR_CRASHES_MAX = 5 };

/* In the child: it does its work from now on. Once is enough. */
void supervisor_child_is_up(void);

/* Runs until the child ends for good; SIGTERM and SIGINT are passed on to it. Returns
 * the exit code for main(): the child's own, 0 after a signal that it obeyed, or
 * SUPERVISOR_CRASH_EXIT when it gave up. SIGTERM and SIGINT stay blocked when it
 * returns: the process is ending, and cleans up undisturbed. */
int supervisor_run(const struct supervisor_options *options);

#endif
