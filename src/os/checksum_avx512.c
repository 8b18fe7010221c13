/* The kernel for processors with AVX-512: this file alone is compiled for them. */
#ifdef __x86_64__
#include "os/checksum_kernel.h"

CHECKSUM_KERNEL(checksum_kernel_avx512);
#endif
