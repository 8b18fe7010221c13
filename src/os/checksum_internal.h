/* What the files of the checksums share. Only src/os/checksum*.c includes this. */
#ifndef OS_CHECKSUM_INTERNAL_H
#define OS_CHECKSUM_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One way to compute XXH3; `state` is an XXH3_state_t. */
struct checksum_kernel {
    uint64_t (*of)(const void *data, size_t bytes);
    uint64_t (*copy)(uint8_t *to, const uint8_t *from, size_t bytes, bool is_streamed);
    void (*begin)(void *state);
    void (*add)(void *state, const void *data, size_t bytes);
    uint64_t (*end)(const void *state);
};

extern const struct checksum_kernel checksum_kernel_plain;
#ifdef __x86_64__
extern const struct checksum_kernel checksum_kernel_avx2;
extern const struct checksum_kernel checksum_kernel_avx512;
#endif

#endif
