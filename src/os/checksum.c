#include "os/checksum_kernel.h"

CHECKSUM_KERNEL(checksum_kernel_plain);

static const struct checksum_kernel *
kernel(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f"))
        return &checksum_kernel_avx512;
    if (__builtin_cpu_supports("avx2"))
        return &checksum_kernel_avx2;
#endif
    return &checksum_kernel_plain;
}

uint64_t
checksum_of(const void *data, size_t bytes)
{
    return kernel()->of(data, bytes);
}

uint64_t
checksum_copy(void *to, const void *from, size_t bytes)
{
    return kernel()->copy(to, from, bytes);
}

void
checksum_begin(struct checksum_run *run)
{
    kernel()->begin(run->state);
}

void
checksum_add(struct checksum_run *run, const void *data, size_t bytes)
{
    kernel()->add(run->state, data, bytes);
}

uint64_t
checksum_end(const struct checksum_run *run)
{
    return kernel()->end(run->state);
}
