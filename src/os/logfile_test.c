#include "os/files.h"
#include "os/logfile.h"

#include "test.h"

#include <fcntl.h>
#include <limits.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[TEST_FOLDER_BYTES];
static char text[64 << 10];

static const char *
path_of(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/logs/%s", folder, name);
    return path;
}

static const char *
content(const char *name)
{
    CHECK(files_read(path_of(name), text, sizeof text));
    return text;
}

static struct logfile *
open_log(uint64_t size_bytes_max, uint32_t files_max)
{
    char logs[PATH_MAX];
    struct ds_error err = {0};
    struct logfile *file = NULL;
    snprintf(logs, sizeof logs, "%s/logs", folder);
    struct logfile_options options = {.folder = logs,
                                      .name = "worker",
                                      .size_bytes_max = size_bytes_max,
                                      .files_max = files_max,
                                      .mode = 0640};
    CHECK_OK(logfile_open(&options, &file, &err));
    return file;
}

TEST(line_has_time_level_pid_and_message)
{
    test_make_folder(folder);
    struct logfile *file = open_log(1 << 20, 2);
    logfile_write(LOG_WARN, "store evict key=a", file);
    char pattern[256];
    snprintf(
        pattern, sizeof pattern,
        "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}Z WARN %d "
        "store evict key=a\n$",
        (int)getpid());
    regex_t compiled;
    CHECK_INT(regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB), 0);
    CHECK_INT(regexec(&compiled, content("worker.log"), 0, NULL, 0), 0);
    regfree(&compiled);
    logfile_close(file);
    test_remove_folder(folder);
}

TEST(log_macros_reach_the_file_through_the_sink)
{
    test_make_folder(folder);
    struct logfile *file = open_log(1 << 20, 2);
    log_set_sink(logfile_write, file, LOG_INFO);
    log_debug("hidden");
    log_error("shown code=%d", 5);
    log_set_sink(NULL, NULL, LOG_NONE);
    CHECK_CONTAINS(content("worker.log"), " ERROR ");
    CHECK_CONTAINS(text, " shown code=5\n");
    CHECK(strstr(text, "hidden") == NULL);
    logfile_close(file);
    test_remove_folder(folder);
}

/* With room for one line per file, the three newest lines are kept. */
TEST(full_files_are_rotated_and_the_oldest_goes)
{
    test_make_folder(folder);
    struct logfile *file = open_log(10, 3);
    logfile_write(LOG_INFO, "one", file);
    logfile_write(LOG_INFO, "two", file);
    logfile_write(LOG_INFO, "three", file);
    logfile_write(LOG_INFO, "four", file);
    CHECK_CONTAINS(content("worker.log"), "four");
    CHECK_CONTAINS(content("worker.log.1"), "three");
    CHECK_CONTAINS(content("worker.log.2"), "two");
    CHECK(access(path_of("worker.log.3"), F_OK) < 0);
    logfile_close(file);
    test_remove_folder(folder);
}

TEST(one_file_is_begun_anew_when_full)
{
    test_make_folder(folder);
    struct logfile *file = open_log(10, 1);
    logfile_write(LOG_INFO, "one", file);
    logfile_write(LOG_INFO, "two", file);
    CHECK(strstr(content("worker.log"), "one") == NULL);
    CHECK_CONTAINS(text, "two");
    CHECK(access(path_of("worker.log.1"), F_OK) < 0);
    logfile_close(file);
    test_remove_folder(folder);
}

/* Supervisor and worker share a file; here the two are two openings of it. */
TEST(rotation_by_another_process_is_followed)
{
    test_make_folder(folder);
    struct logfile *first = open_log(10, 4), *second = open_log(10, 4);
    logfile_write(LOG_INFO, "one", first);
    logfile_write(LOG_INFO, "two", second);
    logfile_write(LOG_INFO, "three", first);
    CHECK_CONTAINS(content("worker.log"), "three");
    CHECK_CONTAINS(content("worker.log.1"), "two");
    CHECK_CONTAINS(content("worker.log.2"), "one");
    logfile_close(first);
    logfile_close(second);
    test_remove_folder(folder);
}

TEST(existing_file_is_appended_to)
{
    test_make_folder(folder);
    struct logfile *file = open_log(1 << 20, 2);
    logfile_write(LOG_INFO, "one", file);
    logfile_close(file);
    file = open_log(1 << 20, 2);
    logfile_write(LOG_INFO, "two", file);
    logfile_close(file);
    CHECK_CONTAINS(content("worker.log"), "one");
    CHECK_CONTAINS(text, "two");
    test_remove_folder(folder);
}

/* stderr is a pipe while `line` is written; what came out is in `text`. */
static void
write_watching_stderr(const char *line, struct logfile *file)
{
    int ends[2], before = dup(STDERR_FILENO);
    CHECK(pipe(ends) == 0);
    CHECK(dup2(ends[1], STDERR_FILENO) >= 0);
    logfile_write(LOG_ERROR, line, file);
    CHECK(dup2(before, STDERR_FILENO) >= 0);
    close(before);
    close(ends[1]);
    ssize_t got = read(ends[0], text, sizeof text - 1);
    CHECK(got >= 0);
    text[got] = '\0';
    close(ends[0]);
}

TEST(line_goes_to_stderr_while_the_file_cannot_be_written)
{
    test_make_folder(folder);
    struct logfile *file = open_log(1 << 20, 2);
    files_remove(path_of("worker.log"));
    CHECK(rmdir(path_of("")) == 0);
    write_watching_stderr("folder gone", file);
    CHECK_CONTAINS(text, " ERROR ");
    CHECK_CONTAINS(text, "folder gone\n");

    CHECK(mkdir(path_of(""), 0700) == 0);
    write_watching_stderr("folder back", file);
    CHECK_TEXT(text, "");
    CHECK_CONTAINS(content("worker.log"), "folder back");
    logfile_close(file);
    test_remove_folder(folder);
}

TEST(no_file_means_stderr)
{
    write_watching_stderr("alone", NULL);
    CHECK_CONTAINS(text, "alone\n");
}

TEST(long_line_is_cut_and_still_ends)
{
    static char line[8000];
    memset(line, 'x', sizeof line - 1);
    write_watching_stderr(line, NULL);
    CHECK_INT(strlen(text), 4095);
    CHECK_INT(text[4094], '\n');
}

TEST(folder_that_cannot_be_made_is_named)
{
    struct ds_error err = {0};
    struct logfile *file = NULL;
    struct logfile_options options = {.folder = "/proc/nowhere/logs",
                                      .name = "worker",
                                      .size_bytes_max = 1,
                                      .files_max = 1,
                                      .mode = 0640};
    CHECK_STATUS(logfile_open(&options, &file, &err), DS_IO);
    CHECK_CONTAINS(err.message, "/proc/nowhere");
    CHECK(file == NULL);
}

TEST_MAIN(RUN(line_has_time_level_pid_and_message),
          RUN(log_macros_reach_the_file_through_the_sink),
          RUN(full_files_are_rotated_and_the_oldest_goes),
          RUN(one_file_is_begun_anew_when_full),
          RUN(rotation_by_another_process_is_followed),
          RUN(existing_file_is_appended_to),
          RUN(line_goes_to_stderr_while_the_file_cannot_be_written),
          RUN(no_file_means_stderr), RUN(long_line_is_cut_and_still_ends),
          RUN(folder_that_cannot_be_made_is_named))
