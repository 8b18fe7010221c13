/* What the files of fuzz_seeds share. */
#ifndef TESTS_FUZZ_SEEDS_H
#define TESTS_FUZZ_SEEDS_H

#include "fuzz.h"

/* Writes or compares one seed. */
void seed(const char *target, const char *name, struct ds_slice bytes);

void seed_texts(void); /* seeds_text.c */

#endif
