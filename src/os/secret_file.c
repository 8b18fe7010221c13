#include "os/secret_file.h"

#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static enum ds_status
check_access(int fd, const char *path, struct ds_error *err)
{
    struct stat info;
    if (fstat(fd, &info) < 0)
        return ds_fail_errno(err, "key file %s", path);
    if (!S_ISREG(info.st_mode))
        return ds_fail(err, DS_INVALID, "key file %s is not a file", path);
    if (info.st_uid != geteuid() && info.st_uid != 0)
        return ds_fail(err, DS_INVALID,
                       "key file %s belongs to user %u, who is neither root nor this "
                       "program's user (%u): make a copy of your own",
                       path, (unsigned)info.st_uid, (unsigned)geteuid());
    if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return ds_fail(err, DS_INVALID,
                       "key file %s is open to others (mode %03o): run 'chmod 600 %s'",
                       path, (unsigned)info.st_mode & 0777u, path);
    return DS_OK;
}

/* Up to one byte more than fits, so that a longer file is noticed. */
static enum ds_status
read_all(int fd, const char *path, struct secret *secret, struct ds_error *err)
{
    uint8_t beyond;
    secret->len = 0;
    for (;;) {
        bool is_full = secret->len == SECRET_BYTES_MAX;
        ssize_t got = read(fd, is_full ? &beyond : secret->bytes + secret->len,
                           is_full ? 1 : SECRET_BYTES_MAX - secret->len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return ds_fail_errno(err, "key file %s", path);
        if (got == 0)
            return DS_OK;
        if (is_full)
            return ds_fail(err, DS_INVALID, "key file %s has more than %d bytes", path,
                           SECRET_BYTES_MAX);
        secret->len += (size_t)got;
    }
}

static bool
is_white(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

static void
trim(struct secret *secret)
{
    while (secret->len > 0 && is_white(secret->bytes[secret->len - 1]))
        secret->len--;
}

static enum ds_status
read_file(const char *path, size_t bytes_min, struct secret *out, struct ds_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* A pipe is refused. */
    if (fd < 0)
        return ds_fail_errno(err, "key file %s", path);
    enum ds_status status = check_access(fd, path, err);
    if (status == DS_OK)
        status = read_all(fd, path, out, err);
    close(fd);
    if (status != DS_OK)
        return status;
    trim(out);
    if (out->len >= bytes_min)
        return DS_OK;
    return ds_fail(err, DS_INVALID,
                   "key file %s has %zu bytes, and at least %zu are needed: make one "
                   "with 'openssl rand -hex 32'",
                   path, out->len, bytes_min);
}

/* Programs run in several folders, and the environment is the same for all of them. */
static enum ds_status
path_from_environment(const char **out, struct ds_error *err)
{
    const char *path = getenv("DATASYSTEM_AUTH_KEY_FILE");
    *out = path;
    if (path == NULL || path[0] == '\0' || path[0] == '/')
        return DS_OK;
    return ds_fail(err, DS_INVALID,
                   "DATASYSTEM_AUTH_KEY_FILE is '%s': give the whole path, from '/' on",
                   path);
}

enum ds_status
secret_file_read(const char *path, size_t bytes_min, struct secret *out,
                 struct ds_error *err)
{
    out->len = 0;
    if ((path == NULL || path[0] == '\0') && path_from_environment(&path, err) != DS_OK)
        return DS_INVALID;
    if (path == NULL || path[0] == '\0')
        return DS_OK;
    enum ds_status status = read_file(path, bytes_min, out, err);
    if (status != DS_OK)
        secret_wipe(out);
    return status;
}

enum ds_status
secret_hand_over(const struct secret *secret, int *out_fd, struct ds_error *err)
{
    int fd = memfd_create("auth_key", MFD_CLOEXEC);
    if (fd < 0)
        return ds_fail_errno(err, "no file for a key");
    if (fchmod(fd, S_IRUSR | S_IWUSR) < 0 ||
        pwrite(fd, secret->bytes, secret->len, 0) != (ssize_t)secret->len) {
        enum ds_status status = ds_fail_errno(err, "a file for a key");
        close(fd);
        return status;
    }
    *out_fd = fd;
    return DS_OK;
}

void
secret_wipe(struct secret *secret)
{
    explicit_bzero(secret, sizeof *secret);
}
