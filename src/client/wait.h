/* How long a call may wait, and who may end it earlier.
 * Owner: the call; passed down by pointer. */
#ifndef CLIENT_WAIT_H
#define CLIENT_WAIT_H

#include "base/spin.h"

#include <datasystem/status.h>

#include <stdbool.h>
#include <stdint.h>

enum { WAIT_SLICE_MS = 50 }; /* Longest time between two looks at the hook. */

struct wait {
    uint64_t deadline_ms; /* CLOCK_MONOTONIC */
    int (*interrupted)(void *arg);
    void *interrupted_arg;
};

uint32_t wait_left_ms(const struct wait *wait);

/* The caller's hook asks to stop. Never call it with the library's lock held: the hook
 * may wait for a thread that waits for the lock. */
bool wait_is_interrupted(const struct wait *wait);

/* DS_OK once `fd` is ready for `events` (as in poll()), DS_TIMEOUT or DS_INTERRUPTED;
 * no text, the caller knows what was being waited for. */
DS_MUST_USE enum ds_status wait_socket(const struct wait *wait, int fd, short events);

/* The same for a reply, which often comes before a sleep were worth it: looks for a moment
 * first, as `spin` says. */
DS_MUST_USE enum ds_status
wait_reply(const struct wait *wait, int fd, struct spin *spin);

/* Sleeps up to `ms`; same results. */
DS_MUST_USE enum ds_status wait_sleep(const struct wait *wait, uint32_t ms);

#endif
