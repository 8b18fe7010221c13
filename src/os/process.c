#include "os/process.h"

#include "base/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STAT_BYTES = 1024, TCP_STATE_LISTEN = 0x0a };

/* State letter and start time out of /proc/PID/stat. */
static bool
read_stat(pid_t pid, char *out_state, uint64_t *out_start_time)
{
    char path[64], text[STAT_BYTES];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, text, sizeof text - 1);
    int number = errno; /* Of the read, which the close may change. */
    close(fd);
    errno = number;
    if (got <= 0)
        return false;
    text[got] = '\0';

    /* Field 2 is the name in parentheses, which may itself hold any character. */
    const char *at = strrchr(text, ')');
    if (at == NULL || at[1] != ' ' || at[2] == '\0')
        return false;
    at += 2;
    *out_state = *at;
    for (int field = 3; field < 22 && at != NULL; field++) {
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    if (at == NULL)
        return false;
    *out_start_time = strtoull(at, NULL, 10);
    return true;
}

uint64_t
process_start_time(pid_t pid)
{
    char state;
    uint64_t start_time;
    if (pid <= 0 || !read_stat(pid, &state, &start_time))
        return 0;
    return start_time;
}

bool
process_program_beside(const char *name, char *out, size_t out_bytes)
{
    char own[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", own, sizeof own - 1);
    if (len <= 0)
        return false;
    own[len] = '\0';
    char *slash = strrchr(own, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    int used = snprintf(out, out_bytes, "%s/%s", own, name);
    return used > 0 && (size_t)used < out_bytes && access(out, X_OK) == 0;
}

int
process_open(pid_t pid, uint64_t start_time)
{
    char state;
    uint64_t started = start_time;
    if (pid <= 0) {
        errno = ESRCH;
        return -1;
    }
    int fd = (int)syscall(SYS_pidfd_open, pid, 0); /* Close-on-exec by definition. */
    if (fd < 0)
        return -1;
    /* Read after opening: a pid that is reused from now on is not what fd names. */
    bool known = start_time == 0 || read_stat(pid, &state, &started);
    int number = !known && errno != ENOENT ? errno : ESRCH;
    if (known && started == start_time)
        return fd;
    close(fd);
    errno = number;
    return -1;
}

bool
process_is_alive(pid_t pid, uint64_t start_time)
{
    char state;
    uint64_t started;
    if (pid <= 0 || !read_stat(pid, &state, &started))
        return false;
    if (state == 'Z' || state == 'X')
        return false;
    return start_time == 0 || started == start_time;
}

/* Where it cannot be raised, what is there has to do. */
void
process_raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* ---- For messages ---- */

void
process_describe(pid_t pid, char *out, size_t out_bytes)
{
    DS_ASSERT(out_bytes > 0);
    char path[64], name[64] = "?";
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fgets(name, sizeof name, file) != NULL)
            name[strcspn(name, "\n")] = '\0';
        fclose(file);
    }
    snprintf(out, out_bytes, "PID %d (%s)", pid, name);
}

/* ---- Who listens on a port ---- */

/* The inode of the socket that listens on `port` according to a /proc/net/tcp table. */
static bool
find_listener(const char *table, uint16_t port, unsigned long *out_inode)
{
    FILE *file = fopen(table, "re");
    if (file == NULL)
        return false;
    char line[512];
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        unsigned local_port, state;
        unsigned long inode;
        if (sscanf(line,
                   " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*x:%*x %*x:%*x %*x "
                   "%*u %*u %lu",
                   &local_port, &state, &inode) != 3)
            continue;
        if (local_port == port && state == TCP_STATE_LISTEN) {
            *out_inode = inode;
            found = true;
        }
    }
    fclose(file);
    return found;
}

static bool
process_has_socket(const char *pid, unsigned long inode)
{
    char path[300], wanted[64], link[64];
    snprintf(wanted, sizeof wanted, "socket:[%lu]", inode);
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *folder = opendir(path);
    if (folder == NULL)
        return false;
    bool found = false;
    struct dirent *entry;
    while (!found && (entry = readdir(folder)) != NULL) {
        ssize_t len = readlinkat(dirfd(folder), entry->d_name, link, sizeof link - 1);
        if (len <= 0)
            continue;
        link[len] = '\0';
        found = strcmp(link, wanted) == 0;
    }
    closedir(folder);
    return found;
}

void
process_describe_listener(uint16_t port, char *out, size_t out_bytes)
{
    DS_ASSERT(out_bytes > 0);
    out[0] = '\0';
    unsigned long inode;
    if (!find_listener("/proc/net/tcp", port, &inode) &&
        !find_listener("/proc/net/tcp6", port, &inode))
        return;
    DIR *folder = opendir("/proc");
    if (folder == NULL)
        return;
    struct dirent *entry;
    while (out[0] == '\0' && (entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
            process_has_socket(entry->d_name, inode))
            process_describe((pid_t)strtol(entry->d_name, NULL, 10), out, out_bytes);
    }
    closedir(folder);
}
