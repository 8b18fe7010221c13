#include "meta/ring.h"

#include "base/slice.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

enum { MANY = 100, KEYS = 20000 };

static struct ring *
open_ring(const uint32_t *nodes, size_t count)
{
    struct ring *ring = NULL;
    CHECK_OK(ring_create(nodes, count, &ring, NULL));
    return ring;
}

static uint32_t
position_of(int key)
{
    char text[32];
    snprintf(text, sizeof text, "key-%d", key);
    return ring_position(slice_of_text(text));
}

static void
fill_nodes(uint32_t nodes[MANY])
{
    for (uint32_t i = 0; i < MANY; i++)
        nodes[i] = 1000 + 7 * i;
}

TEST(nobody_owns_anything_in_an_empty_ring)
{
    struct ring *ring = open_ring(NULL, 0);
    CHECK_INT(ring_owner(ring, 0), 0);
    CHECK_INT(ring_ranges(ring, 1, NULL, 0), 0);
    ring_destroy(ring);
}

TEST(one_node_owns_all_in_one_range)
{
    uint32_t node = 9;
    struct ring_range range;
    struct ring *ring = open_ring(&node, 1);
    CHECK_INT(ring_owner(ring, 0), 9);
    CHECK_INT(ring_owner(ring, UINT32_MAX), 9);
    CHECK_INT(ring_ranges(ring, 9, &range, 1), 1);
    CHECK_INT(range.after, range.upto);
    ring_destroy(ring);
}

TEST(shares_are_about_equal_and_the_order_of_nodes_does_not_matter)
{
    uint32_t nodes[MANY], backwards[MANY], counts[MANY] = {0};
    fill_nodes(nodes);
    for (size_t i = 0; i < MANY; i++)
        backwards[i] = nodes[MANY - 1 - i];
    struct ring *ring = open_ring(nodes, MANY), *other = open_ring(backwards, MANY);
    for (int i = 0; i < KEYS; i++) {
        uint32_t owner = ring_owner(ring, position_of(i));
        CHECK_INT(ring_owner(other, position_of(i)), owner);
        counts[(owner - 1000) / 7]++;
    }
    for (size_t i = 0; i < MANY; i++)
        CHECK(counts[i] > KEYS / MANY / 2 && counts[i] < KEYS / MANY * 2);
    ring_destroy(ring);
    ring_destroy(other);
}

TEST(who_comes_takes_a_share_and_nothing_else_moves)
{
    uint32_t nodes[MANY];
    int moved = 0;
    fill_nodes(nodes);
    struct ring *before = open_ring(nodes, MANY - 1), *after = open_ring(nodes, MANY);
    for (int i = 0; i < KEYS; i++) {
        uint32_t owner = ring_owner(after, position_of(i));
        if (owner == ring_owner(before, position_of(i)))
            continue;
        CHECK_INT(owner, nodes[MANY - 1]);
        moved++;
    }
    CHECK(moved > 0 && moved < KEYS / MANY * 2);
    ring_destroy(before);
    ring_destroy(after);
}

/* (after, upto], around the end. */
static bool
is_in(struct ring_range range, uint32_t position)
{
    return position - range.after - 1 < range.upto - range.after ||
           range.after == range.upto;
}

TEST(ranges_are_what_a_node_owns)
{
    uint32_t nodes[] = {4, 5, 6};
    struct ring *ring = open_ring(nodes, 3);
    for (size_t i = 0; i < 3; i++) {
        struct ring_range ranges[RING_POINTS_PER_MEMBER];
        size_t count = ring_ranges(ring, nodes[i], ranges, RING_POINTS_PER_MEMBER);
        CHECK(count > 0 && count <= RING_POINTS_PER_MEMBER);
        for (int key = 0; key < 2000; key++) {
            uint32_t position = position_of(key);
            bool owned = false;
            for (size_t j = 0; j < count; j++)
                owned = owned || is_in(ranges[j], position);
            CHECK_INT(owned, ring_owner(ring, position) == nodes[i]);
        }
    }
    ring_destroy(ring);
}

TEST_MAIN(RUN(nobody_owns_anything_in_an_empty_ring),
          RUN(one_node_owns_all_in_one_range),
          RUN(shares_are_about_equal_and_the_order_of_nodes_does_not_matter),
          RUN(who_comes_takes_a_share_and_nothing_else_moves),
          RUN(ranges_are_what_a_node_owns))
