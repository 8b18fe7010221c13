/* Runs seeds with each of some bugs of src/base/planted.h in turn: all have to be found. */
#ifndef TESTS_SUPPORT_PLANTED_H
#define TESTS_SUPPORT_PLANTED_H

#include "base/planted.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Those that one program looks for. */
struct planted_search {
    enum planted_bug first, last;
    uint64_t first_seed, seed_count;
    FILE *out; /* Where what is found is told. */

    /* NULL, or what is wrong; a crash is as good. Called in a process of its own. */
    const char *(*run_seed)(uint64_t seed);
};

/* Plants it, if it is one of these. */
bool planted_choose(const char *name, enum planted_bug first, enum planted_bug last);

/* For a run that ends its process in place of returning. */
void planted_tell(const char *failure);

/* Returns how many were missed. */
int planted_find_all(const struct planted_search *search);

#endif
