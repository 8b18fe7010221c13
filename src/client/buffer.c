#include "client/buffer.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"
#include "client/verify.h"
#include "os/copy.h"

#include <stdlib.h>

enum { DATA_ALIGNMENT = 64 };

/* ---- Making ---- */

static enum pin_result
open_pinned(const struct extent *extent, enum buffer_state state,
            struct ds_buffer **out)
{
    struct mapping *mapping = extent->mapping;
    struct ds_buffer *buffer = malloc(sizeof *buffer);
    if (buffer == NULL)
        return PIN_EXHAUSTED;
    enum pin_result result =
        pins_acquire(&mapping->pins, &mapping->reader.slots[extent->slot],
                     extent->commit, extent->offset);
    if (result != PIN_TAKEN) {
        free(buffer);
        return result;
    }
    *buffer = (struct ds_buffer){
        .holders = 1,
        .state = state,
        .data = mapping->arena + extent->offset,
        .size = extent->size,
        .mapping = mapping_ref(mapping),
        .extent_offset = extent->offset,
        .ref = {.slot = extent->slot, .generation = commit_generation(extent->commit)},
    };
    list_init(&buffer->link);
    if (state == BUFFER_UNSEALED)
        list_push_back(&mapping->unsealed, &buffer->link);
    *out = buffer;
    return PIN_TAKEN;
}

enum ds_status
buffer_open(const struct extent *extent, enum buffer_state state,
            struct ds_buffer **out, bool *out_stale, struct ds_error *err)
{
    const struct mapping *mapping = extent->mapping;
    if (!mapping_contains(mapping, extent->slot, extent->offset, extent->size))
        return ds_fail(err, DS_CORRUPT, "the worker named bytes outside its arena");
    enum pin_result result = open_pinned(extent, state, out);
    *out_stale = result == PIN_STALE;
    if (result != PIN_EXHAUSTED)
        return DS_OK;
    return ds_fail(err, DS_FULL,
                   "this process holds %u objects at once, which is the limit; release "
                   "some buffers",
                   pins_count(&mapping->pins));
}

struct ds_buffer *
buffer_allocate(uint64_t size)
{
    if (size == 0 || size > SIZE_MAX - DATA_ALIGNMENT)
        return NULL;
    struct ds_buffer *buffer = calloc(1, sizeof *buffer);
    void *data = NULL;
    if (buffer == NULL || posix_memalign(&data, DATA_ALIGNMENT, size) != 0) {
        free(buffer);
        return NULL;
    }
    list_init(&buffer->link);
    atomic_init(&buffer->holders, 1);
    buffer->state = BUFFER_SEALED;
    buffer->data = data;
    buffer->size = size;
    buffer->owns_data = true;
    return buffer;
}

struct ds_buffer *
buffer_allocate_unsealed(struct mapping *mapping, struct wire_ref ref, uint64_t size)
{
    struct ds_buffer *buffer = buffer_allocate(size);
    if (buffer == NULL)
        return NULL;
    buffer->state = BUFFER_UNSEALED;
    buffer->mapping = mapping_ref(mapping);
    buffer->ref = ref;
    list_push_back(&mapping->unsealed, &buffer->link);
    return buffer;
}

bool
buffer_set_key(struct ds_buffer *buffer, struct ds_slice key)
{
    DS_ASSERT(buffer->key == NULL);
    buffer->key = malloc(key.len);
    if (buffer->key == NULL)
        return false;
    memcpy(buffer->key, key.data, key.len);
    buffer->key_len = key.len;
    return true;
}

enum ds_status
buffer_cut(struct ds_buffer *buffer, uint64_t offset, uint64_t size,
           struct ds_error *err)
{
    DS_ASSERT(!buffer->owns_data);
    if (offset >= buffer->size || size > buffer->size - offset)
        return ds_fail(err, DS_OUT_OF_RANGE,
                       "bytes [%ju, +%ju) are outside an object of %ju bytes",
                       (uintmax_t)offset, (uintmax_t)size, (uintmax_t)buffer->size);
    buffer->data += offset;
    buffer->size = size == 0 ? buffer->size - offset : size;
    return DS_OK;
}

void
buffer_mark_sealed(struct ds_buffer *buffer)
{
    library_lock();
    list_remove(&buffer->link);
    buffer->state = BUFFER_SEALED;
    library_unlock();
}

void
buffers_abandon(struct mapping *mapping)
{
    LIST_FOREACH (link, &mapping->unsealed) {
        struct ds_buffer *buffer = CONTAINER_OF(link, struct ds_buffer, link);
        list_remove(link);
        buffer->state = BUFFER_ABANDONED;
        mapping_abort_later(mapping, buffer->ref);
    }
    mapping_give_up_leases(mapping);
}

/* ---- The end ---- */

/* What the parent of this process pinned or reserved stays its own. */
static void
leave_mapping(struct ds_buffer *buffer)
{
    struct mapping *mapping = buffer->mapping;
    list_remove(&buffer->link);
    if (!mapping->inherited) {
        if (buffer->state == BUFFER_UNSEALED)
            mapping_abort_later(mapping, buffer->ref);
        if (!buffer->owns_data)
            pins_release(&mapping->pins, buffer->extent_offset);
    }
    mapping_unref(mapping);
}

/* True for the last holder. */
static bool
drop_holder(struct ds_buffer *buffer)
{
    uint32_t before =
        atomic_fetch_sub_explicit(&buffer->holders, 1, memory_order_acq_rel);
    DS_ASSERT(before > 0);
    return before == 1;
}

void
ds_buffer_release(struct ds_buffer *buffer)
{
    buffers_release(&buffer, 1);
}

void
buffer_release_locked(struct ds_buffer *buffer)
{
    if (buffer == NULL || !drop_holder(buffer))
        return;
    if (buffer->mapping != NULL)
        leave_mapping(buffer);
    if (buffer->owns_data)
        free(buffer->data);
    free(buffer->key);
    free(buffer);
}

void
buffers_release(struct ds_buffer **buffers, size_t count)
{
    library_lock();
    for (size_t i = 0; i < count; i++)
        buffer_release_locked(buffers[i]);
    library_unlock();
}

/* ---- Looking ---- */

void *
ds_buffer_data(struct ds_buffer *buffer)
{
    if (buffer->state == BUFFER_UNSEALED) {
        buffer->is_exposed = true;
        buffer->checksum.known = false;
    }
    return buffer->data;
}

enum ds_status
ds_buffer_write(struct ds_buffer *buffer, const void *from, uint64_t bytes,
                struct ds_error *err)
{
    if (buffer == NULL || from == NULL || buffer->state != BUFFER_UNSEALED)
        return ds_fail(err, DS_INVALID, "only a buffer that is not sealed is written");
    if (bytes == 0 || bytes > buffer->size)
        return ds_fail(err, DS_OUT_OF_RANGE, "%ju bytes for a buffer of %ju",
                       (uintmax_t)bytes, (uintmax_t)buffer->size);
    buffer_write(buffer, from, bytes);
    return DS_OK;
}

uint64_t
ds_buffer_size(const struct ds_buffer *buffer)
{
    return buffer->size;
}

void
ds_copy(void *to, const void *from, uint64_t bytes)
{
    copy_bytes(to, from, bytes);
}

bool
ds_buffer_is_sealed(const struct ds_buffer *buffer)
{
    return buffer->state == BUFFER_SEALED;
}

struct ds_buffer *
ds_buffer_ref(struct ds_buffer *buffer)
{
    uint32_t before =
        atomic_fetch_add_explicit(&buffer->holders, 1, memory_order_relaxed);
    DS_ASSERT(before > 0);
    return buffer;
}
