/* What a controller is started with that goes on with a queue (takeover.h). Its socket is beside
 * the worker's, in a folder of this user alone, and its journal beside that. */
#ifndef WORKER_LAUNCH_H
#define WORKER_LAUNCH_H

#include <datasystem/datasystem.h>

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

struct worker;

enum { LAUNCH_ARGUMENTS_MAX = 24 };

/* Texts for program_start(): `arguments` point into the rest, and to the worker's own. */
struct launch {
    char program[PATH_MAX];
    char socket[PATH_MAX];
    char term[24];
    char ends_with[64];
    char owner[64];
    char *arguments[LAUNCH_ARGUMENTS_MAX];
    size_t count;
};

/* Of the queue of that name, which is borrowed. It reads the key from its standard input, if
 * the worker has one.
 *   DS_NOT_FOUND   the program does not lie beside the worker's */
DS_MUST_USE enum ds_status
launch_prepare(const struct worker *worker, const char *queue, uint64_t term,
               struct launch *out, struct ds_error *err);

/* Removes what controllers have left that were started here, and whose worker is gone as
 * well. */
void launch_clean_up(const struct worker *worker);

#endif
