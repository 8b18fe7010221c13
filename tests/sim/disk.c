/* Files that outlive their process, in place of src/os/append_file.c: what was written
 * is there after a kill; nobody cuts the power here. */
#include "sim.h"

#include "base/check.h"
#include "base/slice.h"
#include "os/append_file.h"
#include "os/files.h"
#include "store/step.h"

#include <stdlib.h>

enum { ROOM_BYTES = 4096, PATH_BYTES_MAX = 256 };

/* On the disk, by its path; nameless once another took its place. */
struct file {
    struct list link;
    char path[PATH_BYTES_MAX];
    uint8_t *data;
    uint64_t bytes;
    uint64_t capacity;
};

/* Owner: the process that opened it. */
struct append_file {
    struct file *file;
};

static struct list disk = {.next = &disk, .prev = &disk};

void
disk_reset(void)
{
    LIST_FOREACH (link, &disk) {
        struct file *file = CONTAINER_OF(link, struct file, link);
        list_remove(link);
        sim_free(file->data);
        sim_free(file);
    }
}

static struct file *
find(const char *path)
{
    LIST_FOREACH (link, &disk) {
        struct file *file = CONTAINER_OF(link, struct file, link);
        if (strcmp(file->path, path) == 0)
            return file;
    }
    return NULL;
}

enum ds_status
append_file_open(const char *path, struct append_file **out, struct ds_error *err)
{
    (void)err;
    struct file *file = find(path);
    DS_ASSERT(strlen(path) < PATH_BYTES_MAX);
    if (file == NULL) {
        file = sim_allocate(sizeof *file);
        snprintf(file->path, sizeof file->path, "%s", path);
        list_push_back(&disk, &file->link);
    }
    *out = malloc(sizeof **out);
    (*out)->file = file;
    return DS_OK;
}

enum ds_status
append_file_open_to_read(const char *path, struct append_file **out,
                         struct ds_error *err)
{
    return append_file_open(path, out, err);
}

uint64_t
append_file_inode(const struct append_file *file)
{
    return (uintptr_t)file->file;
}

enum ds_status
append_file_read(struct append_file *file, uint64_t offset, void *out, size_t bytes,
                 struct ds_error *err)
{
    (void)err;
    DS_ASSERT(offset + bytes <= file->file->bytes);
    memcpy(out, file->file->data + offset, bytes);
    return DS_OK;
}

void
append_file_remove(const struct append_file *file)
{
    file->file->path[0] = '\0';
}

/* The folder of copies of journals, which one node has none of. */
void
files_remove_folder(const char *path)
{
    (void)path;
}

void
files_remove_named(const char *folder, const char *prefix)
{
    (void)folder;
    (void)prefix;
}

bool
files_exists(const char *path)
{
    return find(path) != NULL;
}

void
files_remove(const char *path)
{
    struct file *file = find(path);
    if (file != NULL)
        file->path[0] = '\0';
}

void
append_file_close(struct append_file *file)
{
    free(file);
}

uint64_t
append_file_bytes(const struct append_file *file)
{
    return file->file->bytes;
}

enum ds_status
append_file_map(struct append_file *file, struct ds_slice *out, struct ds_error *err)
{
    (void)err;
    *out = slice(file->file->data, file->file->bytes);
    return DS_OK;
}

void
append_file_unmap(struct ds_slice mapped)
{
    (void)mapped;
}

enum ds_status
append_file_reserve(struct append_file *file, uint64_t bytes, struct ds_error *err)
{
    struct file *on_disk = file->file;
    (void)err;
    if (bytes <= on_disk->bytes)
        return DS_OK;
    bytes = (bytes + ROOM_BYTES - 1) / ROOM_BYTES * ROOM_BYTES;
    if (bytes > on_disk->capacity) {
        uint8_t *larger = sim_allocate(2 * bytes);
        if (on_disk->bytes > 0)
            memcpy(larger, on_disk->data, on_disk->bytes);
        sim_free(on_disk->data);
        on_disk->data = larger;
        on_disk->capacity = 2 * bytes;
    }
    on_disk->bytes = bytes;
    return DS_OK;
}

enum ds_status
append_file_write(struct append_file *file, uint64_t offset, struct ds_slice bytes,
                  struct ds_error *err)
{
    struct file *on_disk = file->file;
    (void)err;
    DS_ASSERT(offset <= on_disk->bytes);
    DS_ASSERT(bytes.len <= on_disk->bytes - offset);
    step_reached("before a write to the disk");
    size_t half = sim_below(bytes.len + 1);
    memcpy(on_disk->data + offset, bytes.data, half);
    step_reached("within a write to the disk");
    memcpy(on_disk->data + offset + half, (const uint8_t *)bytes.data + half,
           bytes.len - half);
    step_reached("after a write to the disk");
    return DS_OK;
}

enum ds_status
append_file_cut(struct append_file *file, uint64_t bytes, struct ds_error *err)
{
    struct file *on_disk = file->file;
    (void)err;
    if (bytes < on_disk->bytes) {
        memset(on_disk->data + bytes, 0, on_disk->bytes - bytes);
        on_disk->bytes = bytes;
    }
    return DS_OK;
}

enum ds_status
append_file_sync(struct append_file *file, struct ds_error *err)
{
    (void)file;
    (void)err;
    sim_yield_rarely();
    return DS_OK;
}

enum ds_status
append_file_rename(struct append_file *file, const char *path, struct ds_error *err)
{
    struct file *old = find(path);
    (void)err;
    if (old != NULL && old != file->file)
        old->path[0] = '\0';
    snprintf(file->file->path, sizeof file->file->path, "%s", path);
    step_reached("after a file got another's name");
    return DS_OK;
}

enum ds_status
append_file_sync_name(const struct append_file *file, struct ds_error *err)
{
    (void)file;
    (void)err;
    return DS_OK;
}
