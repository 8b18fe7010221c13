#include "base/hmap.h"

#include "base/check.h"

#include <stdlib.h>

enum { BUCKETS_MIN = 16 };

void
hmap_fini(struct hmap *map)
{
    free(map->buckets);
    hmap_init(map);
}

static bool
resize(struct hmap *map, size_t bucket_count)
{
    DS_ASSERT((bucket_count & (bucket_count - 1)) == 0);
    struct hmap_node **buckets = calloc(bucket_count, sizeof(struct hmap_node *));
    if (buckets == NULL)
        return false;
    for (size_t i = 0; i < map->bucket_count; i++) {
        struct hmap_node *node = map->buckets[i];
        while (node != NULL) {
            struct hmap_node *next = node->next;
            struct hmap_node **head = &buckets[node->hash & (bucket_count - 1)];
            node->next = *head;
            *head = node;
            node = next;
        }
    }
    free(map->buckets);
    map->buckets = buckets;
    map->bucket_count = bucket_count;
    return true;
}

bool
hmap_reserve(struct hmap *map, size_t count)
{
    size_t wanted = map->bucket_count == 0 ? BUCKETS_MIN : map->bucket_count;
    while (wanted < count)
        wanted *= 2;
    return wanted == map->bucket_count || resize(map, wanted);
}

bool
hmap_insert(struct hmap *map, struct hmap_node *node, uint64_t hash)
{
    if (!hmap_reserve(map, map->count + 1))
        return false;
    node->hash = hash;
    struct hmap_node **head = &map->buckets[hash & (map->bucket_count - 1)];
    node->next = *head;
    *head = node;
    map->count++;
    return true;
}

void
hmap_remove(struct hmap *map, struct hmap_node *node)
{
    DS_ASSERT(map->count > 0);
    struct hmap_node **link = &map->buckets[node->hash & (map->bucket_count - 1)];
    while (*link != node) {
        DS_ASSERT(*link != NULL);
        link = &(*link)->next;
    }
    *link = node->next;
    node->next = NULL;
    map->count--;
}

struct hmap_node *
hmap_chain(const struct hmap *map, uint64_t hash)
{
    return map->bucket_count == 0 ? NULL : map->buckets[hash & (map->bucket_count - 1)];
}

static struct hmap_node *
first_from(const struct hmap *map, size_t bucket)
{
    for (size_t i = bucket; i < map->bucket_count; i++) {
        if (map->buckets[i] != NULL)
            return map->buckets[i];
    }
    return NULL;
}

struct hmap_node *
hmap_first(const struct hmap *map)
{
    return first_from(map, 0);
}

struct hmap_node *
hmap_next(const struct hmap *map, const struct hmap_node *node)
{
    if (node == NULL)
        return NULL;
    if (node->next != NULL)
        return node->next;
    return first_from(map, (node->hash & (map->bucket_count - 1)) + 1);
}
