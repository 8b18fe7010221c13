/* Checksums of objects. Up to CHECKSUM_PIECE_BYTES: XXH3 (64 bits, seed 0) of the bytes.
 * Beyond: XXH3 of the checksums of the pieces of that size that they consist of, each 8
 * bytes, little endian; so pieces can be checked as they come, in any order, and what was
 * computed for them is enough for the whole. It finds damage; it is no protection against
 * a forger.
 *
 * xxHash is compiled twice on x86-64, for every processor and for those with AVX2,
 * which hash what is in a cache at 50 GB/s instead of 18; the processor decides at run
 * time. Both give the same numbers, as does any other program with XXH3. */
#ifndef OS_CHECKSUM_H
#define OS_CHECKSUM_H

#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>

enum { CHECKSUM_PIECE_BYTES = 1 << 20 };

uint64_t checksum_of(const void *data, size_t bytes);

/* Of bytes whose pieces, all full but for the last, have these checksums. At least one. */
uint64_t checksum_of_pieces(const uint64_t *pieces, size_t count);

/* As copy_bytes(); answers with the checksum of what was copied. The bytes are read from
 * memory once: each chunk is hashed and copied while it is in the nearest cache. */
uint64_t checksum_copy(void *to, const void *from, size_t bytes);

/* In steps: begin, any number of add, end. Owner: whoever holds it. */
struct checksum_run {
    alignas(
        64) unsigned char piece[640]; /* The one that is not full yet, or just is, */
    alignas(64) unsigned char pieces[640]; /* and those before it, */
    uint64_t piece_count;                  /* so many. */
    size_t bytes;                          /* In the piece. */
};
void checksum_begin(struct checksum_run *run);
void checksum_add(struct checksum_run *run, const void *data, size_t bytes);
uint64_t checksum_end(const struct checksum_run *run);

#endif
