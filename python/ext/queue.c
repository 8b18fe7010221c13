/* QueueConnection: requests to a transfer_queue_controller, as bytes. */
#include "arguments.h"
#include "connection.h"
#include "trace.h"

#include <stdlib.h>
#include <string.h>

static void
close_queue(void *handle)
{
    ds_queue_close(handle);
}

static bool
queue_open(const struct core_state *state, struct connection *connection,
           struct ds_queue_options *options)
{
    struct ds_error err = {0};
    struct ds_queue *queue = NULL;
    options->struct_bytes = sizeof *options;
    options->interrupted = gate_interrupted;
    options->interrupted_arg = &connection->gate;
    enum ds_status status = WITHOUT_GIL(ds_queue_open(options, &queue, &err));
    connection->handle = queue;
    connection->close = close_queue;
    return connection_opened(state, status, &err);
}

static PyObject *
queue_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"address",     "connect_timeout_ms", "worker_host",
                            "worker_port", "auth_secret",        "name",
                            NULL};
    struct ds_queue_options options = {0};
    Py_ssize_t secret_bytes = 0;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "sO&|zO&z#z:QueueConnection", names, &options.address,
            parse_u32, &options.connect_timeout_ms, &options.worker_host, parse_u16,
            &options.worker_port, &options.auth_secret.data, &secret_bytes,
            &options.name))
        return NULL;
    options.auth_secret.len = (size_t)secret_bytes;
    struct core_state *state = PyType_GetModuleState(type);
    AUTO(object) PyObject *self = type->tp_alloc(type, 0);
    if (self == NULL || !trace_log_open(state) ||
        !queue_open(state, (struct connection *)self, &options))
        return NULL;
    return TAKE(self);
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

static PyObject *
queue_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"request", "timeout_ms", NULL};
    PyObject *request_object;
    uint32_t timeout_ms;
    AUTO(value) struct value request = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO&:call", names, &request_object,
                                     parse_u32, &timeout_ms) ||
        !value_open(request_object, &request))
        return NULL;

    struct call call = {
        .action = "DS_QUEUE_CALL", .item_count = 1, .bytes = request.bytes.len};
    if (!call_begin(self, &call))
        return NULL;
    AUTO(reply) struct reply reply = {0};
    enum ds_status status =
        CALL(&call, ds_queue_call(call.handle, request.bytes, timeout_ms, &reply.data,
                                  &reply.bytes, &call.err));
    if (status != DS_OK)
        return call_raise(&call, status);
    return reply_to_bytes(&reply);
}

static PyObject *
queue_place(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct ds_queue_place place;
    struct call call = {.action = "DS_QUEUE_PLACE"};
    if (!call_begin(self, &call))
        return NULL;
    ds_queue_place(call.handle, &place);
    enum ds_status status = CALL(&call, DS_OK);
    return status == DS_OK ? Py_BuildValue("ss", place.name, place.tcp_address)
                           : call_raise(&call, status);
}

static PyMethodDef queue_methods[] = {
    {"call", METHOD(queue_call), METH_VARARGS | METH_KEYWORDS,
     "Send one request and wait for its reply."},
    {"place", queue_place, METH_NOARGS,
     "The queue's name, and where other nodes reach it; '': none, nowhere."},
    {"close", connection_close, METH_NOARGS,
     "End the connection and every call that waits in it. Idempotent."},
    {0},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, "A connection to a transfer_queue_controller."},
    SLOT(Py_tp_new, queue_new),
    SLOT(Py_tp_dealloc, connection_dealloc),
    {Py_tp_methods, queue_methods},
    {0, NULL},
};

PyType_Spec queue_spec = {
    .name = "yr.datasystem._core.QueueConnection",
    .basicsize = sizeof(struct connection),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = queue_slots,
};
