#include "store/arena.h"

#include "base/auto.h"
#include "base/check.h"
#include "base/numeric.h"
#include "base/status.h"
#include "store/pages.h"

#include <stdlib.h>

#define UNIT_BYTES 64ull
static_assert(PAGE_BYTES == 64 * UNIT_BYTES, "a page has PAGE_UNITS units");

enum {
    CELL_UNITS_MAX = 32, /* Larger than 2 KiB: whole pages. */
    PAGE_UNITS = 64,
    RUN_PAGES_MAX = 8,
    RUN_CELLS_MAX = 64, /* One word of bits. */
};

/* How runs of one cell size look. A run is aligned to its size, so that the address of
 * a cell says where its run begins. */
struct run_class {
    uint32_t pages;
    uint32_t cells;
    uint32_t partial; /* First run with a free cell, or PAGE_NONE. */
};

/* Owner: loop thread. */
struct arena {
    struct pages pages;
    struct run_class classes[CELL_UNITS_MAX + 1]; /* By units of a cell; [0] unused. */
    uint64_t run_pages;                           /* Pages that runs occupy, */
    uint64_t cell_bytes;                          /* and bytes of their taken cells. */
    uint64_t extent_count;
};

/* The smallest run that wastes at most a sixteenth, else the one that wastes least. */
static struct run_class
class_for(uint32_t units)
{
    struct run_class best = {.partial = PAGE_NONE};
    for (uint32_t run_pages = 1; run_pages <= RUN_PAGES_MAX; run_pages *= 2) {
        uint32_t run_units = run_pages * PAGE_UNITS;
        uint32_t cells = run_units / units;
        if (cells > RUN_CELLS_MAX)
            break;
        uint32_t wasted = run_units - cells * units;
        uint32_t best_wasted = best.pages * PAGE_UNITS - best.cells * units;
        if (best.pages == 0 || wasted * best.pages < best_wasted * run_pages) {
            best.pages = run_pages;
            best.cells = cells;
        }
        if (wasted * 16 <= run_units)
            break;
    }
    DS_ASSERT(best.pages > 0);
    return best;
}

DEFINE_AUTO(arena, struct arena, arena_destroy)

enum ds_status
arena_create(uint64_t total_bytes, struct arena **out, struct ds_error *err)
{
    DS_ASSERT(out != NULL);
    DS_ASSERT(total_bytes % PAGE_BYTES == 0);
    DS_ASSERT(total_bytes > 0);
    if (total_bytes / PAGE_BYTES >= PAGE_NONE)
        return ds_fail(err, DS_INVALID,
                       "arena of %ju bytes: the largest possible is 16 TiB; "
                       "choose a smaller --shared_memory_size_mb",
                       (uintmax_t)total_bytes);
    AUTO(arena) struct arena *arena = calloc(1, sizeof *arena);
    if (arena == NULL ||
        !pages_init(&arena->pages, (uint32_t)(total_bytes / PAGE_BYTES)))
        return ds_fail(err, DS_NO_MEMORY,
                       "no memory for the bookkeeping of an arena of %ju bytes",
                       (uintmax_t)total_bytes);
    for (uint32_t units = 1; units <= CELL_UNITS_MAX; units++)
        arena->classes[units] = class_for(units);
    *out = TAKE(arena);
    return DS_OK;
}

void
arena_destroy(struct arena *arena)
{
    if (arena == NULL)
        return;
    pages_fini(&arena->pages);
    free(arena);
}

void
arena_set_populated(struct arena *arena, uint64_t populated_bytes)
{
    pages_set_populated(&arena->pages, (uint32_t)(populated_bytes / PAGE_BYTES));
}

/* ---- Runs of cells ---- */

static bool
is_cell(uint64_t size, uint64_t alignment)
{
    return size <= CELL_UNITS_MAX * UNIT_BYTES && alignment <= UNIT_BYTES;
}

static uint32_t
units_of(uint64_t size)
{
    return (uint32_t)((size + UNIT_BYTES - 1) / UNIT_BYTES);
}

static struct page *
entry_of(struct arena *arena, uint32_t page)
{
    return &arena->pages.entries[page];
}

static uint64_t
all_cells(uint32_t cells)
{
    return cells == RUN_CELLS_MAX ? UINT64_MAX : (1ull << cells) - 1;
}

static void
partial_push(struct arena *arena, struct run_class *class, uint32_t run)
{
    struct page *entry = entry_of(arena, run);
    entry->left = PAGE_NONE;
    entry->right = class->partial;
    if (class->partial != PAGE_NONE)
        entry_of(arena, class->partial)->left = run;
    class->partial = run;
}

static void
partial_remove(struct arena *arena, struct run_class *class, uint32_t run)
{
    struct page *entry = entry_of(arena, run);
    if (entry->left != PAGE_NONE)
        entry_of(arena, entry->left)->right = entry->right;
    else
        class->partial = entry->right;
    if (entry->right != PAGE_NONE)
        entry_of(arena, entry->right)->left = entry->left;
}

/* Turn an extent that was just taken into a run without cells in use. */
static void
run_begin(struct arena *arena, uint32_t run, uint32_t units)
{
    struct run_class *class = &arena->classes[units];
    struct page *entry = entry_of(arena, run);
    DS_ASSERT(entry->kind == PAGE_USED);
    DS_ASSERT(entry->count == class->pages);
    entry->kind = PAGE_RUN;
    entry->cell_units = (uint8_t)units;
    entry->cells = (uint16_t) class->cells;
    entry->taken = 0;
    arena->run_pages += class->pages;
    partial_push(arena, class, run);
}

static void
cell_take(struct arena *arena, uint32_t run, uint32_t cell)
{
    struct page *entry = entry_of(arena, run);
    DS_ASSERT((entry->taken >> cell & 1) == 0);
    entry->taken |= 1ull << cell;
    if (entry->taken == all_cells(entry->cells))
        partial_remove(arena, &arena->classes[entry->cell_units], run);
    arena->cell_bytes += entry->cell_units * UNIT_BYTES;
    arena->extent_count++;
}

static enum ds_status
cell_alloc(struct arena *arena, uint32_t units, uint64_t *out_offset)
{
    struct run_class *class = &arena->classes[units];
    if (class->partial == PAGE_NONE) {
        uint32_t fresh;
        if (!pages_take(&arena->pages, class->pages, class->pages, &fresh))
            return DS_FULL;
        run_begin(arena, fresh, units);
    }
    uint32_t run = class->partial;
    uint64_t taken = entry_of(arena, run)->taken;
    DS_ASSERT(taken != all_cells(class->cells));
    uint32_t cell = (uint32_t)__builtin_ctzll(~taken);
    cell_take(arena, run, cell);
    *out_offset = run * (uint64_t)PAGE_BYTES + cell * UNIT_BYTES * units;
    return DS_OK;
}

/* A cell's run and number, from its address alone. */
static uint32_t
cell_place(const struct run_class *class, uint64_t offset, uint32_t *out_run_units)
{
    uint32_t run = (uint32_t)(offset / PAGE_BYTES) & ~(class->pages - 1);
    *out_run_units = (uint32_t)((offset - run * (uint64_t)PAGE_BYTES) / UNIT_BYTES);
    return run;
}

static void
cell_free(struct arena *arena, uint64_t offset, uint32_t units)
{
    struct run_class *class = &arena->classes[units];
    uint32_t run_units;
    uint32_t run = cell_place(class, offset, &run_units);
    uint32_t cell = run_units / units;
    struct page *entry = entry_of(arena, run);
    DS_ASSERT(entry->kind == PAGE_RUN);
    DS_ASSERT(entry->cell_units == units);
    DS_ASSERT(run_units % units == 0);
    DS_ASSERT((entry->taken >> cell & 1) != 0);

    bool was_full = entry->taken == all_cells(entry->cells);
    entry->taken &= ~(1ull << cell);
    arena->cell_bytes -= units * UNIT_BYTES;
    arena->extent_count--;
    if (was_full)
        partial_push(arena, class, run);
    if (entry->taken != 0)
        return;
    partial_remove(arena, class, run);
    arena->run_pages -= class->pages;
    pages_give(&arena->pages, run);
}

static bool
cell_claim(struct arena *arena, uint64_t offset, uint32_t units)
{
    struct run_class *class = &arena->classes[units];
    uint32_t run_units;
    uint32_t run = cell_place(class, offset, &run_units);
    uint32_t cell = run_units / units;
    if (offset % UNIT_BYTES != 0 || run_units % units != 0 || cell >= class->cells)
        return false;
    bool exists = pages_extent_of(&arena->pages, run) == run &&
                  entry_of(arena, run)->kind == PAGE_RUN;
    if (!exists) {
        if (!pages_claim(&arena->pages, run, class->pages))
            return false;
        run_begin(arena, run, units);
    }
    struct page *entry = entry_of(arena, run);
    if (entry->cell_units != units || (entry->taken >> cell & 1) != 0)
        return false;
    cell_take(arena, run, cell);
    return true;
}

/* ---- Allocations ---- */

static uint32_t
page_count(uint64_t size)
{
    return (uint32_t)((size + PAGE_BYTES - 1) / PAGE_BYTES);
}

enum ds_status
arena_alloc(struct arena *arena, uint64_t size, uint64_t alignment,
            uint64_t *out_offset)
{
    DS_ASSERT(size > 0);
    DS_ASSERT(is_power_of_two(alignment));
    if (size > arena->pages.total * (uint64_t)PAGE_BYTES)
        return DS_FULL;
    if (is_cell(size, alignment))
        return cell_alloc(arena, units_of(size), out_offset);
    uint32_t first;
    uint64_t aligned_pages = max_u64(alignment / PAGE_BYTES, 1);
    if (aligned_pages > arena->pages.total ||
        !pages_take(&arena->pages, page_count(size), (uint32_t)aligned_pages, &first))
        return DS_FULL;
    arena->extent_count++;
    *out_offset = first * (uint64_t)PAGE_BYTES;
    return DS_OK;
}

void
arena_free(struct arena *arena, uint64_t offset, uint64_t size, uint64_t alignment)
{
    DS_ASSERT(size > 0);
    DS_ASSERT(arena->extent_count > 0);
    if (is_cell(size, alignment)) {
        cell_free(arena, offset, units_of(size));
        return;
    }
    DS_ASSERT(offset % PAGE_BYTES == 0);
    uint32_t first = (uint32_t)(offset / PAGE_BYTES);
    DS_ASSERT(entry_of(arena, first)->kind == PAGE_USED);
    DS_ASSERT(entry_of(arena, first)->count == page_count(size));
    arena->extent_count--;
    pages_give(&arena->pages, first);
}

bool
arena_claim(struct arena *arena, uint64_t offset, uint64_t size, uint64_t alignment)
{
    uint64_t total_bytes = arena->pages.total * (uint64_t)PAGE_BYTES;
    if (size == 0 || size > total_bytes || offset > total_bytes - size)
        return false;
    if (is_cell(size, alignment))
        return cell_claim(arena, offset, units_of(size));
    if (offset % max_u64(alignment, PAGE_BYTES) != 0)
        return false;
    if (!pages_claim(&arena->pages, (uint32_t)(offset / PAGE_BYTES), page_count(size)))
        return false;
    arena->extent_count++;
    return true;
}

/* ---- Numbers ---- */

/* When no page is free, the largest cell of a run that still has one. */
static uint64_t
largest_free_cell(const struct arena *arena)
{
    for (uint32_t units = CELL_UNITS_MAX; units > 0; units--) {
        if (arena->classes[units].partial != PAGE_NONE)
            return units * UNIT_BYTES;
    }
    return 0;
}

void
arena_stats(const struct arena *arena, struct arena_stats *out)
{
    const struct pages *pages = &arena->pages;
    uint64_t whole_pages = pages->used - arena->run_pages;
    uint64_t largest = pages_largest_free(pages) * (uint64_t)PAGE_BYTES;
    uint64_t used = whole_pages * PAGE_BYTES + arena->cell_bytes;
    uint64_t populated = pages->populated * (uint64_t)PAGE_BYTES;
    *out = (struct arena_stats){
        .total_bytes = pages->total * (uint64_t)PAGE_BYTES,
        .populated_bytes = populated,
        .used_bytes = used,
        .free_bytes = populated - used,
        .largest_free = largest != 0 ? largest : largest_free_cell(arena),
        .extent_count = arena->extent_count,
    };
}

/* ---- Checking ---- */

/* Runs in the lists of runs with a free cell. */
static uint64_t
check_partial_lists(const struct arena *arena)
{
    uint64_t runs = 0;
    for (uint32_t units = 1; units <= CELL_UNITS_MAX; units++) {
        uint32_t before = PAGE_NONE;
        uint32_t run = arena->classes[units].partial;
        while (run != PAGE_NONE) {
            const struct page *entry = &arena->pages.entries[run];
            DS_ASSERT(entry->kind == PAGE_RUN);
            DS_ASSERT(entry->cell_units == units);
            DS_ASSERT(entry->left == before);
            DS_ASSERT(entry->taken != all_cells(entry->cells));
            before = run;
            run = entry->right;
            runs++;
        }
    }
    return runs;
}

void
arena_check(const struct arena *arena)
{
    const struct pages *pages = &arena->pages;
    uint64_t run_pages = 0;
    uint64_t cell_bytes = 0;
    uint64_t extents = 0;
    uint64_t partial = 0;
    pages_check(pages);
    for (uint32_t page = 0; page < pages->frontier;
         page += pages->entries[page].count) {
        const struct page *entry = &pages->entries[page];
        extents += entry->kind == PAGE_USED;
        if (entry->kind != PAGE_RUN)
            continue;
        const struct run_class *class = &arena->classes[entry->cell_units];
        uint32_t taken = (uint32_t)__builtin_popcountll(entry->taken);
        DS_ASSERT(entry->count == class->pages);
        DS_ASSERT(entry->cells == class->cells);
        DS_ASSERT((entry->taken & ~all_cells(entry->cells)) == 0);
        DS_ASSERT(taken > 0);
        DS_ASSERT(page % class->pages == 0);
        partial += taken < entry->cells;
        run_pages += entry->count;
        cell_bytes += taken * UNIT_BYTES * entry->cell_units;
        extents += taken;
    }
    DS_ASSERT(run_pages == arena->run_pages);
    DS_ASSERT(cell_bytes == arena->cell_bytes);
    DS_ASSERT(extents == arena->extent_count);
    DS_ASSERT(partial == check_partial_lists(arena));
}
