#include "arguments.h"

#include <string.h>

/* Raise DatasystemError for an argument against the rules; always false. */
#define REFUSE(state, ...) (raise_text((state), DS_INVALID, __VA_ARGS__) != NULL)

/* ---- Integers ---------------------------------------------------------------- */

static bool
parse_unsigned(PyObject *object, unsigned long long most, unsigned long long *out)
{
    AUTO(object) PyObject *number = PyNumber_Index(object);
    if (number == NULL)
        return false;
    unsigned long long value = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred())
        return false;
    if (value > most) {
        PyErr_Format(PyExc_OverflowError, "%llu is more than %llu", value, most);
        return false;
    }
    *out = value;
    return true;
}

int
parse_u16(PyObject *object, void *out)
{
    unsigned long long value;
    if (!parse_unsigned(object, UINT16_MAX, &value))
        return 0;
    *(uint16_t *)out = (uint16_t)value;
    return 1;
}

int
parse_u32(PyObject *object, void *out)
{
    unsigned long long value;
    if (!parse_unsigned(object, UINT32_MAX, &value))
        return 0;
    *(uint32_t *)out = (uint32_t)value;
    return 1;
}

int
parse_u64(PyObject *object, void *out)
{
    unsigned long long value;
    if (!parse_unsigned(object, UINT64_MAX, &value))
        return 0;
    *(uint64_t *)out = value;
    return 1;
}

bool
set_options_open(const struct core_state *state, const struct set_arguments *arguments,
                 struct ds_set_options *out)
{
    int mode = arguments->write_mode;
    if (mode < DS_NONE_L2_CACHE || mode > DS_WRITE_BACK_L2_CACHE_EVICT)
        return REFUSE(state, "There is no write mode %d.", mode);
    *out = (struct ds_set_options){
        .ttl_seconds = arguments->ttl_seconds,
        .only_if_absent = arguments->only_if_absent != 0,
        .write_mode = (enum ds_write_mode)mode,
    };
    return true;
}

/* ---- Sequences --------------------------------------------------------------- */

void *
array_new(size_t count, size_t item_bytes)
{
    void *items = PyMem_RawCalloc(count == 0 ? 1 : count, item_bytes);
    if (items == NULL)
        PyErr_NoMemory();
    return items;
}

/* The items as a tuple, which no other thread can change meanwhile. A str is a sequence
 * too, but one of characters, and passing one is always a mistake. */
static PyObject *
sequence_of(PyObject *object, size_t *out_count)
{
    if (PyUnicode_Check(object) || PyBytes_Check(object))
        return PyErr_Format(PyExc_TypeError, "a list is needed, not one %.100s",
                            Py_TYPE(object)->tp_name);
    PyObject *items = PySequence_Tuple(object);
    if (items != NULL)
        *out_count = (size_t)PyTuple_GET_SIZE(items);
    return items;
}

bool
sizes_open(PyObject *object, struct sizes *out)
{
    size_t count = 0;
    AUTO(object) PyObject *items = sequence_of(object, &count);
    if (items == NULL)
        return false;
    out->items = array_new(count, sizeof *out->items);
    if (out->items == NULL)
        return false;
    out->count = count;
    for (size_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GET_ITEM(items, (Py_ssize_t)i);
        if (!parse_u64(item, &out->items[i]))
            return false;
    }
    return true;
}

void
sizes_auto(struct sizes *sizes)
{
    PyMem_RawFree(sizes->items);
}

uint64_t
sizes_total(const struct sizes *sizes)
{
    uint64_t total = 0;
    for (size_t i = 0; i < sizes->count; i++)
        total += sizes->items[i];
    return total;
}

bool
indexes_open(PyObject *object, struct indexes *out)
{
    size_t count = 0;
    AUTO(object) PyObject *items = sequence_of(object, &count);
    if (items == NULL)
        return false;
    out->items = array_new(count, sizeof *out->items);
    if (out->items == NULL)
        return false;
    out->count = count;
    for (size_t i = 0; i < count; i++)
        if (!parse_u32(PyTuple_GET_ITEM(items, (Py_ssize_t)i), &out->items[i]))
            return false;
    return true;
}

void
indexes_auto(struct indexes *indexes)
{
    PyMem_RawFree(indexes->items);
}

bool
block_ids_open(PyObject *object, struct block_ids *out)
{
    size_t count = 0;
    AUTO(object) PyObject *items = sequence_of(object, &count);
    if (items == NULL)
        return false;
    out->items = array_new(count, sizeof *out->items);
    if (out->items == NULL)
        return false;
    out->count = count;
    for (size_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GET_ITEM(items, (Py_ssize_t)i);
        if (!PyBytes_Check(item) || PyBytes_GET_SIZE(item) != sizeof *out->items) {
            PyErr_Format(PyExc_TypeError, "ids[%zu] is not a block id of 16 bytes", i);
            return false;
        }
        memcpy(&out->items[i], PyBytes_AS_STRING(item), sizeof *out->items);
    }
    return true;
}

void
block_ids_auto(struct block_ids *ids)
{
    PyMem_RawFree(ids->items);
}

/* ---- Keys -------------------------------------------------------------------- */

/* The UTF-8 bytes of a str, borrowed from it. */
bool
key_open(PyObject *object, struct ds_slice *out)
{
    if (!PyUnicode_Check(object)) {
        PyErr_Format(PyExc_TypeError,
                     "The input of key has invalid type, valid type: [%R]",
                     (PyObject *)&PyUnicode_Type);
        return false;
    }
    Py_ssize_t len;
    out->data = PyUnicode_AsUTF8AndSize(object, &len);
    out->len = (size_t)len;
    return out->data != NULL;
}

bool
keys_open(const struct core_state *state, PyObject *object, struct keys *out)
{
    out->owner = sequence_of(object, &out->count);
    if (out->owner == NULL)
        return false;
    out->items = array_new(out->count, sizeof *out->items);
    if (out->items == NULL)
        return false;
    for (size_t i = 0; i < out->count; i++) {
        if (!key_open(PyTuple_GET_ITEM(out->owner, (Py_ssize_t)i), &out->items[i]))
            return false;
        if (out->items[i].len == 0)
            return REFUSE(state, "keys[%zu] can not be empty", i);
    }
    return true;
}

void
keys_auto(struct keys *keys)
{
    PyMem_RawFree(keys->items);
    Py_XDECREF(keys->owner);
}

/* ---- Values ------------------------------------------------------------------ */

static bool
value_copy(struct value *value)
{
    size_t bytes = (size_t)value->view.len;
    value->copy = array_new(bytes, 1);
    if (value->copy == NULL)
        return false;
    value->bytes = (struct ds_slice){.data = value->copy, .len = bytes};
    return PyBuffer_ToContiguous(value->copy, &value->view, value->view.len, 'C') == 0;
}

bool
value_open(PyObject *object, struct value *out)
{
    if (PyUnicode_Check(object)) {
        if (!key_open(object, &out->bytes))
            return false;
    } else {
        if (PyObject_GetBuffer(object, &out->view, PyBUF_FULL_RO) < 0)
            return false;
        out->bytes.data = out->view.buf;
        out->bytes.len = (size_t)out->view.len;
    }
    if (out->view.obj == NULL || PyBuffer_IsContiguous(&out->view, 'C'))
        return true;
    return value_copy(out);
}

void
value_auto(struct value *value)
{
    PyMem_RawFree(value->copy);
    PyBuffer_Release(&value->view); /* Nothing when it was never filled. */
}

bool
values_open(PyObject *object, struct values *out)
{
    size_t count = 0;
    AUTO(object) PyObject *items = sequence_of(object, &count);
    if (items == NULL)
        return false;
    out->items = array_new(count, sizeof *out->items);
    if (out->items == NULL)
        return false;
    for (out->count = 0; out->count < count; out->count++) {
        PyObject *item = PyTuple_GET_ITEM(items, (Py_ssize_t)out->count);
        if (!value_open(item, &out->items[out->count])) {
            out->count++; /* It may be half-open, which values_auto() accepts. */
            return false;
        }
    }
    return true;
}

void
values_auto(struct values *values)
{
    for (size_t i = 0; i < values->count; i++)
        value_auto(&values->items[i]);
    PyMem_RawFree(values->items);
}

/* ---- Buffers ----------------------------------------------------------------- */

static bool
sealing_mark(const struct core_state *state, struct sealing *sealing, PyObject *item)
{
    if (!PyObject_TypeCheck(item, state->buffer_type)) {
        PyErr_Format(PyExc_TypeError, "The buffer list holds a %.100s, not a Buffer",
                     Py_TYPE(item)->tp_name);
        return false;
    }
    struct buffer *buffer = (struct buffer *)item;
    if (buffer->sealed || buffer->sealing)
        return REFUSE(state, "Client object is already sealed");
    if (!buffer_hold(state, buffer))
        return false;
    buffer->sealing = true;
    sealing->items[sealing->count++] = buffer->handle;
    return true;
}

bool
sealing_open(const struct core_state *state, PyObject *object, struct sealing *out)
{
    size_t count = 0;
    out->owner = sequence_of(object, &count);
    if (out->owner == NULL)
        return false;
    if (count == 0)
        return REFUSE(state, "The buffer list must not be empty.");
    out->items = array_new(count, sizeof(struct ds_buffer *));
    if (out->items == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!sealing_mark(state, out, PyTuple_GET_ITEM(out->owner, (Py_ssize_t)i)))
            return false;
    return true;
}

void
sealing_auto(struct sealing *sealing)
{
    for (size_t i = 0; i < sealing->count; i++) {
        PyObject *item = PyTuple_GET_ITEM(sealing->owner, (Py_ssize_t)i);
        struct buffer *buffer = (struct buffer *)item;
        buffer->sealing = false;
        buffer->sealed = ds_buffer_is_sealed(buffer->handle);
        buffer_unhold(buffer);
    }
    PyMem_RawFree(sealing->items);
    Py_XDECREF(sealing->owner);
}
