#include "os/clock.h"

#include "base/check.h"

#include <stdio.h>
#include <time.h>

enum { CLOCK_TEXT_BYTES = 32 };

static struct timespec
read_clock(clockid_t id)
{
    struct timespec now;
    int result = clock_gettime(id, &now);
    DS_ASSERT(result == 0); /* Only an unknown clock can fail. */
    return now;
}

static uint64_t
read_clock_ns(clockid_t id)
{
    struct timespec now = read_clock(id);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t
clock_monotonic_ns(void)
{
    return read_clock_ns(CLOCK_MONOTONIC);
}

uint64_t
clock_thread_ns(void)
{
    return read_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t
clock_monotonic_ms(void)
{
    return clock_monotonic_ns() / 1000000u;
}

uint64_t
clock_coarse_ms(void)
{
    return read_clock_ns(CLOCK_MONOTONIC_COARSE) / 1000000u;
}

uint64_t
clock_boot_ds(void)
{
    struct timespec now = read_clock(CLOCK_BOOTTIME);
    return (uint64_t)now.tv_sec * 10u + (uint64_t)now.tv_nsec / 100000000u;
}

void
clock_utc_text(char *out)
{
    struct timespec now = read_clock(CLOCK_REALTIME);
    struct tm utc;
    char date[CLOCK_TEXT_BYTES];
    if (gmtime_r(&now.tv_sec, &utc) == NULL ||
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc) != 19) {
        snprintf(out, CLOCK_TEXT_BYTES, "0000-00-00T00:00:00.000000Z");
        return; /* A clock set beyond the year 9999. */
    }
    snprintf(out, CLOCK_TEXT_BYTES, "%.19s.%06uZ", date,
             (unsigned)(now.tv_nsec / 1000));
}
