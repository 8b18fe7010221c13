/* malloc() of the programs under test: it belongs to the process that called it, and is
 * gone with it. The link replaces the calls by the __wrap_ functions here. */
#include "sim.h"

#include "base/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* In front of each allocation. */
struct header {
    struct list link; /* In process->memory; in itself: of the simulation. */
    size_t bytes;
    void *base;
};
enum { HEADER_BYTES = 48 };
static_assert(sizeof(struct header) <= HEADER_BYTES, "alignment of what follows");

void *__real_malloc(size_t bytes);
void __real_free(void *data);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *data, size_t bytes);
void __wrap_free(void *data);
int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t bytes);

static struct header *
header_of(void *data)
{
    return (struct header *)(void *)((uint8_t *)data - HEADER_BYTES);
}

static void *
allocate(struct process *process, size_t bytes, size_t alignment)
{
    uint8_t *base = __real_malloc(bytes + HEADER_BYTES + alignment);
    DS_ASSERT(base != NULL);
    uintptr_t at = ((uintptr_t)base + HEADER_BYTES + alignment - 1) & ~(alignment - 1);
    uint8_t *data = base + (at - (uintptr_t)base);
    struct header *header = header_of(data);
    header->bytes = bytes;
    header->base = base;
    list_init(&header->link);
    if (process != NULL)
        list_push_back(&process->memory, &header->link);
    return data;
}

void *
__wrap_malloc(size_t bytes)
{
    return allocate(process_current(), bytes, 16);
}

void *
__wrap_calloc(size_t count, size_t bytes)
{
    DS_ASSERT(bytes == 0 || count <= SIZE_MAX / 2 / bytes);
    void *data = __wrap_malloc(count * bytes);
    memset(data, 0, count * bytes);
    return data;
}

void *
__wrap_realloc(void *data, size_t bytes)
{
    void *larger = __wrap_malloc(bytes);
    if (data != NULL) {
        size_t before = header_of(data)->bytes;
        memcpy(larger, data, before < bytes ? before : bytes);
        __wrap_free(data);
    }
    return larger;
}

void
__wrap_free(void *data)
{
    if (data == NULL)
        return;
    struct header *header = header_of(data);
    list_remove(&header->link);
    __real_free(header->base);
}

int
__wrap_posix_memalign(void **out, size_t alignment, size_t bytes)
{
    *out = allocate(process_current(), bytes, alignment);
    return 0;
}

char *
__wrap_strndup(const char *text, size_t bytes)
{
    size_t len = strnlen(text, bytes);
    char *copy = __wrap_malloc(len + 1);
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

char *
__wrap_strdup(const char *text)
{
    return __wrap_strndup(text, strlen(text));
}

void
memory_free_all(struct process *process)
{
    LIST_FOREACH (link, &process->memory)
        __wrap_free((uint8_t *)CONTAINER_OF(link, struct header, link) + HEADER_BYTES);
}

void *
sim_allocate(size_t bytes)
{
    void *data = allocate(NULL, bytes, 64);
    memset(data, 0, bytes);
    return data;
}

void
sim_free(void *data)
{
    __wrap_free(data);
}
