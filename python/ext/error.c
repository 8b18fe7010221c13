/* DatasystemError(status, message): RuntimeError with the words that users match on.
 *
 * Everything is computed from `args`, so pickling and copying work as for any
 * exception. */
#include "core.h"
#include "trace.h"

#include <stdarg.h>
#include <string.h>

/* The number and the words that users of the existing system know. */
struct code {
    int number;
    const char *text;
};

static const struct code codes[DS_STATUS_COUNT] = {
    [DS_OK] = {0, "OK"},
    [DS_INVALID] = {2, "Invalid parameter"},
    [DS_NOT_FOUND] = {3, "Key not found"},
    [DS_EXISTS] = {2004, "Object already exist error"},
    [DS_FULL] = {6, "Out of memory"},
    [DS_TIMEOUT] = {1001, "RPC deadline exceeded"},
    [DS_NOT_READY] = {8, "Not ready"},
    [DS_IO] = {1002, "RPC unavailable"},
    [DS_NO_MEMORY] = {5, "Runtime error"},
    [DS_OUT_OF_RANGE] = {12, "Out of range"},
    [DS_MISMATCH] = {28, "Client and worker version mismatch"},
    [DS_INTERRUPTED] = {11, "Interrupt detected"},
    [DS_UNSUPPORTED] = {36, "Not supported"},
    [DS_CORRUPT] = {20, "Data inconsistent between master and worker"},
    [DS_NOT_AUTHORIZED] = {9, "Not authorized"},
};

static const struct code *
code_of(long status)
{
    static const struct code unknown = {10, "Unknown error"};
    return status >= 0 && status < DS_STATUS_COUNT ? &codes[status] : &unknown;
}

/* The library's text, which may have cut a key in the middle of a character, and the
 * name that the thread gave its calls. */
static PyObject *
message_of(const struct ds_error *err)
{
    const char *text = err->message;
    PyObject *message = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
    if (message == NULL || trace_id()[0] == '\0')
        return message;
    PyObject *named = PyUnicode_FromFormat("%U, traceId: %s", message, trace_id());
    Py_DECREF(message);
    return named;
}

PyObject *
raise_status(const struct core_state *state, enum ds_status status,
             const struct ds_error *err)
{
    CORE_ASSERT(status != DS_OK);
    if (PyErr_Occurred())
        return NULL;
    PyObject *type = (PyObject *)state->error_type;
    AUTO(object) PyObject *message = message_of(err);
    if (message == NULL)
        return NULL;
    PyObject *error = PyObject_CallFunction(type, "iO", (int)status, message);
    if (error != NULL)
        PyErr_SetObject(type, error);
    Py_XDECREF(error);
    return NULL;
}

int
status_number(enum ds_status status)
{
    return code_of((long)status)->number;
}

PyObject *
raise_text(const struct core_state *state, enum ds_status status, const char *format,
           ...)
{
    struct ds_error err = {.status = status};
    va_list args;
    va_start(args, format);
    PyOS_vsnprintf(err.message, sizeof err.message, format, args);
    va_end(args);
    return raise_status(state, status, &err);
}

PyObject *
none_or_raise(const struct core_state *state, enum ds_status status,
              const struct ds_error *err)
{
    if (status != DS_OK)
        return raise_status(state, status, err);
    Py_RETURN_NONE;
}

/* ---- The type ---------------------------------------------------------------- */

static int
error_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    int status;
    PyObject *message;
    if (!PyArg_ParseTuple(args, "iU:DatasystemError", &status, &message))
        return -1;
    return ((PyTypeObject *)PyExc_RuntimeError)->tp_init(self, args, kwargs);
}

/* args[0] and args[1], borrowed from *out_args, which the caller owns. */
static bool
error_parts(PyObject *self, PyObject **out_args, long *out_status,
            PyObject **out_message)
{
    *out_args = PyObject_GetAttrString(self, "args");
    int status;
    if (*out_args == NULL || !PyArg_ParseTuple(*out_args, "iU", &status, out_message))
        return false;
    *out_status = status;
    return true;
}

static PyObject *
error_str(PyObject *self)
{
    AUTO(object) PyObject *args = NULL;
    PyObject *message;
    long status;
    if (!error_parts(self, &args, &status, &message))
        return NULL;
    return PyUnicode_FromFormat("code: [%s], msg: [%U]", code_of(status)->text,
                                message);
}

static PyObject *
error_status(PyObject *self, void *closure)
{
    (void)closure;
    AUTO(object) PyObject *args = NULL;
    PyObject *message;
    long status;
    if (!error_parts(self, &args, &status, &message))
        return NULL;
    return PyLong_FromLong(status);
}

static PyObject *
error_code(PyObject *self, void *closure)
{
    (void)closure;
    AUTO(object) PyObject *args = NULL;
    PyObject *message;
    long status;
    if (!error_parts(self, &args, &status, &message))
        return NULL;
    return PyLong_FromLong(code_of(status)->number);
}

static PyObject *
error_message(PyObject *self, void *closure)
{
    (void)closure;
    AUTO(object) PyObject *args = NULL;
    PyObject *message;
    long status;
    if (!error_parts(self, &args, &status, &message))
        return NULL;
    return Py_NewRef(message);
}

static PyGetSetDef error_getters[] = {
    {"status", error_status, NULL, "enum ds_status of the C library", NULL},
    {"code", error_code, NULL, "the number users know, e.g. 3", NULL},
    {"message", error_message, NULL, "what happened, to what, what to do", NULL},
    {0},
};

static PyType_Slot error_slots[] = {
    {Py_tp_doc, "What the library answered: `code: [<name>], msg: [<message>]`."},
    SLOT(Py_tp_init, error_init),
    SLOT(Py_tp_str, error_str),
    {Py_tp_getset, error_getters},
    {0, NULL},
};

PyType_Spec error_spec = {
    .name = "yr.datasystem.DatasystemError",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = error_slots,
};
