#include "search.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

enum { KNOWN_MIN = 1 << 16 };

static void
known_grow(struct search *search)
{
    uint64_t *old = search->known, old_mask = search->known_mask;
    uint64_t mask = old == NULL ? KNOWN_MIN - 1 : old_mask * 2 + 1;
    uint64_t *known = calloc(mask + 1, sizeof *known);
    DS_ASSERT(known != NULL);
    for (uint64_t i = 0; old != NULL && i <= old_mask; i++) {
        uint64_t at = old[i] & mask;
        while (old[i] != 0 && known[at] != 0)
            at = (at + 1) & mask;
        if (old[i] != 0)
            known[at] = old[i];
    }
    free(old);
    search->known = known;
    search->known_mask = mask;
}

void
search_init(struct search *search)
{
    memset(search, 0, sizeof *search);
    known_grow(search);
}

void
search_fini(struct search *search)
{
    free(search->known);
    search->known = NULL;
}

/* True when it is new. */
static bool
known_add(struct search *search, uint64_t state)
{
    if (search->states * 2 >= search->known_mask)
        known_grow(search);
    state += state == 0;
    uint64_t at = state & search->known_mask;
    for (; search->known[at] != 0; at = (at + 1) & search->known_mask)
        if (search->known[at] == state)
            return false;
    search->known[at] = state;
    search->states++;
    return true;
}

static void
take_first(struct search_choice *choice)
{
    DS_ASSERT(choice->left != 0);
    choice->taken = (uint8_t)__builtin_ctz(choice->left);
    choice->left = (uint8_t)(choice->left & (choice->left - 1));
}

bool
search_next_run(struct search *search)
{
    search->depth = 0;
    while (search->path_length > 0) {
        struct search_choice *last = &search->path[search->path_length - 1];
        if (last->left != 0) {
            take_first(last);
            return true;
        }
        search->path_length--;
    }
    return false;
}

bool
search_choose(struct search *search, uint64_t state, uint8_t mask, uint8_t *out_move)
{
    DS_ASSERT(mask != 0);
    DS_ASSERT(search->depth < SEARCH_DEPTH_MAX);
    struct search_choice *choice = &search->path[search->depth];
    if (search->depth >= search->path_length) {
        if (!known_add(search, state))
            return false;
        choice->left = mask;
        take_first(choice);
        search->path_length = search->depth + 1;
    }
    search->depth++;
    *out_move = choice->taken;
    return true;
}
