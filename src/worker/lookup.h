/* What LOOKUP and FETCH share. */
#ifndef WORKER_LOOKUP_H
#define WORKER_LOOKUP_H

#include "wire/message.h"
#include "worker/worker.h"

/* The live object under a key of `message`, which says of what kind its keys are. False
 * if there is none. */
bool lookup_find(struct worker *worker, const struct lookup *message,
                 struct ds_slice key, struct object_view *out);

#endif
