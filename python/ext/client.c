/* The life of a Client: it is connected when Python first sees it, and closed once. */
#include "client.h"

#include "arguments.h"

#include <stdlib.h>
#include <string.h>

static struct client *
client_of(PyObject *self)
{
    return (struct client *)self;
}

struct client *
client_enter(PyObject *self)
{
    struct client *client = client_of(self);
    if (!gate_enter(&client->gate)) {
        raise_text(core_state_of(self), DS_NOT_READY,
                   "The client has been closed; open a new one.");
        return NULL;
    }
    return client;
}

static void
client_close_handle(struct client *client)
{
    struct ds_client *handle = TAKE(client->handle);
    gil_release();
    ds_client_close(handle);
    gil_take();
}

enum ds_status
client_leave(struct client *client, enum ds_status status, struct ds_error *err)
{
    bool closing = atomic_load(&client->gate.closing);
    if (gate_leave(&client->gate))
        client_close_handle(client);
    if (PyErr_Occurred())
        return DS_INTERRUPTED;
    if (status != DS_INTERRUPTED || !closing)
        return status;
    *err = (struct ds_error){.message = "The client was closed during the call."};
    return DS_NOT_READY;
}

/* ---- Construction ------------------------------------------------------------ */

/* Connects before the object is there for anyone else to see. */
static bool
client_open(const struct core_state *state, struct client *client,
            struct ds_client_options *options)
{
    struct ds_error err = {0};
    options->struct_bytes = sizeof *options;
    options->interrupted = gate_interrupted;
    options->interrupted_arg = &client->gate;
    enum ds_status status = WITHOUT_GIL(ds_client_open(options, &client->handle, &err));
    if (status == DS_OK && !PyErr_Occurred())
        return true;
    raise_status(state, status == DS_OK ? DS_INTERRUPTED : status, &err);
    return false;
}

static PyObject *
client_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "host", "port", "connect_timeout_ms", "request_timeout_ms", "no_shared_memory",
        NULL};
    struct ds_client_options options = {0};
    int no_shared_memory = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO&O&O&|p:Client", names,
                                     &options.host, parse_u16, &options.port, parse_u32,
                                     &options.connect_timeout_ms, parse_u32,
                                     &options.request_timeout_ms, &no_shared_memory))
        return NULL;
    if (options.host[0] == '\0')
        options.host = NULL; /* The environment's. */
    options.no_shared_memory = no_shared_memory != 0;

    AUTO(object) PyObject *self = type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    if (!client_open(PyType_GetModuleState(type), client_of(self), &options))
        return NULL;
    return TAKE(self);
}

static void
client_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct client *client = client_of(self);
    CORE_ASSERT(client->gate.inside_count == 0);
    if (client->handle != NULL)
        client_close_handle(client);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- Methods ----------------------------------------------------------------- */

static PyObject *
client_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct client *client = client_of(self);
    if (gate_close(&client->gate))
        client_close_handle(client);
    Py_RETURN_NONE;
}

static PyObject *
client_ping(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout_ms", NULL};
    uint32_t timeout_ms;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&:ping", names, parse_u32,
                                     &timeout_ms))
        return NULL;
    struct client *client = client_enter(self);
    if (client == NULL)
        return NULL;
    struct ds_error err = {0};
    enum ds_status status =
        CLIENT_CALL(client, &err, ds_client_ping(client->handle, timeout_ms, &err));
    return none_or_raise(core_state_of(self), status, &err);
}

static PyObject *
client_stats(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct client *client = client_enter(self);
    if (client == NULL)
        return NULL;
    struct ds_error err = {0};
    char *json = NULL;
    enum ds_status status =
        CLIENT_CALL(client, &err, ds_client_stats(client->handle, &json, &err));
    PyObject *text = status == DS_OK ? PyUnicode_FromString(json)
                                     : raise_status(core_state_of(self), status, &err);
    free(json);
    return text;
}

static PyObject *
client_uses_shared_memory(PyObject *self, void *closure)
{
    (void)closure;
    struct client *client = client_enter(self);
    if (client == NULL)
        return NULL;
    bool answer = ds_client_uses_shared_memory(client->handle);
    struct ds_error err = {0};
    enum ds_status status = client_leave(client, DS_OK, &err);
    CORE_ASSERT(status == DS_OK);
    return PyBool_FromLong(answer);
}

#define KEYWORDS (METH_VARARGS | METH_KEYWORDS)

static PyMethodDef client_methods[] = {
    {"close", client_close, METH_NOARGS,
     "End the connection and every call that waits in it. Idempotent."},
    {"ping", METHOD(client_ping), KEYWORDS, "Raise unless the worker serves."},
    {"stats", client_stats, METH_NOARGS, "The worker's counters, a JSON object."},
    {"put", METHOD(client_put), KEYWORDS, "Store a copy of one value."},
    {"put_many", METHOD(client_put_many), KEYWORDS, "Store copies: all or nothing."},
    {"create", METHOD(client_create), KEYWORDS,
     "Reserve objects, to be filled in place and published by seal()."},
    {"seal", METHOD(client_seal), KEYWORDS, "Publish what create() reserved."},
    {"get", METHOD(client_get), KEYWORDS, "Buffers, None where there is no object."},
    {"get_bytes", METHOD(client_get_bytes), KEYWORDS, "As get(), but copies."},
    {"get_range", METHOD(client_get_range), KEYWORDS,
     "Bytes [offset, offset + size) of an object; size 0: up to its end."},
    {"delete", METHOD(client_delete), KEYWORDS, "Forget objects."},
    {"exist", METHOD(client_exist), KEYWORDS, "Which of the keys exist."},
    {"expire", METHOD(client_expire), KEYWORDS,
     "Let objects expire; tells which of them exist."},
    {"block_create", METHOD(client_block_create), KEYWORDS,
     "Reserve a block: its id and the buffers of its parts."},
    {"block_seal", METHOD(client_block_seal), KEYWORDS,
     "Publish all parts of a block."},
    {"block_get", METHOD(client_block_get), KEYWORDS,
     "Buffers of parts[i] of block ids[i], None where it is gone."},
    {"block_delete", METHOD(client_block_delete), KEYWORDS, "Delete whole blocks."},
    {0},
};

static PyGetSetDef client_getters[] = {
    {"uses_shared_memory", client_uses_shared_memory, NULL,
     "whether bytes travel through shared memory", NULL},
    {0},
};

static PyType_Slot client_slots[] = {
    {Py_tp_doc, "One connection pool to the node's worker."},
    SLOT(Py_tp_new, client_new),
    SLOT(Py_tp_dealloc, client_dealloc),
    {Py_tp_methods, client_methods},
    {Py_tp_getset, client_getters},
    {0, NULL},
};

PyType_Spec client_spec = {
    .name = "yr.datasystem._core.Client",
    .basicsize = sizeof(struct client),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = client_slots,
};
