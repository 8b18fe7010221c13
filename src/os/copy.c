#include "os/copy.h"

#include <stdint.h>
#include <string.h>

#ifdef __SSE2__ /* Every x86-64. */
#include <emmintrin.h>

enum { LINE_BYTES = 64, AHEAD_BYTES = 1024 };

/* `to` at the beginning of a line, whole lines. A prefetch past the end does nothing; one
 * that is to leave the caches alone (NTA) halves the speed on some processors. */
static void
stream_lines(uint8_t *to, const uint8_t *from, size_t lines)
{
    for (size_t i = 0; i < lines; i++) {
        _mm_prefetch((const char *)((uintptr_t)from + AHEAD_BYTES), _MM_HINT_T0);
        for (size_t at = 0; at < LINE_BYTES; at += sizeof(__m128i)) {
            __m128i part = _mm_loadu_si128((const __m128i *)(const void *)(from + at));
            _mm_stream_si128((__m128i *)(void *)(to + at), part);
        }
        to += LINE_BYTES;
        from += LINE_BYTES;
    }
    _mm_sfence(); /* Before whatever tells others that the bytes are there. */
}

static void
copy_streaming(uint8_t *to, const uint8_t *from, size_t bytes)
{
    size_t head = -(uintptr_t)to % LINE_BYTES;
    size_t lines = (bytes - head) / LINE_BYTES;
    size_t tail = head + lines * LINE_BYTES;
    memcpy(to, from, head);
    stream_lines(to + head, from + head, lines);
    memcpy(to + tail, from + tail, bytes - tail);
}

#else

static void
copy_streaming(uint8_t *to, const uint8_t *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

#endif

void
copy_bytes(void *to, const void *from, size_t bytes)
{
    if (bytes >= COPY_STREAM_BYTES)
        copy_streaming(to, from, bytes);
    else
        memcpy(to, from, bytes);
}
