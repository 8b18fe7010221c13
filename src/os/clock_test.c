#include "os/clock.h"
#include "os/random.h"

#include "test.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

TEST(monotonic_units_agree)
{
    uint64_t first_ms = clock_monotonic_ms();
    uint64_t middle_ns = clock_monotonic_ns();
    uint64_t last_ms = clock_monotonic_ms();
    CHECK(first_ms <= middle_ns / 1000000);
    CHECK(middle_ns / 1000000 <= last_ms);
}

TEST(boot_time_is_in_tenths_of_a_second)
{
    struct timespec now;
    uint64_t first_ds = clock_boot_ds();
    CHECK(clock_gettime(CLOCK_BOOTTIME, &now) == 0);
    uint64_t last_ds = clock_boot_ds();
    uint64_t middle_ds = (uint64_t)now.tv_sec * 10 + (uint64_t)now.tv_nsec / 100000000;
    CHECK(first_ds <= middle_ds);
    CHECK(middle_ds <= last_ds);
}

/* The text, read back, lies between two readings of the clock. */
TEST(utc_text_is_the_time_with_microseconds)
{
    char text[32];
    struct tm parts = {0};
    int micros = -1, used = -1;
    time_t before = time(NULL);
    clock_utc_text(text);
    struct timespec after; /* time() may be a tick behind what we just saw. */
    CHECK(clock_gettime(CLOCK_REALTIME, &after) == 0);
    CHECK_INT(strlen(text), 27);
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
    CHECK(rest != NULL);
    CHECK_INT(sscanf(rest, ".%6dZ%n", &micros, &used), 1);
    CHECK_INT(used, 8);
    CHECK(timegm(&parts) >= before);
    CHECK(timegm(&parts) <= after.tv_sec);
}

/* 40 bytes of equal value by chance: once in 10^90 runs. */
TEST(random_bytes_fill_the_whole_range)
{
    uint8_t bytes[4096] = {0}, zeros[40] = {0};
    random_bytes(bytes, sizeof bytes);
    CHECK(memcmp(bytes, zeros, sizeof zeros) != 0);
    CHECK(memcmp(bytes + sizeof bytes - sizeof zeros, zeros, sizeof zeros) != 0);
    CHECK(random_u64() != random_u64());
    CHECK(random_u32_nonzero() != 0);
}

TEST_MAIN(RUN(monotonic_units_agree), RUN(boot_time_is_in_tenths_of_a_second),
          RUN(utc_text_is_the_time_with_microseconds),
          RUN(random_bytes_fill_the_whole_range))
