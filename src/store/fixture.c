#include "store/fixture.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

struct store_geometry
fixture_geometry(void)
{
    return (struct store_geometry){
        .arena_bytes = 1 << 20,
        .slot_count = 64,
        .bucket_count = 16,
        .key_heap_bytes = 16384,
        .region_count = 8,
        .words_per_region = 64,
    };
}

static void
allocate(struct fixture *fixture)
{
    struct store_memory *memory = &fixture->memory;
    memory->table_bytes = store_table_bytes(&fixture->geometry);
    memory->pins_bytes = store_pins_bytes(&fixture->geometry);
    memory->arena_bytes = fixture->geometry.arena_bytes;
    memory->table = aligned_alloc(4096, memory->table_bytes);
    memory->pins = aligned_alloc(4096, memory->pins_bytes);
    DS_ASSERT(memory->table != NULL);
    DS_ASSERT(memory->pins != NULL);
    memset(memory->table, 0, memory->table_bytes);
    memset(memory->pins, 0, memory->pins_bytes);
}

enum ds_status
fixture_reopen(struct fixture *fixture, struct ds_error *err)
{
    return store_open(&fixture->memory, FIXTURE_NOW, &fixture->store, &fixture->report,
                      err);
}

void
fixture_open(struct fixture *fixture, struct store_geometry geometry)
{
    struct ds_error err = {0};
    *fixture = (struct fixture){.geometry = geometry};
    allocate(fixture);
    fixture->arena = calloc(1, geometry.arena_bytes);
    CHECK(fixture->arena != NULL);
    store_format(&fixture->memory, &geometry, 7, 42, 0);
    CHECK_OK(fixture_reopen(fixture, &err));
    store_set_populated(fixture->store, geometry.arena_bytes);
}

void
fixture_close(struct fixture *fixture)
{
    store_close(fixture->store);
    free(fixture->memory.table);
    free(fixture->memory.pins);
    free(fixture->arena);
    *fixture = (struct fixture){0};
}

void
fixture_auto(struct fixture *fixture)
{
    fixture_close(fixture);
}

void
fixture_restart(struct fixture *fixture)
{
    struct ds_error err = {0};
    store_close(fixture->store);
    fixture->store = NULL;
    CHECK_OK(fixture_reopen(fixture, &err));
    store_check(fixture->store);
}

void
fixture_copy(struct fixture *out, const struct fixture *from)
{
    *out = (struct fixture){.geometry = from->geometry};
    allocate(out);
    memcpy(out->memory.table, from->memory.table, out->memory.table_bytes);
    memcpy(out->memory.pins, from->memory.pins, out->memory.pins_bytes);
}

uint32_t
add_client(struct store *store)
{
    struct client_identity identity = {.pid = 100, .pid_start_time = 5, .token = 77};
    struct ds_error err = {0};
    uint32_t region = UINT32_MAX;
    CHECK_OK(store_client_add(store, &identity, &region, &err));
    return region;
}

struct create_request
request_for(const char *key, uint64_t size)
{
    return (struct create_request){.key = slice_of_text(key), .size = size};
}

struct object_view
create(struct store *store, const char *key, uint64_t size)
{
    struct create_request request = request_for(key, size);
    struct object_view view = {0};
    struct ds_error err = {0};
    CHECK_OK(store_create(store, &request, FIXTURE_NOW, &view, &err));
    return view;
}

void
seal(struct store *store, struct object_ref ref)
{
    struct seal_request request = {.ref = ref};
    struct ds_error err = {0};
    CHECK_OK(store_seal(store, &request, FIXTURE_NOW, &err));
}

struct object_view
put(struct store *store, const char *key, uint64_t size)
{
    struct object_view view = create(store, key, size);
    seal(store, view.ref);
    CHECK(find(store, key, &view));
    return view;
}

bool
find(struct store *store, const char *key, struct object_view *out)
{
    return store_find(store, slice_of_text(key), FIXTURE_NOW, out);
}

bool
exists(struct store *store, const char *key)
{
    struct object_view view;
    return find(store, key, &view);
}

bool
delete_key(struct store *store, const char *key)
{
    return store_delete(store, slice_of_text(key), FIXTURE_NOW);
}

struct store_stats
stats_of(const struct store *store)
{
    struct store_stats stats;
    store_stats(store, &stats);
    return stats;
}

struct pin_region *
region_of(const struct fixture *fixture, uint32_t region)
{
    const struct pins_header *header = fixture->memory.pins;
    uint8_t *base = fixture->memory.pins;
    return (struct pin_region *)(void *)(base + PINS_HEADER_BYTES +
                                         region * header->region_bytes);
}

const struct slot *
slot_of(const struct fixture *fixture, uint32_t slot)
{
    const struct table_header *header = fixture->memory.table;
    const uint8_t *base = fixture->memory.table;
    const uint8_t *slots = base + header->slots_off;
    return (const struct slot *)(const void *)(slots + slot * sizeof(struct slot));
}

enum ds_status
try_create(struct store *store, const char *key, uint64_t size, struct ds_error *err)
{
    struct create_request request = request_for(key, size);
    struct object_view view;
    return store_create(store, &request, FIXTURE_NOW, &view, err);
}

enum ds_status
try_seal(struct store *store, const struct seal_request *request)
{
    struct ds_error err = {0};
    return store_seal(store, request, FIXTURE_NOW, &err);
}
