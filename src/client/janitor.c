#include "client/janitor.h"

#include "base/check.h"
#include "base/list.h"
#include "client/library.h"
#include "client/view.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

enum { QUEUE_VIEWS_MAX = 256 };
static const uint64_t queue_bytes_max = 256 << 20;

/* Invariants: queue[(first + i) % QUEUE_VIEWS_MAX], i < count, wait, oldest first, with
 * `bytes` in all; `dropped_total` have ever been queued, of which `gone_total` are gone,
 * also first in, first out, as only one thread at a time is at it (`busy`).
 *
 * Owner: guarded by the library's lock. */
static struct {
    struct dropped_view queue[QUEUE_VIEWS_MAX];
    uint32_t first;
    uint32_t count;
    uint64_t bytes;
    uint64_t dropped_total;
    uint64_t gone_total;
    bool busy;
    enum { THREAD_NONE, THREAD_RUNNING, THREAD_ENDING } state;
    pthread_t thread;
    pthread_cond_t work;    /* Something is queued, or the thread is to end. */
    pthread_cond_t settled; /* `busy` became false. */
} janitor = {.work = PTHREAD_COND_INITIALIZER, .settled = PTHREAD_COND_INITIALIZER};

/* ---- The work ---- */

/* Lock held, and held again at the end, but not in between. */
static void
unmap_batch(void)
{
    struct dropped_view batch[JANITOR_BATCH_VIEWS];
    uint32_t count = 0;
    DS_ASSERT(!janitor.busy);
    DS_ASSERT(janitor.count > 0);
    for (; count < JANITOR_BATCH_VIEWS && janitor.count > 0; count++) {
        batch[count] = janitor.queue[janitor.first];
        janitor.first = (janitor.first + 1) % QUEUE_VIEWS_MAX;
        janitor.count--;
        janitor.bytes -= ds_buffer_size(batch[count].buffer);
    }
    janitor.busy = true;
    library_unlock();
    views_unmap(batch, count);
    library_lock();
    janitor.busy = false;
    janitor.gone_total += count;
    pthread_cond_broadcast(&janitor.settled);
}

static void *
run(void *unused)
{
    (void)unused;
    library_lock();
    for (;;) {
        if (janitor.busy)
            library_wait_on(&janitor.settled);
        else if (janitor.count > 0)
            unmap_batch();
        else if (janitor.state == THREAD_ENDING)
            break;
        else
            library_wait_on(&janitor.work);
    }
    library_unlock();
    return NULL;
}

/* ---- The thread ---- */

/* Signals are for the program's own threads. */
static bool
start_thread(void)
{
    sigset_t all, before;
    sigfillset(&all);
    int result = pthread_sigmask(SIG_SETMASK, &all, &before);
    DS_ASSERT(result == 0);
    bool started = pthread_create(&janitor.thread, NULL, run, NULL) == 0;
    result = pthread_sigmask(SIG_SETMASK, &before, NULL);
    DS_ASSERT(result == 0);
    return started;
}

/* Lock held. Without a client there would be nobody to end it. */
static bool
is_running(void)
{
    if (janitor.state == THREAD_NONE && !list_is_empty(library_pools()) &&
        start_thread())
        janitor.state = THREAD_RUNNING;
    return janitor.state == THREAD_RUNNING;
}

/* Lock held. One view alone may be larger than the bound. */
static bool
has_room_for(uint64_t bytes)
{
    return janitor.count == 0 ||
           (janitor.count < QUEUE_VIEWS_MAX && bytes <= queue_bytes_max &&
            janitor.bytes <= queue_bytes_max - bytes);
}

void
janitor_drop(struct dropped_view view)
{
    uint64_t bytes = ds_buffer_size(view.buffer);
    library_lock();
    bool takes = is_running() && has_room_for(bytes);
    if (takes) {
        janitor.queue[(janitor.first + janitor.count) % QUEUE_VIEWS_MAX] = view;
        janitor.count++;
        janitor.bytes += bytes;
        janitor.dropped_total++;
        pthread_cond_signal(&janitor.work);
    }
    library_unlock();
    if (!takes)
        views_unmap(&view, 1);
}

uint64_t
janitor_gone_total(void)
{
    library_lock();
    uint64_t total = janitor.gone_total;
    library_unlock();
    return total;
}

void
janitor_settle(void)
{
    library_lock();
    uint64_t target = janitor.dropped_total;
    while (janitor.gone_total < target)
        if (janitor.busy)
            library_wait_on(&janitor.settled);
        else
            unmap_batch();
    library_unlock();
}

void
janitor_end_if_unused(void)
{
    library_lock();
    bool ends = janitor.state == THREAD_RUNNING && list_is_empty(library_pools());
    pthread_t thread = janitor.thread;
    if (ends) {
        janitor.state = THREAD_ENDING;
        pthread_cond_signal(&janitor.work);
    }
    library_unlock();
    if (!ends)
        return;
    int result = pthread_join(thread, NULL);
    DS_ASSERT(result == 0);
    library_lock();
    janitor.state = THREAD_NONE;
    library_unlock();
}

void
janitor_after_fork_in_child(void)
{
    static const pthread_cond_t fresh = PTHREAD_COND_INITIALIZER;
    janitor.work = fresh;
    janitor.settled = fresh;
    janitor.state = THREAD_NONE;
    janitor.busy = false;
    janitor.gone_total = janitor.dropped_total - janitor.count;
}
