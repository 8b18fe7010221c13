/* QueueConnection: requests to a transfer_queue_controller, as bytes. */
#include "arguments.h"
#include "gil.h"

#include <stdlib.h>
#include <string.h>

/* Owner: whoever holds the GIL. Invariant: as struct client's. */
struct queue {
    PyObject ob_base;
    struct ds_queue *handle;
    struct gate gate;
};

static struct queue *
queue_of(PyObject *self)
{
    return (struct queue *)self;
}

static void
queue_close_handle(struct queue *queue)
{
    struct ds_queue *handle = TAKE(queue->handle);
    gil_release();
    ds_queue_close(handle);
    gil_take();
}

static bool
queue_open(const struct core_state *state, struct queue *queue,
           struct ds_queue_options *options)
{
    struct ds_error err = {0};
    options->struct_bytes = sizeof *options;
    options->interrupted = gate_interrupted;
    options->interrupted_arg = &queue->gate;
    enum ds_status status = WITHOUT_GIL(ds_queue_open(options, &queue->handle, &err));
    if (status == DS_OK && !PyErr_Occurred())
        return true;
    raise_status(state, status == DS_OK ? DS_INTERRUPTED : status, &err);
    return false;
}

static PyObject *
queue_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"address", "connect_timeout_ms", NULL};
    struct ds_queue_options options = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO&:QueueConnection", names,
                                     &options.address, parse_u32,
                                     &options.connect_timeout_ms))
        return NULL;
    AUTO(object) PyObject *self = type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    if (!queue_open(PyType_GetModuleState(type), queue_of(self), &options))
        return NULL;
    return TAKE(self);
}

static void
queue_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct queue *queue = queue_of(self);
    CORE_ASSERT(queue->gate.inside_count == 0);
    if (queue->handle != NULL)
        queue_close_handle(queue);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
queue_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct queue *queue = queue_of(self);
    if (gate_close(&queue->gate))
        queue_close_handle(queue);
    Py_RETURN_NONE;
}

/* A reply and its size, as ds_queue_call() gives it. */
struct reply {
    void *data;
    size_t bytes;
};

static void
reply_auto(struct reply *reply)
{
    free(reply->data);
}

static PyObject *
reply_to_bytes(const struct reply *reply)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)reply->bytes);
    if (bytes == NULL)
        return NULL;
    gil_release();
    memcpy(PyBytes_AS_STRING(bytes), reply->data, reply->bytes);
    gil_take();
    return bytes;
}

/* Leave the gate; what the caller raises for `status`. */
static enum ds_status
queue_leave(struct queue *queue, enum ds_status status, struct ds_error *err)
{
    bool closing = atomic_load(&queue->gate.closing);
    if (gate_leave(&queue->gate))
        queue_close_handle(queue);
    if (PyErr_Occurred())
        return DS_INTERRUPTED;
    if (status != DS_INTERRUPTED || !closing)
        return status;
    *err = (struct ds_error){.message = "The connection was closed during the call."};
    return DS_NOT_READY;
}

static PyObject *
queue_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"request", "timeout_ms", NULL};
    const struct core_state *state = core_state_of(self);
    struct queue *queue = queue_of(self);
    PyObject *request_object;
    uint32_t timeout_ms;
    AUTO(value) struct value request = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO&:call", names, &request_object,
                                     parse_u32, &timeout_ms) ||
        !value_open(state, request_object, &request))
        return NULL;

    if (!gate_enter(&queue->gate))
        return raise_text(state, DS_NOT_READY,
                          "The connection has been closed; open a new one.");
    struct ds_error err = {0};
    AUTO(reply) struct reply reply = {0};
    enum ds_status status = WITHOUT_GIL(ds_queue_call(
        queue->handle, request.bytes, timeout_ms, &reply.data, &reply.bytes, &err));
    status = queue_leave(queue, status, &err);
    if (status != DS_OK)
        return raise_status(state, status, &err);
    return reply_to_bytes(&reply);
}

static PyMethodDef queue_methods[] = {
    {"call", METHOD(queue_call), METH_VARARGS | METH_KEYWORDS,
     "Send one request and wait for its reply."},
    {"close", queue_close, METH_NOARGS,
     "End the connection and every call that waits in it. Idempotent."},
    {0},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, "A connection to a transfer_queue_controller."},
    SLOT(Py_tp_new, queue_new),
    SLOT(Py_tp_dealloc, queue_dealloc),
    {Py_tp_methods, queue_methods},
    {0, NULL},
};

PyType_Spec queue_spec = {
    .name = "yr.datasystem._core.QueueConnection",
    .basicsize = sizeof(struct queue),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = queue_slots,
};
