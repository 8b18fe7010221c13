#include "os/files.h"

#include "base/check.h"
#include "base/status.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* One level; somebody else making it at the same time is fine. */
static enum ds_status
make_one(const char *path, mode_t mode, struct ds_error *err)
{
    if (mkdir(path, mode) == 0)
        return DS_OK;
    int number = errno;
    struct stat info;
    if (number == EEXIST && stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return DS_OK;
    errno = number == EEXIST ? ENOTDIR : number;
    return ds_fail_errno(err, "folder '%s': cannot make it", path);
}

enum ds_status
files_make_folder(const char *path, mode_t mode, struct ds_error *err)
{
    DS_ASSERT(path != NULL);
    char part[PATH_MAX];
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof part)
        return ds_fail(err, DS_IO, "folder '%.64s': the path is %s", path,
                       len == 0 ? "empty" : "too long");
    memcpy(part, path, len + 1);
    for (char *at = part + 1; *at != '\0'; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        enum ds_status status = make_one(part, mode, err);
        *at = '/';
        if (status != DS_OK)
            return status;
    }
    return make_one(part, mode, err);
}

enum ds_status
files_make_private_folder(const char *path, struct ds_error *err)
{
    struct stat info;
    if (lstat(path, &info) < 0) {
        enum ds_status status = files_make_folder(path, 0700, err);
        if (status != DS_OK)
            return status;
        if (lstat(path, &info) < 0)
            return ds_fail_errno(err, "folder '%s': cannot look at it", path);
    }
    if (!S_ISDIR(info.st_mode))
        return ds_fail(err, DS_INVALID,
                       "'%s' is not a folder (a link to one is refused too); remove it "
                       "or name another",
                       path);
    if (info.st_uid != geteuid())
        return ds_fail(err, DS_INVALID,
                       "folder '%s' belongs to uid %u, not to this user (uid %u); name "
                       "another",
                       path, (unsigned)info.st_uid, (unsigned)geteuid());
    if ((info.st_mode & 077) != 0)
        return ds_fail(err, DS_INVALID,
                       "folder '%s' is open to other users (mode %04o); run: chmod 700 "
                       "'%s'",
                       path, (unsigned)(info.st_mode & 07777), path);
    return DS_OK;
}

static bool
write_all(int fd, const char *text)
{
    size_t left = strlen(text);
    while (left > 0) {
        ssize_t done = write(fd, text, left);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        text += done;
        left -= (size_t)done;
    }
    return true;
}

enum ds_status
files_write(const char *path, const char *text, mode_t mode, struct ds_error *err)
{
    DS_ASSERT(path != NULL);
    DS_ASSERT(text != NULL);
    char beside[PATH_MAX];
    int len = snprintf(beside, sizeof beside, "%s.%d.new", path, (int)getpid());
    if (len < 0 || (size_t)len >= sizeof beside)
        return ds_fail(err, DS_IO, "file '%.64s...': the path is too long", path);
    int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0)
        return ds_fail_errno(err, "file '%s': cannot create it", beside);
    bool written = fchmod(fd, mode) == 0 && write_all(fd, text);
    if (!written || rename(beside, path) < 0) {
        enum ds_status status = ds_fail_errno(err, "file '%s': cannot write it", path);
        close(fd);
        unlink(beside);
        return status;
    }
    close(fd);
    return DS_OK;
}

static ssize_t
read_up_to(int fd, char *out, size_t bytes)
{
    size_t have = 0;
    while (have < bytes) {
        ssize_t got = read(fd, out + have, bytes - have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        have += (size_t)got;
    }
    return (ssize_t)have;
}

bool
files_read(const char *path, char *out, size_t out_bytes)
{
    DS_ASSERT(out_bytes > 0);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read_up_to(fd, out, out_bytes - 1);
    close(fd);
    if (got < 0)
        return false;
    out[got] = '\0';
    return true;
}

bool
files_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

void
files_remove(const char *path)
{
    (void)unlink(path);
}

void
files_remove_named(const char *folder, const char *prefix)
{
    DIR *opened = opendir(folder);
    if (opened == NULL)
        return;
    struct dirent *entry;
    while ((entry = readdir(opened)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
            (void)unlinkat(dirfd(opened), entry->d_name, 0);
    }
    closedir(opened);
}

void
files_remove_folder(const char *path)
{
    files_remove_named(path, "");
    (void)rmdir(path);
}

static enum ds_status
fail_locked(const char *path, struct ds_error *err)
{
    char holder[32];
    if (!files_read(path, holder, sizeof holder))
        holder[0] = '\0';
    holder[strcspn(holder, "\n")] = '\0';
    return ds_fail(err, DS_EXISTS,
                   "'%s' is locked by process %s: it is in use; stop that one first or "
                   "use another folder",
                   path, holder[0] == '\0' ? "(not named yet)" : holder);
}

enum ds_status
files_lock(const char *path, int *out_fd, struct ds_error *err)
{
    DS_ASSERT(path != NULL);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return ds_fail_errno(err, "lock file '%s': cannot open it", path);
    enum ds_status status = DS_OK;
    char text[32];
    snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        status = errno == EWOULDBLOCK
                     ? fail_locked(path, err)
                     : ds_fail_errno(err, "lock file '%s': cannot lock it", path);
    else if (ftruncate(fd, 0) < 0 || !write_all(fd, text))
        status = ds_fail_errno(err, "lock file '%s': cannot write to it", path);
    if (status != DS_OK) {
        close(fd);
        return status;
    }
    *out_fd = fd;
    return DS_OK;
}
