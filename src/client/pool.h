/* The connections of one client or queue. A call takes an idle one or opens one more,
 * so a call that waits never stops another.
 *
 * Every function needs the library's lock. Owner: its client or queue. */
#ifndef CLIENT_POOL_H
#define CLIENT_POOL_H

#include "client/channel.h"

struct pool {
    struct list link; /* In library_pools(). */
    struct list channels;
    bool connecting; /* One thread at a time introduces us to the other side. */
};

void pool_init(struct pool *pool);
void pool_fini(struct pool *pool); /* Closes all connections. */

/* An idle channel, turned busy; NULL if there is none. */
struct channel *pool_take(struct pool *pool);

void pool_add(struct pool *pool, struct channel *channel); /* As busy. */
void pool_give_back(struct pool *pool, struct channel *channel);
void pool_drop(struct pool *pool, struct channel *channel);

/* Nobody waits for its reply any more. Of more than a few such channels the oldest is
 * dropped: returned for a last look before pool_drop(), else NULL. */
struct channel *pool_leave_draining(struct pool *pool, struct channel *channel);

/* The other side is gone: so are the idle connections to it that have ended. */
void pool_drop_broken(struct pool *pool);

/* The other side was there within the last 10 ms: a connection that speaks of `mapping`
 * is in use, or idle and whole. */
bool pool_is_alive(const struct pool *pool, const struct mapping *mapping);

/* In a forked child: the connections are the parent's. Closes our descriptors of them.
 */
void pool_forget(struct pool *pool);

#endif
