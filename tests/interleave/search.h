/* A depth-first search over runs that cannot be copied, only repeated: which branch to
 * take at each choice of the next run, and which states were seen. Each run follows the
 * path of the one before up to the deepest choice with a move left, takes that, and then
 * explores. States are known by 64 bits of a hash. Owner: the machine that is searched. */
#ifndef TESTS_INTERLEAVE_SEARCH_H
#define TESTS_INTERLEAVE_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

enum { SEARCH_DEPTH_MAX = 1024 };

struct search_choice {
    uint8_t taken;
    uint8_t left; /* Mask of the moves not tried yet. */
};

struct search {
    struct search_choice path[SEARCH_DEPTH_MAX];
    uint32_t path_length; /* To be followed; then it is new ground. */
    uint32_t depth;       /* Of this run. */
    uint64_t *known;      /* Hash set; 0: free. */
    uint64_t known_mask;
    uint64_t states;
};

void search_init(struct search *search);
void search_fini(struct search *search);

/* The next run: false when every branch was taken. */
bool search_next_run(struct search *search);

/* One of the moves in `mask` (not empty). False: everything from `state` on is known. */
bool
search_choose(struct search *search, uint64_t state, uint8_t mask, uint8_t *out_move);

#endif
