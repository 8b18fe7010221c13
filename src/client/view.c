#include "client/view.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/status.h"
#include "client/buffer.h"
#include "os/memfile.h"
#include "os/memory_limit.h"

/* Shared: atomics only. Mapped at this moment, also those that the janitor still has. */
static _Atomic uint32_t view_count;
static _Atomic uint32_t known_max; /* 0: not read yet. */

uint32_t
views_max(void)
{
    uint32_t most = atomic_load_explicit(&known_max, memory_order_relaxed);
    if (most == 0) {
        most = (uint32_t)min_u64(VIEWS_MAX, max_u64(memory_mappings_max() / 2, 1));
        atomic_store_explicit(&known_max, most, memory_order_relaxed);
    }
    return most;
}

/* False when there are too many already. */
static bool
count_one(void)
{
    uint32_t before = atomic_fetch_add_explicit(&view_count, 1, memory_order_relaxed);
    if (before < views_max())
        return true;
    atomic_fetch_sub_explicit(&view_count, 1, memory_order_relaxed);
    return false;
}

static enum ds_status
map_view(struct ds_buffer *buffer, void **out, struct ds_error *err)
{
    if (!count_one())
        return ds_fail(err, DS_NO_MEMORY,
                       "this process has %u private views; copy the bytes instead",
                       views_max());
    uint64_t offset = (uint64_t)(buffer->data - buffer->mapping->arena);
    enum ds_status status =
        memfile_map_private(buffer->mapping->arena_fd, offset, buffer->size, out, err);
    if (status != DS_OK)
        atomic_fetch_sub_explicit(&view_count, 1, memory_order_relaxed);
    return status;
}

enum ds_status
ds_view_map(struct ds_buffer *buffer, void **out_data, struct ds_error *err)
{
    if (buffer == NULL || out_data == NULL || buffer->state != BUFFER_SEALED)
        return ds_fail(err, DS_INVALID, "a view needs a sealed buffer");
    if (buffer->owns_data || buffer->mapping->huge_page_bytes != 0)
        return ds_fail(err, DS_UNSUPPORTED,
                       "no private view of these bytes: they are not in a shared "
                       "memory file of small pages; copy them");
    enum ds_status status = map_view(buffer, out_data, err);
    if (status == DS_OK)
        ds_buffer_ref(buffer);
    return status;
}

void
ds_view_unmap(struct ds_buffer *buffer, void *data)
{
    janitor_drop((struct dropped_view){.buffer = buffer, .data = data});
}

void
ds_view_settle(void)
{
    janitor_settle();
}

void
views_unmap(const struct dropped_view *views, uint32_t count)
{
    struct ds_buffer *buffers[JANITOR_BATCH_VIEWS];
    DS_ASSERT(count <= JANITOR_BATCH_VIEWS);
    for (uint32_t i = 0; i < count; i++) {
        memfile_unmap_private(views[i].data, views[i].buffer->size);
        buffers[i] = views[i].buffer;
    }
    atomic_fetch_sub_explicit(&view_count, count, memory_order_relaxed);
    buffers_release(buffers, count);
}
