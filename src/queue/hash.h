/* XXH3: the same values on every machine, in every process. */
#ifndef QUEUE_HASH_H
#define QUEUE_HASH_H

#include <datasystem/datasystem.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static inline uint64_t
hash_bytes(const void *data, size_t len)
{
    return XXH3_64bits(data, len);
}

static inline uint64_t
hash_slice(struct ds_slice bytes)
{
    return hash_bytes(bytes.data, bytes.len);
}

/* Makes one value of two; the order counts. */
static inline uint64_t
hash_combine(uint64_t hash, uint64_t next)
{
    return (hash ^ next) * UINT64_C(0x9e3779b97f4a7c15) + (hash >> 29);
}

#endif
