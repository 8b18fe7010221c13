/* The unit tests' vocabulary, over cmocka.
 *
 *      TEST(size_is_sealed) { ... CHECK_OK(memfile_create(...)); ... }
 *      TEST_MAIN(RUN(size_is_sealed), RUN(...))
 *
 * A test fails when it leaves a file descriptor open; LeakSanitizer watches memory in
 * the asan preset. */
#ifndef TESTS_SUPPORT_TEST_H
#define TESTS_SUPPORT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <datasystem/status.h>

#define TEST(name) static void name(void **state __attribute__((unused)))
#define RUN(name)  cmocka_unit_test_setup_teardown(name, test_before, test_after)

#define TEST_MAIN(...)                                    \
    int main(void)                                        \
    {                                                     \
        const struct CMUnitTest tests[] = {__VA_ARGS__};  \
        return cmocka_run_group_tests(tests, NULL, NULL); \
    }

#define CHECK(condition) assert_true(condition)
#define CHECK_INT(actual, expected) \
    assert_int_equal((intmax_t)(actual), (intmax_t)(expected))
#define CHECK_TEXT(actual, expected) assert_string_equal(actual, expected)
#define CHECK_CONTAINS(text, part)   test_check_contains(text, part, __FILE__, __LINE__)
#define CHECK_STATUS(call, expected) assert_int_equal((int)(call), (int)(expected))
#define CHECK_OK(call)               CHECK_STATUS(call, DS_OK)

int test_before(void **state);
int test_after(void **state);

/* Number of descriptors this process has open. */
int test_open_fds(void);

void
test_check_contains(const char *text, const char *part, const char *file, int line);

/* A new folder of this test's own; its path fits into TEST_FOLDER_BYTES. */
enum { TEST_FOLDER_BYTES = 64 };
void test_make_folder(char out[TEST_FOLDER_BYTES]);
void test_remove_folder(const char *path); /* With everything in it. */

/* A TCP port of 127.0.0.1 that nobody listens on now. Not one that the kernel gives to
 * whoever asks for any: that may be another test's connection a moment later. */
uint16_t test_free_port(void);

/* A small deterministic generator (SplitMix64, Steele et al. 2014). */
uint64_t test_random(uint64_t *seed);

/* `usual`, shifted by the environment's TEST_SEED where that is set: `make soak` repeats
 * the random tests with a new one each round. */
uint64_t test_seed(uint64_t usual);

#endif
