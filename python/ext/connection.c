#include "connection.h"

#include "trace.h"

#include <time.h>

static struct connection *
connection_of(PyObject *self)
{
    return (struct connection *)self;
}

static void
close_handle(struct connection *connection)
{
    void *handle = TAKE(connection->handle);
    gil_release();
    connection->close(handle);
    gil_take();
}

void
connection_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct connection *connection = connection_of(self);
    CORE_ASSERT(connection->gate.inside_count == 0);
    if (connection->handle != NULL)
        close_handle(connection);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject *
connection_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct connection *connection = connection_of(self);
    if (gate_close(&connection->gate))
        close_handle(connection);
    Py_RETURN_NONE;
}

bool
connection_opened(const struct core_state *state, enum ds_status status,
                  const struct ds_error *err)
{
    if (status == DS_OK && !PyErr_Occurred())
        return true;
    raise_status(state, status == DS_OK ? DS_INTERRUPTED : status, err);
    return false;
}

/* ---- Calls ------------------------------------------------------------------- */

static uint64_t
monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

bool
call_begin(PyObject *self, struct call *call)
{
    struct connection *connection = connection_of(self);
    call->state = core_state_of(self);
    if (!gate_enter(&connection->gate)) {
        raise_text(call->state, DS_NOT_READY,
                   "The connection has been closed; open a new one.");
        return false;
    }
    call->connection = connection;
    call->handle = connection->handle;
    if (trace_log_is_on(call->state))
        call->started_ns = monotonic_ns();
    return true;
}

/* What the caller shall hear of. */
static enum ds_status
settle(struct call *call, enum ds_status status, bool closing)
{
    if (PyErr_Occurred())
        return DS_INTERRUPTED;
    if (status != DS_INTERRUPTED || !closing)
        return status;
    call->err =
        (struct ds_error){.message = "The connection was closed during the call."};
    return DS_NOT_READY;
}

enum ds_status
call_end(struct call *call, enum ds_status status)
{
    struct connection *connection = call->connection;
    bool closing = atomic_load(&connection->gate.closing);
    if (gate_leave(&connection->gate))
        close_handle(connection);
    status = settle(call, status, closing);
    if (trace_log_is_on(call->state))
        trace_log(call->state,
                  &(struct trace_line){
                      .action = call->action,
                      .status = status,
                      .cost_us = (monotonic_ns() - call->started_ns) / 1000,
                      .item_count = call->item_count,
                      .bytes = call->bytes,
                      .message = call->err.message,
                  });
    return status;
}

PyObject *
call_raise(const struct call *call, enum ds_status status)
{
    return raise_status(call->state, status, &call->err);
}

PyObject *
call_none_or_raise(const struct call *call, enum ds_status status)
{
    return none_or_raise(call->state, status, &call->err);
}
