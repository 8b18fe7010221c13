/* Client: one connection pool to the node's worker, as a Python object. The methods are
 * in client.c (life), objects.c (objects by key) and blocks.c. */
#ifndef CLIENT_H
#define CLIENT_H

#include "connection.h"

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
CLIENT_METHOD(client_blocks_create);
CLIENT_METHOD(client_block_seal);
CLIENT_METHOD(client_block_get);
CLIENT_METHOD(client_block_delete);

#endif
