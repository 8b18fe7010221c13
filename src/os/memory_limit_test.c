/* The rules are tested on made-up trees; the machine itself only for sanity. */
#include "os/files.h"
#include "os/memory_limit.h"

#include "test.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static char root[TEST_FOLDER_BYTES];

static void
put(const char *folder, const char *name, const char *text)
{
    char path[PATH_MAX];
    struct ds_error err = {0};
    snprintf(path, sizeof path, "%s/%s", root, folder);
    CHECK_OK(files_make_folder(path, 0700, &err));
    snprintf(path, sizeof path, "%s/%s/%s", root, folder, name);
    CHECK_OK(files_write(path, text, 0600, &err));
}

/* 8 MiB available, and this process in the cgroups of `membership`. */
static void
begin(const char *membership)
{
    test_make_folder(root);
    put("proc", "meminfo",
        "MemTotal:  9000 kB\nMemFree: 1 kB\nMemAvailable:  8192 kB\n");
    put("proc/self", "cgroup", membership);
}

static struct memory_limit
finish(void)
{
    struct memory_limit limit;
    memory_limit_read_below(root, &limit);
    test_remove_folder(root);
    return limit;
}

TEST(machine_alone_counts_without_cgroups)
{
    begin("0::/\n");
    struct memory_limit limit = finish();
    CHECK_INT(limit.available_bytes, 8192 * 1024);
    CHECK(limit.limit_bytes == UINT64_MAX);
    CHECK_CONTAINS(limit.source, "meminfo");
}

TEST(version_2_limit_of_a_level_above_counts)
{
    begin("0::/pod/container\n");
    put("sys/fs/cgroup/pod", "memory.max", "4000000\n");
    put("sys/fs/cgroup/pod", "memory.current", "1000000\n");
    put("sys/fs/cgroup/pod/container", "memory.max", "max\n");
    put("sys/fs/cgroup/pod/container", "memory.current", "500\n");
    struct memory_limit limit = finish();
    CHECK_INT(limit.available_bytes, 3000000);
    CHECK_INT(limit.limit_bytes, 4000000);
    CHECK_CONTAINS(limit.source, "/pod/memory.max");
}

TEST(version_1_limit_counts)
{
    begin("9:name=systemd:/\n4:memory:/a/b\n0::/\n");
    put("sys/fs/cgroup/memory/a/b", "memory.limit_in_bytes", "2000000\n");
    put("sys/fs/cgroup/memory/a/b", "memory.usage_in_bytes", "500000\n");
    put("sys/fs/cgroup/memory/a", "memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/a", "memory.usage_in_bytes", "500000\n");
    struct memory_limit limit = finish();
    CHECK_INT(limit.available_bytes, 1500000);
    CHECK_INT(limit.limit_bytes, 2000000);
}

/* In a container the path may be that of the host, and the mount is the container's. */
TEST(path_that_is_not_there_falls_back_to_the_mount)
{
    begin("4:memory:/host/docker/123\n");
    put("sys/fs/cgroup/memory", "memory.limit_in_bytes", "3000000\n");
    put("sys/fs/cgroup/memory", "memory.usage_in_bytes", "0\n");
    struct memory_limit limit = finish();
    CHECK_INT(limit.available_bytes, 3000000);
}

/* Cached file pages are given up before anything fails. */
TEST(reclaimable_file_pages_count_as_free)
{
    begin("0::/pod\n");
    put("sys/fs/cgroup/pod", "memory.max", "4000000\n");
    put("sys/fs/cgroup/pod", "memory.current", "3500000\n");
    put("sys/fs/cgroup/pod", "memory.stat",
        "anon 1\nworkingset_inactive_file 7\ninactive_file 1000000\n");
    struct memory_limit limit = finish();
    CHECK_INT(limit.available_bytes, 1500000);
}

TEST(overdrawn_cgroup_leaves_nothing)
{
    begin("0::/pod\n");
    put("sys/fs/cgroup/pod", "memory.max", "1000\n");
    put("sys/fs/cgroup/pod", "memory.current", "5000\n");
    struct memory_limit limit = finish();
    CHECK_INT(limit.available_bytes, 0);
}

/* No level counts when a number is not one: guessing would refuse a good size. */
TEST(unreadable_numbers_are_passed_over)
{
    begin("0::/pod\nnonsense\n:\n");
    put("sys/fs/cgroup/pod", "memory.max", "lots\n");
    put("sys/fs/cgroup/pod", "memory.current", "0\n");
    struct memory_limit limit = finish();
    CHECK_INT(limit.available_bytes, 8192 * 1024);
}

TEST(huge_pages_come_from_the_sysctl_that_users_know)
{
    char command[HUGE_PAGE_COMMAND_BYTES];
    test_make_folder(root);
    put("proc", "meminfo", "HugePages_Total:  0\nHugepagesize:    2048 kB\n");
    memory_huge_page_command_below(root, 32, command);
    test_remove_folder(root);
    CHECK_TEXT(command, "sysctl -w vm.nr_hugepages=32");
}

/* 32 pages by the sysctl would be 16 GiB here. */
TEST(huge_pages_come_from_their_own_file_where_the_default_size_is_another)
{
    char command[HUGE_PAGE_COMMAND_BYTES];
    test_make_folder(root);
    put("proc", "meminfo", "HugePages_Total:  0\nHugepagesize:  524288 kB\n");
    memory_huge_page_command_below(root, 32, command);
    test_remove_folder(root);
    CHECK_TEXT(command,
               "echo 32 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
}

TEST(this_machine_has_some_memory)
{
    struct memory_limit limit;
    memory_limit_read(&limit);
    CHECK(limit.available_bytes > 1 << 20);
    CHECK(limit.available_bytes < UINT64_MAX);
    CHECK(limit.available_bytes <= limit.limit_bytes);
}

TEST(the_kernel_limits_the_mappings_of_a_process)
{
    CHECK(memory_mappings_max() >= 1000);
}

TEST_MAIN(RUN(machine_alone_counts_without_cgroups),
          RUN(version_2_limit_of_a_level_above_counts), RUN(version_1_limit_counts),
          RUN(path_that_is_not_there_falls_back_to_the_mount),
          RUN(reclaimable_file_pages_count_as_free),
          RUN(overdrawn_cgroup_leaves_nothing), RUN(unreadable_numbers_are_passed_over),
          RUN(huge_pages_come_from_the_sysctl_that_users_know),
          RUN(huge_pages_come_from_their_own_file_where_the_default_size_is_another),
          RUN(this_machine_has_some_memory),
          RUN(the_kernel_limits_the_mappings_of_a_process))
