#include "store/holds.h"

#include "base/check.h"
#include "base/list.h"
#include "store/layout.h"

#include <stdlib.h>

struct hold {
    struct hmap_node node;
    uint64_t offset;
    uint64_t count;
};

void
holds_init(struct holds *holds)
{
    *holds = (struct holds){0};
    hmap_init(&holds->map);
}

void
holds_fini(struct holds *holds)
{
    HMAP_FOREACH (node, &holds->map)
        free(CONTAINER_OF(node, struct hold, node));
    hmap_fini(&holds->map);
    holds->unnamed = 0;
}

static uint64_t
hash_of(uint64_t offset)
{
    uint64_t mixed = offset / EXTENT_UNIT_BYTES * 0x9e3779b97f4a7c15u;
    return mixed ^ mixed >> 32;
}

static struct hold *
find(const struct holds *holds, uint64_t offset)
{
    struct hmap_node *node = hmap_chain(&holds->map, hash_of(offset));
    while (node != NULL && CONTAINER_OF(node, struct hold, node)->offset != offset)
        node = node->next;
    return node == NULL ? NULL : CONTAINER_OF(node, struct hold, node);
}

void
holds_add(struct holds *holds, uint64_t offset)
{
    struct hold *hold = find(holds, offset);
    if (hold != NULL) {
        hold->count++;
        return;
    }
    hold = malloc(sizeof *hold);
    if (hold == NULL) {
        holds->unnamed++;
        return;
    }
    *hold = (struct hold){.offset = offset, .count = 1};
    if (hmap_insert(&holds->map, &hold->node, hash_of(offset)))
        return;
    free(hold);
    holds->unnamed++;
}

void
holds_remove(struct holds *holds, uint64_t offset)
{
    struct hold *hold = find(holds, offset);
    if (hold == NULL) {
        DS_ASSERT(holds->unnamed > 0);
        holds->unnamed--;
        return;
    }
    DS_ASSERT(hold->count > 0);
    if (--hold->count > 0)
        return;
    hmap_remove(&holds->map, &hold->node);
    free(hold);
}

void
holds_visit(const struct holds *holds, void (*fn)(uint64_t unit, void *arg), void *arg)
{
    HMAP_FOREACH (node, &holds->map)
        fn(CONTAINER_OF(node, struct hold, node)->offset / EXTENT_UNIT_BYTES, arg);
}
