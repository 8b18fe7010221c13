#include "os/append_file.h"

#include "base/slice.h"
#include "test.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[TEST_FOLDER_BYTES];

static const char *
path_of(const char *name)
{
    static char path[TEST_FOLDER_BYTES + 32];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* Further bytes of a file are refused as if the disk were full. */
static void
limit_file_bytes(rlim_t bytes)
{
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes == 0 ? limit.rlim_max : bytes;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static void
check_content(struct append_file *file, const char *text, size_t zeros_from)
{
    struct ds_slice content = {0};
    CHECK_OK(append_file_map(file, &content, NULL));
    CHECK_INT(content.len, append_file_bytes(file));
    const char *bytes = content.data;
    CHECK(memcmp(bytes, text, strlen(text)) == 0);
    for (size_t i = zeros_from; i < content.len; i++)
        CHECK_INT(bytes[i], 0);
    append_file_unmap(content);
}

TEST(what_was_written_is_there_after_opening_again)
{
    test_make_folder(folder);
    for (int i = 0; i < 2; i++) {
        AUTO(append_file) struct append_file *file = NULL;
        CHECK_OK(append_file_open(path_of("a"), &file, NULL));
        if (i == 0) {
            CHECK_INT(append_file_bytes(file), 0);
            CHECK_OK(append_file_reserve(file, 100, NULL));
            CHECK(append_file_bytes(file) >= 100);
            CHECK_OK(append_file_write(file, 3, slice("defg", 4), NULL));
            CHECK_OK(append_file_write(file, 0, slice("abc", 3), NULL));
            CHECK_OK(append_file_sync(file, NULL));
        }
        check_content(file, "abcdefg", 7);
    }
    test_remove_folder(folder);
}

/* Room that was reserved is taken from the disk. */
TEST(reserved_room_is_there)
{
    test_make_folder(folder);
    AUTO(append_file) struct append_file *file = NULL;
    CHECK_OK(append_file_open(path_of("a"), &file, NULL));
    CHECK_OK(append_file_reserve(file, 300000, NULL));
    struct stat info;
    CHECK(stat(path_of("a"), &info) == 0);
    CHECK(info.st_blocks * 512 >= 300000);
    CHECK_INT(info.st_mode & 07777, 0600);
    test_remove_folder(folder);
}

TEST(no_room_is_full_and_changes_nothing)
{
    test_make_folder(folder);
    AUTO(append_file) struct append_file *file = NULL;
    struct ds_error err = {0};
    CHECK_OK(append_file_open(path_of("a"), &file, NULL));
    CHECK_OK(append_file_reserve(file, 10, NULL));
    uint64_t before = append_file_bytes(file);
    limit_file_bytes(before + 4096);
    CHECK_STATUS(append_file_reserve(file, before + 4097, &err), DS_FULL);
    CHECK_INT(append_file_bytes(file), before);
    struct stat info;
    CHECK(stat(path_of("a"), &info) == 0);
    CHECK_INT(info.st_size, before);
    CHECK_CONTAINS(err.message, path_of("a"));
    CHECK_CONTAINS(err.message, "no room for 4097 more bytes");
    CHECK_CONTAINS(err.message, "free in its file system");

    CHECK_OK(append_file_reserve(file, before + 4096, NULL)); /* The last ones do. */
    CHECK_INT(append_file_bytes(file), before + 4096);
    CHECK_OK(append_file_write(file, before + 4095, slice("z", 1), NULL));
    limit_file_bytes(0);
    CHECK_OK(append_file_reserve(file, before + 4097, NULL));
    test_remove_folder(folder);
}

TEST(what_is_cut_off_comes_back_as_zeros)
{
    test_make_folder(folder);
    AUTO(append_file) struct append_file *file = NULL;
    CHECK_OK(append_file_open(path_of("a"), &file, NULL));
    CHECK_OK(append_file_reserve(file, 10, NULL));
    CHECK_OK(append_file_write(file, 0, slice("abcdefg", 7), NULL));
    CHECK_OK(append_file_cut(file, 3, NULL));
    CHECK_INT(append_file_bytes(file), 3);
    CHECK_OK(append_file_reserve(file, 10, NULL));
    check_content(file, "abc", 3);
    test_remove_folder(folder);
}

TEST(a_file_takes_the_place_of_another)
{
    test_make_folder(folder);
    AUTO(append_file) struct append_file *old = NULL;
    AUTO(append_file) struct append_file *file = NULL;
    AUTO(append_file) struct append_file *again = NULL;
    CHECK_OK(append_file_open(path_of("a"), &old, NULL));
    CHECK_OK(append_file_open(path_of("a.new"), &file, NULL));
    CHECK_OK(append_file_reserve(file, 3, NULL));
    CHECK_OK(append_file_write(file, 0, slice("new", 3), NULL));
    CHECK_OK(append_file_rename(file, path_of("a"), NULL));
    CHECK_OK(append_file_sync_name(file, NULL));
    CHECK(access(path_of("a.new"), F_OK) < 0);
    CHECK_OK(append_file_open(path_of("a"), &again, NULL));
    check_content(again, "new", 3);
    test_remove_folder(folder);
}

TEST(a_link_and_a_folder_are_refused)
{
    test_make_folder(folder);
    struct append_file *file = NULL;
    struct ds_error err = {0};
    CHECK(symlink("/dev/null", path_of("link")) == 0);
    CHECK_STATUS(append_file_open(path_of("link"), &file, &err), DS_IO);
    CHECK_STATUS(append_file_open(folder, &file, &err), DS_IO);
    CHECK_STATUS(append_file_open("/dev/null", &file, &err), DS_IO);
    CHECK_CONTAINS(err.message, "not a regular file");
    test_remove_folder(folder);
}

TEST_MAIN(RUN(what_was_written_is_there_after_opening_again),
          RUN(reserved_room_is_there), RUN(no_room_is_full_and_changes_nothing),
          RUN(what_is_cut_off_comes_back_as_zeros),
          RUN(a_file_takes_the_place_of_another), RUN(a_link_and_a_folder_are_refused))
