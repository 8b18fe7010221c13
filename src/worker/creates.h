/* Requests that reserve room, and the line of those that wait for it. */
#ifndef WORKER_CREATES_H
#define WORKER_CREATES_H

#include "worker/session.h"

/* Room may have appeared (or no more of the arena will be populated): serve the line. */
void creates_retry(struct worker *worker);

/* Whether memory that is still to be populated may make room for `bytes`: if not, who
 * does not want to wait is told now. */
bool creates_could_fit(struct worker *worker, uint64_t bytes);

/* Backs more memory for `bytes`, here and now: for what arrives on a socket and cannot
 * wait in line. False: there is none that could make room. */
bool creates_populate_for(struct worker *worker, uint64_t bytes);

/* The session is closing. */
void creates_drop(struct session *session);

#endif
