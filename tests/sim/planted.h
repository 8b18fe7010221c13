/* The bugs of src/base/planted.h: one of them in a run, or each in turn. */
#ifndef TESTS_SIM_PLANTED_H
#define TESTS_SIM_PLANTED_H

#include <stdbool.h>
#include <stdint.h>

/* False: there is no such bug. */
bool planted_choose(const char *name);

/* Runs the seeds from `first` on with each bug until one finds it, says which and how, and
 * returns how many were not found. `run_seed` is false when the seed found something;
 * then sim.failure says what. */
int planted_find_all(uint64_t first, uint64_t count, bool (*run_seed)(uint64_t seed));

#endif
