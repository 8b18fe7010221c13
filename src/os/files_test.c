#include "os/files.h"

#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[TEST_FOLDER_BYTES];

static const char *
path_of(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static mode_t
mode_of(const char *path)
{
    struct stat info;
    CHECK(stat(path, &info) == 0);
    return info.st_mode & 07777;
}

TEST(folders_are_made_with_their_parents)
{
    struct ds_error err = {0};
    test_make_folder(folder);
    CHECK_OK(files_make_folder(path_of("a/b/c"), 0700, &err));
    CHECK_INT(mode_of(path_of("a/b/c")), 0700);
    CHECK_OK(files_make_folder(path_of("a/b/c/"), 0700, &err));
    test_remove_folder(folder);
}

TEST(file_in_the_way_of_a_folder_is_named)
{
    struct ds_error err = {0};
    test_make_folder(folder);
    CHECK_OK(files_write(path_of("a"), "", 0600, &err));
    CHECK_STATUS(files_make_folder(path_of("a/b"), 0700, &err), DS_IO);
    CHECK_CONTAINS(err.message, "/a'");
    CHECK_CONTAINS(err.message, "Not a directory");
    test_remove_folder(folder);
}

TEST(private_folder_is_made_closed_to_others)
{
    struct ds_error err = {0};
    test_make_folder(folder);
    CHECK_OK(files_make_private_folder(path_of("x/p"), &err));
    CHECK_INT(mode_of(path_of("x/p")), 0700);
    CHECK_OK(files_make_private_folder(path_of("x/p"), &err));
    test_remove_folder(folder);
}

TEST(folder_open_to_others_is_refused_with_the_remedy)
{
    struct ds_error err = {0};
    test_make_folder(folder);
    CHECK(mkdir(path_of("p"), 0700) == 0);
    CHECK(chmod(path_of("p"), 0750) == 0);
    CHECK_STATUS(files_make_private_folder(path_of("p"), &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "chmod 700");
    test_remove_folder(folder);
}

TEST(link_to_a_folder_is_refused)
{
    struct ds_error err = {0};
    char target[PATH_MAX];
    test_make_folder(folder);
    snprintf(target, sizeof target, "%s", path_of("p"));
    CHECK(mkdir(target, 0700) == 0);
    CHECK(symlink(target, path_of("link")) == 0);
    CHECK_STATUS(files_make_private_folder(path_of("link"), &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "link");
    test_remove_folder(folder);
}

/* Only root can give a folder away, so another user is played by looking as one. */
TEST(folder_of_another_user_is_refused)
{
    test_make_folder(folder);
    CHECK(chmod(folder, 0755) == 0);
    CHECK(mkdir(path_of("p"), 0700) == 0);
    if (geteuid() == 0) {
        CHECK(chown(path_of("p"), 12345, (gid_t)-1) == 0);
        struct ds_error err = {0};
        CHECK_STATUS(files_make_private_folder(path_of("p"), &err), DS_INVALID);
        CHECK_CONTAINS(err.message, "uid 12345");
    } else {
        struct ds_error err = {0};
        CHECK_STATUS(files_make_private_folder("/root", &err), DS_INVALID);
        CHECK_CONTAINS(err.message, "uid 0");
    }
    test_remove_folder(folder);
}

TEST(written_text_is_read_back_and_nothing_is_left_beside_it)
{
    struct ds_error err = {0};
    char text[16];
    test_make_folder(folder);
    CHECK_OK(files_write(path_of("f"), "first text", 0640, &err));
    CHECK_OK(files_write(path_of("f"), "second", 0640, &err));
    CHECK(files_read(path_of("f"), text, sizeof text));
    CHECK_TEXT(text, "second");
    CHECK_INT(mode_of(path_of("f")), 0640);
    files_remove(path_of("f"));
    files_remove(path_of("f"));
    CHECK(rmdir(folder) == 0); /* Empty: the file beside it is gone too. */
}

TEST(reading_is_cut_at_the_end_of_the_buffer)
{
    struct ds_error err = {0};
    char text[4];
    test_make_folder(folder);
    CHECK_OK(files_write(path_of("f"), "abcdef", 0600, &err));
    CHECK(files_read(path_of("f"), text, sizeof text));
    CHECK_TEXT(text, "abc");
    CHECK(!files_read(path_of("absent"), text, sizeof text));
    CHECK(!files_read(folder, text, sizeof text));
    test_remove_folder(folder);
}

/* A folder of that name makes the last step, the rename, fail. */
TEST(failed_write_leaves_nothing_behind)
{
    struct ds_error err = {0};
    test_make_folder(folder);
    CHECK(mkdir(path_of("f"), 0700) == 0);
    CHECK_STATUS(files_write(path_of("f"), "text", 0600, &err), DS_IO);
    CHECK_CONTAINS(err.message, "/f'");
    CHECK(rmdir(path_of("f")) == 0);
    CHECK(rmdir(folder) == 0);
}

TEST(second_lock_is_refused_and_names_the_holder)
{
    struct ds_error err = {0};
    int first = -1, second = -7;
    char holder[64];
    test_make_folder(folder);
    CHECK_OK(files_lock(path_of("lock"), &first, &err));
    CHECK_STATUS(files_lock(path_of("lock"), &second, &err), DS_EXISTS);
    snprintf(holder, sizeof holder, "process %d:", (int)getpid());
    CHECK_CONTAINS(err.message, holder);
    CHECK_CONTAINS(err.message, "/lock'");
    CHECK_INT(second, -7);
    close(first);
    CHECK_OK(files_lock(path_of("lock"), &second, &err));
    close(second);
    test_remove_folder(folder);
}

/* The worker inherits the supervisor's lock: it lasts until both are gone. */
TEST(lock_lasts_while_a_forked_child_has_it)
{
    struct ds_error err = {0};
    int first = -1, second = -7, hold[2];
    test_make_folder(folder);
    CHECK(pipe(hold) == 0);
    CHECK_OK(files_lock(path_of("lock"), &first, &err));
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(hold[1]);
        _exit(read(hold[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(first);
    CHECK_STATUS(files_lock(path_of("lock"), &second, &err), DS_EXISTS);
    close(hold[0]);
    close(hold[1]);
    CHECK_INT(waitpid(child, NULL, 0), child);
    CHECK_OK(files_lock(path_of("lock"), &second, &err));
    close(second);
    test_remove_folder(folder);
}

TEST_MAIN(RUN(folders_are_made_with_their_parents),
          RUN(file_in_the_way_of_a_folder_is_named),
          RUN(private_folder_is_made_closed_to_others),
          RUN(folder_open_to_others_is_refused_with_the_remedy),
          RUN(link_to_a_folder_is_refused), RUN(folder_of_another_user_is_refused),
          RUN(written_text_is_read_back_and_nothing_is_left_beside_it),
          RUN(reading_is_cut_at_the_end_of_the_buffer),
          RUN(failed_write_leaves_nothing_behind),
          RUN(second_lock_is_refused_and_names_the_holder),
          RUN(lock_lasts_while_a_forked_child_has_it))
