/* One bit for each 64-byte unit of the arena. Made of zero memory that stays untouched
 * where no bit is ever set. */
#ifndef STORE_UNIT_MAP_H
#define STORE_UNIT_MAP_H

#include <stdbool.h>
#include <stdint.h>

struct unit_map {
    uint64_t *words;
    uint64_t units;
};

/* False when out of memory. */
bool unit_map_init(struct unit_map *map, uint64_t arena_bytes);
void unit_map_fini(struct unit_map *map);

/* Set all bits of [offset, offset + size), in bytes of the arena, which must lie
 * inside. True if one of them was set before. */
bool unit_map_set_range(struct unit_map *map, uint64_t offset, uint64_t size);
bool unit_map_any_in_range(const struct unit_map *map, uint64_t offset, uint64_t size);

static inline bool
unit_map_test(const struct unit_map *map, uint64_t unit)
{
    return (map->words[unit / 64] >> (unit % 64) & 1) != 0;
}

static inline void
unit_map_set(struct unit_map *map, uint64_t unit)
{
    map->words[unit / 64] |= 1ull << (unit % 64);
}

static inline void
unit_map_clear(struct unit_map *map, uint64_t unit)
{
    map->words[unit / 64] &= ~(1ull << (unit % 64));
}

#endif
