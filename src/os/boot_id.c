#include "os/boot_id.h"

#include "os/files.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { WORDS = 5 };

/* Shared: atomics only. Threads that come at the same time each read the file and store
 * the same words; `known` is set after them. */
static _Atomic uint64_t words[WORDS];
static _Atomic bool known;

/* A failure is not kept: to be out of descriptors passes. */
static bool
read_once(void)
{
    char text[WORDS * sizeof(uint64_t) + 1] = {0};
    if (!files_read("/proc/sys/kernel/random/boot_id", text, sizeof text))
        return false;
    size_t len = strcspn(text, "\n");
    if (len == 0 || len >= BOOT_ID_BYTES)
        return false;
    memset(text + len, 0, sizeof text - len);
    for (size_t i = 0; i < WORDS; i++) {
        uint64_t word;
        memcpy(&word, text + i * sizeof word, sizeof word);
        atomic_store_explicit(&words[i], word, memory_order_relaxed);
    }
    atomic_store_explicit(&known, true, memory_order_release);
    return true;
}

bool
boot_id_get(char out[BOOT_ID_BYTES])
{
    out[0] = '\0';
    if (!atomic_load_explicit(&known, memory_order_acquire) && !read_once())
        return false;
    uint64_t copy[WORDS];
    for (size_t i = 0; i < WORDS; i++)
        copy[i] = atomic_load_explicit(&words[i], memory_order_relaxed);
    memcpy(out, copy, BOOT_ID_BYTES);
    return true;
}
