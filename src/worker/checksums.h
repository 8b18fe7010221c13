/* Checksums of what was sealed without one: written through a pointer, and too large to
 * be hashed at the seal. A helper thread computes them at a tenth of one core's time,
 * piece by piece, once the arena is populated; what is being hashed is held meanwhile.
 * Nothing is remembered: what is left to do is found in the table, also after a restart.
 */
#ifndef WORKER_CHECKSUMS_H
#define WORKER_CHECKSUMS_H

#include <datasystem/status.h>

struct worker;
struct checksums;

DS_MUST_USE enum ds_status
checksums_start(struct worker *worker, struct checksums **out, struct ds_error *err);
void checksums_stop(struct checksums *checksums); /* Accepts NULL. */

/* At each tick of the worker: is there anything to do? */
void checksums_tick(struct checksums *checksums);

#endif
