#include "os/secret_file.h"

#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BYTES_MIN = 32, NOBODY = 65534 };

static const char text[] = "0123456789abcdef0123456789abcdef";
static char folder[TEST_FOLDER_BYTES];
static char path[TEST_FOLDER_BYTES + 32];
static struct secret secret;
static struct ds_error err;

/* A file of `count` bytes of `data`. */
static void
write_file(const void *data, size_t count, mode_t mode)
{
    snprintf(path, sizeof path, "%s/key", folder);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    CHECK_INT(fwrite(data, 1, count, file), count);
    CHECK_INT(fclose(file), 0);
    CHECK_INT(chmod(path, mode), 0);
    err = (struct ds_error){0};
}

static void
check_refused(const char *why)
{
    CHECK_STATUS(secret_file_read(path, BYTES_MIN, &secret, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, why);
    CHECK_CONTAINS(err.message, path);
    CHECK_INT(secret.len, 0);
}

static void
begin(void)
{
    test_make_folder(folder);
    CHECK_INT(unsetenv("DATASYSTEM_AUTH_KEY_FILE"), 0);
    write_file(text, BYTES_MIN, 0600);
}

TEST(white_space_at_the_end_is_not_part_of_a_secret)
{
    begin();
    CHECK_OK(secret_file_read(path, BYTES_MIN, &secret, &err));
    CHECK_INT(secret.len, BYTES_MIN);
    CHECK(memcmp(secret.bytes, text, BYTES_MIN) == 0);
    write_file("0123456789abcdef 123456789abcdef\r\n \t\n", BYTES_MIN + 5, 0400);
    CHECK_OK(secret_file_read(path, BYTES_MIN, &secret, &err));
    CHECK_INT(secret.len, BYTES_MIN);
    CHECK_INT(secret.bytes[16], ' ');
    secret_wipe(&secret);
    CHECK_INT(secret.len, 0);
    CHECK_INT(secret.bytes[0], 0);
    test_remove_folder(folder);
}

TEST(the_environment_names_the_file_of_who_names_none)
{
    begin();
    CHECK_OK(secret_file_read(NULL, BYTES_MIN, &secret, &err));
    CHECK_INT(secret.len, 0);
    CHECK_INT(setenv("DATASYSTEM_AUTH_KEY_FILE", path, 1), 0);
    CHECK_OK(secret_file_read(NULL, BYTES_MIN, &secret, &err));
    CHECK_INT(secret.len, BYTES_MIN);
    CHECK_OK(secret_file_read("", BYTES_MIN, &secret, &err));
    CHECK_INT(secret.len, BYTES_MIN);
    CHECK_STATUS(secret_file_read("/no/such/key", BYTES_MIN, &secret, &err), DS_IO);
    CHECK_CONTAINS(err.message, "/no/such/key: No such file");
    CHECK_INT(setenv("DATASYSTEM_AUTH_KEY_FILE", "key", 1), 0);
    CHECK_STATUS(secret_file_read(NULL, BYTES_MIN, &secret, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "give the whole path");
    CHECK_INT(setenv("DATASYSTEM_AUTH_KEY_FILE", "", 1), 0);
    CHECK_OK(secret_file_read(NULL, BYTES_MIN, &secret, &err));
    CHECK_INT(secret.len, 0);
    test_remove_folder(folder);
}

TEST(a_file_that_others_can_open_is_refused)
{
    static const mode_t modes[] = {0640, 0620, 0610, 0604, 0602, 0601, 0644};
    begin();
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        write_file(text, BYTES_MIN, modes[i]);
        check_refused("is open to others");
        CHECK_CONTAINS(err.message, "chmod 600");
    }
    test_remove_folder(folder);
}

TEST(a_file_of_another_user_is_refused)
{
    begin();
    if (geteuid() != 0) {
        test_remove_folder(folder);
        print_message("needs root: to give a file to another user\n");
        skip();
    }
    CHECK_INT(chown(path, NOBODY, NOBODY), 0);
    check_refused("belongs to user 65534");
    test_remove_folder(folder);
}

TEST(length_has_limits)
{
    static char large[SECRET_BYTES_MAX + 1];
    begin();
    write_file(text, BYTES_MIN - 1, 0600);
    check_refused("has 31 bytes, and at least 32 are needed");
    write_file("", 0, 0600);
    check_refused("has 0 bytes");
    memset(large, 'x', sizeof large);
    write_file(large, SECRET_BYTES_MAX, 0600);
    CHECK_OK(secret_file_read(path, BYTES_MIN, &secret, &err));
    CHECK_INT(secret.len, SECRET_BYTES_MAX);
    write_file(large, sizeof large, 0600);
    check_refused("has more than 4096 bytes");
    test_remove_folder(folder);
}

/* Reading from a pipe that nobody writes to would block for ever. */
TEST(what_is_no_file_is_refused)
{
    begin();
    CHECK_INT(unlink(path), 0);
    CHECK_INT(mkfifo(path, 0600), 0);
    check_refused("is not a file");
    CHECK_INT(unlink(path), 0);
    CHECK_INT(mkdir(path, 0700), 0);
    check_refused("is not a file");
    test_remove_folder(folder);
}

TEST_MAIN(RUN(white_space_at_the_end_is_not_part_of_a_secret),
          RUN(the_environment_names_the_file_of_who_names_none),
          RUN(a_file_that_others_can_open_is_refused),
          RUN(a_file_of_another_user_is_refused), RUN(length_has_limits),
          RUN(what_is_no_file_is_refused))
