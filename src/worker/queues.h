/* Where the queues are whose controllers are connected to this worker.
 *
 *      controller ── QUEUE_SERVE name, address ──► kept as long as it is connected
 *      client     ── QUEUE_FIND name ──► address, or that nobody serves it
 *
 * So a client whose controller is not where it was finds it where it is now. */
#ifndef WORKER_QUEUES_H
#define WORKER_QUEUES_H

#include "worker/session.h"

/* The session is closing: what it serves is not served any more. */
void queues_drop(struct session *session);

#endif
