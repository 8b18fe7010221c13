/* Takes private views down off the caller's path.
 *
 * To unmap a view that was read or changed takes up to milliseconds, so a thread of the
 * library does it. It starts with the first view that is dropped while a client is open,
 * and ends with the last client. A view's buffer, and with it the pin that guards what
 * the view shows, is released only after it is unmapped.
 *
 * What waits is bounded, in views and in bytes, as it takes room in the address space and
 * in the arena: beyond the bound whoever drops a view unmaps it itself.
 *
 * fork: the child has no such thread, but what waited in the queue; the next view that it
 * drops starts one. What the parent's thread was at, at most JANITOR_BATCH_VIEWS views,
 * stays mapped in the child, unused, until it ends. */
#ifndef CLIENT_JANITOR_H
#define CLIENT_JANITOR_H

#include <stdint.h>

enum { JANITOR_BATCH_VIEWS = 16 };

struct dropped_view {
    struct ds_buffer *buffer; /* One reference, owned. */
    void *data;               /* ds_buffer_size() bytes, mapped by view_map(). */
};

/* Takes the view. Never waits for another thread's work. */
void janitor_drop(struct dropped_view view);

/* How many views it has taken down. A request that finds no room is worth another try if
 * this grew since it was sent. */
uint64_t janitor_gone_total(void);

/* Wait until all that was dropped before is unmapped and its buffers are released, and
 * help. */
void janitor_settle(void);

/* After a client was closed: ends the thread if it was the last. */
void janitor_end_if_unused(void);

/* In the child, lock held. */
void janitor_after_fork_in_child(void);

#endif
