#include "os/boot_id.h"

#include "os/files.h"

#include "test.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* From here on this process can open nothing. */
static void
forbid_files(bool forbidden)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = forbidden ? 0 : limit.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/* In a child each, as what is known stays known. Its answer is its exit status. */
static bool
child_says_yes(bool (*question)(void))
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        _exit(question() ? EXIT_SUCCESS : EXIT_FAILURE);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

static bool
a_failure_passes(void)
{
    char text[BOOT_ID_BYTES];
    forbid_files(true);
    bool refused = !boot_id_get(text) && text[0] == '\0';
    forbid_files(false);
    return refused && boot_id_get(text) && strlen(text) == BOOT_ID_BYTES - 1;
}

/* Runs first: this process must not know it yet. */
TEST(a_failed_read_is_tried_again)
{
    CHECK(child_says_yes(a_failure_passes));
}

static bool
is_known_without_a_file(void)
{
    char text[BOOT_ID_BYTES];
    forbid_files(true);
    return boot_id_get(text) && strlen(text) == BOOT_ID_BYTES - 1;
}

static bool
is_read_once(void)
{
    char text[BOOT_ID_BYTES];
    return boot_id_get(text) && is_known_without_a_file();
}

TEST(the_file_is_read_once)
{
    CHECK(!child_says_yes(is_known_without_a_file));
    CHECK(child_says_yes(is_read_once));
}

static void *
get_in_thread(void *out)
{
    return boot_id_get(out) ? out : NULL;
}

TEST(threads_that_ask_at_once_get_what_the_kernel_says)
{
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    char texts[THREADS][BOOT_ID_BYTES];
    char kernel[64];
    CHECK(files_read("/proc/sys/kernel/random/boot_id", kernel, sizeof kernel));
    kernel[strcspn(kernel, "\n")] = '\0';
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, get_in_thread, texts[i]) == 0);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        CHECK(pthread_join(threads[i], &result) == 0);
        CHECK(result != NULL);
        CHECK_TEXT(texts[i], kernel);
    }
}

TEST(a_forked_child_knows_what_its_parent_knew)
{
    char text[BOOT_ID_BYTES];
    CHECK(boot_id_get(text));
    CHECK(child_says_yes(is_known_without_a_file));
}

TEST_MAIN(RUN(a_failed_read_is_tried_again), RUN(the_file_is_read_once),
          RUN(threads_that_ask_at_once_get_what_the_kernel_says),
          RUN(a_forked_child_knows_what_its_parent_knew))
