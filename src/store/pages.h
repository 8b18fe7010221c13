/* Extents of whole pages: best fit, lowest address first, merged on free.
 *
 *   0            touched                 frontier     untouched      populated    total
 *   +------+------+--------+------+------+------------------------------+-----------+
 *   | used | free | run    | free | used |                              | not there |
 *   +------+------+--------+------+------+------------------------------+-----------+
 *
 * Below the frontier every page belongs to exactly one extent, described by the entry
 * of its first page; two free extents never touch. Free extents stand in a tree by
 * {pages, address}. Above the frontier nothing was ever handed out: those pages are
 * taken only when no hole below fits, since touching memory for the first time is what
 * is slow. Private to arena.c. Owner: loop thread. */
#ifndef STORE_PAGES_H
#define STORE_PAGES_H

#include "store/head_map.h"

#include <stdbool.h>
#include <stdint.h>

#define PAGE_BYTES 4096u
#define PAGE_NONE  UINT32_MAX

enum page_kind { PAGE_FREE = 0, PAGE_USED = 1, PAGE_RUN = 2 };

/* One page; only the entry of an extent's first page means anything. Links are to other
 * entries by page number, so that the whole array may stay untouched zero memory. */
struct page {
    uint8_t kind;       /* enum page_kind. */
    uint8_t cell_units; /* PAGE_RUN: bytes of a cell / 64. */
    uint16_t cells;     /* PAGE_RUN: how many cells it has. */
    uint32_t count;     /* Pages of the extent. */
    uint32_t left;      /* PAGE_FREE: tree. PAGE_RUN: previous run with a free cell. */
    uint32_t right;     /* PAGE_FREE: tree. PAGE_RUN: next run with a free cell. */
    uint64_t taken;     /* PAGE_RUN: one bit per cell. */
};

struct pages {
    struct page *entries;
    struct head_map heads; /* Bit set: an extent starts at this page. */
    uint32_t total;
    uint32_t populated;
    uint32_t frontier;
    uint32_t root; /* Of the tree of free extents. */
    uint32_t used; /* Pages of extents that are not free. */
};

bool pages_init(struct pages *pages, uint32_t total);
void pages_fini(struct pages *pages);

/* Only grows. */
void pages_set_populated(struct pages *pages, uint32_t populated);

/* Take `count` pages at a multiple of `alignment` (a power of two) as one extent of
 * kind PAGE_USED. False if there is no such hole. */
bool pages_take(struct pages *pages, uint32_t count, uint32_t alignment, uint32_t *out);

/* Give back the extent that starts at `first`. */
void pages_give(struct pages *pages, uint32_t first);

/* Take exactly these pages; false unless all of them are free. */
bool pages_claim(struct pages *pages, uint32_t first, uint32_t count);

/* The extent that `page` belongs to, by its first page; PAGE_NONE above the frontier.
 */
uint32_t pages_extent_of(const struct pages *pages, uint32_t page);

/* Pages of the largest extent that pages_take() could return. */
uint32_t pages_largest_free(const struct pages *pages);

void pages_check(const struct pages *pages);

#endif
