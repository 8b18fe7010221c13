#include "store/format.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/status.h"

#include <inttypes.h>
#include <string.h>

enum {
    FORMAT_PAGE_BYTES = 4096,
    SLOTS_MIN = 1024 * 1024,
    ARENA_BYTES_PER_SLOT = 1024,
    KEY_HEAP_BYTES_PER_SLOT = 128,
    WORDS_PER_REGION = 65536,
};

/* Larger numbers in a header are damage; below them no sum here can overflow. */
#define SLOTS_MAX    (UINT32_MAX - 1ull)
#define BUCKETS_MAX  (1ull << 32)
#define ARENA_MAX    (1ull << 44)
#define KEY_HEAP_MAX (1ull << 42)
#define REGIONS_MAX  (1u << 20)

/* Offsets in the table file that follow from the geometry. */
struct table_places {
    uint64_t buckets_off;
    uint64_t slots_off;
    uint64_t key_heap_off;
    uint64_t end;
};

static struct table_places
places_of(uint64_t bucket_count, uint64_t slot_count, uint64_t key_heap_bytes)
{
    struct table_places places = {.buckets_off = TABLE_HEADER_BYTES};
    places.slots_off = places.buckets_off +
                       round_up(bucket_count * sizeof(uint32_t), FORMAT_PAGE_BYTES);
    places.key_heap_off = places.slots_off +
                          round_up(slot_count * sizeof(struct slot), FORMAT_PAGE_BYTES);
    places.end = places.key_heap_off + key_heap_bytes;
    return places;
}

static uint64_t
region_bytes(uint32_t words_per_region)
{
    uint64_t words = words_per_region * (uint64_t)sizeof(uint64_t);
    return round_up(sizeof(struct pin_region) + words, MAP_UNIT_BYTES);
}

struct store_geometry
store_geometry_default(uint64_t arena_bytes, uint32_t clients_max)
{
    uint64_t slots = max_u64(arena_bytes / ARENA_BYTES_PER_SLOT, SLOTS_MIN);
    slots = min_u64(slots, SLOTS_MAX);
    uint64_t buckets = 1;
    while (buckets * 2 < slots)
        buckets *= 2;
    return (struct store_geometry){
        .arena_bytes = round_up(arena_bytes, FORMAT_PAGE_BYTES),
        .slot_count = slots,
        .bucket_count = buckets,
        .key_heap_bytes = round_up(slots * KEY_HEAP_BYTES_PER_SLOT, FORMAT_PAGE_BYTES),
        .region_count = clients_max,
        .words_per_region = WORDS_PER_REGION,
    };
}

uint64_t
store_table_bytes(const struct store_geometry *geometry)
{
    return places_of(geometry->bucket_count, geometry->slot_count,
                     geometry->key_heap_bytes)
        .end;
}

uint64_t
store_pins_bytes(const struct store_geometry *geometry)
{
    return PINS_HEADER_BYTES +
           geometry->region_count * region_bytes(geometry->words_per_region);
}

static void
format_pins(const struct store_memory *memory, const struct store_geometry *geometry,
            uint32_t incarnation)
{
    struct pins_header *pins = memory->pins;
    *pins = (struct pins_header){
        .layout_version = LAYOUT_VERSION,
        .region_count = geometry->region_count,
        .region_bytes = region_bytes(geometry->words_per_region),
        .words_per_region = geometry->words_per_region,
        .incarnation = incarnation,
    };
    atomic_thread_fence(memory_order_release);
    pins->magic = PINS_MAGIC;
}

void
store_format(const struct store_memory *memory, const struct store_geometry *geometry,
             uint32_t node, uint32_t incarnation, uint64_t huge_page_bytes)
{
    DS_ASSERT(memory->table_bytes >= store_table_bytes(geometry));
    DS_ASSERT(memory->pins_bytes >= store_pins_bytes(geometry));
    DS_ASSERT(is_power_of_two(geometry->bucket_count));
    DS_ASSERT(geometry->arena_bytes % FORMAT_PAGE_BYTES == 0);
    DS_ASSERT(geometry->key_heap_bytes % FORMAT_PAGE_BYTES == 0);
    struct table_places places = places_of(geometry->bucket_count, geometry->slot_count,
                                           geometry->key_heap_bytes);
    format_pins(memory, geometry, incarnation);
    struct table_header *header = memory->table;
    memset(header, 0, sizeof *header);
    header->layout_version = LAYOUT_VERSION;
    header->slot_bytes = sizeof(struct slot);
    header->file_bytes = places.end;
    header->arena_bytes = geometry->arena_bytes;
    header->node = node;
    header->incarnation = incarnation;
    header->bucket_count = geometry->bucket_count;
    header->slot_count = geometry->slot_count;
    header->buckets_off = places.buckets_off;
    header->slots_off = places.slots_off;
    header->key_heap_off = places.key_heap_off;
    header->key_heap_bytes = geometry->key_heap_bytes;
    header->huge_page_bytes = huge_page_bytes;
    /* Last, so that half a header is none. */
    atomic_thread_fence(memory_order_release);
    header->magic = TABLE_MAGIC;
    DS_ASSERT(format_check_table(memory, NULL) == DS_OK);
    DS_ASSERT(format_check_pins(memory, NULL) == DS_OK);
}

static bool
is_page_multiple(uint64_t bytes, uint64_t max)
{
    return bytes > 0 && bytes <= max && bytes % FORMAT_PAGE_BYTES == 0;
}

static bool
geometry_is_sane(const struct table_header *header)
{
    uint64_t huge = header->huge_page_bytes;
    bool huge_ok = huge == 0 || (is_power_of_two(huge) && huge >= FORMAT_PAGE_BYTES &&
                                 huge <= header->arena_bytes);
    return is_page_multiple(header->arena_bytes, ARENA_MAX - FORMAT_PAGE_BYTES) &&
           is_page_multiple(header->key_heap_bytes, KEY_HEAP_MAX) && huge_ok &&
           is_power_of_two(header->bucket_count) &&
           header->bucket_count <= BUCKETS_MAX && header->slot_count > 0 &&
           header->slot_count <= SLOTS_MAX;
}

static bool
places_match(const struct store_memory *memory)
{
    const struct table_header *header = memory->table;
    if (!geometry_is_sane(header))
        return false;
    struct table_places places =
        places_of(header->bucket_count, header->slot_count, header->key_heap_bytes);
    return header->file_bytes == places.end && places.end <= memory->table_bytes &&
           header->buckets_off == places.buckets_off &&
           header->slots_off == places.slots_off &&
           header->key_heap_off == places.key_heap_off;
}

enum ds_status
format_check_table(const struct store_memory *memory, struct ds_error *err)
{
    const struct table_header *header = memory->table;
    if (memory->table_bytes < TABLE_HEADER_BYTES || header->magic != TABLE_MAGIC)
        return ds_fail(err, DS_MISMATCH,
                       "the object table is not one of a datasystem worker");
    if (header->layout_version != LAYOUT_VERSION ||
        header->slot_bytes != sizeof(struct slot))
        return ds_fail(err, DS_MISMATCH,
                       "the object table has layout version %u with slots of %u bytes, "
                       "this build has version %u with %zu; stop every process of the "
                       "other version first",
                       header->layout_version, header->slot_bytes, LAYOUT_VERSION,
                       sizeof(struct slot));
    if (memory->arena_bytes != 0 && memory->arena_bytes != header->arena_bytes)
        return ds_fail(err, DS_MISMATCH,
                       "the object table is of an arena of %" PRIu64
                       " bytes, but this one has %" PRIu64,
                       header->arena_bytes, memory->arena_bytes);
    if (places_match(memory))
        return DS_OK;
    return ds_fail(err, DS_MISMATCH,
                   "the header of the object table is damaged: %" PRIu64
                   " slots, %" PRIu64 " buckets and %" PRIu64
                   " bytes of keys do not make a file of %" PRIu64 " bytes",
                   header->slot_count, header->bucket_count, header->key_heap_bytes,
                   memory->table_bytes);
}

enum ds_status
format_check_pins(const struct store_memory *memory, struct ds_error *err)
{
    const struct pins_header *header = memory->pins;
    const struct table_header *table = memory->table;
    if (memory->pins_bytes < PINS_HEADER_BYTES || header->magic != PINS_MAGIC)
        return ds_fail(err, DS_MISMATCH,
                       "the pins file is not one of a datasystem worker");
    if (header->layout_version != LAYOUT_VERSION)
        return ds_fail(err, DS_MISMATCH,
                       "the pins file has layout version %u, this build has %u; stop "
                       "every process of the other version first",
                       header->layout_version, LAYOUT_VERSION);
    uint64_t bytes = region_bytes(header->words_per_region);
    if (header->region_count == 0 || header->region_count > REGIONS_MAX ||
        header->region_bytes != bytes || header->incarnation != table->incarnation ||
        bytes > (memory->pins_bytes - PINS_HEADER_BYTES) / header->region_count)
        return ds_fail(err, DS_MISMATCH,
                       "the header of the pins file is damaged or belongs to another "
                       "arena: %u regions of %" PRIu64 " bytes",
                       header->region_count, header->region_bytes);
    return DS_OK;
}
