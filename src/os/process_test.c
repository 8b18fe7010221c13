#include "os/process.h"

#include "test.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t
start_sleeper(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pause();
        _exit(0);
    }
    return pid;
}

static void
end_and_leave_zombie(pid_t pid)
{
    siginfo_t info;
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
}

TEST(death_makes_the_descriptor_readable)
{
    pid_t pid = start_sleeper();
    int fd = process_open(pid, process_start_time(pid));
    struct pollfd watched = {.fd = fd, .events = POLLIN};
    CHECK(fd >= 0);
    CHECK_INT(poll(&watched, 1, 0), 0);
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK_INT(poll(&watched, 1, 5000), 1);
    CHECK_INT(waitpid(pid, NULL, 0), pid);
    close(fd);
}

TEST(another_process_under_the_same_pid_is_refused)
{
    uint64_t start_time = process_start_time(getpid());
    CHECK(start_time != 0);
    CHECK_INT(process_open(getpid(), start_time + 1), -1);
    CHECK_INT(errno, ESRCH);
    CHECK(!process_is_alive(getpid(), start_time + 1));
    CHECK(process_is_alive(getpid(), start_time));
    CHECK(process_is_alive(getpid(), 0));
}

TEST(zombies_and_the_gone_are_not_alive)
{
    pid_t pid = start_sleeper();
    uint64_t start_time = process_start_time(pid);
    CHECK(process_is_alive(pid, start_time));
    end_and_leave_zombie(pid);
    CHECK(!process_is_alive(pid, start_time));
    CHECK_INT(waitpid(pid, NULL, 0), pid);
    CHECK(!process_is_alive(pid, 0));
    CHECK_INT(process_open(pid, start_time), -1);
    CHECK_INT(errno, ESRCH);
    CHECK_INT(process_start_time(pid), 0);
}

/* The name stands before the number in /proc/PID/stat and may look like fields. */
TEST(start_time_is_read_past_a_misleading_name)
{
    char before[32] = {0};
    uint64_t start_time = process_start_time(getpid());
    CHECK(prctl(PR_GET_NAME, before) == 0);
    CHECK(prctl(PR_SET_NAME, "a) Z 1 2 (b") == 0);
    CHECK_INT(process_start_time(getpid()), start_time);
    CHECK(process_is_alive(getpid(), start_time));
    CHECK(prctl(PR_SET_NAME, before) == 0);
}

TEST(no_pid_is_no_process)
{
    CHECK_INT(process_open(0, 0), -1);
    CHECK(!process_is_alive(0, 0));
    CHECK_INT(process_start_time(-1), 0);
}

TEST(port_nobody_listens_on_is_described_as_empty)
{
    char text[64] = "old";
    process_describe_listener(1, text, sizeof text);
    CHECK_TEXT(text, "");
}

/* To be out of descriptors does not make anybody dead. */
TEST(not_to_be_able_to_tell_differs_from_gone)
{
    struct rlimit limit, none;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    int fd = process_open(getpid(), 0);
    int number = errno;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK_INT(fd, -1);
    CHECK_INT(number, EMFILE);
}

TEST(all_descriptors_that_may_be_had_can_be)
{
    struct rlimit before, few, after;
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    few = (struct rlimit){.rlim_cur = 64, .rlim_max = before.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    process_raise_descriptor_limit();
    CHECK(getrlimit(RLIMIT_NOFILE, &after) == 0);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK_INT(after.rlim_cur, before.rlim_max);
}

TEST_MAIN(RUN(death_makes_the_descriptor_readable),
          RUN(another_process_under_the_same_pid_is_refused),
          RUN(zombies_and_the_gone_are_not_alive),
          RUN(start_time_is_read_past_a_misleading_name), RUN(no_pid_is_no_process),
          RUN(not_to_be_able_to_tell_differs_from_gone),
          RUN(all_descriptors_that_may_be_had_can_be),
          RUN(port_nobody_listens_on_is_described_as_empty))
