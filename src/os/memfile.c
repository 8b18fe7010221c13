#include "os/memfile.h"

#include "base/check.h"
#include "base/status.h"
#include "os/memory_limit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21u << 26)
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
enum { HUGE_PAGE_BYTES = 2 << 20, FAULT_AROUND_BYTES = 64 << 10 };

static uint64_t
page_bytes(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

static enum ds_status
size_and_seal(const char *name, int fd, uint64_t bytes, struct ds_error *err)
{
    if (ftruncate(fd, (off_t)bytes) < 0)
        return ds_fail_errno(err, "memory file '%s': set its size to %ju bytes", name,
                             (uintmax_t)bytes);
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return ds_fail_errno(err, "memory file '%s': seal its size", name);
    return DS_OK;
}

/* Said at creation, where the remedy can be named, and not by a failing mmap() later.
 */
static enum ds_status
check_huge_pages(const char *name, uint64_t bytes, struct ds_error *err)
{
    uint64_t wanted = bytes / HUGE_PAGE_BYTES, unused = memory_free_huge_pages();
    if (unused >= wanted)
        return DS_OK;
    char command[HUGE_PAGE_COMMAND_BYTES];
    memory_huge_page_command(wanted, command);
    return ds_fail(err, DS_UNSUPPORTED,
                   "memory file '%s': needs %ju huge pages of 2 MiB, %ju are free; run "
                   "'%s' as root or turn huge pages off",
                   name, (uintmax_t)wanted, (uintmax_t)unused, command);
}

enum ds_status
memfile_create(const char *name, uint64_t bytes, uint64_t huge_page_bytes, int *out_fd,
               struct ds_error *err)
{
    DS_ASSERT(name != NULL);
    DS_ASSERT(bytes > 0 && bytes <= INT64_MAX);
    DS_ASSERT(huge_page_bytes == 0 || huge_page_bytes == HUGE_PAGE_BYTES);
    DS_ASSERT(huge_page_bytes == 0 || bytes % huge_page_bytes == 0);

    enum ds_status status = DS_OK;
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    if (huge_page_bytes != 0) {
        flags |= MFD_HUGETLB | MFD_HUGE_2MB;
        status = check_huge_pages(name, bytes, err);
        if (status != DS_OK)
            return status;
    }
    int fd = memfd_create(name, flags);
    if (fd < 0)
        return ds_fail_errno(err, "memory file '%s': memfd_create", name);
    status = size_and_seal(name, fd, bytes, err);
    if (status != DS_OK) {
        close(fd);
        return status;
    }
    *out_fd = fd;
    return DS_OK;
}

static int
reserve(int fd, uint64_t offset, uint64_t bytes)
{
    int result;
    do {
        result = fallocate(fd, 0, (off_t)offset, (off_t)bytes);
    } while (result < 0 && errno == EINTR);
    return result;
}

enum ds_status
memfile_populate(int fd, uint64_t offset, uint64_t bytes, struct ds_error *err)
{
    DS_ASSERT(bytes > 0);
    DS_ASSERT(offset <= INT64_MAX && bytes <= INT64_MAX - offset);
    if (reserve(fd, offset, bytes) < 0)
        return ds_fail_errno(err, "memory file: reserve %ju bytes at %ju",
                             (uintmax_t)bytes, (uintmax_t)offset);
    /* The kernel takes pages the first time and leaves zeroing them to whoever touches
     * them; asked again for what is there, it zeroes now. A failure costs speed only.
     */
    (void)reserve(fd, offset, bytes);
    return DS_OK;
}

/* Addresses for a mapping that begins with a huge page, to be mapped over; NULL when
 * there are none, or no need. */
static void *
reserve_aligned(uint64_t bytes)
{
    if (bytes < HUGE_PAGE_BYTES)
        return NULL;
    uint64_t reserved = bytes + HUGE_PAGE_BYTES;
    char *base = mmap(NULL, reserved, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    uint64_t lead = -(uintptr_t)base % HUGE_PAGE_BYTES;
    uint64_t behind = (lead + bytes + page_bytes() - 1) / page_bytes() * page_bytes();
    if (lead > 0)
        memfile_unmap(base, lead);
    if (behind < reserved)
        memfile_unmap(base + behind, reserved - behind);
    return base + lead;
}

static enum ds_status
map(int fd, uint64_t offset, uint64_t bytes, int protection, int flags, void **out,
    struct ds_error *err)
{
    DS_ASSERT(bytes > 0 && bytes <= INT64_MAX);
    DS_ASSERT(offset % page_bytes() == 0);
    void *place = (flags & MAP_SHARED) != 0 ? reserve_aligned(bytes) : NULL;
    void *data = mmap(place, bytes, protection, flags | (place != NULL ? MAP_FIXED : 0),
                      fd, (off_t)offset);
    if (data == MAP_FAILED && place != NULL) {
        int number = errno;
        memfile_unmap(place, bytes);
        errno = number;
    }
    if (data == MAP_FAILED)
        return ds_fail_errno(err, "memory file: map %ju bytes at %ju", (uintmax_t)bytes,
                             (uintmax_t)offset);
    *out = data;
    return DS_OK;
}

enum ds_status
memfile_map(int fd, uint64_t offset, uint64_t bytes, bool writable, void **out,
            struct ds_error *err)
{
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    return map(fd, offset, bytes, protection, MAP_SHARED, out, err);
}

void
memfile_unmap(void *data, uint64_t bytes)
{
    if (data == NULL)
        return;
    int result = munmap(data, bytes);
    /* To the kernel, mappings that lie side by side may be one. At the limit of their
     * number it cannot cut one in two: then this one stays, which costs addresses. */
    DS_ASSERT(result == 0 || errno == ENOMEM);
}

enum ds_status
memfile_map_private(int fd, uint64_t offset, uint64_t bytes, void **out,
                    struct ds_error *err)
{
    uint64_t lead = offset % page_bytes();
    void *base = NULL;
    /* No MAP_POPULATE: on a writable private mapping it would copy everything. */
    enum ds_status status = map(fd, offset - lead, bytes + lead, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_NORESERVE, &base, err);
    if (status == DS_OK)
        *out = (char *)base + lead;
    return status;
}

void
memfile_unmap_private(void *data, uint64_t bytes)
{
    if (data == NULL)
        return;
    uint64_t lead = (uintptr_t)data % page_bytes();
    memfile_unmap((char *)data - lead, bytes + lead);
}

void
memfile_prefault(const void *data, uint64_t bytes)
{
    const volatile uint8_t *first = data;
    uint64_t lead = (uintptr_t)data % FAULT_AROUND_BYTES;
    for (uint64_t at = 0; at < bytes; at += FAULT_AROUND_BYTES - (at == 0 ? lead : 0))
        (void)first[at];
}

enum ds_status
memfile_collapse(void *data, uint64_t bytes, struct ds_error *err)
{
    if (madvise(data, bytes, MADV_COLLAPSE) == 0)
        return DS_OK;
    enum ds_status status = DS_NO_MEMORY;
    if (errno == EINVAL)
        status = DS_UNSUPPORTED;
    else if (errno == EAGAIN || errno == EBUSY)
        status = DS_TIMEOUT;
    return ds_fail(err, status, "memory file: %ju bytes on huge pages: %s",
                   (uintmax_t)bytes, strerror(errno));
}

enum ds_status
memfile_size(int fd, uint64_t *out, struct ds_error *err)
{
    struct stat info;
    if (fstat(fd, &info) < 0)
        return ds_fail_errno(err, "memory file: size of descriptor %d", fd);
    *out = (uint64_t)info.st_size;
    return DS_OK;
}

/* ---- Marks ---- */

static struct flock
lock_of(uint64_t number, short type)
{
    DS_ASSERT(number < INT64_MAX);
    return (struct flock){
        .l_type = type,
        .l_whence = SEEK_SET,
        .l_start = (off_t)number,
        .l_len = 1,
    };
}

/* Copies of a descriptor share its locks, so a mark needs a descriptor that was opened
 * anew; a file without a name is opened through /proc. */
enum ds_status
memfile_mark(int fd, uint64_t number, int *out_fd, struct ds_error *err)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = open(path, O_RDONLY | O_CLOEXEC);
    if (own < 0)
        return ds_fail_errno(err, "memory file: open %s to mark it", path);
    struct flock lock = lock_of(number, F_RDLCK);
    if (fcntl(own, F_OFD_SETLK, &lock) < 0) {
        enum ds_status status =
            ds_fail_errno(err, "memory file: set mark %ju", (uintmax_t)number);
        close(own);
        return status;
    }
    *out_fd = own;
    return DS_OK;
}

bool
memfile_is_marked(int fd, uint64_t number)
{
    struct flock lock = lock_of(number, F_WRLCK);
    return fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}
