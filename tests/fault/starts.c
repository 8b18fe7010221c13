/* Faults while a daemon starts, and while the worker starts again after a crash. */
#include "sweep.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OUTPUT_BYTES = 16384 };

/* What the daemons have said since the output was emptied. */
static void
read_output(const struct daemons *daemons, char out[OUTPUT_BYTES])
{
    FILE *file = fopen(daemons->output, "re");
    size_t got = file == NULL ? 0 : fread(out, 1, OUTPUT_BYTES - 1, file);
    if (file != NULL)
        fclose(file);
    out[got] = '\0';
}

/* What the supervisor says of its child's end. abort() without a word is libuv's. */
static bool
check_log(struct sweep *sweep)
{
    char path[192], line[2048];
    bool passed = true;
    snprintf(path, sizeof path, "%s/w/datasystem/logs/datasystem_worker.log",
             sweep->daemons.folder);
    FILE *file = fopen(path, "re");
    while (file != NULL && passed && fgets(line, sizeof line, file) != NULL) {
        bool killed = strstr(line, "signal=9(") != NULL && sweep->target->restarts;
        if (strstr(line, "signal=") != NULL && strstr(line, "signal=6(") == NULL &&
            !killed)
            passed = sweep_fail(sweep, "its child crashed: %s", line);
    }
    if (file != NULL)
        fclose(file);
    (void)unlink(path);
    return passed;
}

static bool
check_output(struct sweep *sweep, bool must_say_why)
{
    char text[OUTPUT_BYTES];
    read_output(&sweep->daemons, text);
    if (strstr(text, "assertion failed") != NULL || strstr(text, "Sanitizer") != NULL)
        return sweep_fail(sweep, "it broke: %.800s", text);
    if (must_say_why && strlen(text) < 10)
        return sweep_fail(sweep, "it ended without a word");
    return check_log(sweep);
}

static bool
check_end(struct sweep *sweep, const char *when, int status, bool in_order)
{
    if (status == -1)
        return sweep_fail(sweep, "it hung %s", when);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && !in_order)
        return check_output(sweep, false); /* libuv's, unless an assertion failed. */
    if (WIFSIGNALED(status))
        return sweep_fail(sweep, "it crashed %s: %s", when,
                          strsignal(WTERMSIG(status)));
    if (in_order != (WEXITSTATUS(status) == 0))
        return sweep_fail(sweep, "it ended with %d %s", WEXITSTATUS(status), when);
    return check_output(sweep, !in_order);
}

/* ---- Start ---- */

static void
calm_load(struct sweep *sweep, struct load *load)
{
    (void)sweep;
    load_begin(load);
    load_run(load);
    load_end(load);
}

static bool
begins(struct sweep *sweep, int *out_status)
{
    if (sweep->target->in_controller) {
        controller_begin(&sweep->daemons, true);
        return controller_serves(&sweep->daemons, out_status);
    }
    worker_begin(&sweep->daemons, true);
    return worker_serves(&sweep->daemons, out_status);
}

static int
ends(struct sweep *sweep)
{
    return sweep->target->in_controller ? controller_end(&sweep->daemons)
                                        : worker_end(&sweep->daemons);
}

/* Either it says why it cannot start, or it serves as if nothing had been. */
bool
run_start(struct sweep *sweep)
{
    int status = 0;
    (void)unlink(sweep->daemons.output);
    atomic_store(&sweep->daemons.control->armed, true);
    bool serves = begins(sweep, &status);
    atomic_store(&sweep->daemons.control->armed, false);
    if (!serves && sweep->target->in_controller)
        (void)controller_end(&sweep->daemons);
    if (!serves)
        return check_end(sweep, "while it started", status, false);
    bool passed = sweep_run_child(sweep, calm_load);
    status = ends(sweep);
    return passed && check_end(sweep, "when it was told to", status, true);
}

/* ---- Start after a crash ---- */

/* The next child of the supervisor is the one whose calls count. */
static void
crash_child(const struct sweep *sweep)
{
    kill(sweep->daemons.worker, SIGSTOP);
    kill(child_of(sweep->daemons.worker), SIGKILL);
    atomic_store(&sweep->daemons.control->armed, true);
    kill(sweep->daemons.worker, SIGCONT);
}

static void
load_around_crash(struct sweep *sweep, struct load *load)
{
    load_hold(load);
    crash_child(sweep);
    load->is_calm = false; /* What fails after the start costs a request. */
    load_check_held(load);
    atomic_store(&sweep->daemons.control->armed, false);
    load_end(load);
}

/* Whatever was acknowledged, and whatever is held, survives the second start as well,
 * or the third. */
bool
run_restart(struct sweep *sweep)
{
    int status = 0;
    (void)unlink(sweep->daemons.output);
    worker_begin(&sweep->daemons, true);
    if (!worker_serves(&sweep->daemons, &status))
        return sweep_fail(sweep, "it does not start");
    bool passed = sweep_run_child(sweep, load_around_crash);
    if (passed && sweep->outcome->restarts == 0)
        passed = sweep_fail(sweep, "it was not started again");
    status = worker_end(&sweep->daemons);
    return passed && check_end(sweep, "when it was told to", status, true);
}
