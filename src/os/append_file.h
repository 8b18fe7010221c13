/* A file that grows at its end, for a journal: room is taken from the disk before it is
 * needed, so that a full disk is an error before anything was done, not after.
 *
 * The file is as long as the room that was taken; what was not written yet is zeros.
 * What append_file_write() has written survives the end of the process, however it
 * comes (it is the kernel's then); a power cut only after append_file_sync().
 *
 * Every text names the file. Owner: whoever holds it; no locking. */
#ifndef OS_APPEND_FILE_H
#define OS_APPEND_FILE_H

#include "base/auto.h"

#include <datasystem/datasystem.h>

#include <stdbool.h>
#include <stdint.h>

struct append_file;

/* Opens `path`, made with mode 0600 if absent. A link is refused.
 *   DS_IO, DS_NO_MEMORY */
DS_MUST_USE enum ds_status
append_file_open(const char *path, struct append_file **out, struct ds_error *err);

/* Somebody else's, to be read only. DS_IO, DS_NO_MEMORY */
DS_MUST_USE enum ds_status
append_file_open_to_read(const char *path, struct append_file **out,
                         struct ds_error *err);

/* Accepts NULL. */
void append_file_close(struct append_file *file);
DEFINE_AUTO(append_file, struct append_file, append_file_close)

/* Length of the file: of everything ever written, and of the room behind it. */
uint64_t append_file_bytes(const struct append_file *file);

/* Tells it from the others of its file system. */
uint64_t append_file_inode(const struct append_file *file);

/* Exactly so many bytes; DS_IO also when the file ends before. */
DS_MUST_USE enum ds_status
append_file_read(struct append_file *file, uint64_t offset, void *out, size_t bytes,
                 struct ds_error *err);

/* Its name goes; it stays until it is closed. */
void append_file_remove(const struct append_file *file);

/* The whole file as it is now, to be read until append_file_unmap().
 *   DS_IO, DS_NO_MEMORY */
DS_MUST_USE enum ds_status
append_file_map(struct append_file *file, struct ds_slice *out, struct ds_error *err);
void append_file_unmap(struct ds_slice mapped);

/* Makes the file at least `bytes` long, with the room behind its present end taken from
 * the disk, mostly some more than asked for.
 *   DS_FULL   there is no room for that, the file is as long as it was
 *   DS_IO */
DS_MUST_USE enum ds_status
append_file_reserve(struct append_file *file, uint64_t bytes, struct ds_error *err);

/* Writes within the file's length: does not fail for want of room.
 *   DS_IO     something may have been written */
DS_MUST_USE enum ds_status
append_file_write(struct append_file *file, uint64_t offset, struct ds_slice bytes,
                  struct ds_error *err);

/* Cuts the file off. DS_IO. */
DS_MUST_USE enum ds_status
append_file_cut(struct append_file *file, uint64_t bytes, struct ds_error *err);

/* Waits until what was written is on the disk. DS_IO. */
DS_MUST_USE enum ds_status
append_file_sync(struct append_file *file, struct ds_error *err);

/* The file takes the place of the one at `path`, in one step. DS_IO: it did not. */
DS_MUST_USE enum ds_status
append_file_rename(struct append_file *file, const char *path, struct ds_error *err);

/* Waits until its name is on the disk. DS_IO. */
DS_MUST_USE enum ds_status
append_file_sync_name(const struct append_file *file, struct ds_error *err);

#endif
