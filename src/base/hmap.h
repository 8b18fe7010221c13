/* An intrusive chained hash map. Elements carry a struct hmap_node; the caller hashes
 * and compares. Growing allocates; everything else does not.
 * Owner: whoever holds it; no locking. */
#ifndef BASE_HMAP_H
#define BASE_HMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hmap_node {
    struct hmap_node *next;
    uint64_t hash;
};

/* Invariants: bucket_count is a power of two or 0; every node of bucket b has
 * hash & (bucket_count - 1) == b. */
struct hmap {
    struct hmap_node **buckets;
    size_t bucket_count;
    size_t count;
};

/* Visits nodes in no particular order; the body may remove `node`, not insert. */
#define HMAP_FOREACH(node, map)                                \
    for (struct hmap_node *node = hmap_first(map),             \
                          *node##_next = hmap_next(map, node); \
         node != NULL; node = node##_next, node##_next = hmap_next(map, node))

static inline void
hmap_init(struct hmap *map)
{
    *map = (struct hmap){0};
}

/* Frees the buckets, not the elements. */
void hmap_fini(struct hmap *map);

/* Makes room for `count` elements without further allocation; false when out of
 * memory, with the map unchanged. */
bool hmap_reserve(struct hmap *map, size_t count);

/* Takes no ownership. False when out of memory, with the map unchanged. */
bool hmap_insert(struct hmap *map, struct hmap_node *node, uint64_t hash);

/* The node must be in the map. */
void hmap_remove(struct hmap *map, struct hmap_node *node);

/* First node of the chain that `hash` falls into; walk with node->next and compare
 * node->hash, then the key. NULL when empty. */
struct hmap_node *hmap_chain(const struct hmap *map, uint64_t hash);

struct hmap_node *hmap_first(const struct hmap *map);
struct hmap_node *hmap_next(const struct hmap *map, const struct hmap_node *node);

#endif
