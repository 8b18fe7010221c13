#include "store/unit_map.h"

#include "base/check.h"
#include "store/layout.h"

#include <stdlib.h>

bool
unit_map_init(struct unit_map *map, uint64_t arena_bytes)
{
    uint64_t units = arena_bytes / EXTENT_UNIT_BYTES;
    uint64_t *words = calloc(units / 64 + 1, sizeof *words);
    if (words == NULL)
        return false;
    *map = (struct unit_map){.words = words, .units = units};
    return true;
}

void
unit_map_fini(struct unit_map *map)
{
    free(map->words);
    *map = (struct unit_map){0};
}

/* The bits of word `word` that [first, end) covers. */
static uint64_t
mask_of(uint64_t word, uint64_t first, uint64_t end)
{
    uint64_t mask = UINT64_MAX;
    if (word == first / 64)
        mask &= UINT64_MAX << (first % 64);
    if (word == (end - 1) / 64)
        mask &= UINT64_MAX >> (63 - (end - 1) % 64);
    return mask;
}

static uint64_t
units_end(const struct unit_map *map, uint64_t offset, uint64_t size)
{
    uint64_t end = (offset + size + EXTENT_UNIT_BYTES - 1) / EXTENT_UNIT_BYTES;
    DS_ASSERT(size > 0);
    DS_ASSERT(end <= map->units);
    return end;
}

bool
unit_map_set_range(struct unit_map *map, uint64_t offset, uint64_t size)
{
    uint64_t first = offset / EXTENT_UNIT_BYTES;
    uint64_t end = units_end(map, offset, size);
    uint64_t before = 0;
    for (uint64_t word = first / 64; word <= (end - 1) / 64; word++) {
        uint64_t mask = mask_of(word, first, end);
        before |= map->words[word] & mask;
        map->words[word] |= mask;
    }
    return before != 0;
}

bool
unit_map_any_in_range(const struct unit_map *map, uint64_t offset, uint64_t size)
{
    uint64_t first = offset / EXTENT_UNIT_BYTES;
    uint64_t end = units_end(map, offset, size);
    uint64_t any = 0;
    for (uint64_t word = first / 64; word <= (end - 1) / 64; word++)
        any |= map->words[word] & mask_of(word, first, end);
    return any != 0;
}
