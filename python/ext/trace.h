/* Naming the calls of a thread, and writing calls down.
 *
 * The log is a Python function, yr.datasystem._client_log.open_log() makes it when the
 * environment asks for one. Without it a call costs one comparison more. */
#ifndef TRACE_H
#define TRACE_H

#include "core.h"

enum { TRACE_ID_BYTES_MAX = 36 };

/* The calling thread's id, "" when it has none. */
const char *trace_id(void);

/* Python's set_trace_id(). */
PyObject *trace_set_id(PyObject *module, PyObject *id);

/* Looks at the environment the first time. False with an exception set. */
bool trace_log_open(struct core_state *state);

static inline bool
trace_log_is_on(const struct core_state *state)
{
    return state->call_log != NULL && state->call_log != Py_None;
}

struct trace_line {
    const char *action;
    enum ds_status status;
    uint64_t cost_us;
    size_t item_count;
    uint64_t bytes;
    const char *message;
};

/* Never fails the call that it writes down; an exception that is set stays. */
void trace_log(const struct core_state *state, const struct trace_line *line);

#endif
