/* Buffer: bytes in shared memory. Python may drop it anywhere, also in a forked child
 * or while the interpreter ends; ds_buffer_release() is made for that and never blocks.
 */
#include "buffer.h"

#include "arguments.h"
#include "gil.h"

static struct buffer *
buffer_of(PyObject *self)
{
    return (struct buffer *)self;
}

PyObject *
buffer_wrap(const struct core_state *state, struct ds_buffer **handle)
{
    CORE_ASSERT(*handle != NULL);
    struct buffer *buffer = PyObject_New(struct buffer, state->buffer_type);
    if (buffer == NULL)
        return NULL;
    buffer->handle = TAKE(*handle);
    buffer->size = (Py_ssize_t)ds_buffer_size(buffer->handle);
    buffer->exports = 0;
    buffer->sealed = ds_buffer_is_sealed(buffer->handle);
    buffer->sealing = false;
    buffer->released = false;
    return (PyObject *)buffer;
}

bool
buffer_hold(const struct core_state *state, struct buffer *buffer)
{
    if (buffer->released) {
        raise_text(state, DS_INVALID, "The buffer was released, its bytes are gone.");
        return false;
    }
    buffer->exports++;
    return true;
}

/* Give the bytes up once nobody looks at them any more. */
static void
buffer_drop(struct buffer *buffer)
{
    if (!buffer->released || buffer->exports > 0)
        return;
    ds_buffer_release(TAKE(buffer->handle));
}

void
buffer_unhold(struct buffer *buffer)
{
    CORE_ASSERT(buffer->exports > 0);
    buffer->exports--;
    buffer_drop(buffer);
}

static void
buffer_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct buffer *buffer = buffer_of(self);
    CORE_ASSERT(buffer->exports == 0);
    ds_buffer_release(TAKE(buffer->handle));
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- Buffer protocol --------------------------------------------------------- */

static int
buffer_export(PyObject *self, Py_buffer *view, int flags)
{
    struct buffer *buffer = buffer_of(self);
    if (buffer->released) {
        view->obj = NULL;
        PyErr_SetString(PyExc_BufferError,
                        "The buffer was released, its bytes are gone.");
        return -1;
    }
    if (PyBuffer_FillInfo(view, self, ds_buffer_data(buffer->handle), buffer->size,
                          buffer->sealed, flags) < 0)
        return -1;
    buffer->exports++;
    return 0;
}

static void
buffer_unexport(PyObject *self, Py_buffer *view)
{
    (void)view;
    buffer_unhold(buffer_of(self));
}

/* ---- Methods ----------------------------------------------------------------- */

static PyObject *
buffer_release(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct buffer *buffer = buffer_of(self);
    buffer->released = true;
    buffer_drop(buffer);
    Py_RETURN_NONE;
}

static PyObject *
buffer_view(PyObject *self, PyObject *unused)
{
    (void)unused;
    const struct core_state *state = core_state_of(self);
    struct buffer *buffer = buffer_of(self);
    if (!buffer_hold(state, buffer))
        return NULL;
    PyObject *view = view_map(state, buffer);
    buffer_unhold(buffer);
    return view;
}

static PyObject *
buffer_mutable_data(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (buffer_of(self)->sealed)
        return raise_text(core_state_of(self), DS_INVALID,
                          "Client object is already sealed: its bytes cannot change.");
    return PyMemoryView_FromObject(self);
}

void
copy_unlocked(void *to, struct ds_slice from)
{
    bool is_long = from.len >= UNLOCKED_COPY_BYTES_MIN;
    if (is_long)
        gil_release();
    ds_copy(to, from.data, from.len);
    if (is_long)
        gil_take();
}

static enum ds_status
write_unlocked(struct ds_buffer *handle, struct ds_slice from, struct ds_error *err)
{
    bool is_long = from.len >= UNLOCKED_COPY_BYTES_MIN;
    if (is_long)
        gil_release();
    enum ds_status status = ds_buffer_write(handle, from.data, from.len, err);
    if (is_long)
        gil_take();
    return status;
}

/* The bytes stay where they are while the copy runs without the GIL. */
static PyObject *
buffer_memory_copy(PyObject *self, PyObject *object)
{
    const struct core_state *state = core_state_of(self);
    struct buffer *buffer = buffer_of(self);
    AUTO(value) struct value value = {0};
    if (!value_open(object, &value))
        return NULL;
    if (buffer->sealed)
        return raise_text(state, DS_INVALID,
                          "Client object is already sealed: its bytes cannot change.");
    if (value.bytes.len == 0 || value.bytes.len > (size_t)buffer->size)
        return raise_text(state, DS_INVALID,
                          "Data length must be in (0, buffer_size].");
    if (!buffer_hold(state, buffer))
        return NULL;
    struct ds_error err = {0};
    enum ds_status status = write_unlocked(buffer->handle, value.bytes, &err);
    buffer_unhold(buffer);
    return none_or_raise(state, status, &err);
}

/* Latches order writers and readers of one object. Here a reader cannot meet a writer:
 * an object is written before it is published and never after, so every latch is free
 * and its timeout of no matter. */
static PyObject *
buffer_immutable_data(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"with_latch", "timeout_s", NULL};
    int with_latch = 0;
    long timeout_s = 60;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|pl:ImmutableData", names,
                                     &with_latch, &timeout_s))
        return NULL;
    AUTO(object) PyObject *view = PyMemoryView_FromObject(self);
    return view == NULL ? NULL : PyObject_CallMethod(view, "toreadonly", NULL);
}

static PyObject *
buffer_latch(PyObject *self, PyObject *args, PyObject *kwargs)
{
    (void)self;
    static char *names[] = {"timeout_s", NULL};
    long timeout_s = 60;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|l:RLatch", names, &timeout_s))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
buffer_unlatch(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    Py_RETURN_NONE;
}

static PyObject *
buffer_get_size(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(buffer_of(self)->size);
}

static Py_ssize_t
buffer_length(PyObject *self)
{
    return buffer_of(self)->size;
}

static PyObject *
buffer_size(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromSsize_t(buffer_of(self)->size);
}

static PyObject *
buffer_sealed(PyObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(buffer_of(self)->sealed);
}

static PyMethodDef buffer_methods[] = {
    {"release", buffer_release, METH_NOARGS,
     "Give the bytes up as soon as no exported view is left. Idempotent."},
    {"view", buffer_view, METH_NOARGS,
     "A private writable mapping, or None where there can be none: copy instead."},
    {"MutableData", buffer_mutable_data, METH_NOARGS,
     "A writable memoryview of the bytes, until they are published."},
    {"memory_copy", buffer_memory_copy, METH_O,
     "Fill the bytes, or the first of them, from a bytes-like value. Faster than a\n"
     "slice of MutableData() for large values, and other threads run meanwhile."},
    {"ImmutableData", METHOD(buffer_immutable_data), METH_VARARGS | METH_KEYWORDS,
     "A read-only memoryview of the bytes."},
    {"GetSize", buffer_get_size, METH_NOARGS, "The number of bytes."},
    {"RLatch", METHOD(buffer_latch), METH_VARARGS | METH_KEYWORDS,
     "Nothing to wait for: published bytes never change."},
    {"UnRLatch", buffer_unlatch, METH_NOARGS, "The other half of RLatch()."},
    {0},
};

static PyGetSetDef buffer_getters[] = {
    {"size", buffer_size, NULL, "the number of bytes", NULL},
    {"sealed", buffer_sealed, NULL, "whether the bytes are published", NULL},
    {0},
};

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc, "Bytes in shared memory; exports the buffer protocol."},
    SLOT(Py_tp_dealloc, buffer_dealloc),
    {Py_tp_methods, buffer_methods},
    {Py_tp_getset, buffer_getters},
    SLOT(Py_sq_length, buffer_length),
    SLOT(Py_bf_getbuffer, buffer_export),
    SLOT(Py_bf_releasebuffer, buffer_unexport),
    {0, NULL},
};

PyType_Spec buffer_spec = {
    .name = "yr.datasystem._core.Buffer",
    .basicsize = sizeof(struct buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = buffer_slots,
};
