/* Files in memory, in place of os/append_file.h, and of folders: what a process that is killed
 * would have done from then on is not done. One file system for all nodes, whose paths have
 * the node in them. */
#include "machine.h"

#include "base/check.h"
#include "base/list.h"
#include "base/status.h"
#include "os/append_file.h"
#include "os/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 160 };

/* Owner: the list, while it has a name or is open. */
struct file {
    struct list link;
    char path[PATH_BYTES]; /* Empty: it has no name any more. */
    uint8_t *bytes;        /* Owned. */
    uint64_t length;
    uint64_t inode;
    uint32_t open_count;
};

/* Owner: who opened it. */
struct append_file {
    struct file *file;
};

static struct list files = {.next = &files, .prev = &files};
static uint64_t last_inode;

static bool
is_muted(void)
{
    return node_running != NULL && node_running->is_muted;
}

static struct file *
find(const char *path)
{
    LIST_FOREACH (link, &files) {
        struct file *file = CONTAINER_OF(link, struct file, link);
        if (strcmp(file->path, path) == 0)
            return file;
    }
    return NULL;
}

static void
free_if_gone(struct file *file)
{
    if (file->open_count > 0 || file->path[0] != '\0')
        return;
    list_remove(&file->link);
    free(file->bytes);
    free(file);
}

static void
unname(struct file *file)
{
    file->path[0] = '\0';
    free_if_gone(file);
}

static struct file *
make(const char *path)
{
    struct file *file = calloc(1, sizeof *file);
    DS_ASSERT(file != NULL);
    snprintf(file->path, sizeof file->path, "%s", path);
    file->inode = ++last_inode;
    list_push_back(&files, &file->link);
    return file;
}

static enum ds_status
open_file(struct file *file, struct append_file **out)
{
    *out = calloc(1, sizeof **out);
    DS_ASSERT(*out != NULL);
    (*out)->file = file;
    file->open_count++;
    return DS_OK;
}

/* A process that is being killed has one that nobody sees. */
enum ds_status
append_file_open(const char *path, struct append_file **out, struct ds_error *err)
{
    struct file *file = is_muted() ? NULL : find(path);
    if (strlen(path) >= PATH_BYTES)
        return ds_fail(err, DS_IO, "'%s' is too long a path", path);
    return open_file(file != NULL ? file : make(is_muted() ? "" : path), out);
}

enum ds_status
append_file_open_to_read(const char *path, struct append_file **out,
                         struct ds_error *err)
{
    struct file *file = find(path);
    if (file == NULL)
        return ds_fail(err, DS_IO, "'%s' is not there", path);
    return open_file(file, out);
}

void
append_file_close(struct append_file *handle)
{
    if (handle == NULL)
        return;
    handle->file->open_count--;
    free_if_gone(handle->file);
    free(handle);
}

uint64_t
append_file_bytes(const struct append_file *handle)
{
    return handle->file->length;
}

uint64_t
append_file_inode(const struct append_file *handle)
{
    return handle->file->inode;
}

enum ds_status
append_file_read(struct append_file *handle, uint64_t offset, void *out, size_t bytes,
                 struct ds_error *err)
{
    const struct file *file = handle->file;
    if (offset > file->length || bytes > file->length - offset)
        return ds_fail(err, DS_IO, "'%s' ends before", file->path);
    if (bytes > 0)
        memcpy(out, file->bytes + offset, bytes);
    return DS_OK;
}

void
append_file_remove(const struct append_file *handle)
{
    if (!is_muted())
        handle->file->path[0] = '\0'; /* Gone when it is closed. */
}

static void
set_length(struct file *file, uint64_t length)
{
    if (length > file->length) {
        file->bytes = realloc(file->bytes, length);
        DS_ASSERT(file->bytes != NULL);
        memset(file->bytes + file->length, 0, length - file->length);
    }
    file->length = length;
}

/* Unlike a real one, not more than asked for. */
enum ds_status
append_file_reserve(struct append_file *handle, uint64_t bytes, struct ds_error *err)
{
    (void)err;
    if (!is_muted() && bytes > handle->file->length)
        set_length(handle->file, bytes);
    return DS_OK;
}

enum ds_status
append_file_write(struct append_file *handle, uint64_t offset, struct ds_slice bytes,
                  struct ds_error *err)
{
    (void)err;
    if (is_muted() || bytes.len == 0)
        return DS_OK;
    DS_ASSERT(offset + bytes.len <= handle->file->length);
    memcpy(handle->file->bytes + offset, bytes.data, bytes.len);
    return DS_OK;
}

enum ds_status
append_file_cut(struct append_file *handle, uint64_t bytes, struct ds_error *err)
{
    (void)err;
    if (!is_muted() && bytes < handle->file->length)
        set_length(handle->file, bytes);
    return DS_OK;
}

enum ds_status
append_file_rename(struct append_file *handle, const char *path, struct ds_error *err)
{
    if (strlen(path) >= PATH_BYTES)
        return ds_fail(err, DS_IO, "'%s' is too long a path", path);
    struct file *other = find(path);
    if (is_muted() || other == handle->file)
        return DS_OK;
    if (other != NULL)
        unname(other);
    snprintf(handle->file->path, sizeof handle->file->path, "%s", path);
    return DS_OK;
}

void
machine_forget_files(void)
{
    LIST_FOREACH (link, &files) {
        struct file *file = CONTAINER_OF(link, struct file, link);
        DS_ASSERT(file->open_count == 0);
        unname(file);
    }
    last_inode = 0;
}

/* ---- Folders ---- */

enum ds_status
__wrap_files_make_folder(const char *path, mode_t mode, struct ds_error *err);
enum ds_status
__wrap_files_make_folder(const char *path, mode_t mode, struct ds_error *err)
{
    (void)path;
    (void)mode;
    (void)err;
    return DS_OK;
}

void __wrap_files_remove_folder(const char *path);
void
__wrap_files_remove_folder(const char *path)
{
    size_t length = strlen(path);
    LIST_FOREACH (link, &files) {
        struct file *file = CONTAINER_OF(link, struct file, link);
        if (!is_muted() && strncmp(file->path, path, length) == 0 &&
            file->path[length] == '/')
            unname(file);
    }
}
