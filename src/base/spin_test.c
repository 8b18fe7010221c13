#include "base/spin.h"

#include "test.h"

enum { MS = 1000 * 1000 };

static uint64_t now_ns;

/* How often it looks in `waits` waits that all end alike. */
static int
looks(struct spin *spin, int waits, enum spin_outcome outcome)
{
    int count = 0;
    for (int i = 0; i < waits; i++) {
        uint32_t budget = spin_begin(spin, now_ns);
        if (budget == 0)
            continue;
        CHECK_INT(budget, SPIN_NS_MAX);
        count++;
        spin_end(spin, now_ns, outcome);
    }
    return count;
}

TEST(it_goes_on_while_looking_pays)
{
    struct spin spin = {0};
    CHECK_INT(looks(&spin, 1000, SPIN_HIT), 1000);
}

TEST(misses_make_it_rare)
{
    struct spin spin = {0};
    CHECK(looks(&spin, 1000, SPIN_MISS) < 30);
    CHECK(looks(&spin, 6500, SPIN_MISS) <= 100);
}

TEST(a_hit_brings_it_back)
{
    struct spin spin = {0};
    (void)looks(&spin, 1000, SPIN_MISS);
    while (looks(&spin, 1, SPIN_HIT) == 0)
        ;
    CHECK_INT(looks(&spin, 100, SPIN_HIT), 100);
}

TEST(others_get_the_core)
{
    struct spin spin = {0};
    now_ns = 5 * MS;
    CHECK_INT(looks(&spin, 100, SPIN_PREEMPTED), 1);
    now_ns += SPIN_PAUSE_NS_MIN - 1;
    CHECK_INT(looks(&spin, 100, SPIN_HIT), 0);
    now_ns += 1;
    CHECK_INT(looks(&spin, 100, SPIN_HIT), 100);
}

TEST(the_more_often_the_longer)
{
    struct spin spin = {0};
    int count = 0;
    for (now_ns = 0; now_ns < UINT64_C(1000) * MS; now_ns += MS / 10)
        count += looks(&spin, 1, SPIN_PREEMPTED);
    CHECK(count > 10);
    CHECK(count < 30);
}

TEST_MAIN(RUN(it_goes_on_while_looking_pays), RUN(misses_make_it_rare),
          RUN(a_hit_brings_it_back), RUN(others_get_the_core),
          RUN(the_more_often_the_longer))
