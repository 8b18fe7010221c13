#include "os/supervisor.h"

#include "base/check.h"
#include "base/log.h"
#include "os/clock.h"
#include "os/process.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    WINDOW_MS = 60000,      /* SUPERVISOR_CRASHES_MAX in this time: no more. */
    BACK_OFF_MS_MIN = 50,   /* After the second crash in a row; then doubled, */
    BACK_OFF_MS_MAX = 2000, /* up to this. */
    UP_LOOK_MS = 5,         /* Between two looks whether the child is up. */
};

/* Owner: supervisor_run(). */
struct supervisor {
    const struct supervisor_options *options;
    sigset_t before;  /* The caller's mask, which each child gets back. */
    sigset_t watched; /* SIGCHLD, SIGTERM, SIGINT; blocked all the time, so that each
                       * one waits for sigwaitinfo() and none is lost. */
    uint64_t crashed_ms[SUPERVISOR_CRASHES_MAX]; /* A ring, by `counted`. */
    int counted; /* Crashes since a child did its work until it was killed. */
    int crashes;
    int crashes_in_a_row; /* Without a child that lived longer than the window. */
    int starts;
    int up_fd;     /* An eventfd of the present child, which writes when it is up. */
    bool is_up;    /* It has. */
    bool stopping; /* A signal asked to end. */
};

/* In the child: where to say that it is up; -1 in a process that has no supervisor. */
static int child_up_fd = -1;

void
supervisor_child_is_up(void)
{
    uint64_t one = 1;
    if (child_up_fd < 0)
        return;
    /* A failure is no reason to end: the next kill just counts as a crash. */
    if (write(child_up_fd, &one, sizeof one) < 0)
        log_warn("supervisor cannot be told error=%s", strerror(errno));
    close(child_up_fd);
    child_up_fd = -1;
}

/* ---- The child ---- */

static void
run_child(const struct supervisor *self, pid_t parent)
{
    struct sigaction by_default = {.sa_handler = SIG_DFL};
    (void)sigaction(SIGCHLD, &by_default, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        _exit(SUPERVISOR_CRASH_EXIT); /* The supervisor died before we said that. */
    if (sigprocmask(SIG_SETMASK, &self->before, NULL) < 0)
        _exit(SUPERVISOR_CRASH_EXIT);
    child_up_fd = self->up_fd;
    exit(self->options->child(self->starts - 1, self->options->arg));
}

/* The child's pid, or -1 with errno. */
static pid_t
start_child(struct supervisor *self)
{
    pid_t parent = getpid();
    (void)fflush(NULL); /* Or the child would write our buffers a second time. */
    self->up_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->up_fd < 0)
        return -1;
    self->starts++;
    self->is_up = false;
    pid_t pid = fork();
    if (pid == 0)
        run_child(self, parent);
    return pid;
}

/* Whether the child has come up by now. */
static bool
look_for_up_note(struct supervisor *self)
{
    uint64_t count = 0;
    if (self->is_up || self->up_fd < 0 ||
        read(self->up_fd, &count, sizeof count) != sizeof count)
        return self->is_up;
    self->is_up = true;
    if (self->options->on_up != NULL)
        self->options->on_up(self->starts - 1, self->options->arg);
    return true;
}

/* Whether the child that has ended ever came up. */
static bool
take_up_note(struct supervisor *self)
{
    bool was_up = look_for_up_note(self);
    if (self->up_fd >= 0)
        close(self->up_fd);
    self->up_fd = -1;
    return was_up;
}

/* ---- The parent ---- */

/* Waits for one watched signal, forever when `timeout_ms` is negative; 0: none came. */
static int
wait_for_signal(const struct supervisor *self, int64_t timeout_ms)
{
    struct timespec timeout = {.tv_sec = timeout_ms / 1000,
                               .tv_nsec = timeout_ms % 1000 * 1000000};
    siginfo_t info;
    int got = timeout_ms < 0 ? sigwaitinfo(&self->watched, &info)
                             : sigtimedwait(&self->watched, &info, &timeout);
    return got < 0 ? 0 : got;
}

/* The wait status of the child, once it has ended. */
static int
wait_for_child(struct supervisor *self, pid_t child)
{
    for (;;) {
        bool looks = self->options->on_up != NULL && !look_for_up_note(self);
        int got = wait_for_signal(self, looks ? UP_LOOK_MS : -1);
        if (got == SIGTERM || got == SIGINT) {
            self->stopping = true;
            (void)kill(child, got);
        }
        int status;
        pid_t ended = waitpid(child, &status, WNOHANG);
        DS_ASSERT(ended == 0 || ended == child);
        if (ended == child)
            return status;
    }
}

/* A child that ended on purpose: it refused, finished, or obeyed a signal. */
static bool
has_ended_for_good(int status, int *out_code)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) < SUPERVISOR_CRASH_EXIT) {
        *out_code = WEXITSTATUS(status);
        return true;
    }
    if (WIFSIGNALED(status) &&
        (WTERMSIG(status) == SIGTERM || WTERMSIG(status) == SIGINT)) {
        *out_code = 0;
        return true;
    }
    return false;
}

/* Somebody ended a child that did its work: no fault of the child's. */
static bool
was_killed(int status, bool was_up)
{
    return was_up && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* Notes a crash of a child started at `started_ms`; false when it was one too many. */
static bool
note_crash(struct supervisor *self, uint64_t started_ms)
{
    uint64_t now_ms = clock_monotonic_ms();
    if (now_ms - started_ms > WINDOW_MS)
        self->crashes_in_a_row = 0;
    uint64_t *slot = &self->crashed_ms[self->counted % SUPERVISOR_CRASHES_MAX];
    *slot = now_ms;
    self->crashes++;
    self->counted++;
    self->crashes_in_a_row++;
    if (self->counted < SUPERVISOR_CRASHES_MAX)
        return true;
    uint64_t oldest_ms = self->crashed_ms[self->counted % SUPERVISOR_CRASHES_MAX];
    return now_ms - oldest_ms > WINDOW_MS;
}

static uint64_t
back_off_ms(const struct supervisor *self)
{
    uint64_t wait_ms = BACK_OFF_MS_MIN;
    if (self->crashes_in_a_row < 2)
        return 0;
    for (int i = 2; i < self->crashes_in_a_row && wait_ms < BACK_OFF_MS_MAX; i++)
        wait_ms *= 2;
    return wait_ms < BACK_OFF_MS_MAX ? wait_ms : BACK_OFF_MS_MAX;
}

/* Rests before the next start; a signal to end ends the rest. */
static void
rest(struct supervisor *self)
{
    uint64_t until_ms = clock_monotonic_ms() + back_off_ms(self);
    for (;;) {
        uint64_t now_ms = clock_monotonic_ms();
        int got =
            wait_for_signal(self, now_ms < until_ms ? (int64_t)(until_ms - now_ms) : 0);
        if (got == SIGTERM || got == SIGINT) {
            self->stopping = true;
            return;
        }
        if (got == 0 && clock_monotonic_ms() >= until_ms)
            return;
    }
}

static void
report_crash(const struct supervisor *self, int status, bool will_restart)
{
    const struct supervisor_options *options = self->options;
    if (WIFSIGNALED(status))
        log_error("supervisor crash name=%s signal=%d(%s) crashes=%d restart=%s",
                  options->name, WTERMSIG(status), strsignal(WTERMSIG(status)),
                  self->crashes, will_restart ? "yes" : "no");
    else
        log_error("supervisor crash name=%s exit=%d crashes=%d restart=%s",
                  options->name, WEXITSTATUS(status), self->crashes,
                  will_restart ? "yes" : "no");
    if (options->on_crash != NULL)
        options->on_crash(status, self->crashes, will_restart, options->arg);
}

/* Runs one child to its end. False with *out_code when it was the last one. */
static bool
run_once(struct supervisor *self, int *out_code)
{
    uint64_t started_ms = clock_monotonic_ms();
    int status = SUPERVISOR_CRASH_EXIT << 8; /* As if it exited so, if there is none. */
    pid_t child = start_child(self);
    if (child >= 0)
        status = wait_for_child(self, child);
    else
        log_error("supervisor fork name=%s error=%s", self->options->name,
                  strerror(errno));
    bool was_up = take_up_note(self);
    if (has_ended_for_good(status, out_code))
        return false;
    *out_code = SUPERVISOR_CRASH_EXIT;
    bool will_restart = true;
    if (was_killed(status, was_up))
        self->counted = self->crashes_in_a_row = 0;
    else
        will_restart = note_crash(self, started_ms);
    will_restart = will_restart && !self->stopping;
    report_crash(self, status, will_restart);
    return will_restart;
}

int
supervisor_run(const struct supervisor_options *options)
{
    DS_ASSERT(options->child != NULL);
    DS_ASSERT(options->name != NULL);
    struct supervisor self = {.options = options, .up_fd = -1};
    struct sigaction by_default = {.sa_handler = SIG_DFL}, chld_before;
    sigemptyset(&self.watched);
    sigaddset(&self.watched, SIGCHLD);
    sigaddset(&self.watched, SIGTERM);
    sigaddset(&self.watched, SIGINT);
    int result = sigprocmask(SIG_BLOCK, &self.watched, &self.before);
    DS_ASSERT(result == 0);
    process_raise_descriptor_limit();
    /* Were SIGCHLD ignored, the kernel would reap the child before we look. */
    result = sigaction(SIGCHLD, &by_default, &chld_before);
    DS_ASSERT(result == 0);

    int code = 0;
    while (run_once(&self, &code)) {
        rest(&self);
        if (self.stopping) {
            code = 0; /* Told to end while nothing ran. */
            break;
        }
    }
    (void)sigaction(SIGCHLD, &chld_before, NULL);
    /* The signals stay blocked: the caller is about to take down what it opened, and a
     * second SIGTERM must not leave half of that behind. */
    return code;
}
