/* DS_ASSERT stays on in release builds: it guards against our own mistakes, never
 * against peer input, a full disk or exhausted memory. One condition per assert. */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include <assert.h>

#define DS_ASSERT(condition) \
    ((condition) ? (void)0 : ds_assert_failed(#condition, __FILE__, __LINE__))

/* Prints the condition and its place to stderr, then aborts. */
void ds_assert_failed(const char *condition, const char *file, int line)
    __attribute__((noreturn, cold));

/* True in debug, simulation and fuzz builds, which walk whole structures
 * (x_check()) after every mutation. */
#ifdef DATASYSTEM_CHECKS
#define DS_CHECKS_ON 1
#else
#define DS_CHECKS_ON 0
#endif

#endif
