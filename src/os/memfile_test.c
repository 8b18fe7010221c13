#include "os/memfile.h"
#include "os/memory_limit.h"

#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Pages of 64 KiB (aarch64 has such kernels) must do, so nothing here is smaller. */
enum { PAGE_BYTES_MAX = 64 << 10, FILE_BYTES = 16 * PAGE_BYTES_MAX };

static int
make_file(void)
{
    struct ds_error err = {0};
    int fd = -1;
    CHECK_OK(memfile_create("test", FILE_BYTES, 0, &fd, &err));
    return fd;
}

static uint8_t *
map_file(int fd)
{
    struct ds_error err = {0};
    void *data = NULL;
    CHECK_OK(memfile_map(fd, 0, FILE_BYTES, true, &data, &err));
    return data;
}

/* A hostile client must not be able to make the worker fault by shrinking the file. */
TEST(size_is_sealed)
{
    int fd = make_file();
    CHECK(ftruncate(fd, FILE_BYTES / 2) < 0 && errno == EPERM);
    CHECK(ftruncate(fd, FILE_BYTES * 2) < 0 && errno == EPERM);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0 && errno == EPERM);
    uint64_t bytes = 0;
    struct ds_error err = {0};
    CHECK_OK(memfile_size(fd, &bytes, &err));
    CHECK_INT(bytes, FILE_BYTES);
    close(fd);
}

TEST(file_is_closed_on_exec)
{
    int fd = make_file();
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    close(fd);
}

/* Backed when asked, not before, and only there. */
TEST(populate_backs_the_range_and_no_more)
{
    int fd = make_file();
    struct stat info;
    CHECK(fstat(fd, &info) == 0);
    CHECK_INT(info.st_blocks, 0);
    struct ds_error err = {0};
    CHECK_OK(memfile_populate(fd, FILE_BYTES / 2, FILE_BYTES / 4, &err));
    CHECK(fstat(fd, &info) == 0);
    CHECK_INT(info.st_blocks * 512, FILE_BYTES / 4);
    close(fd);
}

TEST(populate_keeps_what_is_there)
{
    int fd = make_file();
    uint8_t *data = map_file(fd);
    memset(data, 7, FILE_BYTES);
    struct ds_error err = {0};
    CHECK_OK(memfile_populate(fd, 0, FILE_BYTES, &err));
    CHECK_INT(data[0], 7);
    CHECK_INT(data[FILE_BYTES - 1], 7);
    memfile_unmap(data, FILE_BYTES);
    close(fd);
}

/* The seal makes the step fail, without asking for memory that is not there. */
TEST(populate_beyond_the_end_fails_and_names_the_range)
{
    int fd = make_file();
    struct ds_error err = {0};
    CHECK_STATUS(memfile_populate(fd, FILE_BYTES, 4096, &err), DS_IO);
    CHECK_CONTAINS(err.message, "4096 bytes at 1048576");
    close(fd);
}

static long
faults(void)
{
    struct rusage usage;
    CHECK_INT(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_minflt;
}

/* Faults of a first write to all pages of a mapping of its own. */
static long
faults_of_writing(int fd, bool prefaults)
{
    uint8_t *data = map_file(fd);
    long before = faults();
    if (prefaults)
        memfile_prefault(data + 100, FILE_BYTES - 100);
    for (size_t i = 0; i < FILE_BYTES; i += 4096)
        data[i] = 9;
    long count = faults() - before;
    memfile_unmap(data, FILE_BYTES);
    return count;
}

TEST(prefault_saves_faults_and_changes_no_byte)
{
    int fd = make_file();
    uint8_t *data = map_file(fd);
    memset(data, 9, FILE_BYTES);
    long with = faults_of_writing(fd, true);
    long without = faults_of_writing(fd, false);
    CHECK(with < without || sysconf(_SC_PAGESIZE) >= PAGE_BYTES_MAX);
    for (size_t i = 0; i < FILE_BYTES; i++)
        CHECK(data[i] == 9);
    memfile_unmap(data, FILE_BYTES);
    close(fd);
}

/* What the caller writes nobody sees, neither the file nor another private view. */
TEST(private_views_of_unaligned_ranges_are_independent_and_writable)
{
    enum { OFFSET = PAGE_BYTES_MAX + 4096 + 64, BYTES = 2 * PAGE_BYTES_MAX + 9001 };
    int fd = make_file();
    uint8_t *shared = map_file(fd);
    memset(shared, 1, FILE_BYTES);
    struct ds_error err = {0};
    void *first = NULL, *second = NULL;
    CHECK_OK(memfile_map_private(fd, OFFSET, BYTES, &first, &err));
    CHECK_OK(memfile_map_private(fd, OFFSET, BYTES, &second, &err));
    CHECK_INT((uintptr_t)first % 64, 0);

    memset(first, 2, BYTES);
    CHECK_INT(shared[OFFSET], 1);
    CHECK_INT(shared[OFFSET + BYTES - 1], 1);
    CHECK_INT(((uint8_t *)second)[0], 1);
    CHECK_INT(((uint8_t *)second)[BYTES - 1], 1);
    memfile_unmap_private(first, BYTES);
    CHECK_INT(((uint8_t *)second)[BYTES - 1], 1);
    memfile_unmap_private(second, BYTES);
    memfile_unmap(shared, FILE_BYTES);
    close(fd);
}

/* The whole mapping goes, the lead-in page too. */
TEST(unmapping_a_private_view_leaves_nothing_mapped)
{
    int fd = make_file();
    struct ds_error err = {0};
    void *view = NULL;
    CHECK_OK(memfile_map_private(fd, 100, FILE_BYTES - 100, &view, &err));
    uint8_t *base = (uint8_t *)view - 100;
    memfile_unmap_private(view, FILE_BYTES - 100);
    uint8_t *last = base + FILE_BYTES - PAGE_BYTES_MAX;
    unsigned char resident;
    CHECK(mincore(base, 1, &resident) < 0 && errno == ENOMEM);
    CHECK(mincore(last, 1, &resident) < 0 && errno == ENOMEM);
    close(fd);
}

static void
limit_file_bytes(rlim_t bytes)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

/* RLIMIT_FSIZE makes the second step fail; the descriptor count is the witness. */
TEST(failed_create_names_the_step_and_leaks_nothing)
{
    int before = test_open_fds();
    struct ds_error err = {0};
    int fd = -7;
    signal(SIGXFSZ, SIG_IGN);
    limit_file_bytes(4096);
    enum ds_status status = memfile_create("small", FILE_BYTES, 0, &fd, &err);
    limit_file_bytes(RLIM_INFINITY);
    CHECK_STATUS(status, DS_IO);
    CHECK_CONTAINS(err.message, "'small': set its size to 1048576 bytes");
    CHECK_INT(fd, -7);
    CHECK_INT(test_open_fds(), before);
}

/* More huge pages than any machine has; nothing is reserved by asking. */
TEST(lack_of_huge_pages_names_the_setting)
{
    struct ds_error err = {0};
    int fd = -7;
    uint64_t bytes = (memory_free_huge_pages() + 1) * (2u << 20);
    CHECK_STATUS(memfile_create("huge", bytes, 2 << 20, &fd, &err), DS_UNSUPPORTED);
    CHECK_CONTAINS(err.message, "nr_hugepages");
    CHECK_INT(fd, -7);
}

/* The kernel's word on how the mapping that begins at `data` is mapped. */
static uint64_t
huge_kib_of(const void *data)
{
    char line[256], begin[32];
    bool is_here = false;
    uint64_t kib = 0;
    snprintf(begin, sizeof begin, "%jx-", (uintmax_t)(uintptr_t)data);
    FILE *file = fopen("/proc/self/smaps", "re");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strchr(line, '-') != NULL && strchr(line, '-') < strchr(line, ' '))
            is_here = strncmp(line, begin, strlen(begin)) == 0;
        if (is_here && strncmp(line, "ShmemPmdMapped:", 15) == 0)
            kib = strtoull(line + 15, NULL, 10);
    }
    fclose(file);
    return kib;
}

TEST(a_range_in_use_gets_huge_pages_and_keeps_its_bytes)
{
    enum { MIB = 1 << 20, BYTES = 8 * MIB };
    struct ds_error err = {0};
    void *data = NULL, *other = NULL;
    int fd = -1;
    CHECK_OK(memfile_create("thp", BYTES, 0, &fd, &err));
    CHECK_OK(memfile_populate(fd, 0, BYTES, &err));
    CHECK_OK(memfile_map(fd, 0, BYTES, true, &data, &err));
    CHECK_OK(memfile_map(fd, 0, BYTES, false, &other, &err));
    CHECK_INT((uintptr_t)data % (2 * MIB), 0);
    CHECK_INT((uintptr_t)other % (2 * MIB), 0);
    for (int i = 0; i < BYTES; i++)
        ((uint8_t *)data)[i] = (uint8_t)(i * 7 + i / 4096);
    enum ds_status status = memfile_collapse(data, BYTES, &err);
    if (status != DS_OK) { /* This kernel cannot, or has no such pages now. */
        CHECK(status == DS_UNSUPPORTED || status == DS_NO_MEMORY);
        CHECK_CONTAINS(err.message, "on huge pages");
    } else {
        CHECK_INT(huge_kib_of(data), BYTES / 1024);
    }
    for (int i = 0; i < BYTES; i++)
        CHECK_INT(((uint8_t *)other)[i], (uint8_t)(i * 7 + i / 4096));
    memfile_unmap(other, BYTES);
    memfile_unmap(data, BYTES);
    close(fd);
}

/* ---- Marks ---- */

TEST(a_mark_stands_until_the_last_copy_of_its_descriptor_is_closed)
{
    int fd = make_file();
    int mark = -1;
    struct ds_error err = {0};
    CHECK(!memfile_is_marked(fd, 7));
    CHECK_OK(memfile_mark(fd, 7, &mark, &err));
    CHECK((fcntl(mark, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(memfile_is_marked(fd, 7));
    CHECK(!memfile_is_marked(fd, 6));
    CHECK(!memfile_is_marked(fd, 8));
    int copy = dup(mark);
    close(mark);
    CHECK(memfile_is_marked(fd, 7));
    close(copy);
    CHECK(!memfile_is_marked(fd, 7));
    close(fd);
}

TEST(a_mark_of_a_killed_process_is_gone)
{
    int fd = make_file();
    int mark = -1;
    struct ds_error err = {0};
    CHECK_OK(memfile_mark(fd, 0, &mark, &err));
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (;;)
            pause();
    }
    close(mark);
    CHECK(memfile_is_marked(fd, 0));
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(!memfile_is_marked(fd, 0));
    close(fd);
}

TEST(a_mark_that_is_set_twice_goes_with_the_second)
{
    int fd = make_file();
    int first = -1, second = -1;
    struct ds_error err = {0};
    CHECK_OK(memfile_mark(fd, 1ull << 40, &first, &err)); /* Far beyond the end. */
    CHECK_OK(memfile_mark(fd, 1ull << 40, &second, &err));
    close(first);
    CHECK(memfile_is_marked(fd, 1ull << 40));
    close(second);
    CHECK(!memfile_is_marked(fd, 1ull << 40));
    close(fd);
}

TEST(a_mark_that_cannot_be_set_is_an_error)
{
    struct ds_error err = {0};
    int mark = -1;
    CHECK_STATUS(memfile_mark(-1, 1, &mark, &err), DS_IO);
    CHECK_CONTAINS(err.message, "/proc/self/fd/-1");
    CHECK_INT(mark, -1);
}

TEST_MAIN(RUN(a_mark_stands_until_the_last_copy_of_its_descriptor_is_closed),
          RUN(a_mark_of_a_killed_process_is_gone),
          RUN(a_mark_that_is_set_twice_goes_with_the_second),
          RUN(a_mark_that_cannot_be_set_is_an_error), RUN(size_is_sealed),
          RUN(file_is_closed_on_exec), RUN(populate_backs_the_range_and_no_more),
          RUN(populate_keeps_what_is_there),
          RUN(populate_beyond_the_end_fails_and_names_the_range),
          RUN(prefault_saves_faults_and_changes_no_byte),
          RUN(private_views_of_unaligned_ranges_are_independent_and_writable),
          RUN(unmapping_a_private_view_leaves_nothing_mapped),
          RUN(failed_create_names_the_step_and_leaks_nothing),
          RUN(lack_of_huge_pages_names_the_setting),
          RUN(a_range_in_use_gets_huge_pages_and_keeps_its_bytes))
