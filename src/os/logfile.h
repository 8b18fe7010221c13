/* The log file of a daemon: a sink for base/log.h.
 *
 *      2026-08-22T10:11:12.345678Z INFO 4711 worker ready port=31501
 *
 * Lines go to <folder>/<name>.log by one write() each, so supervisor and child may
 * share a file. Grown to size_bytes_max it becomes <name>.log.1, that one <name>.log.2,
 * and so on; files_max files are kept, the current one included. A line that cannot be
 * written there goes to stderr.
 *
 * Owner: the program, until it ends. The sink is called by the loop thread only. */
#ifndef OS_LOGFILE_H
#define OS_LOGFILE_H

#include "base/log.h"

#include <datasystem/status.h>

#include <stdint.h>
#include <sys/types.h>

struct logfile_options {
    const char *folder; /* Made, with its parents, if absent. */
    const char *name;
    uint64_t size_bytes_max; /* Above 0. */
    uint32_t files_max;      /* At least 1. */
    mode_t mode;             /* Of the files, e.g. 0640. */
};

struct logfile;

/* DS_IO with the path when the folder or the file cannot be made. */
DS_MUST_USE enum ds_status logfile_open(const struct logfile_options *options,
                                        struct logfile **out, struct ds_error *err);

/* A log_sink_fn; `arg` is the struct logfile, or NULL for stderr alone. */
void logfile_write(enum log_level level, const char *line, void *arg);

/* Not before log_set_sink() was told something else. Accepts NULL. */
void logfile_close(struct logfile *file);

#endif
