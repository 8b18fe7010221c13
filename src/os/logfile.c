#include "os/logfile.h"

#include "base/auto.h"
#include "base/check.h"
#include "base/status.h"
#include "os/clock.h"
#include "os/files.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE_BYTES_MAX = 4096 };

struct logfile {
    int fd; /* -1 after a failure; opened again with the next line. */
    uint64_t size_bytes_max;
    uint32_t files_max;
    mode_t mode;
    char path[PATH_MAX];
};

DEFINE_AUTO(logfile, struct logfile, logfile_close)

static bool
open_file(struct logfile *file)
{
    file->fd = open(file->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW,
                    file->mode);
    return file->fd >= 0;
}

static void
close_file(struct logfile *file)
{
    if (file->fd >= 0)
        (void)close(file->fd);
    file->fd = -1;
}

enum ds_status
logfile_open(const struct logfile_options *options, struct logfile **out,
             struct ds_error *err)
{
    DS_ASSERT(options->size_bytes_max > 0);
    DS_ASSERT(options->files_max >= 1);
    enum ds_status status = files_make_folder(options->folder, 0750, err);
    if (status != DS_OK)
        return status;
    AUTO(logfile) struct logfile *file = calloc(1, sizeof *file);
    if (file == NULL)
        return ds_fail(err, DS_NO_MEMORY, "log file: out of memory");
    file->fd = -1;
    file->size_bytes_max = options->size_bytes_max;
    file->files_max = options->files_max;
    file->mode = options->mode;
    int len = snprintf(file->path, sizeof file->path, "%s/%s.log", options->folder,
                       options->name);
    if (len < 0 || (size_t)len >= sizeof file->path)
        return ds_fail(err, DS_IO, "log file '%.64s...': the path is too long",
                       options->folder);
    if (!open_file(file))
        return ds_fail_errno(err, "log file '%s': cannot open it", file->path);
    *out = TAKE(file);
    return DS_OK;
}

void
logfile_close(struct logfile *file)
{
    if (file == NULL)
        return;
    close_file(file);
    free(file);
}

/* ---- Rotation ---- */

/* Path of the `number`-th file, 0 being the current one; false if it is too long. */
static bool
numbered_path(const struct logfile *file, uint32_t number, char out[PATH_MAX])
{
    int len = number == 0 ? snprintf(out, PATH_MAX, "%s", file->path)
                          : snprintf(out, PATH_MAX, "%s.%u", file->path, number);
    return len > 0 && len < PATH_MAX;
}

static void
shift_files(const struct logfile *file)
{
    char from[PATH_MAX], to[PATH_MAX];
    if (numbered_path(file, file->files_max - 1, to))
        (void)unlink(to);
    for (uint32_t number = file->files_max - 1; number > 0; number--) {
        if (numbered_path(file, number - 1, from) && numbered_path(file, number, to))
            (void)rename(from, to);
    }
}

/* True if the name still leads to the file that we have open: the other process that
 * shares the log may have rotated it, or somebody removed it. */
static bool
is_current(const struct logfile *file, uint64_t *out_size)
{
    struct stat named, opened;
    if (fstat(file->fd, &opened) < 0 || stat(file->path, &named) < 0)
        return false;
    *out_size = (uint64_t)opened.st_size;
    return named.st_ino == opened.st_ino && named.st_dev == opened.st_dev;
}

static bool
reopen(struct logfile *file)
{
    close_file(file);
    return open_file(file);
}

/* Makes file->fd the current file with room for a line. */
static bool
prepare(struct logfile *file)
{
    uint64_t size = 0;
    if (file->fd < 0 && !open_file(file))
        return false;
    if (!is_current(file, &size) && (!reopen(file) || !is_current(file, &size)))
        return false;
    if (size < file->size_bytes_max)
        return true;
    /* One process rotates; the other one finds the new file when it looks again. */
    if (flock(file->fd, LOCK_EX) == 0 && is_current(file, &size))
        shift_files(file);
    return reopen(file);
}

/* ---- Lines ---- */

static size_t
format_line(enum log_level level, const char *line, char out[LINE_BYTES_MAX])
{
    static const char *const names[] = {
        [LOG_DEBUG] = "DEBUG", [LOG_INFO] = "INFO",   [LOG_WARN] = "WARN",
        [LOG_ERROR] = "ERROR", [LOG_NONE] = "ALWAYS",
    };
    char time_text[32];
    clock_utc_text(time_text);
    int len = snprintf(out, LINE_BYTES_MAX, "%s %s %d %s\n", time_text, names[level],
                       (int)getpid(), line);
    DS_ASSERT(len > 0);
    if (len < LINE_BYTES_MAX)
        return (size_t)len;
    out[LINE_BYTES_MAX - 2] = '\n';
    return LINE_BYTES_MAX - 1;
}

void
logfile_write(enum log_level level, const char *line, void *arg)
{
    struct logfile *file = arg;
    char text[LINE_BYTES_MAX];
    size_t len = format_line(level, line, text);
    if (file != NULL && prepare(file) && write(file->fd, text, len) == (ssize_t)len)
        return;
    if (write(STDERR_FILENO, text, len) < 0)
        return; /* Nowhere left to say it. */
}
