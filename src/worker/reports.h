/* What this worker holds of other members' keys, told to them when the ring changes.
 *
 *      another epoch ──► for each other member: which of our objects' keys are its now, and
 *                        were not, or were another process's
 *           ──► KEY_REPORT ──► its answer ──► the next part ──► ... the last ──► end
 *
 * A member is sent the next part when it has answered, so the last arrives last. An owner
 * that has seen an epoch which we have not asks for all. What an owner says is another
 * object now is deleted here. Owner: loop thread. */
#ifndef WORKER_REPORTS_H
#define WORKER_REPORTS_H

#include "worker/session.h"

struct member;
struct ring;

/* Another epoch, which the directory does not know yet. Borrowed. */
struct report_to {
    uint64_t epoch;
    const struct ring *ring;
    const struct member *members;
    uint32_t count;
    bool of_all; /* We were no member for a while: nobody knows what we have. */
};

/* What had not been told yet of keys that are ours again is written to `out_ours`. False when out
 * of memory. */
DS_MUST_USE bool
reports_members_changed(struct worker *worker, const struct report_to *to,
                        struct writer *out_ours);

/* As if another one told us, when the ring is the new one. False when out of memory. */
DS_MUST_USE bool reports_take_ours(struct worker *worker, const struct writer *ours);

/* Those that could not be sent are sent again. */
void reports_tick(struct worker *worker);

/* After the loop has run. */
void reports_close(struct worker *worker);

#endif
