/* What the files of the directory share: directory.c, what keys are, and changes; directory_told.c,
 * what others tell of them. Only these include it. */
#ifndef WORKER_DIRECTORY_INTERNAL_H
#define WORKER_DIRECTORY_INTERNAL_H

#include "worker/bindings.h"
#include "worker/directory.h"

struct directory {
    struct bindings bindings;
};

/* False also for NULL. */
bool directory_is_bound(const struct binding *binding);

/* That it is so was said just now. */
void directory_set_object(const struct worker *worker, struct binding *binding,
                          struct object_name object);
void directory_set_expiry(struct binding *binding, uint32_t ttl_ds);

/* The key is nothing; remembered as long as a holder may come back. */
void directory_remember_deleted(struct worker *worker, struct binding *binding);

#endif
