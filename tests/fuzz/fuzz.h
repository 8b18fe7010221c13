/* What every fuzz target shares. A target is one file x_fuzz.c with one function; with
 * clang it becomes a libFuzzer program, and in every test build replay.c feeds it the
 * committed inputs of corpus/x_fuzz.
 *
 * A target promises more than "no crash": it states with DS_ASSERT what must hold for
 * any bytes at all. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "base/check.h"
#include "base/slice.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
