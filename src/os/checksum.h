/* Checksums of objects: XXH3 (64 bits, seed 0) of all bytes, in one piece or while they
 * are copied. A checksum finds damage; it is no protection against a forger.
 *
 * xxHash is compiled twice on x86-64, for every processor and for those with AVX2,
 * which hash what is in a cache at 50 GB/s instead of 18; the processor decides at run
 * time. Both give the same numbers, as does any other program with XXH3. */
#ifndef OS_CHECKSUM_H
#define OS_CHECKSUM_H

#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>

uint64_t checksum_of(const void *data, size_t bytes);

/* As copy_bytes(); answers with the checksum of what was copied. The bytes are read from
 * memory once: each chunk is hashed and copied while it is in the nearest cache. */
uint64_t checksum_copy(void *to, const void *from, size_t bytes);

/* In steps: begin, any number of add, end. Owner: whoever holds it. */
struct checksum_run {
    alignas(64) unsigned char state[640];
};
void checksum_begin(struct checksum_run *run);
void checksum_add(struct checksum_run *run, const void *data, size_t bytes);
uint64_t checksum_end(const struct checksum_run *run);

#endif
