/* What the worker tells about itself. */
#ifndef WORKER_STATS_H
#define WORKER_STATS_H

#include "worker/worker.h"

/* Write the health and ready files, which say that this worker serves. Where that fails,
 * worker->is_unreported stays set, and it is to be called again. */
void stats_report_ready(struct worker *worker);

/* Remove them again. */
void stats_report_stopping(struct worker *worker);

#endif
