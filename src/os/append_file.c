#include "os/append_file.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { ROOM_STEP_BYTES = 1 << 20 };

struct append_file {
    int fd;
    uint64_t bytes;
    uint64_t inode;
    char *path; /* Owned. */
};

static enum ds_status
find_length(struct append_file *file, struct ds_error *err)
{
    struct stat info;
    if (fstat(file->fd, &info) < 0)
        return ds_fail_errno(err, "file '%s': cannot look at it", file->path);
    if (!S_ISREG(info.st_mode))
        return ds_fail(err, DS_IO, "'%s' is not a regular file", file->path);
    file->bytes = (uint64_t)info.st_size;
    file->inode = info.st_ino;
    return DS_OK;
}

static enum ds_status
open_file(const char *path, int flags, struct append_file **out, struct ds_error *err)
{
    DS_ASSERT(path != NULL);
    struct append_file *file = calloc(1, sizeof *file);
    if (file == NULL)
        return ds_fail(err, DS_NO_MEMORY, "file '%s': out of memory", path);
    enum ds_status status = DS_OK;
    file->path = strdup(path);
    file->fd = open(path, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file->fd < 0)
        status = ds_fail_errno(err, "file '%s': cannot open it", path);
    else if (file->path == NULL)
        status = ds_fail(err, DS_NO_MEMORY, "file '%s': out of memory", path);
    else
        status = find_length(file, err);
    if (status == DS_OK)
        *out = file;
    else
        append_file_close(file);
    return status;
}

enum ds_status
append_file_open(const char *path, struct append_file **out, struct ds_error *err)
{
    return open_file(path, O_RDWR | O_CREAT, out, err);
}

enum ds_status
append_file_open_to_read(const char *path, struct append_file **out,
                         struct ds_error *err)
{
    return open_file(path, O_RDONLY, out, err);
}

void
append_file_close(struct append_file *file)
{
    if (file == NULL)
        return;
    if (file->fd >= 0)
        close(file->fd);
    free(file->path);
    free(file);
}

uint64_t
append_file_bytes(const struct append_file *file)
{
    return file->bytes;
}

uint64_t
append_file_inode(const struct append_file *file)
{
    return file->inode;
}

enum ds_status
append_file_read(struct append_file *file, uint64_t offset, void *out, size_t bytes,
                 struct ds_error *err)
{
    uint8_t *at = out;
    while (bytes > 0) {
        ssize_t done = pread(file->fd, at, bytes, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return ds_fail_errno(err, "file '%s': cannot read %zu bytes at %ju",
                                 file->path, bytes, (uintmax_t)offset);
        if (done == 0)
            return ds_fail(err, DS_IO, "file '%s' ends at %ju, before it should",
                           file->path, (uintmax_t)offset);
        at += done;
        offset += (uint64_t)done;
        bytes -= (size_t)done;
    }
    return DS_OK;
}

void
append_file_remove(const struct append_file *file)
{
    (void)unlink(file->path);
}

enum ds_status
append_file_map(struct append_file *file, struct ds_slice *out, struct ds_error *err)
{
    if (file->bytes == 0) {
        *out = slice("", 0);
        return DS_OK;
    }
    void *data = mmap(NULL, file->bytes, PROT_READ, MAP_PRIVATE, file->fd, 0);
    if (data == MAP_FAILED)
        return ds_fail_errno(err, "file '%s': cannot read its %ju bytes", file->path,
                             (uintmax_t)file->bytes);
    *out = slice(data, file->bytes);
    return DS_OK;
}

void
append_file_unmap(struct ds_slice mapped)
{
    if (mapped.len > 0)
        (void)munmap((void *)(uintptr_t)mapped.data, mapped.len);
}

/* ---- Room ---- */

static bool
is_want_of_room(int number)
{
    return number == ENOSPC || number == EDQUOT || number == EFBIG;
}

/* Errors of append_file_reserve(): how much is wanted, how much is there. */
static enum ds_status
fail_reserve(const struct append_file *file, uint64_t bytes, int number,
             struct ds_error *err)
{
    errno = number;
    if (!is_want_of_room(number))
        return ds_fail_errno(err, "file '%s': cannot make it %ju bytes long",
                             file->path, (uintmax_t)bytes);
    struct statvfs info;
    uint64_t left = 0;
    if (fstatvfs(file->fd, &info) == 0)
        left = (uint64_t)info.f_bavail * info.f_frsize;
    return ds_fail(err, DS_FULL,
                   "file '%s': no room for %ju more bytes (it has %ju; %ju are free in "
                   "its file system): %s. Make room there, or raise the limit on it",
                   file->path, (uintmax_t)(bytes - file->bytes), (uintmax_t)file->bytes,
                   (uintmax_t)left, strerror(number));
}

/* Writes zeros where the file system has no fallocate(). 0 or an errno. */
static int
fill_with_zeros(int fd, uint64_t from, uint64_t to)
{
    static const uint8_t zeros[64 << 10];
    while (from < to) {
        ssize_t done = pwrite(fd, zeros, min_u64(sizeof zeros, to - from), (off_t)from);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return errno;
        from += (uint64_t)done;
    }
    return 0;
}

static int
take_room(int fd, uint64_t from, uint64_t to)
{
    int number;
    do {
        number = fallocate(fd, 0, (off_t)from, (off_t)(to - from)) < 0 ? errno : 0;
    } while (number == EINTR);
    if (number == EOPNOTSUPP || number == ENOSYS)
        number = fill_with_zeros(fd, from, to);
    return number;
}

enum ds_status
append_file_reserve(struct append_file *file, uint64_t bytes, struct ds_error *err)
{
    if (bytes <= file->bytes)
        return DS_OK;
    if (bytes > INT64_MAX - ROOM_STEP_BYTES)
        return fail_reserve(file, bytes, EFBIG, err);
    uint64_t wanted = round_up(bytes, ROOM_STEP_BYTES);
    int number = take_room(file->fd, file->bytes, wanted);
    if (is_want_of_room(number)) { /* The last bytes may do. */
        wanted = bytes;
        number = take_room(file->fd, file->bytes, wanted);
    }
    if (number == 0) {
        file->bytes = wanted;
        return DS_OK;
    }
    enum ds_status status = fail_reserve(file, bytes, number, err);
    (void)ftruncate(file->fd, (off_t)file->bytes); /* Some of it may have been taken. */
    return status;
}

enum ds_status
append_file_write(struct append_file *file, uint64_t offset, struct ds_slice bytes,
                  struct ds_error *err)
{
    DS_ASSERT(offset + bytes.len <= file->bytes);
    const uint8_t *at = bytes.data;
    size_t left = bytes.len;
    while (left > 0) {
        ssize_t done = pwrite(file->fd, at, left, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return ds_fail_errno(err, "file '%s': cannot write %zu bytes at %ju",
                                 file->path, left, (uintmax_t)offset);
        at += done;
        offset += (uint64_t)done;
        left -= (size_t)done;
    }
    return DS_OK;
}

enum ds_status
append_file_cut(struct append_file *file, uint64_t bytes, struct ds_error *err)
{
    DS_ASSERT(bytes <= file->bytes);
    if (ftruncate(file->fd, (off_t)bytes) < 0)
        return ds_fail_errno(err, "file '%s': cannot cut it off at %ju", file->path,
                             (uintmax_t)bytes);
    file->bytes = bytes;
    return DS_OK;
}

enum ds_status
append_file_sync(struct append_file *file, struct ds_error *err)
{
    if (fdatasync(file->fd) < 0)
        return ds_fail_errno(err, "file '%s': cannot bring it to the disk", file->path);
    return DS_OK;
}

/* A new name is on the disk once its folder is. */
enum ds_status
append_file_sync_name(const struct append_file *file, struct ds_error *err)
{
    const char *path = file->path;
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    DS_ASSERT(len < sizeof folder - 1);
    memcpy(folder, len == 0 ? "." : path, len == 0 ? 1 : len);
    folder[len == 0 ? 1 : len] = '\0';
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return ds_fail_errno(err, "folder '%s': cannot open it", folder);
    enum ds_status status = DS_OK;
    if (fsync(fd) < 0 && errno != EINVAL)
        status = ds_fail_errno(err, "folder '%s': cannot bring it to the disk", folder);
    close(fd);
    return status;
}

enum ds_status
append_file_rename(struct append_file *file, const char *path, struct ds_error *err)
{
    char *copy = strdup(path);
    if (copy == NULL)
        return ds_fail(err, DS_NO_MEMORY, "file '%s': out of memory", path);
    if (rename(file->path, path) < 0) {
        enum ds_status status =
            ds_fail_errno(err, "file '%s': cannot become '%s'", file->path, path);
        free(copy);
        return status;
    }
    free(file->path);
    file->path = copy;
    return DS_OK;
}
