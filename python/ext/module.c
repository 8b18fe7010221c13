/* The module object: its state, its types, and the one function that needs no client.
 */
#include "arguments.h"
#include "buffer.h"
#include "pieces.h"
#include "trace.h"

struct core_state *
core_state_of(PyObject *self)
{
    struct core_state *state = PyType_GetModuleState(Py_TYPE(self));
    CORE_ASSERT(state != NULL);
    return state;
}

static PyObject *
core_check_key(PyObject *module, PyObject *key)
{
    struct ds_slice slice;
    if (!key_open(key, &slice))
        return NULL;
    struct ds_error err = {0};
    return none_or_raise(PyModule_GetState(module), ds_key_check(slice, &err), &err);
}

static PyObject *
core_key_position(PyObject *module, PyObject *key)
{
    Py_buffer view;
    (void)module;
    if (PyObject_GetBuffer(key, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    struct ds_slice bytes = {.data = view.buf, .len = (size_t)view.len};
    uint32_t position = ds_key_position(bytes);
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLong(position);
}

/* For whoever fills a slice of MutableData(). */
static PyObject *
core_copy_bytes(PyObject *module, PyObject *args)
{
    AUTO(value) struct value value = {0};
    Py_buffer target;
    PyObject *source;
    if (!PyArg_ParseTuple(args, "w*O:copy_bytes", &target, &source))
        return NULL;
    PyObject *result = NULL;
    if (!value_open(source, &value)) {
        /* The error is set. */
    } else if (value.bytes.len != (size_t)target.len) {
        raise_text(PyModule_GetState(module), DS_INVALID,
                   "Source and target have not the same number of bytes.");
    } else {
        copy_unlocked(target.buf, value.bytes);
        result = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&target);
    return result;
}

/* Make a type and add it to the module; *out owns one more reference. */
static bool
add_type(PyObject *module, PyType_Spec *spec, PyObject *base, PyTypeObject **out)
{
    *out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, base);
    return *out != NULL && PyModule_AddType(module, *out) == 0;
}

/* The statuses that our own Python acts on. */
static int
add_constants(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "INVALID", DS_INVALID) < 0 ||
        PyModule_AddIntConstant(module, "NOT_FOUND", DS_NOT_FOUND) < 0 ||
        PyModule_AddIntConstant(module, "FULL", DS_FULL) < 0 ||
        PyModule_AddIntConstant(module, "NOT_READY", DS_NOT_READY) < 0 ||
        PyModule_AddIntConstant(module, "CORRUPT", DS_CORRUPT) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "__version__", DS_VERSION);
}

static int
core_exec(PyObject *module)
{
    struct core_state *state = PyModule_GetState(module);
    if (!add_type(module, &error_spec, PyExc_RuntimeError, &state->error_type) ||
        !add_type(module, &buffer_spec, NULL, &state->buffer_type) ||
        !add_type(module, &view_spec, NULL, &state->view_type) ||
        !add_type(module, &client_spec, NULL, &state->client_type) ||
        !add_type(module, &queue_spec, NULL, &state->queue_type) ||
        !add_type(module, &row_runs_spec, NULL, &state->row_runs_type))
        return -1;
    return add_constants(module);
}

static int
core_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct core_state *state = PyModule_GetState(module);
    Py_VISIT(state->error_type);
    Py_VISIT(state->buffer_type);
    Py_VISIT(state->view_type);
    Py_VISIT(state->client_type);
    Py_VISIT(state->queue_type);
    Py_VISIT(state->row_runs_type);
    Py_VISIT(state->call_log);
    return 0;
}

static int
core_clear(PyObject *module)
{
    struct core_state *state = PyModule_GetState(module);
    Py_CLEAR(state->error_type);
    Py_CLEAR(state->buffer_type);
    Py_CLEAR(state->view_type);
    Py_CLEAR(state->client_type);
    Py_CLEAR(state->queue_type);
    Py_CLEAR(state->row_runs_type);
    Py_CLEAR(state->call_log);
    return 0;
}

static void
core_free(void *module)
{
    core_clear(module);
}

static PyMethodDef core_methods[] = {
    {"check_key", core_check_key, METH_O,
     "Raise DatasystemError if the key is not a legal user key."},
    {"key_position", core_key_position, METH_O,
     "Where a key, as bytes, lies on the ring of positions that the nodes share."},
    {"copy_bytes", core_copy_bytes, METH_VARARGS,
     "copy_bytes(target, source): without the GIL, large ones past the caches."},
    {"copy_pieces", core_copy_pieces, METH_O,
     "Copy bytes to many places by one call, without the GIL if they are many."},
    {"set_trace_id", trace_set_id, METH_O,
     "Name the calls that follow in this thread."},
    {0},
};

static PyModuleDef_Slot core_slots[] = {
    SLOT(Py_mod_exec, core_exec),
    {0, NULL},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "yr.datasystem._core",
    .m_doc = "The C extension over libdatasystem.",
    .m_size = sizeof(struct core_state),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
