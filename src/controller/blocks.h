/* The blocks of the queue's rows: what the worker is told about them, and asks. */
#ifndef CONTROLLER_BLOCKS_H
#define CONTROLLER_BLOCKS_H

#include "controller/controller.h"

/* Without a worker's socket there is no link, and clients delete blocks themselves.
 *   DS_NO_MEMORY */
DS_MUST_USE enum ds_status
blocks_open_link(struct controller *controller, struct ds_error *err);

/* Tells the worker to delete what no row refers to any more. What cannot be told to it now
 * stays in the queue for the next time. */
void blocks_delete_dead(struct controller *controller);

/* What the last process may have left half done: its blocks are known to the worker, and
 * those of the rows that were cleared are not there any more. */
void blocks_redrive(struct controller *controller);

#endif
