#include "store/arena.h"

#include "base/auto.h"
#include "base/check.h"
#include "base/numeric.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

#define KIB  1024ull
#define MIB  (1024 * KIB)
#define HUGE (2 * MIB)

DEFINE_AUTO(arena, struct arena, arena_destroy)

static struct arena *
arena_of(uint64_t total_bytes)
{
    struct arena *arena = NULL;
    struct ds_error err = {0};
    CHECK_OK(arena_create(total_bytes, &arena, &err));
    arena_set_populated(arena, total_bytes);
    return arena;
}

static uint64_t
take(struct arena *arena, uint64_t size, uint64_t alignment)
{
    uint64_t offset = UINT64_MAX;
    CHECK_OK(arena_alloc(arena, size, alignment, &offset));
    CHECK(offset % alignment == 0);
    arena_check(arena);
    return offset;
}

static struct arena_stats
stats_of(const struct arena *arena)
{
    struct arena_stats stats;
    arena_stats(arena, &stats);
    return stats;
}

TEST(small_sizes_share_a_page)
{
    AUTO(arena) struct arena *arena = arena_of(MIB);
    for (uint64_t i = 0; i < 64; i++)
        CHECK_INT(take(arena, 64, 64), i * 64);
    CHECK_INT(take(arena, 64, 64), 4096);
    CHECK_INT(stats_of(arena).used_bytes, 65 * 64);
    CHECK_INT(stats_of(arena).extent_count, 65);
}

/* Every class up to 2 KiB loses at most an eighth of its run to rounding. */
TEST(runs_waste_little)
{
    for (uint64_t size = 64; size <= 2048; size += 64) {
        AUTO(arena) struct arena *arena = arena_of(16 * MIB);
        uint64_t offset;
        uint64_t count = 0;
        while (arena_alloc(arena, size, 64, &offset) == DS_OK)
            count++;
        CHECK(count * size >= 14 * MIB);
        arena_check(arena);
    }
}

TEST(large_sizes_are_page_aligned_and_exact)
{
    AUTO(arena) struct arena *arena = arena_of(MIB);
    CHECK_INT(take(arena, 5000, 64), 0);
    CHECK_INT(take(arena, 4096, 4096), 8192);
    CHECK_INT(take(arena, 1, 4096), 12288);
    CHECK_INT(stats_of(arena).used_bytes, 4 * 4096);
}

TEST(huge_alignment_leaves_the_hole_usable)
{
    AUTO(arena) struct arena *arena = arena_of(8 * MIB);
    CHECK_INT(take(arena, 4096, 4096), 0);
    CHECK_INT(take(arena, HUGE, HUGE), HUGE);
    CHECK_INT(take(arena, HUGE, HUGE), 2 * HUGE);
    CHECK_INT(take(arena, HUGE - 4096, 4096), 4096);
    CHECK_INT(stats_of(arena).largest_free, HUGE);
}

TEST(neighbours_merge_on_free)
{
    AUTO(arena) struct arena *arena = arena_of(MIB);
    uint64_t a = take(arena, 256 * KIB, 4096);
    uint64_t b = take(arena, 256 * KIB, 4096);
    uint64_t c = take(arena, 512 * KIB, 4096);
    CHECK_INT(stats_of(arena).largest_free, 0);
    arena_free(arena, a, 256 * KIB, 4096);
    arena_free(arena, c, 512 * KIB, 4096);
    CHECK_INT(stats_of(arena).largest_free, 512 * KIB);
    arena_free(arena, b, 256 * KIB, 4096);
    CHECK_INT(stats_of(arena).largest_free, MIB);
    CHECK_INT(take(arena, MIB, 4096), 0);
}

TEST(best_fit_takes_the_smallest_hole)
{
    AUTO(arena) struct arena *arena = arena_of(MIB);
    uint64_t large = take(arena, 64 * KIB, 4096);
    (void)take(arena, 4096, 4096);
    uint64_t small = take(arena, 16 * KIB, 4096);
    (void)take(arena, 4096, 4096);
    arena_free(arena, large, 64 * KIB, 4096);
    arena_free(arena, small, 16 * KIB, 4096);
    CHECK_INT(take(arena, 12 * KIB, 4096), small);
    CHECK_INT(take(arena, 20 * KIB, 4096), large);
}

/* A hole that was used before wins over memory that never was, however well that fits.
 */
TEST(touched_memory_is_preferred)
{
    AUTO(arena) struct arena *arena = arena_of(64 * MIB);
    for (int i = 0; i < 1000; i++) {
        uint64_t offset = take(arena, MIB, 4096);
        CHECK_INT(offset, 0);
        arena_free(arena, offset, MIB, 4096);
    }
}

TEST(only_populated_bytes_are_handed_out)
{
    AUTO(arena) struct arena *arena = arena_of(MIB);
    arena_destroy(TAKE(arena));
    struct ds_error err = {0};
    CHECK_OK(arena_create(MIB, &arena, &err));
    uint64_t offset;
    CHECK_STATUS(arena_alloc(arena, 64, 64, &offset), DS_FULL);
    arena_set_populated(arena, 64 * KIB);
    CHECK_STATUS(arena_alloc(arena, 65 * KIB, 4096, &offset), DS_FULL);
    CHECK_INT(take(arena, 60 * KIB, 4096), 0);
    CHECK_STATUS(arena_alloc(arena, 8 * KIB, 4096, &offset), DS_FULL);
    arena_set_populated(arena, MIB);
    CHECK_INT(take(arena, 8 * KIB, 4096), 60 * KIB);
    CHECK_INT(stats_of(arena).largest_free, MIB - 68 * KIB);
}

TEST(a_hole_at_the_end_grows_into_untouched_memory)
{
    AUTO(arena) struct arena *arena = arena_of(MIB);
    (void)take(arena, 4096, 4096);
    uint64_t last = take(arena, 8192, 4096);
    arena_free(arena, last, 8192, 4096);
    CHECK_INT(take(arena, 64 * KIB, 4096), last);
}

TEST(claims_reject_what_is_taken_or_impossible)
{
    AUTO(arena) struct arena *arena = arena_of(MIB);
    CHECK(arena_claim(arena, 128 * KIB, 8192, 64));
    CHECK(!arena_claim(arena, 128 * KIB, 8192, 64));
    CHECK(!arena_claim(arena, 128 * KIB + 4096, 4096, 64));
    CHECK(!arena_claim(arena, 124 * KIB, 8192, 64));
    CHECK(!arena_claim(arena, 124 * KIB, 64 * KIB, 64));
    CHECK(!arena_claim(arena, 128 * KIB, 64, 64));
    CHECK(!arena_claim(arena, 64 * KIB + 64, 8192, 64));
    CHECK(!arena_claim(arena, 4096, HUGE, HUGE));
    CHECK(!arena_claim(arena, MIB - 4096, 8192, 64));
    CHECK(!arena_claim(arena, UINT64_MAX - 63, 64, 64));
    CHECK(!arena_claim(arena, 0, 0, 64));
    CHECK(arena_claim(arena, 128, 128, 64));
    CHECK(!arena_claim(arena, 128, 128, 64));
    CHECK(!arena_claim(arena, 64, 128, 64));
    CHECK(!arena_claim(arena, 0, 64, 64));
    CHECK(arena_claim(arena, 0, 128, 64));
    arena_check(arena);
    arena_free(arena, 128 * KIB, 8192, 64);
    arena_free(arena, 128, 128, 64);
    arena_free(arena, 0, 128, 64);
    CHECK_INT(stats_of(arena).used_bytes, 0);
    arena_check(arena);
}

TEST(an_absurd_size_is_full_not_a_crash)
{
    AUTO(arena) struct arena *arena = arena_of(MIB);
    uint64_t offset;
    CHECK_STATUS(arena_alloc(arena, UINT64_MAX, 64, &offset), DS_FULL);
    CHECK_STATUS(arena_alloc(arena, MIB + 1, 4096, &offset), DS_FULL);
    CHECK_STATUS(arena_alloc(arena, 4096, HUGE * 4, &offset), DS_FULL);
}

/* ---- Random operations against a map of units ---- */

enum { LIVE_MAX = 600 };

#define MODEL_BYTES (4 * MIB)

struct extent {
    uint64_t offset;
    uint64_t size;
    uint64_t alignment;
};

struct model {
    struct extent live[LIVE_MAX];
    uint32_t count;
    uint8_t units[MODEL_BYTES / 64]; /* 1: taken. */
};

static void
model_mark(struct model *model, const struct extent *extent, uint8_t value)
{
    uint64_t end = (extent->offset + extent->size + 63) / 64;
    for (uint64_t unit = extent->offset / 64; unit < end; unit++) {
        CHECK_INT(model->units[unit], !value);
        model->units[unit] = value;
    }
}

static struct extent
random_extent(uint64_t *seed)
{
    static const uint64_t limits[] = {64, 512, 2048, 10000, 60000, 400000};
    uint64_t limit = limits[test_random(seed) % 6];
    uint64_t alignment = test_random(seed) % 8 == 0 ? 4096 : 64;
    if (test_random(seed) % 64 == 0)
        alignment = MIB;
    return (struct extent){.size = 1 + test_random(seed) % limit,
                           .alignment = alignment};
}

static void
model_add(struct model *model, struct arena *arena, uint64_t *seed)
{
    struct extent extent = random_extent(seed);
    if (model->count == LIVE_MAX)
        return;
    if (arena_alloc(arena, extent.size, extent.alignment, &extent.offset) != DS_OK)
        return;
    CHECK(extent.offset + extent.size <= MODEL_BYTES);
    CHECK(extent.offset % extent.alignment == 0);
    model_mark(model, &extent, 1);
    model->live[model->count++] = extent;
}

static void
model_drop(struct model *model, struct arena *arena, uint64_t *seed)
{
    if (model->count == 0)
        return;
    uint32_t index = (uint32_t)(test_random(seed) % model->count);
    struct extent extent = model->live[index];
    model->live[index] = model->live[--model->count];
    model_mark(model, &extent, 0);
    arena_free(arena, extent.offset, extent.size, extent.alignment);
}

/* A new arena that claims what is live must equal the old one, whatever the order. */
static struct arena *
model_rebuild(const struct model *model, struct arena *old)
{
    struct arena *arena = arena_of(MODEL_BYTES);
    for (uint32_t i = model->count; i > 0; i--) {
        const struct extent *e = &model->live[i - 1];
        CHECK(arena_claim(arena, e->offset, e->size, e->alignment));
        CHECK(!arena_claim(arena, e->offset, e->size, e->alignment));
    }
    arena_check(arena);
    CHECK_INT(stats_of(arena).used_bytes, stats_of(old).used_bytes);
    CHECK_INT(stats_of(arena).extent_count, stats_of(old).extent_count);
    arena_destroy(old);
    return arena;
}

TEST(random_use_never_overlaps_and_survives_rebuilding)
{
    for (uint64_t start = 1; start <= 5; start++) {
        uint64_t seed = start;
        AUTO(arena) struct arena *arena = arena_of(MODEL_BYTES);
        struct model *model = calloc(1, sizeof *model);
        DS_ASSERT(model != NULL);
        for (int step = 0; step < 20000; step++) {
            bool add = test_random(&seed) % 16 < (step / 4000 % 2 == 0 ? 9u : 7u);
            if (add)
                model_add(model, arena, &seed);
            else
                model_drop(model, arena, &seed);
            if (step % 64 == 0)
                arena_check(arena);
            if (step % 1000 == 0)
                arena = model_rebuild(model, arena);
        }
        while (model->count > 0)
            model_drop(model, arena, &seed);
        CHECK_INT(stats_of(arena).largest_free, MODEL_BYTES);
        free(model);
    }
}

TEST_MAIN(RUN(small_sizes_share_a_page), RUN(runs_waste_little),
          RUN(large_sizes_are_page_aligned_and_exact),
          RUN(huge_alignment_leaves_the_hole_usable), RUN(neighbours_merge_on_free),
          RUN(best_fit_takes_the_smallest_hole), RUN(touched_memory_is_preferred),
          RUN(only_populated_bytes_are_handed_out),
          RUN(a_hole_at_the_end_grows_into_untouched_memory),
          RUN(claims_reject_what_is_taken_or_impossible),
          RUN(an_absurd_size_is_full_not_a_crash),
          RUN(random_use_never_overlaps_and_survives_rebuilding))
