/* The life of a Client: it is connected when Python first sees it, and closed once. */
#include "client.h"

#include "arguments.h"
#include "trace.h"

#include <stdlib.h>

static void
close_client(void *handle)
{
    ds_client_close(handle);
}

/* Connects before the object is there for anyone else to see. */
static bool
client_open(const struct core_state *state, struct connection *connection,
            struct ds_client_options *options)
{
    struct ds_error err = {0};
    struct ds_client *client = NULL;
    options->struct_bytes = sizeof *options;
    options->interrupted = gate_interrupted;
    options->interrupted_arg = &connection->gate;
    enum ds_status status = WITHOUT_GIL(ds_client_open(options, &client, &err));
    connection->handle = client;
    connection->close = close_client;
    return connection_opened(state, status, &err);
}

static PyObject *
client_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"host",
                            "port",
                            "connect_timeout_ms",
                            "request_timeout_ms",
                            "no_shared_memory",
                            "room_wait_ms",
                            "verify",
                            "queue",
                            NULL};
    struct ds_client_options options = {0};
    int no_shared_memory = 0;
    int verify = 0;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "sO&O&O&|pO&pz:Client", names, &options.host, parse_u16,
            &options.port, parse_u32, &options.connect_timeout_ms, parse_u32,
            &options.request_timeout_ms, &no_shared_memory, parse_u32,
            &options.room_wait_ms, &verify, &options.queue))
        return NULL;
    if (options.host[0] == '\0')
        options.host = NULL; /* The environment's. */
    options.no_shared_memory = no_shared_memory != 0;
    options.verify = verify != 0;

    struct core_state *state = PyType_GetModuleState(type);
    AUTO(object) PyObject *self = type->tp_alloc(type, 0);
    if (self == NULL || !trace_log_open(state) ||
        !client_open(state, (struct connection *)self, &options))
        return NULL;
    return TAKE(self);
}

/* ---- Methods ---------------------------------------------------------------- */

static PyObject *
client_ping(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout_ms", NULL};
    uint32_t timeout_ms;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&:ping", names, parse_u32,
                                     &timeout_ms))
        return NULL;
    struct call call = {.action = "DS_CLIENT_PING"};
    if (!call_begin(self, &call))
        return NULL;
    enum ds_status status =
        CALL(&call, ds_client_ping(call.handle, timeout_ms, &call.err));
    return call_none_or_raise(&call, status);
}

typedef enum ds_status (*ask_fn)(struct ds_client *client, char **out_json,
                                 struct ds_error *err);

static PyObject *
ask(PyObject *self, const char *action, ask_fn fn)
{
    struct call call = {.action = action};
    if (!call_begin(self, &call))
        return NULL;
    char *json = NULL;
    enum ds_status status = CALL(&call, fn(call.handle, &json, &call.err));
    PyObject *text =
        status == DS_OK ? PyUnicode_FromString(json) : call_raise(&call, status);
    free(json);
    return text;
}

static PyObject *
client_stats(PyObject *self, PyObject *unused)
{
    (void)unused;
    return ask(self, "DS_CLIENT_STATS", ds_client_stats);
}

static PyObject *
client_holders(PyObject *self, PyObject *unused)
{
    (void)unused;
    return ask(self, "DS_CLIENT_HOLDERS", ds_client_holders);
}

static PyObject *
client_members(PyObject *self, PyObject *unused)
{
    (void)unused;
    return ask(self, "DS_CLIENT_MEMBERS", ds_client_members);
}

static PyObject *
client_leave(PyObject *self, PyObject *args)
{
    int action;
    if (!PyArg_ParseTuple(args, "i:leave", &action))
        return NULL;
    struct call call = {.action = "DS_CLIENT_LEAVE"};
    if (!call_begin(self, &call))
        return NULL;
    char *json = NULL;
    enum ds_status status =
        CALL(&call, ds_client_leave(call.handle, (enum ds_leave_action)action, &json,
                                    &call.err));
    PyObject *text =
        status == DS_OK ? PyUnicode_FromString(json) : call_raise(&call, status);
    free(json);
    return text;
}

static PyObject *
client_uses_shared_memory(PyObject *self, void *closure)
{
    (void)closure;
    const struct connection *connection = (const struct connection *)self;
    return PyBool_FromLong(connection->handle != NULL &&
                           ds_client_uses_shared_memory(connection->handle));
}

#define KEYWORDS (METH_VARARGS | METH_KEYWORDS)

static PyMethodDef client_methods[] = {
    {"close", connection_close, METH_NOARGS,
     "End the connection and every call that waits in it. Idempotent."},
    {"ping", METHOD(client_ping), KEYWORDS, "Raise unless the worker serves."},
    {"stats", client_stats, METH_NOARGS, "The worker's counters, a JSON object."},
    {"holders", client_holders, METH_NOARGS,
     "Who keeps room from being free, a JSON array."},
    {"members", client_members, METH_NOARGS,
     "Who belongs to the cluster, a JSON object; of a client of the metastore."},
    {"leave", client_leave, METH_VARARGS,
     "Let the worker leave its cluster (1), stay (2), or say how far it is (0): a JSON "
     "object."},
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
     "Reserve a block: the buffers of its parts."},
    {"blocks_create", METHOD(client_blocks_create), KEYWORDS,
     "Reserve several blocks at once, counts[i] parts of each: all their buffers."},
    {"block_seal", METHOD(client_block_seal), KEYWORDS,
     "Publish all parts of a block; its id."},
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
    SLOT(Py_tp_dealloc, connection_dealloc),
    {Py_tp_methods, client_methods},
    {Py_tp_getset, client_getters},
    {0, NULL},
};

PyType_Spec client_spec = {
    .name = "yr.datasystem._core.Client",
    .basicsize = sizeof(struct connection),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = client_slots,
};
