/* Random bytes from the kernel; never fails after boot (aborts if it does). */
#ifndef OS_RANDOM_H
#define OS_RANDOM_H

#include <stddef.h>
#include <stdint.h>

void random_bytes(void *out, size_t bytes);
uint64_t random_u64(void);
uint32_t random_u32_nonzero(void);

#endif
