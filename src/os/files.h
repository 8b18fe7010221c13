/* Files and folders of a daemon. */
#ifndef OS_FILES_H
#define OS_FILES_H

#include <datasystem/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* mkdir -p with `mode` for what is new. DS_IO with the path. */
DS_MUST_USE enum ds_status
files_make_folder(const char *path, mode_t mode, struct ds_error *err);

/* A folder that is this user's alone: made 0700 if absent, refused (DS_INVALID) if it
 * is a link, another's, or open to group or others. */
DS_MUST_USE enum ds_status
files_make_private_folder(const char *path, struct ds_error *err);

/* Replace `path` by a file with this text: written beside it, then renamed. */
DS_MUST_USE enum ds_status
files_write(const char *path, const char *text, mode_t mode, struct ds_error *err);

/* Whole file, terminated, at most out_bytes - 1 bytes; false if it cannot be read. */
bool files_read(const char *path, char *out, size_t out_bytes);

bool files_exists(const char *path);
void files_remove(const char *path); /* Absent is fine. */

/* With the files in it, but not with folders in it. Absent is fine. */
void files_remove_folder(const char *path);

/* Of the files in a folder those whose names begin so. */
void files_remove_named(const char *folder, const char *prefix);

/* An exclusive lock on `path` (made if absent) that lasts as long as *out_fd is open
 * and is inherited by fork. DS_EXISTS when somebody else has it: the text has the path
 * and what the file says (its holder's pid). The file's text becomes this pid. */
DS_MUST_USE enum ds_status
files_lock(const char *path, int *out_fd, struct ds_error *err);

#endif
