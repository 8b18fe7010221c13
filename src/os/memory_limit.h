/* How much memory may still be taken: the least of /proc/meminfo's MemAvailable and of
 * what every cgroup above this process (v1 or v2) leaves. */
#ifndef OS_MEMORY_LIMIT_H
#define OS_MEMORY_LIMIT_H

#include <stdint.h>

struct memory_limit {
    uint64_t available_bytes;
    uint64_t limit_bytes; /* Of the tightest level; UINT64_MAX: none. */
    char source[256];     /* What the tightest level is, for messages. */
};
void memory_limit_read(struct memory_limit *out);

/* The same with `root` before every path ("" is the machine itself): for tests. */
void memory_limit_read_below(const char *root, struct memory_limit *out);

/* The most mappings that the kernel gives a process (vm.max_map_count); its default, where
 * that cannot be read. */
uint64_t memory_mappings_max(void);

/* Free huge pages of 2 MiB; 0 if none are set up. */
uint64_t memory_free_huge_pages(void);

/* The command with which root sets up `pages` huge pages of 2 MiB. Where the kernel's own
 * huge pages have another size (512 MiB where small pages have 64 KiB, as on some aarch64
 * machines; 1 GiB by choice), vm.nr_hugepages would take far too much memory. */
enum { HUGE_PAGE_COMMAND_BYTES = 128 };
void memory_huge_page_command(uint64_t pages, char out[HUGE_PAGE_COMMAND_BYTES]);
void memory_huge_page_command_below(const char *root, uint64_t pages,
                                    char out[HUGE_PAGE_COMMAND_BYTES]);

#endif
