/* Backing the arena with memory, step by step, in a helper thread.
 *
 * The first part is there when the worker reports ready. The rest follows at a tenth of
 * one core's time, or at full speed while a create waits for it. With --enable_thp it is
 * then put on huge pages, again from the start and at a tenth of a core, in use or not. */
#ifndef WORKER_POPULATE_H
#define WORKER_POPULATE_H

#include <datasystem/status.h>

#include <stdbool.h>
#include <stdint.h>

struct worker;
struct populate;

/* `already` bytes are backed (by a previous child). */
DS_MUST_USE enum ds_status populate_start(struct worker *worker, uint64_t already,
                                          struct populate **out, struct ds_error *err);
void populate_stop(struct populate *populate);

/* Somebody waits: no more rests until creates_retry() has emptied the line. */
void populate_hurry(struct populate *populate);

/* Nothing more will come: all is backed, or the machine has no more memory. */
bool populate_is_done(const struct populate *populate);

/* Back the next step here, blocking the loop; false when there is none. */
bool populate_step_now(struct populate *populate);

#endif
