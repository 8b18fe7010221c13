/* Logging as key=value lines, one per decision:
 *
 *      log_warn("store evict key=%s bytes=%ju reason=full", key, bytes);
 *
 * Quiet by default: without a sink nothing is written. The program sets the sink once,
 * before it starts threads; the sink adds the time. No line per object at info. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_NONE };

typedef void (*log_sink_fn)(enum log_level level, const char *line, void *arg);

/* Lines below `level` are dropped before they are formatted. NULL turns logging off. */
void log_set_sink(log_sink_fn sink, void *arg, enum log_level level);

void log_write(enum log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

const char *log_level_name(enum log_level level);

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)

#endif
