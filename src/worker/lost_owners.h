/* Owners of keys that are gone, and with them what they remembered to be deleted: lost, cut
 * off, or killed and started again. As long as somebody may come back with older values of keys,
 * it matters which of these keys were such an owner's.
 *
 * Owner: who has the list; no locking. */
#ifndef WORKER_LOST_OWNERS_H
#define WORKER_LOST_OWNERS_H

#include "base/list.h"
#include "wire/bindings.h"

#include <datasystem/datasystem.h>

#include <stdbool.h>
#include <stdint.h>

/* Of each epoch in which somebody was gone, the latest last: those that another one told of,
 * and behind them those that we have seen. */
struct lost_owners {
    struct list told;
    struct list seen;
};

void lost_owners_init(struct lost_owners *lost);
void lost_owners_forget(struct lost_owners *lost);

/* The members of the epoch before, in the order of their nodes. False when out of memory. */
DS_MUST_USE bool lost_owners_add(struct lost_owners *lost,
                                 const struct past_member *members, uint32_t count);

/* For one that has just come, which does not know them. */
void lost_owners_encode(const struct lost_owners *lost, struct writer *out);

/* What was told, decoded with its message, was before all that we have seen ourselves. It takes
 * the place of what was told before. False when out of memory. */
DS_MUST_USE bool lost_owners_hear(struct lost_owners *lost, struct ds_slice told);

/* That one has left once. */
bool
lost_owners_has(const struct lost_owners *lost, uint32_t node, uint32_t incarnation);

/* Who owned this key was gone in one of them. */
bool lost_owners_had(struct lost_owners *lost, struct ds_slice key);

/* Nobody who owned the key was gone in an epoch after the last in which that one had left; in any,
 * if that one never had. False also when out of memory. */
bool lost_owners_none_since(struct lost_owners *lost, uint32_t node,
                            uint32_t incarnation, struct ds_slice key);

#endif
