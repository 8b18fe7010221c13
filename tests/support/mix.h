/* A bijection of 64-bit numbers after which neighbours have nothing in common: what a
 * simulated value has in it, and how long it is, follows from its number. Pure. */
#ifndef TESTS_SUPPORT_MIX_H
#define TESTS_SUPPORT_MIX_H

#include <stdint.h>

static inline uint64_t
mix(uint64_t x)
{
    x ^= x >> 31;
    x *= UINT64_C(0x7fb5d329728ea185);
    x ^= x >> 27;
    x *= UINT64_C(0x81dadef4bc2dd44d);
    return x ^ x >> 33;
}

#endif
