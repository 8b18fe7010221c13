#include "client/pool.h"

#include "base/check.h"
#include "base/planted.h"
#include "client/library.h"
#include "client/mapping.h"
#include "os/clock.h"

enum { DRAINING_MAX = 8 };

void
pool_init(struct pool *pool)
{
    list_init(&pool->channels);
    pool->connecting = false;
    list_init(&pool->link);
    list_push_back(library_pools(), &pool->link);
}

void
pool_fini(struct pool *pool)
{
    pool_forget(pool);
    list_remove(&pool->link);
}

struct channel *
pool_take(struct pool *pool)
{
    LIST_FOREACH (link, &pool->channels) {
        struct channel *channel = CONTAINER_OF(link, struct channel, link);
        if (channel->state != CHANNEL_IDLE)
            continue;
        channel->state = CHANNEL_BUSY;
        return channel;
    }
    return NULL;
}

/* One look per tick of the clock: it is a system call, which costs a read as much as all
 * the rest of it. */
static bool
is_whole(struct channel *channel)
{
    uint64_t now_ms = clock_coarse_ms();
    if (channel->whole_at_ms == now_ms)
        return true;
    if (channel_is_broken(channel))
        return false;
    channel->whole_at_ms = now_ms;
    return true;
}

bool
pool_is_alive(const struct pool *pool, const struct mapping *mapping)
{
    LIST_FOREACH (link, &pool->channels) {
        struct channel *channel = CONTAINER_OF(link, struct channel, link);
        if (channel->mapping != mapping || channel->state == CHANNEL_DRAINING)
            continue;
        return PLANTED(STALE_READ) || channel->state == CHANNEL_BUSY ||
               is_whole(channel);
    }
    return false;
}

void
pool_add(struct pool *pool, struct channel *channel)
{
    channel->state = CHANNEL_BUSY;
    list_push_front(&pool->channels, &channel->link);
}

/* To the front: the connection used last is the warmest. */
void
pool_give_back(struct pool *pool, struct channel *channel)
{
    DS_ASSERT(!channel->owed);
    channel->state = CHANNEL_IDLE;
    list_remove(&channel->link);
    list_push_front(&pool->channels, &channel->link);
    library_wake();
}

void
pool_drop(struct pool *pool, struct channel *channel)
{
    (void)pool;
    list_remove(&channel->link);
    mapping_unref(channel->mapping);
    channel->mapping = NULL;
    channel_destroy(channel);
}

struct channel *
pool_leave_draining(struct pool *pool, struct channel *channel)
{
    DS_ASSERT(channel->owed);
    channel->state = CHANNEL_DRAINING;
    list_remove(&channel->link);
    list_push_back(&pool->channels, &channel->link);
    struct channel *oldest = NULL;
    int count = 0;
    LIST_FOREACH (link, &pool->channels) {
        struct channel *at = CONTAINER_OF(link, struct channel, link);
        if (at->state != CHANNEL_DRAINING)
            continue;
        count++;
        oldest = oldest == NULL ? at : oldest;
    }
    return count > DRAINING_MAX ? oldest : NULL;
}

void
pool_drop_broken(struct pool *pool)
{
    LIST_FOREACH (link, &pool->channels) {
        struct channel *channel = CONTAINER_OF(link, struct channel, link);
        if (channel->state == CHANNEL_IDLE && channel_is_broken(channel))
            pool_drop(pool, channel);
    }
}

void
pool_forget(struct pool *pool)
{
    LIST_FOREACH (link, &pool->channels)
        pool_drop(pool, CONTAINER_OF(link, struct channel, link));
    pool->connecting = false;
}
