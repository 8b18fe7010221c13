#include "results.h"

#include "arguments.h"

bool
handles_open(size_t count, struct handles *out)
{
    out->items = array_new(count, sizeof(struct ds_buffer *));
    out->count = out->items == NULL ? 0 : count;
    return out->items != NULL;
}

void
handles_auto(struct handles *handles)
{
    for (size_t i = 0; i < handles->count; i++)
        ds_buffer_release(handles->items[i]);
    PyMem_RawFree(handles->items);
}

uint64_t
handles_bytes(const struct handles *handles)
{
    uint64_t total = 0;
    for (size_t i = 0; i < handles->count; i++)
        if (handles->items[i] != NULL)
            total += ds_buffer_size(handles->items[i]);
    return total;
}

PyObject *
handles_to_list(const struct core_state *state, struct handles *handles)
{
    AUTO(object) PyObject *list = PyList_New((Py_ssize_t)handles->count);
    if (list == NULL)
        return NULL;
    for (size_t i = 0; i < handles->count; i++) {
        PyObject *item = handles->items[i] == NULL
                             ? Py_NewRef(Py_None)
                             : buffer_wrap(state, &handles->items[i]);
        if (item == NULL)
            return NULL;
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return TAKE(list);
}

bool
flags_open(size_t count, struct flags *out)
{
    out->items = array_new(count, sizeof *out->items);
    out->count = count;
    return out->items != NULL;
}

void
flags_auto(struct flags *flags)
{
    PyMem_RawFree(flags->items);
}

PyObject *
flags_to_list(const struct flags *flags)
{
    AUTO(object) PyObject *list = PyList_New((Py_ssize_t)flags->count);
    if (list == NULL)
        return NULL;
    for (size_t i = 0; i < flags->count; i++)
        PyList_SET_ITEM(list, (Py_ssize_t)i, PyBool_FromLong(flags->items[i]));
    return TAKE(list);
}
