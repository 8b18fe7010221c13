/* Values through the socket, for clients without shared memory. Bytes go straight into
 * and out of the arena. */
#ifndef WORKER_TRANSFER_H
#define WORKER_TRANSFER_H

#include "worker/session.h"

/* Reply to a FETCH with what is there now. */
void fetch_answer(struct session *session, const struct frame_header *header,
                  const struct lookup *message);

#endif
