#include "os/checksum_kernel.h"

#include "base/check.h"

CHECKSUM_KERNEL(checksum_kernel_plain);

static const struct checksum_kernel *
kernel(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f"))
        return &checksum_kernel_avx512;
    if (__builtin_cpu_supports("avx2"))
        return &checksum_kernel_avx2;
#endif
    return &checksum_kernel_plain;
}

static size_t
piece_at(size_t at, size_t bytes)
{
    return bytes - at < CHECKSUM_PIECE_BYTES ? bytes - at : CHECKSUM_PIECE_BYTES;
}

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "as the pieces are hashed");

uint64_t
checksum_of_pieces(const uint64_t *pieces, size_t count)
{
    DS_ASSERT(count > 0);
    return count == 1 ? pieces[0] : kernel()->of(pieces, count * sizeof *pieces);
}

/* ---- In steps ---- */

void
checksum_begin(struct checksum_run *run)
{
    kernel()->begin(run->piece);
    run->piece_count = 0;
    run->bytes = 0;
}

/* The piece is full, or the last. */
static void
end_piece(struct checksum_run *run, uint64_t checksum)
{
    if (run->piece_count == 0)
        kernel()->begin(run->pieces);
    kernel()->add(run->pieces, &checksum, sizeof checksum);
    run->piece_count++;
    run->bytes = 0;
}

void
checksum_add(struct checksum_run *run, const void *data, size_t bytes)
{
    const uint8_t *from = data;
    while (bytes > 0) {
        if (run->bytes == CHECKSUM_PIECE_BYTES) { /* It was not the last. */
            end_piece(run, kernel()->end(run->piece));
            kernel()->begin(run->piece);
        }
        size_t room = CHECKSUM_PIECE_BYTES - run->bytes;
        size_t part = bytes < room ? bytes : room;
        kernel()->add(run->piece, from, part);
        run->bytes += part;
        from += part;
        bytes -= part;
    }
}

uint64_t
checksum_end(const struct checksum_run *run)
{
    uint64_t last = kernel()->end(run->piece);
    if (run->piece_count == 0)
        return last;
    struct checksum_run copy = *run;
    end_piece(&copy, last);
    return kernel()->end(copy.pieces);
}

/* ---- In one go ---- */

uint64_t
checksum_of(const void *data, size_t bytes)
{
    if (bytes <= CHECKSUM_PIECE_BYTES)
        return kernel()->of(data, bytes);
    struct checksum_run run = {.piece_count = 0};
    size_t part;
    for (size_t at = 0; at < bytes; at += part) {
        part = piece_at(at, bytes);
        end_piece(&run, kernel()->of((const uint8_t *)data + at, part));
    }
    return kernel()->end(run.pieces);
}

/* Only x86-64 has stores past the caches (checksum_kernel.h). */
static bool
is_streamed(const uint8_t *to, size_t bytes)
{
#ifdef __SSE2__
    return bytes >= COPY_STREAM_BYTES && (uintptr_t)to % KERNEL_LINE_BYTES == 0;
#else
    (void)to;
    (void)bytes;
    return false;
#endif
}

uint64_t
checksum_copy(void *to, const void *from, size_t bytes)
{
    bool streamed = is_streamed(to, bytes);
    if (bytes <= CHECKSUM_PIECE_BYTES)
        return kernel()->copy(to, from, bytes, streamed);
    struct checksum_run run = {.piece_count = 0};
    size_t part;
    for (size_t at = 0; at < bytes; at += part) {
        part = piece_at(at, bytes);
        end_piece(&run, kernel()->copy((uint8_t *)to + at, (const uint8_t *)from + at,
                                       part, streamed));
    }
    return kernel()->end(run.pieces);
}
