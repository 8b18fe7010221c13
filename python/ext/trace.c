#include "trace.h"

#include <string.h>

static _Thread_local char current_id[TRACE_ID_BYTES_MAX + 1];

const char *
trace_id(void)
{
    return current_id;
}

PyObject *
trace_set_id(PyObject *module, PyObject *id)
{
    (void)module;
    Py_ssize_t len;
    const char *text = PyUnicode_AsUTF8AndSize(id, &len);
    if (text == NULL)
        return NULL;
    if (len > TRACE_ID_BYTES_MAX)
        return PyErr_Format(PyExc_ValueError, "a trace id has at most %d bytes",
                            TRACE_ID_BYTES_MAX);
    memcpy(current_id, text, (size_t)len + 1);
    Py_RETURN_NONE;
}

bool
trace_log_open(struct core_state *state)
{
    if (state->call_log != NULL)
        return true;
    AUTO(object) PyObject *module = PyImport_ImportModule("yr.datasystem._client_log");
    if (module == NULL)
        return false;
    state->call_log = PyObject_CallMethod(module, "open_log", NULL);
    return state->call_log != NULL;
}

void
trace_log(const struct core_state *state, const struct trace_line *line)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *result = PyObject_CallFunction(
        state->call_log, "siKnKss", line->action, status_number(line->status),
        (unsigned long long)line->cost_us, (Py_ssize_t)line->item_count,
        (unsigned long long)line->bytes, trace_id(), line->message);
    if (result == NULL)
        PyErr_WriteUnraisable(state->call_log);
    Py_XDECREF(result);
    PyErr_Restore(type, value, traceback);
}
