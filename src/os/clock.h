/* Time. Deadlines are CLOCK_MONOTONIC milliseconds; expiry is CLOCK_BOOTTIME, which
 * goes on while the machine sleeps and cannot be set. */
#ifndef OS_CLOCK_H
#define OS_CLOCK_H

#include <stdint.h>

uint64_t clock_monotonic_ms(void);
uint64_t clock_monotonic_ns(void);
uint64_t clock_boot_ds(void); /* Tenths of a second. */

/* clock_monotonic_ms() as of the last tick of the kernel, at most 10 ms ago: a few
 * nanoseconds to read. */
uint64_t clock_coarse_ms(void);

/* For how long this thread has kept a core busy. */
uint64_t clock_thread_ns(void);

/* "2026-08-22T10:11:12.345678Z" into at least 32 bytes; UTC. */
void clock_utc_text(char *out);

#endif
