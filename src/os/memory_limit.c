#include "os/memory_limit.h"

#include "base/numeric.h"
#include "os/files.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 16384, NUMBER_BYTES = 64, MAPPINGS_DEFAULT = 65530 };

/* A limit at or above this is what v1 says for "none". */
#define NO_LIMIT_BYTES (UINT64_C(1) << 60)

/* What differs between the two versions of cgroups. */
struct cgroup_files {
    const char *limit;
    const char *usage;
    const char *reclaimable; /* A line of memory.stat: file pages given up first. */
};
static const struct cgroup_files version_1 = {
    "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "};
static const struct cgroup_files version_2 = {"memory.max", "memory.current",
                                              "inactive_file "};

static bool
read_number(const char *folder, const char *name, uint64_t *out)
{
    char path[PATH_MAX], text[NUMBER_BYTES];
    int len = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (len < 0 || (size_t)len >= sizeof path || !files_read(path, text, sizeof text))
        return false;
    if (strncmp(text, "max", 3) == 0) {
        *out = UINT64_MAX;
        return true;
    }
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return end != text && errno == 0;
}

/* The number after `label` at the start of a line; 0 if there is none. */
static uint64_t
number_after(const char *text, const char *label)
{
    size_t len = strlen(label);
    for (const char *at = text; at != NULL; at = strchr(at, '\n')) {
        if (*at == '\n')
            at++;
        if (strncmp(at, label, len) == 0)
            return strtoull(at + len, NULL, 10);
        if (*at == '\0')
            break;
    }
    return 0;
}

static uint64_t
reclaimable_bytes(const char *folder, const struct cgroup_files *files)
{
    char path[PATH_MAX], text[TEXT_BYTES];
    int len = snprintf(path, sizeof path, "%s/memory.stat", folder);
    if (len < 0 || (size_t)len >= sizeof path || !files_read(path, text, sizeof text))
        return 0;
    return number_after(text, files->reclaimable);
}

/* Folders that are not there are passed over: inside a container the path may be that
 * of the host. */
static void
consider_cgroup(const char *folder, const struct cgroup_files *files,
                struct memory_limit *out)
{
    uint64_t limit, usage;
    if (!read_number(folder, files->limit, &limit) || limit >= NO_LIMIT_BYTES)
        return;
    if (!read_number(folder, files->usage, &usage))
        return;
    usage -= min_u64(usage, reclaimable_bytes(folder, files));
    uint64_t left = limit - min_u64(limit, usage);
    if (left >= out->available_bytes)
        return;
    out->available_bytes = left;
    out->limit_bytes = limit;
    snprintf(out->source, sizeof out->source, "cgroup %.200s/%s", folder, files->limit);
}

/* Every level from `path` up to the root of the hierarchy. */
static void
consider_branch(const char *mount, const char *path, const struct cgroup_files *files,
                struct memory_limit *out)
{
    char folder[PATH_MAX];
    size_t mount_len = strlen(mount);
    int len = snprintf(folder, sizeof folder, "%s%s", mount, path);
    if (len < 0 || (size_t)len >= sizeof folder)
        return;
    for (;;) {
        consider_cgroup(folder, files, out);
        char *slash = strrchr(folder + mount_len, '/');
        if (slash == NULL)
            return;
        *slash = '\0';
    }
}

/* One line of /proc/self/cgroup: "number:controllers:path". */
static void
consider_line(const char *root, char *line, struct memory_limit *out)
{
    char *controllers = strchr(line, ':');
    char *path = controllers == NULL ? NULL : strchr(controllers + 1, ':');
    if (path == NULL)
        return;
    *controllers++ = '\0';
    *path++ = '\0';
    char mount[PATH_MAX];
    if (controllers[0] == '\0') {
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup", root);
        consider_branch(mount, path, &version_2, out);
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/unified", root);
        consider_branch(mount, path, &version_2, out);
    } else if (strcmp(controllers, "memory") == 0) {
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/memory", root);
        consider_branch(mount, path, &version_1, out);
    }
}

void
memory_limit_read_below(const char *root, struct memory_limit *out)
{
    char path[PATH_MAX], text[TEXT_BYTES];
    *out =
        (struct memory_limit){.available_bytes = UINT64_MAX, .limit_bytes = UINT64_MAX};
    snprintf(out->source, sizeof out->source, "MemAvailable of /proc/meminfo");
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (files_read(path, text, sizeof text))
        out->available_bytes = number_after(text, "MemAvailable:") * 1024;

    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if (!files_read(path, text, sizeof text))
        return;
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) != NULL)
        consider_line(root, line, out);
}

void
memory_limit_read(struct memory_limit *out)
{
    memory_limit_read_below("", out);
}

uint64_t
memory_mappings_max(void)
{
    uint64_t most;
    return read_number("/proc/sys/vm", "max_map_count", &most) ? most
                                                               : MAPPINGS_DEFAULT;
}

static const char huge_page_folder[] = "/sys/kernel/mm/hugepages/hugepages-2048kB";

uint64_t
memory_free_huge_pages(void)
{
    uint64_t unused, promised;
    if (!read_number(huge_page_folder, "free_hugepages", &unused))
        return 0;
    if (!read_number(huge_page_folder, "resv_hugepages", &promised))
        promised = 0;
    return unused - min_u64(unused, promised);
}

void
memory_huge_page_command_below(const char *root, uint64_t pages,
                               char out[HUGE_PAGE_COMMAND_BYTES])
{
    char path[PATH_MAX], text[TEXT_BYTES];
    uint64_t default_kib = 0;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (files_read(path, text, sizeof text))
        default_kib = number_after(text, "Hugepagesize:");
    if (default_kib == 0 || default_kib == 2048)
        snprintf(out, HUGE_PAGE_COMMAND_BYTES, "sysctl -w vm.nr_hugepages=%ju",
                 (uintmax_t)pages);
    else
        snprintf(out, HUGE_PAGE_COMMAND_BYTES, "echo %ju >%s/nr_hugepages",
                 (uintmax_t)pages, huge_page_folder);
}

void
memory_huge_page_command(uint64_t pages, char out[HUGE_PAGE_COMMAND_BYTES])
{
    memory_huge_page_command_below("", pages, out);
}
