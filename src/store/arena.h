/* The allocator of the arena: offsets in, offsets out; it never touches the bytes.
 *
 * Small sizes (up to 2 KiB) come from runs that hold cells of one 64-byte class; larger
 * ones are extents of whole pages, best fit, lowest address first, neighbours merged on
 * free. Memory that was handed out before is preferred over memory that was not: fresh
 * pages are what is slow. Only populated bytes are handed out.
 *
 * All bookkeeping is private memory of the worker: nothing here is shared, everything
 * can be rebuilt from the table by arena_claim().
 * Owner: loop thread. */
#ifndef STORE_ARENA_H
#define STORE_ARENA_H

#include <datasystem/status.h>

#include <stdbool.h>
#include <stdint.h>

struct arena;

struct arena_stats {
    uint64_t total_bytes;     /* Size of the arena. */
    uint64_t populated_bytes; /* Of which may be handed out now. */
    uint64_t used_bytes;      /* Handed out, rounded as the allocator rounds. */
    uint64_t free_bytes;   /* populated - used, cells of part-filled runs included. */
    uint64_t largest_free; /* Largest extent that one allocation could get. */
    uint64_t extent_count; /* Live allocations. */
};

/* `total_bytes` a multiple of 4096. Nothing is populated yet. */
DS_MUST_USE enum ds_status
arena_create(uint64_t total_bytes, struct arena **out, struct ds_error *err);
void arena_destroy(struct arena *arena);

/* Bytes [0, populated) may be handed out from now on; only grows. */
void arena_set_populated(struct arena *arena, uint64_t populated_bytes);

/* Reserve `size` >= 1 bytes aligned to `alignment` (64, 4096 or 2 MiB). DS_FULL without
 * a text when there is no such hole: the caller knows more to say. */
DS_MUST_USE enum ds_status arena_alloc(struct arena *arena, uint64_t size,
                                       uint64_t alignment, uint64_t *out_offset);

/* Give back exactly what arena_alloc() or arena_claim() took. */
void
arena_free(struct arena *arena, uint64_t offset, uint64_t size, uint64_t alignment);

/* Recovery: mark [offset, offset + size) as taken, just as arena_alloc() of the same
 * size and alignment would have. False if any of it is taken already or cannot be such
 * an allocation: the caller drops both. */
bool
arena_claim(struct arena *arena, uint64_t offset, uint64_t size, uint64_t alignment);

void arena_stats(const struct arena *arena, struct arena_stats *out);

/* Walk everything and assert that it adds up. */
void arena_check(const struct arena *arena);

#endif
