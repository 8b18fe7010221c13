/* Client: one connection pool to the node's worker, as a Python object. The methods are
 * in client.c (life), objects.c (objects by key) and blocks.c. */
#ifndef CLIENT_H
#define CLIENT_H

#include "core.h"
#include "gil.h"

/* Owner: whoever holds the GIL. Invariant: `handle` is NULL only when the gate is
 * closed and nobody is inside. */
struct client {
    PyObject ob_base;
    struct ds_client *handle;
    struct gate gate;
};

/* The client behind `self`, entered; NULL with DatasystemError when it was closed. */
struct client *client_enter(PyObject *self);

/* Leave after a call that answered `status`. DS_INTERRUPTED when a signal's handler
 * raised meanwhile, whatever the call itself answered. */
enum ds_status
client_leave(struct client *client, enum ds_status status, struct ds_error *err);

/* One call of the library on an entered client, without the GIL; leaves the client. */
#define CLIENT_CALL(client, err, call) client_leave((client), WITHOUT_GIL(call), (err))

/* The METH_VARARGS | METH_KEYWORDS methods of objects.c and blocks.c. */
#define CLIENT_METHOD(name) \
    PyObject *name(PyObject *self, PyObject *args, PyObject *kwargs)

CLIENT_METHOD(client_put);
CLIENT_METHOD(client_put_many);
CLIENT_METHOD(client_create);
CLIENT_METHOD(client_seal);
CLIENT_METHOD(client_get);
CLIENT_METHOD(client_get_bytes);
CLIENT_METHOD(client_get_range);
CLIENT_METHOD(client_delete);
CLIENT_METHOD(client_exist);
CLIENT_METHOD(client_expire);
CLIENT_METHOD(client_block_create);
CLIENT_METHOD(client_block_seal);
CLIENT_METHOD(client_block_get);
CLIENT_METHOD(client_block_delete);

#endif
