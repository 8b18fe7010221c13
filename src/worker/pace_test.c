#include "worker/pace.h"

#include "test.h"

TEST(a_tenth_of_a_core_is_all_a_helper_gets)
{
    uint64_t seed = 1;
    uint64_t busy_ns = 0;
    uint64_t rest_ms = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t step_ns = test_random(&seed) % (i % 2 == 0 ? 100000 : 50000000);
        uint64_t rest = pace_rest_ms(step_ns);
        CHECK(rest * 1000000 >= 9 * step_ns);
        CHECK(rest * 1000000 < 9 * step_ns + 1000000); /* And not a moment more. */
        busy_ns += step_ns;
        rest_ms += rest;
    }
    CHECK(10 * busy_ns <= busy_ns + rest_ms * 1000000);
}

TEST(a_step_too_short_to_measure_is_followed_by_no_rest)
{
    CHECK_INT(pace_rest_ms(0), 0);
    CHECK_INT(pace_rest_ms(1), 1);
    CHECK_INT(pace_rest_ms(1000000), 9);
}

TEST_MAIN(RUN(a_tenth_of_a_core_is_all_a_helper_gets),
          RUN(a_step_too_short_to_measure_is_followed_by_no_rest))
