/* Room that the worker has lent us, so that a put of one value, or of a block of one
 * part, is one message: it is filled like any other buffer, and gets its key with the
 * message that publishes it.
 * The worker may take back what is not pinned: taking a lease means to pin it and look
 * whether it is still there. What is lent is in no list of what we hold, so a new epoch
 * ends it.
 * Owner: a mapping; guarded by the library's lock. */
#ifndef CLIENT_LEASE_H
#define CLIENT_LEASE_H

#include "wire/message.h"

enum {
    LEASES_MAX = 4,  /* As many threads can put without asking first. */
    MISSES_MAX = 16, /* Values in a row that none fitted: they are of bygone sizes. */
};

struct lease {
    struct wire_extent extent;
    uint64_t size;            /* It takes any value that needs the same room. */
    struct ds_block_id block; /* Its id, should it become a block. */
};

struct leases {
    struct lease items[LEASES_MAX];
    size_t count;
    unsigned misses; /* In a row, while there was no place for another lease. */
};

static inline bool
leases_are_full(const struct leases *leases)
{
    return leases->count == LEASES_MAX;
}

/* False, with nothing kept, when there are enough. */
bool leases_add(struct leases *leases, const struct lease *lease);

/* Takes one out that has room for exactly such a value; false if there is none. All are
 * to be given up when that has happened too often. */
bool leases_take(struct leases *leases, uint64_t size, struct lease *out);

static inline bool
leases_are_outdated(const struct leases *leases)
{
    return leases->misses >= MISSES_MAX;
}

/* Takes any out; false if there is none. */
bool leases_take_any(struct leases *leases, struct lease *out);

#endif
