#include "os/checksum.h"
#include "os/checksum_internal.h"
#include "os/copy.h"

#include "test.h"

#include <string.h>

enum { BYTES = (8 << 20) + 4096, MARGIN = 128 };

static uint8_t from[BYTES + MARGIN];
static uint8_t to[BYTES + MARGIN];

static void
fill(void)
{
    uint32_t state = 12345;
    for (size_t i = 0; i < sizeof from; i++) {
        state = state * 1664525u + 1013904223u;
        from[i] = (uint8_t)(state >> 24);
    }
}

/* From the xxHash project: XXH3, 64 bits, no seed. Stored checksums outlive a version
 * of ours. */
TEST(checksums_are_those_of_xxh3)
{
    CHECK_INT(checksum_of("", 0), 0x2d06800538d394c2);
    CHECK_INT(checksum_of("a", 1), 0xe6c632b61e964e1f);
    CHECK_INT(checksum_of("abc", 3), 0x78af5f94892f3950);
}

static void
check_copy(size_t bytes, size_t to_offset, size_t from_offset)
{
    memset(to, 0xee, sizeof to);
    uint64_t checksum = checksum_copy(to + to_offset, from + from_offset, bytes);
    CHECK_INT(checksum, checksum_of(from + from_offset, bytes));
    CHECK(memcmp(to + to_offset, from + from_offset, bytes) == 0);
    for (size_t i = 0; i < to_offset; i++)
        CHECK_INT(to[i], 0xee);
    for (size_t i = to_offset + bytes; i < to_offset + bytes + 64; i++)
        CHECK_INT(to[i], 0xee);
}

/* Around the sizes where the way of copying changes. */
TEST(a_copy_has_the_checksum_of_its_bytes)
{
    fill();
    static const size_t sizes[] = {1,       63,         64,       241,
                                   1024,    8192,       8192 + 1, 3 * 8192 - 1,
                                   1 << 20, BYTES - 63, BYTES,    COPY_STREAM_BYTES};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        check_copy(sizes[i], 0, 0);
        check_copy(sizes[i], 64, 1);
        check_copy(sizes[i], 3, 17);
    }
}

TEST(a_checksum_in_steps_is_that_of_all)
{
    fill();
    struct checksum_run run;
    checksum_begin(&run);
    size_t at = 0;
    for (size_t step = 1; at < BYTES; step = step * 3 + 1) {
        size_t bytes = step < BYTES - at ? step : BYTES - at;
        checksum_add(&run, from + at, bytes);
        at += bytes;
    }
    CHECK_INT(checksum_end(&run), checksum_of(from, BYTES));
}

/* As the header says it. */
TEST(beyond_a_piece_it_is_the_checksum_of_those_of_the_pieces)
{
    enum { PIECE = CHECKSUM_PIECE_BYTES };
    static const size_t sizes[] = {PIECE, PIECE + 1, 2 * PIECE, BYTES};
    fill();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint64_t pieces[BYTES / PIECE + 1];
        size_t count = 0;
        for (size_t at = 0; at < sizes[i]; at += PIECE)
            pieces[count++] =
                checksum_of(from + at, sizes[i] - at < PIECE ? sizes[i] - at : PIECE);
        uint64_t whole = checksum_of(from, sizes[i]);
        CHECK_INT(whole, checksum_of_pieces(pieces, count));
        CHECK_INT(whole,
                  count == 1 ? pieces[0] : checksum_of(pieces, count * sizeof *pieces));
    }
}

static void
check_kernel(const struct checksum_kernel *kernel)
{
    for (size_t bytes = 0; bytes < 3000; bytes += bytes < 300 ? 1 : 97)
        CHECK_INT(kernel->of(from, bytes), checksum_of(from, bytes));
    for (int is_streamed = 0; is_streamed < 2; is_streamed++) {
        memset(to, 0, CHECKSUM_PIECE_BYTES);
        CHECK_INT(kernel->copy(to, from, CHECKSUM_PIECE_BYTES, is_streamed != 0),
                  checksum_of(from, CHECKSUM_PIECE_BYTES));
        CHECK(memcmp(to, from, CHECKSUM_PIECE_BYTES) == 0);
    }
}

/* A worker and a client may run different kernels, in an emulator for example. */
TEST(every_kernel_gives_the_same_number)
{
    fill();
    check_kernel(&checksum_kernel_plain);
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        check_kernel(&checksum_kernel_avx2);
    if (__builtin_cpu_supports("avx512f"))
        check_kernel(&checksum_kernel_avx512);
#endif
}

TEST(a_flipped_bit_changes_the_checksum)
{
    fill();
    uint64_t before = checksum_of(from, 4096);
    for (size_t bit = 0; bit < 4096 * 8; bit += 101) {
        from[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK(checksum_of(from, 4096) != before);
        from[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

TEST_MAIN(RUN(checksums_are_those_of_xxh3), RUN(a_copy_has_the_checksum_of_its_bytes),
          RUN(a_checksum_in_steps_is_that_of_all),
          RUN(beyond_a_piece_it_is_the_checksum_of_those_of_the_pieces),
          RUN(every_kernel_gives_the_same_number),
          RUN(a_flipped_bit_changes_the_checksum))
