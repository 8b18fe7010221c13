#include "client/wait.h"

#include "base/check.h"
#include "base/numeric.h"
#include "os/clock.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>

uint32_t
wait_left_ms(const struct wait *wait)
{
    uint64_t now = clock_monotonic_ms();
    if (now >= wait->deadline_ms)
        return 0;
    return (uint32_t)min_u64(wait->deadline_ms - now, UINT32_MAX);
}

bool
wait_is_interrupted(const struct wait *wait)
{
    return wait->interrupted != NULL && wait->interrupted(wait->interrupted_arg) != 0;
}

enum ds_status
wait_socket(const struct wait *wait, int fd, short events)
{
    DS_ASSERT(fd >= 0);
    struct pollfd watched = {.fd = fd, .events = events};
    for (;;) {
        uint32_t left = wait_left_ms(wait);
        int slice = (int)min_u64(left, WAIT_SLICE_MS);
        int ready = poll(&watched, 1, slice);
        if (ready > 0)
            return DS_OK;
        DS_ASSERT(ready == 0 || errno == EINTR || errno == ENOMEM);
        if (wait_is_interrupted(wait))
            return DS_INTERRUPTED;
        if (left == 0)
            return DS_TIMEOUT;
    }
}

/* There is something to read, or an error. */
static bool
is_readable(void *arg)
{
    const int *fd = arg;
    struct pollfd watched = {.fd = *fd, .events = POLLIN};
    return poll(&watched, 1, 0) > 0;
}

enum ds_status
wait_reply(const struct wait *wait, int fd, struct spin *spin)
{
    if (spin_look(spin, clock_monotonic_ns, is_readable, &fd))
        return DS_OK;
    return wait_socket(wait, fd, POLLIN);
}

enum ds_status
wait_sleep(const struct wait *wait, uint32_t ms)
{
    uint64_t until = min_u64(clock_monotonic_ms() + ms, wait->deadline_ms);
    for (;;) {
        uint64_t now = clock_monotonic_ms();
        if (now >= until)
            return now >= wait->deadline_ms ? DS_TIMEOUT : DS_OK;
        (void)poll(NULL, 0, (int)min_u64(until - now, WAIT_SLICE_MS));
        if (wait_is_interrupted(wait))
            return DS_INTERRUPTED;
    }
}
