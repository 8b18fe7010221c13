/* Where a queue is now, as a worker knows it. */
#ifndef CLIENT_QUEUE_PLACE_H
#define CLIENT_QUEUE_PLACE_H

#include "wire/message.h"

#include <datasystem/datasystem.h>

/* Where a controller may be; `path` NULL: at a TCP port. */
struct queue_address {
    const char *path; /* Of the address that was parsed. */
    char host[QUEUE_PLACE_ADDRESS_MAX + 1];
    uint16_t port;
};

/* False: it is none. */
bool queue_address_parse(const char *address, struct queue_address *out);

/* Asks the worker that `options` name, over a connection made for it. *out_may_move: should
 * nobody be there, the queue may soon be somewhere else.
 *   DS_NOT_FOUND   no controller of that queue is known
 *   DS_NOT_READY   likewise, and *out_may_move
 *   others         as ds_client_open() and every request to a worker */
DS_MUST_USE enum ds_status
queue_place_find(const struct ds_client_options *options, const char *name,
                 char out_address[QUEUE_PLACE_ADDRESS_MAX + 1], bool *out_may_move,
                 struct ds_error *err);

#endif
