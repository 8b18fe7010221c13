/* Worker and controller as processes of the test's own, one of them with faults. */
#ifndef TESTS_FAULT_DAEMONS_H
#define TESTS_FAULT_DAEMONS_H

#include "os/fault.h"
#include "test.h"

#include <sys/types.h>

/* Owner: the sweep. */
struct daemons {
    char folder[TEST_FOLDER_BYTES];
    uint16_t port;
    char queue_address[128];
    char output[128];              /* What both wrote to stderr. */
    pid_t worker;                  /* The supervisor; 0: not running. */
    pid_t controller;              /* 0: not running. */
    int controller_out;            /* Its standard output; -1: none. */
    struct fault_control *control; /* In the folder; steers the faulty one. */
    char control_path[128];
};

/* The folder, the port and the control page; nothing runs yet. */
void daemons_begin(struct daemons *daemons);

/* Starts one; `faulty` makes it the one that the control page steers. */
void worker_begin(struct daemons *daemons, bool faulty);
void controller_begin(struct daemons *daemons, bool faulty);

/* Waits until it serves. False: it has ended instead, with the status in *out_status,
 * or does not serve in time (-1). */
bool worker_serves(struct daemons *daemons, int *out_status);
bool controller_serves(struct daemons *daemons, int *out_status);

/* Ends it by SIGTERM; its wait status, or -1 when it had to be killed. */
int worker_end(struct daemons *daemons);
int controller_end(struct daemons *daemons);

/* Ends what still runs and removes everything. */
void daemons_end(struct daemons *daemons);

/* The process at `level` of the worker or of the controller: the faulty one. 0: none. */
pid_t child_of(pid_t supervisor);

/* Descriptors that the process has open. */
int fds_of(pid_t pid);

#endif
