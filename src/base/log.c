#include "base/log.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

enum { LINE_BYTES_MAX = 2048 };

/* Set once by the program before it starts threads, read-only afterwards. */
static struct {
    log_sink_fn sink;
    void *arg;
    enum log_level level;
} logger = {.level = LOG_NONE};

void
log_set_sink(log_sink_fn sink, void *arg, enum log_level level)
{
    logger.sink = sink;
    logger.arg = arg;
    logger.level = sink == NULL ? LOG_NONE : level;
}

void
log_write(enum log_level level, const char *format, ...)
{
    if (level < logger.level)
        return;
    char line[LINE_BYTES_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (char *c = line; *c != '\0'; c++) {
        if (*c == '\n' || *c == '\r')
            *c = ' '; /* A peer's text must not forge a second line. */
    }
    logger.sink(level, line, logger.arg);
}

const char *
log_level_name(enum log_level level)
{
    static const char *const names[] = {"debug", "info", "warn", "error", "none"};
    return names[level];
}
