/* What the costs have to be. */
#ifndef TESTS_SCALE_CHECK_H
#define TESTS_SCALE_CHECK_H

#include "measure.h"

/* Ends the program if they are not. `nodes` began. */
void check_results(const struct result *results, size_t count, uint32_t nodes);

#endif
