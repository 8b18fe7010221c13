/* Lookups of users' keys that are, or may be, on other nodes.
 *
 *      elsewhere_start ──► each key's owner says its object's name (keys.h)
 *           ▲                   └─► copies of these objects are fetched (copies.h) ──► answer
 *           └── the object is gone meanwhile ◄──┘
 *
 * An object never changes, so a copy is as good as the original; which object a key is, its
 * owner says anew each time. Owner: loop thread. */
#ifndef WORKER_ELSEWHERE_H
#define WORKER_ELSEWHERE_H

#include "worker/keys.h"

/* Answers the lookup, which is of users' keys, when it can or after `wait_ms`.
 *   DS_NO_MEMORY
 *   DS_FULL        too much of this session waits already; in both cases nothing is sent */
DS_MUST_USE enum ds_status
elsewhere_start(struct session *session, const struct frame_header *header,
                struct ds_slice body, const struct lookup *message, uint32_t wait_ms,
                struct ds_error *err);

#endif
