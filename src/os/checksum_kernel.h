/* The computing itself. Included by one file for each kind of processor, which is
 * compiled for it and gives what is here a name by CHECKSUM_KERNEL(). */
#include "os/checksum.h"
#include "os/checksum_internal.h"
#include "os/copy.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__ /* Every x86-64. */
#include <emmintrin.h>
#endif

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
    CHUNK_BYTES = 128 << 10,      /* Hashed, then copied: fits into any L2 cache. */
    STREAM_CHUNK_BYTES = 8 << 10, /* With the next one it fits into any L1 cache. */
    KERNEL_LINE_BYTES = 64,
};

#ifdef __SSE2__
/* Past the caches; the next chunk is called for meanwhile, so that the memory reads on
 * while this one is written. A prefetch past the end does nothing. */
static void
copy_chunk_streaming(uint8_t *to, const uint8_t *from, size_t bytes)
{
    size_t at = 0;
    for (; at + KERNEL_LINE_BYTES <= bytes; at += KERNEL_LINE_BYTES) {
        _mm_prefetch((const char *)((uintptr_t)(from + at) + STREAM_CHUNK_BYTES),
                     _MM_HINT_T0);
        for (size_t i = at; i < at + KERNEL_LINE_BYTES; i += sizeof(__m128i)) {
            __m128i part = _mm_loadu_si128((const __m128i *)(const void *)(from + i));
            _mm_stream_si128((__m128i *)(void *)(to + i), part);
        }
    }
    memcpy(to + at, from + at, bytes - at);
}

static void
end_streaming(void)
{
    _mm_sfence(); /* Before whatever tells others that the bytes are there. */
}

#else
static void
copy_chunk_streaming(uint8_t *to, const uint8_t *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

static void
end_streaming(void)
{
}
#endif

static uint64_t
kernel_of(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}

static uint64_t
kernel_copy(uint8_t *to, const uint8_t *from, size_t bytes, bool is_streamed)
{
    if (bytes <= CHUNK_BYTES) {
        uint64_t checksum = XXH3_64bits(from, bytes);
        memcpy(to, from, bytes);
        return checksum;
    }
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    size_t step = is_streamed ? STREAM_CHUNK_BYTES : CHUNK_BYTES;
    for (size_t at = 0; at < bytes; at += step) {
        size_t part = bytes - at < step ? bytes - at : step;
        XXH3_64bits_update(&state, from + at, part);
        if (is_streamed)
            copy_chunk_streaming(to + at, from + at, part);
        else
            memcpy(to + at, from + at, part);
    }
    if (is_streamed)
        end_streaming();
    return XXH3_64bits_digest(&state);
}

static_assert(sizeof(XXH3_state_t) <= sizeof((struct checksum_run *)0)->piece,
              "room for a state");
static_assert(alignof(XXH3_state_t) <= alignof(struct checksum_run), "its alignment");

static void
kernel_begin(void *state)
{
    XXH3_64bits_reset(state);
}

static void
kernel_add(void *state, const void *data, size_t bytes)
{
    XXH3_64bits_update(state, data, bytes);
}

static uint64_t
kernel_end(const void *state)
{
    return XXH3_64bits_digest(state);
}

#define CHECKSUM_KERNEL(name)             \
    const struct checksum_kernel name = { \
        .of = kernel_of,                  \
        .copy = kernel_copy,              \
        .begin = kernel_begin,            \
        .add = kernel_add,                \
        .end = kernel_end,                \
    }
