#include "store/pages.h"

#include "base/check.h"
#include "base/numeric.h"

#include <stdlib.h>
#include <string.h>

/* An aligned extent is looked for in this many best fits before a hole is taken that is
 * large enough to hold it wherever it starts. */
enum { ALIGNED_TRIES = 16 };

bool
pages_init(struct pages *pages, uint32_t total)
{
    DS_ASSERT(total > 0);
    DS_ASSERT(total < PAGE_NONE);
    *pages = (struct pages){.total = total, .root = PAGE_NONE};
    pages->entries = calloc(total, sizeof(struct page));
    if (pages->entries == NULL)
        return false;
    if (head_map_init(&pages->heads, total))
        return true;
    pages_fini(pages);
    return false;
}

void
pages_fini(struct pages *pages)
{
    free(pages->entries);
    head_map_fini(&pages->heads);
    memset(pages, 0, sizeof *pages);
}

void
pages_set_populated(struct pages *pages, uint32_t populated)
{
    DS_ASSERT(populated <= pages->total);
    if (populated > pages->populated)
        pages->populated = populated;
}

/* ---- The tree: a treap whose priorities are a hash of the page number ---- */

static uint32_t
priority(uint32_t page)
{
    uint32_t mixed = page * 0x9e3779b1u;
    mixed ^= mixed >> 15;
    mixed *= 0x85ebca77u;
    return mixed ^ mixed >> 13;
}

/* Does {count, page} come before the tree's `node`? */
static bool
comes_before(const struct pages *pages, uint32_t count, uint32_t page, uint32_t node)
{
    uint32_t other = pages->entries[node].count;
    return count != other ? count < other : page < node;
}

static void
tree_insert(struct pages *pages, uint32_t first)
{
    struct page *entry = &pages->entries[first];
    uint32_t *link = &pages->root;
    while (*link != PAGE_NONE && priority(*link) >= priority(first)) {
        struct page *at = &pages->entries[*link];
        bool left = comes_before(pages, entry->count, first, *link);
        link = left ? &at->left : &at->right;
    }
    /* Split what hangs here into what comes before and what comes after. */
    uint32_t rest = *link;
    uint32_t *before = &entry->left;
    uint32_t *after = &entry->right;
    *link = first;
    while (rest != PAGE_NONE) {
        struct page *at = &pages->entries[rest];
        if (comes_before(pages, entry->count, first, rest)) {
            *after = rest;
            after = &at->left;
            rest = at->left;
        } else {
            *before = rest;
            before = &at->right;
            rest = at->right;
        }
    }
    *before = PAGE_NONE;
    *after = PAGE_NONE;
}

static void
tree_remove(struct pages *pages, uint32_t first)
{
    uint32_t count = pages->entries[first].count;
    uint32_t *link = &pages->root;
    while (*link != first) {
        DS_ASSERT(*link != PAGE_NONE);
        struct page *at = &pages->entries[*link];
        link = comes_before(pages, count, first, *link) ? &at->left : &at->right;
    }
    uint32_t left = pages->entries[first].left;
    uint32_t right = pages->entries[first].right;
    while (left != PAGE_NONE && right != PAGE_NONE) {
        if (priority(left) >= priority(right)) {
            *link = left;
            link = &pages->entries[left].right;
            left = *link;
        } else {
            *link = right;
            link = &pages->entries[right].left;
            right = *link;
        }
    }
    *link = left != PAGE_NONE ? left : right;
}

/* The first node at or after {count, page}. */
static uint32_t
tree_at_least(const struct pages *pages, uint32_t count, uint32_t page)
{
    uint32_t found = PAGE_NONE;
    uint32_t node = pages->root;
    while (node != PAGE_NONE) {
        const struct page *at = &pages->entries[node];
        bool fits = at->count > count || (at->count == count && node >= page);
        if (fits)
            found = node;
        node = fits ? at->left : at->right;
    }
    return found;
}

static uint32_t
tree_after(const struct pages *pages, uint32_t node)
{
    return tree_at_least(pages, pages->entries[node].count, node + 1);
}

static uint32_t
tree_last(const struct pages *pages)
{
    uint32_t node = pages->root;
    while (node != PAGE_NONE && pages->entries[node].right != PAGE_NONE)
        node = pages->entries[node].right;
    return node;
}

/* ---- Extents ---- */

/* Describe an extent that starts at `first`; free ones enter the tree. */
static void
put_extent(struct pages *pages, uint32_t first, uint32_t count, enum page_kind kind)
{
    DS_ASSERT(count > 0);
    pages->entries[first] = (struct page){.kind = (uint8_t)kind, .count = count};
    head_map_set(&pages->heads, first);
    if (kind == PAGE_FREE)
        tree_insert(pages, first);
    else
        pages->used += count;
}

/* Forget where a free extent starts; the caller describes its pages anew. */
static void
drop_free(struct pages *pages, uint32_t first)
{
    DS_ASSERT(pages->entries[first].kind == PAGE_FREE);
    tree_remove(pages, first);
    head_map_clear(&pages->heads, first);
}

/* Use [start, start + count) of the free extent at `first`. */
static void
carve(struct pages *pages, uint32_t first, uint32_t start, uint32_t count)
{
    uint32_t end = first + pages->entries[first].count;
    DS_ASSERT(start >= first);
    DS_ASSERT(start + count <= end);
    drop_free(pages, first);
    if (start > first)
        put_extent(pages, first, start - first, PAGE_FREE);
    put_extent(pages, start, count, PAGE_USED);
    if (start + count < end)
        put_extent(pages, start + count, end - start - count, PAGE_FREE);
}

uint32_t
pages_extent_of(const struct pages *pages, uint32_t page)
{
    if (page >= pages->frontier)
        return PAGE_NONE;
    uint32_t first = head_map_at_or_before(&pages->heads, page);
    DS_ASSERT(first != HEAD_MAP_NONE);
    DS_ASSERT(page - first < pages->entries[first].count);
    return first;
}

/* Where free memory that reaches to the end begins: at the frontier, or at the free
 * extent right before it. */
static uint32_t
open_end_start(const struct pages *pages)
{
    if (pages->frontier == 0)
        return 0;
    uint32_t last = pages_extent_of(pages, pages->frontier - 1);
    return pages->entries[last].kind == PAGE_FREE ? last : pages->frontier;
}

/* Make [start of the open end, end) one free extent below the frontier. */
static uint32_t
push_frontier(struct pages *pages, uint32_t end)
{
    DS_ASSERT(end > pages->frontier);
    DS_ASSERT(end <= pages->populated);
    uint32_t start = open_end_start(pages);
    if (start < pages->frontier)
        drop_free(pages, start);
    put_extent(pages, start, end - start, PAGE_FREE);
    pages->frontier = end;
    return start;
}

static bool
holds_aligned(const struct pages *pages, uint32_t first, uint64_t count,
              uint32_t alignment)
{
    uint64_t start = round_up(first, alignment);
    return start + count <= (uint64_t)first + pages->entries[first].count;
}

/* Best free extent below the frontier, or PAGE_NONE. */
static uint32_t
best_fit(const struct pages *pages, uint32_t count, uint32_t alignment)
{
    uint32_t node = tree_at_least(pages, count, 0);
    if (alignment == 1)
        return node;
    for (int i = 0; i < ALIGNED_TRIES && node != PAGE_NONE; i++) {
        if (holds_aligned(pages, node, count, alignment))
            return node;
        node = tree_after(pages, node);
    }
    uint64_t sure_count = (uint64_t)count + alignment - 1;
    if (sure_count <= pages->total) {
        uint32_t sure = tree_at_least(pages, (uint32_t)sure_count, 0);
        if (sure != PAGE_NONE)
            return sure;
    }
    while (node != PAGE_NONE && !holds_aligned(pages, node, count, alignment))
        node = tree_after(pages, node);
    return node;
}

bool
pages_take(struct pages *pages, uint32_t count, uint32_t alignment, uint32_t *out)
{
    DS_ASSERT(count > 0);
    DS_ASSERT(is_power_of_two(alignment));
    uint32_t first = best_fit(pages, count, alignment);
    if (first == PAGE_NONE) {
        uint64_t end = round_up(open_end_start(pages), alignment) + count;
        if (end > pages->populated)
            return false;
        first = push_frontier(pages, (uint32_t)end);
    }
    uint32_t start = (uint32_t)round_up(first, alignment);
    carve(pages, first, start, count);
    *out = start;
    return true;
}

void
pages_give(struct pages *pages, uint32_t first)
{
    DS_ASSERT(first < pages->frontier);
    DS_ASSERT(head_map_test(&pages->heads, first));
    struct page *entry = &pages->entries[first];
    DS_ASSERT(entry->kind != PAGE_FREE);
    uint32_t start = first;
    uint32_t end = first + entry->count;
    pages->used -= entry->count;
    head_map_clear(&pages->heads, first);

    if (end < pages->frontier && pages->entries[end].kind == PAGE_FREE) {
        uint32_t next = end;
        end += pages->entries[next].count;
        drop_free(pages, next);
    }
    if (first > 0) {
        uint32_t previous = head_map_at_or_before(&pages->heads, first - 1);
        DS_ASSERT(previous != HEAD_MAP_NONE);
        if (pages->entries[previous].kind == PAGE_FREE) {
            start = previous;
            drop_free(pages, previous);
        }
    }
    put_extent(pages, start, end - start, PAGE_FREE);
}

bool
pages_claim(struct pages *pages, uint32_t first, uint32_t count)
{
    DS_ASSERT(count > 0);
    uint64_t end = (uint64_t)first + count;
    if (end > pages->populated)
        return false;
    uint32_t extent = first;
    if (first < pages->frontier) {
        extent = pages_extent_of(pages, first);
        if (pages->entries[extent].kind != PAGE_FREE)
            return false;
    }
    if (end > pages->frontier) {
        if (extent < open_end_start(pages))
            return false;
        extent = push_frontier(pages, (uint32_t)end);
    }
    if (end > (uint64_t)extent + pages->entries[extent].count)
        return false;
    carve(pages, extent, first, count);
    return true;
}

uint32_t
pages_largest_free(const struct pages *pages)
{
    uint32_t last = tree_last(pages);
    uint32_t below = last == PAGE_NONE ? 0 : pages->entries[last].count;
    uint32_t above = pages->populated - open_end_start(pages);
    return below > above ? below : above;
}

/* ---- Checking ---- */

/* Walks in order, so that nothing but the tree itself is needed. */
static uint32_t
check_tree(const struct pages *pages)
{
    uint32_t nodes = 0;
    uint32_t node = tree_at_least(pages, 0, 0);
    while (node != PAGE_NONE) {
        DS_ASSERT(pages->entries[node].kind == PAGE_FREE);
        DS_ASSERT(head_map_test(&pages->heads, node));
        nodes++;
        uint32_t next = tree_after(pages, node);
        DS_ASSERT(next == PAGE_NONE ||
                  comes_before(pages, pages->entries[node].count, node, next));
        node = next;
    }
    return nodes;
}

void
pages_check(const struct pages *pages)
{
    DS_ASSERT(pages->frontier <= pages->populated);
    DS_ASSERT(pages->populated <= pages->total);
    uint32_t free_extents = 0;
    uint32_t used = 0;
    bool free_before = false;
    uint32_t page = 0;
    while (page < pages->frontier) {
        const struct page *entry = &pages->entries[page];
        DS_ASSERT(head_map_test(&pages->heads, page));
        DS_ASSERT(entry->count > 0);
        DS_ASSERT(entry->count <= pages->frontier - page);
        DS_ASSERT(entry->count == 1 ||
                  head_map_at_or_before(&pages->heads, page + entry->count - 1) ==
                      page);
        bool is_free = entry->kind == PAGE_FREE;
        DS_ASSERT(!(is_free && free_before));
        free_extents += is_free;
        used += is_free ? 0 : entry->count;
        free_before = is_free;
        page += entry->count;
    }
    DS_ASSERT(used == pages->used);
    DS_ASSERT(free_extents == check_tree(pages));
}
