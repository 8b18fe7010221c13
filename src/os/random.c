#include "os/random.h"

#include "base/check.h"

#include <errno.h>
#include <sys/random.h>

void
random_bytes(void *out, size_t bytes)
{
    uint8_t *at = out;
    while (bytes > 0) {
        ssize_t got = getrandom(at, bytes, 0);
        if (got < 0 && errno == EINTR)
            continue;
        DS_ASSERT(got > 0); /* Without randomness no identity is safe. */
        at += got;
        bytes -= (size_t)got;
    }
}

uint64_t
random_u64(void)
{
    uint64_t value;
    random_bytes(&value, sizeof value);
    return value;
}

uint32_t
random_u32_nonzero(void)
{
    uint32_t value = 0;
    while (value == 0)
        random_bytes(&value, sizeof value);
    return value;
}
