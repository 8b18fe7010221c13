/* PrivateView: a copy-on-write mapping of a sealed buffer. Arrays over it are the
 * caller's own: writable, and nobody else sees the changes. */
#include "buffer.h"
#include "gil.h"

/* Owner: whoever holds the GIL. Holds one reference of `handle` until it is unmapped;
 * exported views keep the object, so the mapping outlives them. */
struct view {
    PyObject ob_base;
    struct ds_buffer *handle;
    void *data;
    Py_ssize_t size;
};

static struct view *
view_of(PyObject *self)
{
    return (struct view *)self;
}

static PyObject *
view_wrap(const struct core_state *state, struct buffer *buffer, void *data)
{
    struct view *view = PyObject_New(struct view, state->view_type);
    if (view == NULL) {
        ds_view_unmap(buffer->handle, data);
        return NULL;
    }
    view->handle = ds_buffer_ref(buffer->handle);
    view->data = data;
    view->size = buffer->size;
    return (PyObject *)view;
}

PyObject *
view_map(const struct core_state *state, struct buffer *buffer)
{
    CORE_ASSERT(buffer->exports > 0);
    struct ds_error err = {0};
    void *data = NULL;
    enum ds_status status = WITHOUT_GIL(ds_view_map(buffer->handle, &data, &err));
    if (status == DS_UNSUPPORTED || status == DS_NO_MEMORY)
        Py_RETURN_NONE;
    if (status != DS_OK)
        return raise_status(state, status, &err);
    return view_wrap(state, buffer, data);
}

static void
view_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct view *view = view_of(self);
    gil_release(); /* Unmapping takes long when much of it was changed. */
    ds_view_unmap(view->handle, view->data);
    ds_buffer_release(TAKE(view->handle));
    gil_take();
    type->tp_free(self);
    Py_DECREF(type);
}

static int
view_export(PyObject *self, Py_buffer *exported, int flags)
{
    struct view *view = view_of(self);
    return PyBuffer_FillInfo(exported, self, view->data, view->size, false, flags);
}

static Py_ssize_t
view_length(PyObject *self)
{
    return view_of(self)->size;
}

static PyType_Slot view_slots[] = {
    {Py_tp_doc,
     "A copy-on-write mapping of a sealed Buffer; exports a writable buffer."},
    SLOT(Py_tp_dealloc, view_dealloc),
    SLOT(Py_sq_length, view_length),
    SLOT(Py_bf_getbuffer, view_export),
    {0, NULL},
};

PyType_Spec view_spec = {
    .name = "yr.datasystem._core.PrivateView",
    .basicsize = sizeof(struct view),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = view_slots,
};
