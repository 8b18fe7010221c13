#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void
write_message(struct ds_error *err, enum ds_status status, const char *format,
              va_list args)
{
    if (err == NULL)
        return;
    err->status = status;
    vsnprintf(err->message, sizeof err->message, format, args);
}

enum ds_status
ds_fail(struct ds_error *err, enum ds_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_message(err, status, format, args);
    va_end(args);
    return status;
}

static enum ds_status
status_of_errno(int number)
{
    switch (number) {
    case ENOMEM:
    case ENOSPC:
        return DS_NO_MEMORY;
    case EINTR:
        return DS_INTERRUPTED;
    default:
        return DS_IO;
    }
}

enum ds_status
ds_fail_errno(struct ds_error *err, const char *format, ...)
{
    int number = errno; /* The formatting below may change it. */
    enum ds_status status = status_of_errno(number);
    va_list args;
    va_start(args, format);
    write_message(err, status, format, args);
    va_end(args);
    if (err != NULL) {
        size_t used = strlen(err->message);
        char text[128];
        snprintf(err->message + used, sizeof err->message - used, ": %s",
                 strerror_r(number, text, sizeof text));
    }
    errno = number;
    return status;
}

const char *
ds_status_name(enum ds_status status)
{
    static const char *const names[DS_STATUS_COUNT] = {
        [DS_OK] = "DS_OK",
        [DS_INVALID] = "DS_INVALID",
        [DS_NOT_FOUND] = "DS_NOT_FOUND",
        [DS_EXISTS] = "DS_EXISTS",
        [DS_FULL] = "DS_FULL",
        [DS_TIMEOUT] = "DS_TIMEOUT",
        [DS_NOT_READY] = "DS_NOT_READY",
        [DS_IO] = "DS_IO",
        [DS_NO_MEMORY] = "DS_NO_MEMORY",
        [DS_OUT_OF_RANGE] = "DS_OUT_OF_RANGE",
        [DS_MISMATCH] = "DS_MISMATCH",
        [DS_INTERRUPTED] = "DS_INTERRUPTED",
        [DS_UNSUPPORTED] = "DS_UNSUPPORTED",
        [DS_CORRUPT] = "DS_CORRUPT",
        [DS_NOT_AUTHORIZED] = "DS_NOT_AUTHORIZED",
    };
    if (status < 0 || status >= DS_STATUS_COUNT)
        return "DS_UNKNOWN";
    return names[status];
}
