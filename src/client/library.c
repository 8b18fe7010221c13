#include "client/library.h"

#include "base/check.h"
#include "client/fork.h"
#include "os/random.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static _Atomic uint32_t sequence;

/* Guarded by the lock. */
static struct list pools = {.next = &pools, .prev = &pools};
static struct list mappings = {.next = &mappings, .prev = &mappings};
static struct list deferred = {.next = &deferred, .prev = &deferred};

static void
init(void)
{
    atomic_store_explicit(&sequence, (uint32_t)random_u64(), memory_order_relaxed);
    fork_install();
}

void
library_init(void)
{
    int result = pthread_once(&once, init);
    DS_ASSERT(result == 0);
}

void
library_lock(void)
{
    int result = pthread_mutex_lock(&lock);
    DS_ASSERT(result == 0);
}

static struct deferred *
take_deferred(void)
{
    if (list_is_empty(&deferred))
        return NULL;
    struct deferred *work = CONTAINER_OF(deferred.next, struct deferred, link);
    list_remove(&work->link);
    return work;
}

void
library_unlock(void)
{
    struct deferred *work = take_deferred();
    int result = pthread_mutex_unlock(&lock);
    DS_ASSERT(result == 0);
    while (work != NULL) {
        work->run(work);
        library_lock();
        work = take_deferred();
        result = pthread_mutex_unlock(&lock);
        DS_ASSERT(result == 0);
    }
}

void
library_defer(struct deferred *work)
{
    list_push_back(&deferred, &work->link);
}

void
library_wait(uint32_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    until.tv_sec += (time_t)(ms / 1000) + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    (void)pthread_cond_clockwait(&changed, &lock, CLOCK_MONOTONIC, &until);
}

void
library_wait_on(pthread_cond_t *condition)
{
    int result = pthread_cond_wait(condition, &lock);
    DS_ASSERT(result == 0);
}

void
library_wake(void)
{
    pthread_cond_broadcast(&changed);
}

struct list *
library_pools(void)
{
    return &pools;
}

struct list *
library_mappings(void)
{
    return &mappings;
}

uint32_t
library_next_sequence(void)
{
    return atomic_fetch_add_explicit(&sequence, 1, memory_order_relaxed);
}

void
library_before_fork(void)
{
    library_lock();
}

void
library_after_fork(void)
{
    library_unlock();
}

/* The threads that waited for `changed` do not exist here: it begins anew. */
void
library_after_fork_in_child(void)
{
    static const pthread_cond_t fresh = PTHREAD_COND_INITIALIZER;
    changed = fresh;
    library_unlock();
}
