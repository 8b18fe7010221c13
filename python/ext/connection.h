/* What Client and QueueConnection share: a handle of the library that any thread may
 * use and any thread may close, and what happens around each call. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include "core.h"
#include "gil.h"

/* Owner: whoever holds the GIL. Invariant: `handle` is NULL only before it is opened,
 * or when the gate is closed and nobody is inside. */
struct connection {
    PyObject ob_base;
    void *handle; /* struct ds_client or struct ds_queue. */
    void (*close)(void *handle);
    struct gate gate;
};

void connection_dealloc(PyObject *self);
PyObject *connection_close(PyObject *self, PyObject *unused);

/* One call of the library. Owner: the function that makes it.
 *
 *      struct call call = {.action = "SET", .item_count = 1};
 *      if (!call_begin(self, &call))
 *          return NULL;
 *      enum ds_status status =
 *          CALL(&call, ds_put(call.handle, ..., &call.err));
 *      return call_none_or_raise(&call, status);
 */
struct call {
    const char *action; /* The name in the log. */
    size_t item_count;  /* Of keys or parts, for the log. */
    uint64_t bytes;     /* For the log. */

    struct ds_error err;
    void *handle;
    struct connection *connection;
    const struct core_state *state;
    uint64_t started_ns;
};

#define CALL(call, expression) call_end((call), WITHOUT_GIL(expression))

/* False with DatasystemError when the connection was closed. */
bool call_begin(PyObject *self, struct call *call);

/* Leave, and write the call to the log if there is one. Answers `status`, or
 * DS_INTERRUPTED when a signal's handler raised meanwhile, whatever the call answered.
 */
enum ds_status call_end(struct call *call, enum ds_status status);

PyObject *call_raise(const struct call *call, enum ds_status status);
PyObject *call_none_or_raise(const struct call *call, enum ds_status status);

/* Opening is no call yet: nobody else knows the connection. False with an exception. */
bool connection_opened(const struct core_state *state, enum ds_status status,
                       const struct ds_error *err);

#endif
