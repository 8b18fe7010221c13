#include "base/hmap.h"

#include "base/list.h"
#include "test.h"

struct element {
    struct hmap_node node;
    uint64_t key;
};

static struct element *
find(const struct hmap *map, uint64_t key)
{
    struct hmap_node *node = hmap_chain(map, key * 31);
    for (; node != NULL; node = node->next) {
        struct element *e = CONTAINER_OF(node, struct element, node);
        if (e->key == key)
            return e;
    }
    return NULL;
}

TEST(elements_are_found_until_removed)
{
    enum { N = 1000 };
    static struct element elements[N];
    struct hmap map;
    hmap_init(&map);
    for (uint64_t i = 0; i < N; i++) {
        elements[i].key = i;
        CHECK(hmap_insert(&map, &elements[i].node, i * 31));
    }
    for (uint64_t i = 0; i < N; i += 2)
        hmap_remove(&map, &elements[i].node);
    for (uint64_t i = 0; i < N; i++)
        CHECK(find(&map, i) == (i % 2 == 0 ? NULL : &elements[i]));
    CHECK_INT(map.count, N / 2);
    hmap_fini(&map);
}

TEST(iteration_visits_each_element_once_and_survives_removal)
{
    enum { N = 100 };
    static struct element elements[N];
    struct hmap map;
    hmap_init(&map);
    for (uint64_t i = 0; i < N; i++) {
        elements[i].key = i;
        CHECK(hmap_insert(&map, &elements[i].node, i % 7)); /* Long chains. */
    }
    size_t visited = 0;
    HMAP_FOREACH (node, &map) {
        hmap_remove(&map, node);
        visited++;
    }
    CHECK_INT(visited, N);
    CHECK_INT(map.count, 0);
    hmap_fini(&map);
}

TEST(empty_map_has_nothing)
{
    struct hmap map;
    hmap_init(&map);
    CHECK(hmap_chain(&map, 1) == NULL);
    CHECK(hmap_first(&map) == NULL);
    hmap_fini(&map);
}

TEST_MAIN(RUN(elements_are_found_until_removed),
          RUN(iteration_visits_each_element_once_and_survives_removal),
          RUN(empty_map_has_nothing))
