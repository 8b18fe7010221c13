#include "client/mapping.h"

#include "base/auto.h"
#include "base/check.h"
#include "base/numeric.h"
#include "base/status.h"
#include "client/buffer.h"
#include "client/client.h"
#include "os/memfile.h"
#include "os/sockets.h"
#include "store/pin.h"

#include <stdlib.h>
#include <string.h>

/* ---- Opening ---- */

static enum ds_status
map_arena(struct mapping *mapping, int fd, struct ds_error *err)
{
    uint64_t bytes;
    enum ds_status status = memfile_size(fd, &bytes, err);
    if (status != DS_OK)
        return status;
    if (mapping->arena_bytes == 0 || bytes < mapping->arena_bytes)
        return ds_fail(err, DS_IO, "the worker's arena has %ju bytes, not %ju",
                       (uintmax_t)bytes, (uintmax_t)mapping->arena_bytes);
    void *data;
    status = memfile_map(fd, 0, mapping->arena_bytes, true, &data, err);
    if (status == DS_OK)
        mapping->arena = data;
    return status;
}

static enum ds_status
fail_layout(const char *what, uint32_t version, struct ds_error *err)
{
    return ds_fail(err, DS_MISMATCH,
                   "the worker's %s has layout %u, this library (%s) speaks layout %u; "
                   "install the same version on both sides",
                   what, version, DS_VERSION, LAYOUT_VERSION);
}

static enum ds_status
check_table(struct mapping *mapping, struct ds_error *err)
{
    const struct table_header *header = mapping->table;
    if (header->magic != TABLE_MAGIC || header->layout_version != LAYOUT_VERSION ||
        header->slot_bytes != sizeof(struct slot))
        return fail_layout("table", header->layout_version, err);
    enum ds_status status =
        table_reader_init(&mapping->reader, mapping->table, mapping->table_bytes, err);
    if (status != DS_OK)
        return status;
    if (header->arena_bytes != mapping->arena_bytes ||
        header->incarnation != mapping->incarnation)
        return ds_fail(err, DS_IO, "the worker's table contradicts its greeting");
    return DS_OK;
}

static enum ds_status
map_table(struct mapping *mapping, int fd, struct ds_error *err)
{
    uint64_t bytes;
    enum ds_status status = memfile_size(fd, &bytes, err);
    if (status != DS_OK)
        return status;
    if (mapping->table_bytes < sizeof(struct table_header) ||
        bytes < mapping->table_bytes)
        return ds_fail(err, DS_IO, "the worker's table has %ju bytes, not %ju",
                       (uintmax_t)bytes, (uintmax_t)mapping->table_bytes);
    status = memfile_map(fd, 0, mapping->table_bytes, false, &mapping->table, err);
    return status == DS_OK ? check_table(mapping, err) : status;
}

/* How many words the worker looks at in each region. */
static enum ds_status
read_word_count(int fd, uint32_t *out, struct ds_error *err)
{
    void *data;
    enum ds_status status = memfile_map(fd, 0, PINS_HEADER_BYTES, false, &data, err);
    if (status != DS_OK)
        return status;
    struct pins_header header = *(const struct pins_header *)data;
    memfile_unmap(data, PINS_HEADER_BYTES);
    if (header.magic != PINS_MAGIC || header.layout_version != LAYOUT_VERSION)
        return fail_layout("pins", header.layout_version, err);
    *out = header.words_per_region;
    return DS_OK;
}

static enum ds_status
map_region(struct mapping *mapping, int fd, uint64_t offset, struct ds_error *err)
{
    uint64_t bytes;
    uint32_t word_count = 0;
    enum ds_status status = memfile_size(fd, &bytes, err);
    if (status == DS_OK)
        status = read_word_count(fd, &word_count, err);
    if (status != DS_OK)
        return status;
    uint64_t wanted =
        sizeof(struct pin_region) + word_count * (uint64_t)sizeof(uint64_t);
    if (offset % MAP_UNIT_BYTES != 0 || offset > bytes ||
        mapping->region_bytes < wanted || mapping->region_bytes > bytes - offset)
        return ds_fail(err, DS_IO, "the worker's pins contradict its greeting");
    status =
        memfile_map(fd, offset, mapping->region_bytes, true, &mapping->region, err);
    if (status != DS_OK)
        return status;
    pins_init(&mapping->pins, mapping->region, word_count);
    pin_announce(mapping->region);
    return DS_OK;
}

/* Nobody holds it. One without an arena is of a client over TCP, which left when it was
 * closed, or was never used, which the worker sees. */
static void
mapping_free(struct mapping *mapping)
{
    if (!mapping->inherited && !mapping->left && mapping->arena != NULL)
        client_leave_unheard(mapping);
    memfile_unmap(mapping->arena, mapping->arena_bytes);
    memfile_unmap(mapping->table, mapping->table_bytes);
    memfile_unmap(mapping->region, mapping->region_bytes);
    socket_close(mapping->arena_fd);
    socket_close(mapping->life_mark);
    socket_close(mapping->fork_mark);
    socket_close(mapping->claim_mark);
    pins_fini(&mapping->pins);
    free(mapping->aborts);
    free(mapping->place);
    free(mapping);
}

static void
run_free(struct deferred *work)
{
    mapping_free(CONTAINER_OF(work, struct mapping, destroy));
}

static enum ds_status
map_all(struct mapping *mapping, const struct welcome *welcome,
        const int fds[WELCOME_FDS_MAX], struct ds_error *err)
{
    mapping->arena_bytes = welcome->arena_bytes;
    mapping->huge_page_bytes = welcome->huge_page_bytes;
    mapping->table_bytes = welcome->table_bytes;
    mapping->region_bytes = welcome->pins_bytes;
    enum ds_status status = map_table(mapping, fds[1], err);
    if (status == DS_OK)
        status = map_region(mapping, fds[2], welcome->pins_offset, err);
    if (status == DS_OK)
        status = map_arena(mapping, fds[0], err);
    return status;
}

/* Nothing mapped yet. Takes the descriptors; NULL when out of memory. */
static struct mapping *
mapping_new(const struct welcome *welcome, const char *place, int arena_fd,
            int life_mark)
{
    struct mapping *mapping = calloc(1, sizeof *mapping);
    char *copy = strdup(place);
    if (mapping == NULL || copy == NULL) {
        free(mapping);
        free(copy);
        socket_close(arena_fd);
        socket_close(life_mark);
        return NULL;
    }
    *mapping = (struct mapping){
        .holders = 1,
        .destroy.run = run_free,
        .incarnation = welcome->incarnation,
        .client = welcome->client,
        .token = welcome->token,
        .place = copy,
        .arena_fd = arena_fd,
        .life_mark = life_mark,
        .fork_mark = -1,
        .claim_mark = -1,
    };
    list_init(&mapping->link);
    list_init(&mapping->unsealed);
    return mapping;
}

static void
publish(struct mapping *mapping, struct mapping **out)
{
    library_lock();
    list_push_back(library_mappings(), &mapping->link);
    library_unlock();
    *out = mapping;
}

enum ds_status
mapping_open(const struct welcome *welcome, const char *socket_path,
             const int fds[WELCOME_FDS_MAX], struct mapping **out, struct ds_error *err)
{
    struct mapping *mapping = mapping_new(welcome, socket_path, fds[0], fds[3]);
    enum ds_status status = DS_OK;
    if (mapping == NULL)
        status = ds_fail(err, DS_NO_MEMORY, "out of memory for a mapping");
    else
        status = map_all(mapping, welcome, fds, err);
    socket_close(fds[1]);
    socket_close(fds[2]);
    if (status == DS_OK)
        publish(mapping, out);
    else if (mapping != NULL)
        mapping_free(mapping);
    return status;
}

enum ds_status
mapping_open_remote(const struct welcome *welcome, const char *address,
                    struct mapping **out, struct ds_error *err)
{
    struct mapping *mapping = mapping_new(welcome, address, -1, -1);
    if (mapping == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a mapping");
    publish(mapping, out);
    return DS_OK;
}

/* ---- Use ---- */

struct mapping *
mapping_ref(struct mapping *mapping)
{
    DS_ASSERT(mapping->holders > 0);
    mapping->holders++;
    return mapping;
}

void
mapping_unref(struct mapping *mapping)
{
    if (mapping == NULL)
        return;
    DS_ASSERT(mapping->holders > 0);
    if (--mapping->holders > 0)
        return;
    DS_ASSERT(list_is_empty(&mapping->unsealed));
    list_remove(&mapping->link);
    DS_ASSERT(mapping->inherited || pins_count(&mapping->pins) == 0);
    library_defer(&mapping->destroy);
}

bool
mapping_contains(const struct mapping *mapping, uint32_t slot, uint64_t offset,
                 uint64_t size)
{
    return slot < mapping->reader.slot_count && size > 0 &&
           offset <= mapping->arena_bytes && offset % EXTENT_UNIT_BYTES == 0 &&
           size <= mapping->arena_bytes - offset;
}

void
mapping_abort_later(struct mapping *mapping, struct wire_ref ref)
{
    if (mapping->abort_count == mapping->abort_capacity) {
        size_t capacity = max_u64(16, mapping->abort_capacity * 2);
        struct wire_ref *aborts =
            realloc(mapping->aborts, capacity * sizeof *mapping->aborts);
        if (aborts == NULL) {
            mapping->resume_needed = true; /* Says the same, the long way. */
            return;
        }
        mapping->aborts = aborts;
        mapping->abort_capacity = capacity;
    }
    mapping->aborts[mapping->abort_count++] = ref;
}

void
mapping_give_up_leases(struct mapping *mapping)
{
    struct lease lent;
    while (leases_take_any(&mapping->leases, &lent))
        mapping_abort_later(mapping, lent.extent.ref);
}

struct wire_ref *
mapping_take_aborts(struct mapping *mapping, size_t *out_count)
{
    struct wire_ref *aborts = mapping->aborts;
    *out_count = mapping->abort_count;
    if (mapping->abort_count == 0)
        return NULL;
    mapping->aborts = NULL;
    mapping->abort_count = 0;
    mapping->abort_capacity = 0;
    return aborts;
}

bool
mapping_begin_epoch(struct mapping *mapping, struct wire_ref **out, size_t *out_count,
                    uint64_t *out_epoch)
{
    size_t count = 0;
    LIST_FOREACH (link, &mapping->unsealed)
        count++;
    struct wire_ref *holding = calloc(count + 1, sizeof *holding);
    if (holding == NULL)
        return false;
    size_t i = 0;
    LIST_FOREACH (link, &mapping->unsealed)
        holding[i++] = CONTAINER_OF(link, struct ds_buffer, link)->ref;
    DS_ASSERT(i == count);
    *out_epoch = ++mapping->epoch;
    mapping->resume_needed = false;
    mapping->abort_count = 0; /* They are not held, which says the same. */
    mapping->leases = (struct leases){0};
    *out = holding;
    *out_count = count;
    return true;
}
