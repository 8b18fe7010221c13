/* A bitmap that answers "which set bit is at or before this one" in a few steps: each
 * level has one bit for every word of the level below that is not zero.
 * Owner: whoever holds it. */
#ifndef STORE_HEAD_MAP_H
#define STORE_HEAD_MAP_H

#include <stdbool.h>
#include <stdint.h>

enum { HEAD_MAP_LEVELS = 6 }; /* 64^6 bits: more than a uint32_t can count. */

#define HEAD_MAP_NONE UINT32_MAX

/* Invariant: bit i of level n + 1 is set exactly when word i of level n is not 0. */
struct head_map {
    uint64_t *level[HEAD_MAP_LEVELS];
    uint32_t bit_count;
};

/* All bits clear. False when out of memory, with nothing to free. */
bool head_map_init(struct head_map *map, uint32_t bit_count);
void head_map_fini(struct head_map *map);

void head_map_set(struct head_map *map, uint32_t bit);
void head_map_clear(struct head_map *map, uint32_t bit);
bool head_map_test(const struct head_map *map, uint32_t bit);

/* The highest set bit at or below `bit`, or HEAD_MAP_NONE. */
uint32_t head_map_at_or_before(const struct head_map *map, uint32_t bit);

#endif
