/* How a function fails: one line that writes the text and gives the status. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#include <datasystem/status.h>

/* Writes the message into `err` (which may be NULL) and returns `status`. */
enum ds_status ds_fail(struct ds_error *err, enum ds_status status, const char *format,
                       ...) __attribute__((format(printf, 3, 4)));

/* As ds_fail(), with ": <text of errno>" appended. ENOMEM and ENOSPC become
 * DS_NO_MEMORY, EINTR becomes DS_INTERRUPTED, everything else DS_IO. */
enum ds_status ds_fail_errno(struct ds_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* "DS_NOT_FOUND" and so on, for logs; never NULL. */
const char *ds_status_name(enum ds_status status);

#endif
