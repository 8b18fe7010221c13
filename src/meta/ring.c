#include "meta/ring.h"

#include "base/check.h"
#include "base/status.h"

#include <stdlib.h>
#include <xxhash.h>

struct point {
    uint32_t position;
    uint32_t node;
};

/* Invariant: points are in the order of their positions; of those at one position, the
 * first counts. */
struct ring {
    size_t count;
    struct point points[];
};

static int
compare_points(const void *left, const void *right)
{
    const struct point *a = left, *b = right;
    if (a->position != b->position)
        return a->position < b->position ? -1 : 1;
    return a->node < b->node ? -1 : a->node > b->node;
}

enum ds_status
ring_create(const uint32_t *nodes, size_t count, struct ring **out,
            struct ds_error *err)
{
    size_t points = count * RING_POINTS_PER_MEMBER;
    struct ring *ring = calloc(1, sizeof *ring + points * sizeof ring->points[0]);
    if (ring == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a ring of %zu nodes",
                       count);
    for (size_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < RING_POINTS_PER_MEMBER; j++) {
            uint32_t name[2] = {nodes[i], j};
            uint32_t position = (uint32_t)(XXH3_64bits(name, sizeof name) >> 32);
            ring->points[ring->count++] = (struct point){position, nodes[i]};
        }
    }
    qsort(ring->points, ring->count, sizeof ring->points[0], compare_points);
    *out = ring;
    return DS_OK;
}

void
ring_destroy(struct ring *ring)
{
    free(ring);
}

uint32_t
ring_position(struct ds_slice key)
{
    return (uint32_t)(XXH3_64bits(key.data, key.len) >> 32);
}

uint32_t
ring_owner(const struct ring *ring, uint32_t position)
{
    if (ring->count == 0)
        return 0;
    size_t low = 0, high = ring->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ring->points[middle].position < position)
            low = middle + 1;
        else
            high = middle;
    }
    return ring->points[low == ring->count ? 0 : low].node;
}

/* The last point that still belongs to the run of points of one node which `at` is in. */
static size_t
end_of_run(const struct ring *ring, size_t at)
{
    while (at + 1 < ring->count && ring->points[at + 1].node == ring->points[at].node)
        at++;
    return at;
}

size_t
ring_ranges(const struct ring *ring, uint32_t node, struct ring_range *out, size_t max)
{
    size_t count = 0;
    for (size_t i = 0; i < ring->count; i++) {
        if (ring->points[i].node != node)
            continue;
        size_t before = i == 0 ? ring->count - 1 : i - 1;
        i = end_of_run(ring, i);
        struct ring_range range = {.after = ring->points[before].position,
                                   .upto = ring->points[i].position};
        DS_ASSERT(count < RING_POINTS_PER_MEMBER);
        if (count < max)
            out[count] = range;
        count++;
    }
    return count;
}
