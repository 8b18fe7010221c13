/* What src/client/library.c keeps for a process, for each simulated process. */
#include "sim.h"

#include "client/janitor.h"
#include "client/library.h"

#include "base/check.h"
#include "os/random.h"

static struct library_state *
state(void)
{
    struct process *process = process_current();
    DS_ASSERT(process != NULL);
    struct library_state *self = &process->library;
    if (!self->is_ready) {
        self->is_ready = true;
        list_init(&self->pools);
        list_init(&self->mappings);
        list_init(&self->deferred);
        self->sequence = (uint32_t)random_u64();
    }
    return self;
}

void
library_init(void)
{
    (void)state();
}

void
library_lock(void)
{
    struct library_state *self = state();
    while (self->is_locked)
        sim_block(sim.now_ns + SIM_MS);
    self->is_locked = true;
}

static struct deferred *
take_deferred(struct library_state *self)
{
    if (list_is_empty(&self->deferred))
        return NULL;
    struct deferred *work = CONTAINER_OF(self->deferred.next, struct deferred, link);
    list_remove(&work->link);
    return work;
}

void
library_unlock(void)
{
    struct library_state *self = state();
    DS_ASSERT(self->is_locked);
    struct deferred *work = take_deferred(self);
    self->is_locked = false;
    while (work != NULL) {
        work->run(work);
        work = take_deferred(self);
    }
    process_wake(process_current());
}

void
library_defer(struct deferred *work)
{
    list_push_back(&state()->deferred, &work->link);
}

void
library_wait(uint32_t ms)
{
    state()->is_locked = false;
    sim_block(sim.now_ns + ms * SIM_MS);
    library_lock();
}

void
library_wake(void)
{
    process_wake(process_current());
}

struct list *
library_pools(void)
{
    return &state()->pools;
}

struct list *
library_mappings(void)
{
    return &state()->mappings;
}

uint32_t
library_next_sequence(void)
{
    return state()->sequence++;
}

/* Forks are not simulated. */
void
library_before_fork(void)
{
}

void
library_after_fork(void)
{
}

void
library_after_fork_in_child(void)
{
}

/* ---- Private views, and the thread that takes them down: no client here has any ---- */

uint64_t
janitor_gone_total(void)
{
    return 0;
}

void
janitor_settle(void)
{
}

void
janitor_end_if_unused(void)
{
}
