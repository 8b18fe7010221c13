#include "store/head_map.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

enum { WORD_BITS = 64 };

static uint64_t
words_for(uint64_t bits)
{
    return (bits + WORD_BITS - 1) / WORD_BITS;
}

static uint32_t
highest_bit(uint64_t word)
{
    DS_ASSERT(word != 0);
    return (uint32_t)(WORD_BITS - 1 - __builtin_clzll(word));
}

bool
head_map_init(struct head_map *map, uint32_t bit_count)
{
    DS_ASSERT(bit_count > 0);
    *map = (struct head_map){.bit_count = bit_count};
    uint64_t bits = bit_count;
    for (int i = 0; i < HEAD_MAP_LEVELS; i++) {
        bits = words_for(bits);
        map->level[i] = calloc(bits, sizeof(uint64_t));
        if (map->level[i] == NULL) {
            head_map_fini(map);
            return false;
        }
    }
    DS_ASSERT(bits == 1);
    return true;
}

void
head_map_fini(struct head_map *map)
{
    for (int i = 0; i < HEAD_MAP_LEVELS; i++)
        free(map->level[i]);
    memset(map, 0, sizeof *map);
}

void
head_map_set(struct head_map *map, uint32_t bit)
{
    DS_ASSERT(bit < map->bit_count);
    for (int i = 0; i < HEAD_MAP_LEVELS; i++) {
        uint64_t *word = &map->level[i][bit / WORD_BITS];
        uint64_t before = *word;
        *word = before | 1ull << (bit % WORD_BITS);
        if (before != 0)
            return;
        bit /= WORD_BITS;
    }
}

void
head_map_clear(struct head_map *map, uint32_t bit)
{
    DS_ASSERT(bit < map->bit_count);
    for (int i = 0; i < HEAD_MAP_LEVELS; i++) {
        uint64_t *word = &map->level[i][bit / WORD_BITS];
        *word &= ~(1ull << (bit % WORD_BITS));
        if (*word != 0)
            return;
        bit /= WORD_BITS;
    }
}

bool
head_map_test(const struct head_map *map, uint32_t bit)
{
    DS_ASSERT(bit < map->bit_count);
    return (map->level[0][bit / WORD_BITS] >> (bit % WORD_BITS) & 1) != 0;
}

/* The highest bit of level 0 below bit `index` of level `level`, which is set. */
static uint32_t
descend(const struct head_map *map, int level, uint32_t index)
{
    while (level > 0) {
        level--;
        index = index * WORD_BITS + highest_bit(map->level[level][index]);
    }
    return index;
}

uint32_t
head_map_at_or_before(const struct head_map *map, uint32_t bit)
{
    DS_ASSERT(bit < map->bit_count);
    uint32_t index = bit / WORD_BITS;
    uint64_t mask = UINT64_MAX >> (WORD_BITS - 1 - bit % WORD_BITS);
    for (int i = 0; i < HEAD_MAP_LEVELS; i++) {
        uint64_t candidates = map->level[i][index] & mask;
        if (candidates != 0)
            return descend(map, i, index * WORD_BITS + highest_bit(candidates));
        /* One level up, only words strictly before this one count. */
        mask = (1ull << (index % WORD_BITS)) - 1;
        index /= WORD_BITS;
    }
    return HEAD_MAP_NONE;
}
