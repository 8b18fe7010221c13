/* Every supervisor here runs in a process of its own, made by run(). */
#include "os/clock.h"
#include "os/supervisor.h"

#include "test.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Children and supervisors report here, one byte for each event. */
static int events[2];

static void
tell(char event)
{
    if (write(events[1], &event, 1) != 1)
        abort();
}

/* The next event, or 0 when everybody who could tell one is gone. */
static char
next_event(void)
{
    char event = 0;
    struct pollfd watched = {.fd = events[0], .events = POLLIN};
    CHECK_INT(poll(&watched, 1, 10000), 1);
    return read(events[0], &event, 1) == 1 ? event : 0;
}

static void
on_crash(int wait_status, int crashes, int will_restart, void *arg)
{
    (void)wait_status;
    (void)arg;
    tell(will_restart ? (char)('0' + crashes) : 'X');
}

static pid_t
start(int (*child)(int restarts, void *arg))
{
    CHECK(pipe(events) == 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close(events[0]);
        struct supervisor_options options = {
            .child = child, .on_crash = on_crash, .name = "test"};
        _exit(supervisor_run(&options));
    }
    close(events[1]);
    return pid;
}

static int
code_of(pid_t pid)
{
    int status;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int
refuse(int restarts, void *arg)
{
    (void)restarts;
    (void)arg;
    return 7;
}

TEST(refusal_of_the_child_is_the_exit_code)
{
    pid_t pid = start(refuse);
    CHECK_INT(code_of(pid), 7);
    CHECK_INT(next_event(), 0);
    close(events[0]);
}

static int
crash_once(int restarts, void *arg)
{
    (void)arg;
    if (restarts == 0)
        raise(SIGKILL);
    return restarts;
}

TEST(first_crash_restarts_at_once)
{
    uint64_t start_ms = clock_monotonic_ms();
    pid_t pid = start(crash_once);
    CHECK_INT(code_of(pid), 1);
    CHECK(clock_monotonic_ms() - start_ms < 1000);
    CHECK_INT(next_event(), '1');
    CHECK_INT(next_event(), 0);
    close(events[0]);
}

static int
crash_always(int restarts, void *arg)
{
    (void)arg;
    return restarts % 2 == 0 ? SUPERVISOR_CRASH_EXIT : raise(SIGKILL);
}

/* Rests of 0, 50, 100 and 200 ms lie between the five. */
TEST(five_crashes_within_a_minute_give_up)
{
    uint64_t start_ms = clock_monotonic_ms();
    pid_t pid = start(crash_always);
    CHECK_INT(code_of(pid), SUPERVISOR_CRASH_EXIT);
    CHECK(clock_monotonic_ms() - start_ms >= 350);
    CHECK_INT(next_event(), '1');
    CHECK_INT(next_event(), '2');
    CHECK_INT(next_event(), '3');
    CHECK_INT(next_event(), '4');
    CHECK_INT(next_event(), 'X');
    CHECK_INT(next_event(), 0);
    close(events[0]);
}

static int
come_up_and_be_killed(int restarts, void *arg)
{
    (void)arg;
    supervisor_child_is_up();
    if (restarts < 20)
        raise(SIGKILL);
    return restarts;
}

/* Also: none of the twenty costs a rest. */
TEST(kills_of_a_child_that_was_up_do_not_count)
{
    uint64_t start_ms = clock_monotonic_ms();
    pid_t pid = start(come_up_and_be_killed);
    CHECK_INT(code_of(pid), 20);
    CHECK(clock_monotonic_ms() - start_ms < 5000);
    for (int i = 0; i < 20; i++)
        CHECK_INT(next_event(), '0');
    CHECK_INT(next_event(), 0);
    close(events[0]);
}

static int
come_up_and_crash(int restarts, void *arg)
{
    (void)restarts;
    (void)arg;
    supervisor_child_is_up();
    signal(SIGSEGV, SIG_DFL); /* Sanitizers have a handler for it. */
    return raise(SIGSEGV);
}

TEST(crashes_of_a_child_that_was_up_do_count)
{
    pid_t pid = start(come_up_and_crash);
    CHECK_INT(code_of(pid), SUPERVISOR_CRASH_EXIT);
    for (char event = '1'; event < '5'; event++)
        CHECK_INT(next_event(), event);
    CHECK_INT(next_event(), 'X');
    close(events[0]);
}

static void
on_up(int restarts, void *arg)
{
    (void)arg;
    tell((char)('a' + restarts));
}

/* The first one crashes before it is up, the second after that. */
static int
come_up_the_second_time(int restarts, void *arg)
{
    (void)arg;
    if (restarts > 0)
        supervisor_child_is_up();
    return restarts < 2 ? SUPERVISOR_CRASH_EXIT : 1;
}

TEST(every_child_that_comes_up_is_told)
{
    CHECK(pipe(events) == 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct supervisor_options options = {
            .child = come_up_the_second_time, .on_up = on_up, .name = "test"};
        _exit(supervisor_run(&options));
    }
    close(events[1]);
    CHECK_INT(code_of(pid), 1);
    CHECK_INT(next_event(), 'b');
    CHECK_INT(next_event(), 'c');
    CHECK_INT(next_event(), 0);
    close(events[0]);
}

static int
wait_forever(int restarts, void *arg)
{
    (void)restarts;
    (void)arg;
    tell('r');
    while (pause() < 0)
        ; /* A handler ran and let us go on. */
    return 0;
}

static void
obey(int signal_number)
{
    _exit(signal_number == SIGINT ? 12 : 15);
}

static int
wait_and_obey(int restarts, void *arg)
{
    signal(SIGTERM, obey);
    signal(SIGINT, obey);
    return wait_forever(restarts, arg);
}

TEST(signals_are_passed_on_to_the_child)
{
    pid_t pid = start(wait_and_obey);
    CHECK_INT(next_event(), 'r');
    CHECK(kill(pid, SIGTERM) == 0);
    CHECK_INT(code_of(pid), 15);
    close(events[0]);

    pid = start(wait_and_obey);
    CHECK_INT(next_event(), 'r');
    CHECK(kill(pid, SIGINT) == 0);
    CHECK_INT(code_of(pid), 12);
    close(events[0]);
}

TEST(child_that_dies_of_the_signal_has_obeyed)
{
    pid_t pid = start(wait_forever);
    CHECK_INT(next_event(), 'r');
    CHECK(kill(pid, SIGTERM) == 0);
    CHECK_INT(code_of(pid), 0);
    CHECK_INT(next_event(), 0);
    close(events[0]);
}

static int
ask_to_end_at_birth(int restarts, void *arg)
{
    kill(getppid(), SIGTERM);
    return wait_forever(restarts, arg);
}

/* The supervisor may not even be waiting yet. */
TEST(signal_right_after_fork_is_not_lost)
{
    pid_t pid = start(ask_to_end_at_birth);
    CHECK_INT(code_of(pid), 0);
    close(events[0]);
}

static void
ask_to_end_after_fourth(int wait_status, int crashes, int will_restart, void *arg)
{
    on_crash(wait_status, crashes, will_restart, arg);
    if (crashes == 4)
        kill(getpid(), SIGTERM);
}

/* Nothing runs then that could be told: the supervisor itself ends. */
TEST(signal_during_a_rest_ends_the_supervisor)
{
    CHECK(pipe(events) == 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct supervisor_options options = {
            .child = crash_always, .on_crash = ask_to_end_after_fourth, .name = "test"};
        _exit(supervisor_run(&options));
    }
    close(events[1]);
    CHECK_INT(code_of(pid), 0);
    CHECK_INT(next_event(), '1');
    CHECK_INT(next_event(), '2');
    CHECK_INT(next_event(), '3');
    CHECK_INT(next_event(), '4');
    CHECK_INT(next_event(), 0);
    close(events[0]);
}

static void
crash_in_handler(int signal_number)
{
    (void)signal_number;
    raise(SIGKILL);
}

static int
crash_when_told_to_end(int restarts, void *arg)
{
    signal(SIGTERM, crash_in_handler);
    return wait_forever(restarts, arg);
}

TEST(crash_while_ending_is_not_restarted)
{
    pid_t pid = start(crash_when_told_to_end);
    CHECK_INT(next_event(), 'r');
    CHECK(kill(pid, SIGTERM) == 0);
    CHECK_INT(code_of(pid), SUPERVISOR_CRASH_EXIT);
    CHECK_INT(next_event(), 'X');
    CHECK_INT(next_event(), 0);
    close(events[0]);
}

/* End of file on the pipe is the witness: the child held the other end. */
TEST(child_dies_with_its_supervisor)
{
    pid_t pid = start(wait_forever);
    CHECK_INT(next_event(), 'r');
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK_INT(waitpid(pid, NULL, 0), pid);
    CHECK_INT(next_event(), 0);
    close(events[0]);
}

static int
report_mask(int restarts, void *arg)
{
    sigset_t mask;
    (void)restarts;
    (void)arg;
    if (sigprocmask(SIG_SETMASK, NULL, &mask) < 0)
        return 1;
    if (sigismember(&mask, SIGTERM) || sigismember(&mask, SIGCHLD))
        return 2;
    return sigismember(&mask, SIGUSR1) ? 20 : 3;
}

/* Exactly the caller's mask, neither more nor less. */
TEST(child_gets_the_callers_signal_mask)
{
    sigset_t mask, before;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &mask, &before) == 0);
    pid_t pid = start(report_mask);
    CHECK_INT(code_of(pid), 20);
    CHECK(sigprocmask(SIG_SETMASK, &before, NULL) == 0);
    close(events[0]);
}

TEST(a_signal_after_the_end_does_not_disturb_the_caller)
{
    CHECK(pipe(events) == 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct supervisor_options options = {.child = refuse, .name = "test"};
        int code = supervisor_run(&options);
        raise(SIGTERM);
        raise(SIGINT);
        _exit(code);
    }
    CHECK_INT(code_of(pid), 7);
    close(events[0]);
    close(events[1]);
}

/* Some launchers ignore SIGCHLD, and children inherit that. */
TEST(ignored_sigchld_does_not_hide_the_childs_end)
{
    CHECK(pipe(events) == 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGCHLD, SIG_IGN);
        struct supervisor_options options = {.child = refuse, .name = "test"};
        _exit(supervisor_run(&options));
    }
    CHECK_INT(code_of(pid), 7);
    close(events[0]);
    close(events[1]);
}

static int
tell_whether_descriptors_are_few(int restarts, void *arg)
{
    struct rlimit limit;
    (void)restarts;
    (void)arg;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    return limit.rlim_cur == limit.rlim_max ? 3 : 4;
}

TEST(child_may_have_all_descriptors)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit few;
        struct supervisor_options options = {.child = tell_whether_descriptors_are_few,
                                             .name = "test"};
        CHECK(getrlimit(RLIMIT_NOFILE, &few) == 0);
        few.rlim_cur = 64;
        CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
        _exit(supervisor_run(&options));
    }
    CHECK_INT(code_of(pid), 3);
}

TEST_MAIN(RUN(refusal_of_the_child_is_the_exit_code), RUN(first_crash_restarts_at_once),
          RUN(five_crashes_within_a_minute_give_up),
          RUN(kills_of_a_child_that_was_up_do_not_count),
          RUN(crashes_of_a_child_that_was_up_do_count),
          RUN(every_child_that_comes_up_is_told),
          RUN(signals_are_passed_on_to_the_child),
          RUN(child_that_dies_of_the_signal_has_obeyed),
          RUN(signal_right_after_fork_is_not_lost),
          RUN(signal_during_a_rest_ends_the_supervisor),
          RUN(crash_while_ending_is_not_restarted), RUN(child_dies_with_its_supervisor),
          RUN(child_gets_the_callers_signal_mask),
          RUN(a_signal_after_the_end_does_not_disturb_the_caller),
          RUN(ignored_sigchld_does_not_hide_the_childs_end),
          RUN(child_may_have_all_descriptors))
