#include "os/copy.h"

#include "base/check.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

enum { SPARE_BYTES = 256 };

/* `bytes` to and from places off the beginning of a line; nothing beside them changes. */
static void
check_copy(size_t bytes, size_t to_offset, size_t from_offset)
{
    uint8_t *from = malloc(bytes + SPARE_BYTES);
    uint8_t *to = malloc(bytes + SPARE_BYTES);
    uint64_t seed = bytes + to_offset;
    DS_ASSERT(from != NULL && to != NULL);
    for (size_t i = 0; i < bytes + SPARE_BYTES; i++)
        from[i] = (uint8_t)(i * 31 + test_random(&seed) % 3);
    memset(to, 0xee, bytes + SPARE_BYTES);
    copy_bytes(to + to_offset, from + from_offset, bytes);
    CHECK(memcmp(to + to_offset, from + from_offset, bytes) == 0);
    for (size_t i = 0; i < to_offset; i++)
        CHECK_INT(to[i], 0xee);
    for (size_t i = to_offset + bytes; i < bytes + SPARE_BYTES; i++)
        CHECK_INT(to[i], 0xee);
    free(from);
    free(to);
}

TEST(small_and_large_copies_are_exact_at_any_offset)
{
    check_copy(0, 1, 2);
    check_copy(1000, 3, 5);
    check_copy(COPY_STREAM_BYTES - 1, 7, 0);
    check_copy(COPY_STREAM_BYTES, 0, 0);
    check_copy(COPY_STREAM_BYTES, 64, 1);
    check_copy(COPY_STREAM_BYTES + 1, 63, 64);
    check_copy(COPY_STREAM_BYTES + 129, 1, 17);
}

TEST_MAIN(RUN(small_and_large_copies_are_exact_at_any_offset))
