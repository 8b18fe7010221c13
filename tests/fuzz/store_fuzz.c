/* store_open() on damaged shared memory, and the store's life after that.
 *
 * Table and pins of a small, well-filled store are damaged at up to 48 places, opened,
 * and used. The table is written by workers only, so it is damaged before it is opened;
 * the pins are written by clients, so they may change at any time. Whatever was there:
 * it is refused with a text, or the store works: it can be checked, used, emptied, and
 * has no byte taken then.
 *
 *   damage      count u8, then {where u8, offset u16, xor u8} for each
 *   operations  {operation u8, argument u16} for each, to the end */
#include "fuzz.h"

#include "store/store.h"
#include "wire/cursor.h"

#include <stdlib.h>

enum {
    NOW = 1000,
    ARENA_BYTES = 256 << 10,
    SLOTS = 32,
    BUCKETS = 8,
    REGIONS = 3,
    WORDS = 32,
    DAMAGES_MAX = 48,
    OPERATIONS_MAX = 200,
    KEYS = 24,
};

static const struct store_geometry geometry = {
    .arena_bytes = ARENA_BYTES,
    .slot_count = SLOTS,
    .bucket_count = BUCKETS,
    .key_heap_bytes = 8192,
    .region_count = REGIONS,
    .words_per_region = WORDS,
};

/* ---- The store before the damage ---- */

static struct store_memory
allocate(void)
{
    struct store_memory memory = {
        .table_bytes = store_table_bytes(&geometry),
        .pins_bytes = store_pins_bytes(&geometry),
        .arena_bytes = ARENA_BYTES,
    };
    memory.table = aligned_alloc(4096, memory.table_bytes);
    memory.pins = aligned_alloc(4096, memory.pins_bytes);
    DS_ASSERT(memory.table != NULL);
    DS_ASSERT(memory.pins != NULL);
    memset(memory.table, 0, memory.table_bytes);
    memset(memory.pins, 0, memory.pins_bytes);
    return memory;
}

static void
release(struct store_memory *memory)
{
    free(memory->table);
    free(memory->pins);
}

/* Keys of 1 to 47 bytes, half of them in the key heap. */
static struct ds_slice
key_of(uint32_t number, uint8_t buffer[64])
{
    size_t len = 1 + (number % KEYS) * 2;
    memset(buffer, 'k', len);
    buffer[0] = (uint8_t)('A' + number % KEYS);
    return slice(buffer, len);
}

static uint64_t
size_of(uint32_t number)
{
    return 1 + (uint64_t)number * number * 31 % 9000;
}

/* A client that there is, or nobody. */
static uint32_t
creator_of(const struct store *store, uint32_t argument)
{
    struct client_identity identity;
    uint32_t client = argument % (REGIONS + 1);
    bool known = client != 0 && store_client_get(store, client - 1, &identity);
    return known ? client : 0;
}

static bool
create(struct store *store, uint32_t number, uint32_t client, uint8_t flags,
       struct object_view *out)
{
    uint8_t buffer[64];
    struct create_request request = {.key = key_of(number, buffer),
                                     .size = size_of(number),
                                     .client = client,
                                     .sequence = number,
                                     .flags = flags};
    return store_create(store, &request, NOW, out, NULL) == DS_OK;
}

static void
put(struct store *store, uint32_t number, uint32_t client, uint8_t flags)
{
    struct object_view view;
    struct seal_request seal = {.expires_ds = number % 5 == 0 ? NOW + number : 0};
    if (!create(store, number, client, flags, &view))
        return;
    seal.ref = view.ref;
    enum ds_status status = store_seal(store, &seal, NOW, NULL);
    DS_ASSERT(status == DS_OK);
}

static struct pin_region *
region_of(const struct store_memory *memory, uint32_t region)
{
    const struct pins_header *header = memory->pins;
    uint8_t *base = memory->pins;
    return (struct pin_region *)(void *)(base + PINS_HEADER_BYTES +
                                         region * header->region_bytes);
}

/* Any byte that means something, of any region; whatever the header says by now. */
static uint8_t *
byte_of_a_region(const struct store_memory *memory, uint64_t number)
{
    enum { BYTES = sizeof(struct pin_region) + WORDS * sizeof(uint64_t) };
    uint64_t region_bytes = (memory->pins_bytes - PINS_HEADER_BYTES) / REGIONS;
    uint8_t *regions = (uint8_t *)memory->pins + PINS_HEADER_BYTES;
    return regions + number / BYTES % REGIONS * region_bytes + number % BYTES;
}

static void
pin(const struct store_memory *memory, uint32_t region, uint32_t word, uint64_t offset)
{
    struct pin_region *shared = region_of(memory, region % REGIONS);
    atomic_store(&shared->words[word % WORDS], pin_word(offset));
    atomic_store(&shared->words_used, WORDS);
}

/* Objects in every state, clients, pins. */
static void
fill(const struct store_memory *memory)
{
    struct store *store = NULL;
    uint32_t region;
    struct object_view view;
    uint8_t buffer[64];
    enum ds_status status = store_open(memory, NOW, &store, NULL, NULL);
    DS_ASSERT(status == DS_OK);
    store_set_populated(store, ARENA_BYTES);
    struct client_identity identity = {.pid = 7, .pid_start_time = 8, .token = 9};
    status = store_client_add(store, &identity, &region, NULL);
    DS_ASSERT(status == DS_OK);
    for (uint32_t i = 0; i < 20; i++)
        put(store, i, i % 2 * (region + 1), i % 7 == 3 ? SLOT_FLAG_PROVISIONAL : 0);
    for (uint32_t i = 20; i < 23; i++) {
        bool created = create(store, i, region + 1, 0, &view);
        DS_ASSERT(created);
        pin(memory, region, i, view.offset);
    }
    for (uint32_t i = 2; i < 8; i += 2) {
        bool found = store_find(store, key_of(i, buffer), NOW, &view);
        DS_ASSERT(found);
        pin(memory, region, i, view.offset);
        (void)store_delete(store, key_of(i, buffer), NOW);
    }
    store_close(store);
}

/* Made once: the same for every input. */
static const struct store_memory *
image(void)
{
    static struct store_memory memory;
    if (memory.table == NULL) {
        memory = allocate();
        store_format(&memory, &geometry, 7, 42, 0);
        fill(&memory);
    }
    return &memory;
}

/* ---- Damage ---- */

/* Mostly where something is: header, heads, slots, keys; or the pins. */
static void
damage_one(const struct store_memory *memory, struct reader *input)
{
    const struct table_header *header = image()->table;
    uint8_t *table = memory->table;
    uint8_t *pins = memory->pins;
    uint8_t where = read_u8(input);
    uint32_t offset = read_u16(input);
    uint8_t bits = read_u8(input);
    switch (where % 8) {
    case 0:
        table[offset % sizeof *header] ^= bits;
        break;
    case 1:
        table[header->buckets_off + offset % (BUCKETS * 4)] ^= bits;
        break;
    case 2:
        table[header->key_heap_off + offset % 2048] ^= bits;
        break;
    case 3:
        pins[offset % sizeof(struct pins_header)] ^= bits;
        break;
    case 4:
        *byte_of_a_region(memory, offset) ^= bits;
        break;
    default:
        table[header->slots_off + offset % (SLOTS * sizeof(struct slot))] ^= bits;
    }
}

static void
damage(const struct store_memory *memory, struct reader *input)
{
    uint32_t count = read_u8(input) % (DAMAGES_MAX + 1);
    for (uint32_t i = 0; i < count && reader_left(input) >= 4; i++)
        damage_one(memory, input);
}

/* ---- Operations ---- */

static void
seal_any(struct store *store, uint32_t argument)
{
    struct object_view view;
    enum slot_state state;
    uint8_t buffer[DS_KEY_BYTES_MAX];
    if (!store_inspect(store, argument % SLOTS, &view, &state))
        return;
    bool is_lent = store_key(store, argument % SLOTS, buffer).len == 0;
    DS_ASSERT(!is_lent || state != SLOT_SEALED);
    struct seal_request seal = {.ref = view.ref,
                                .only_if_absent = (argument & 256) != 0,
                                .has_checksum = (argument & 512) != 0};
    enum ds_status status = store_seal(store, &seal, NOW, NULL);
    DS_ASSERT(state != SLOT_WRITING || (status == DS_OK) == !is_lent);
    (void)store_set_checksum(store, view.ref, argument);
}

static void
lend_and_name(struct store *store, uint32_t argument)
{
    struct object_view view;
    uint8_t buffer[64];
    uint32_t client = creator_of(store, argument);
    uint64_t size = size_of(argument);
    if (client == 0 || !store_lend(store, size, client, argument, &view))
        return;
    if (argument % 3 != 0)
        return;
    struct name_request name = {.ref = view.ref,
                                .client = client,
                                .key = key_of(argument, buffer),
                                .size = size,
                                .flags = argument % 2 == 0 ? SLOT_FLAG_EVICTABLE : 0};
    enum ds_status status = store_name(store, &name, NULL);
    DS_ASSERT(status == DS_OK || status == DS_FULL);
}

static void
abort_any(struct store *store, uint32_t argument)
{
    struct object_ref ref = {.slot = argument % (2 * SLOTS),
                             .generation = argument >> 8};
    struct object_view view;
    enum slot_state state;
    if (argument % 2 == 0 && store_inspect(store, ref.slot, &view, &state))
        ref = view.ref;
    store_abort(store, ref);
}

static bool
add_client(struct store *store, uint32_t argument, uint32_t *out_region)
{
    struct client_identity identity = {.token = argument};
    return store_client_add(store, &identity, out_region, NULL) == DS_OK;
}

static void
note_key(struct ds_slice key, void *arg)
{
    uint64_t *bytes = arg;
    *bytes += key.len;
}

static void
remove_client(struct store *store, uint32_t region)
{
    struct client_identity identity;
    uint64_t bytes = 0;
    if (!store_client_get(store, region, &identity))
        return;
    store_client_provisional(store, region + 1, note_key, &bytes);
    store_client_remove(store, region);
}

static void
copy_pins(struct store *store, uint32_t argument)
{
    struct client_identity identity;
    uint32_t to;
    if (store_client_get(store, argument % REGIONS, &identity) &&
        add_client(store, argument, &to))
        store_client_copy_pins(store, argument % REGIONS, to);
}

static void
keep_only(struct store *store, uint32_t argument)
{
    struct client_identity identity;
    struct object_ref keep[4];
    uint32_t region = argument % REGIONS;
    if (!store_client_get(store, region, &identity))
        return;
    for (uint32_t i = 0; i < 4; i++)
        keep[i] = (struct object_ref){.slot = (argument >> 2) + i, .generation = 1};
    store_client_keep_only(store, region, keep, argument % 5);
}

static void
find_and_adopt(struct store *store, struct ds_slice key, uint32_t argument)
{
    struct object_view view;
    uint32_t client;
    uint32_t sequence;
    bool found = store_find(store, key, NOW, &view);
    DS_ASSERT(found == store_find_creator(store, key, NOW, &client, &sequence));
    if (found)
        DS_ASSERT(view.offset + view.size <= ARENA_BYTES);
    if (found && argument % 3 == 0)
        DS_ASSERT(store_adopt(store, key, NOW));
    if (found && argument % 3 == 1)
        DS_ASSERT(store_set_expiry(store, key, NOW + argument % 100, NOW));
}

static void
operate(struct store *store, const struct store_memory *memory, struct reader *input)
{
    uint8_t buffer[64];
    uint8_t operation = read_u8(input);
    uint32_t argument = read_u16(input);
    struct ds_slice key = key_of(argument, buffer);
    struct object_view view;
    uint32_t region;
    switch (operation % 12) {
    case 0:
        if ((argument & 0x4000) != 0)
            lend_and_name(store, argument);
        (void)create(store, argument, creator_of(store, argument), 0, &view);
        break;
    case 1:
        put(store, argument, creator_of(store, argument), 0);
        break;
    case 2:
        seal_any(store, argument);
        break;
    case 3:
        abort_any(store, argument);
        break;
    case 4:
        (void)store_delete(store, key, NOW);
        break;
    case 5:
        find_and_adopt(store, key, argument);
        break;
    case 6:
        (void)store_tick(store, NOW + argument % 64);
        break;
    case 7:
        (void)add_client(store, argument, &region);
        break;
    case 8:
        remove_client(store, argument % (REGIONS + 1));
        break;
    case 9:
        copy_pins(store, argument);
        break;
    case 10:
        keep_only(store, argument);
        break;
    default: /* A client, in its own memory, at any time. */
        *byte_of_a_region(memory, argument) ^= (uint8_t)(argument >> 8 | 1);
    }
}

/* ---- The end ---- */

struct first_key {
    uint8_t bytes[DS_KEY_BYTES_MAX];
    size_t len;
};

static void
note_first(const struct object_view *view, struct ds_slice key, void *arg)
{
    struct first_key *first = arg;
    (void)view;
    if (first->len > 0)
        return;
    memcpy(first->bytes, key.data, key.len);
    first->len = key.len;
}

/* Everything can be given back, so nothing was lost track of. */
static void
empty(struct store *store)
{
    struct store_stats stats;
    for (uint32_t i = 0; i < REGIONS; i++)
        remove_client(store, i);
    store_stats(store, &stats);
    for (uint32_t i = 0; i < stats.slots_total; i++) { /* Damage can add a few. */
        struct object_view view;
        enum slot_state state;
        if (store_inspect(store, i, &view, &state) && state == SLOT_WRITING)
            store_abort(store, view.ref);
    }
    for (;;) {
        struct first_key first = {.len = 0};
        store_each(store, note_first, &first);
        if (first.len == 0)
            break;
        uint64_t never = 0; /* So that nothing counts as expired. */
        DS_ASSERT(store_delete(store, slice(first.bytes, first.len), never));
    }
    (void)store_tick(store, UINT32_MAX);
    store_check(store);
    store_stats(store, &stats);
    DS_ASSERT(stats.arena.used_bytes == 0);
    DS_ASSERT(stats.pins == 0);
}

static void
use(struct store *store, const struct store_memory *memory, struct reader *input)
{
    store_check(store);
    for (int i = 0; i < OPERATIONS_MAX && reader_left(input) >= 3; i++)
        operate(store, memory, input);
    store_check(store);
    empty(store);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct store_memory memory = allocate();
    struct reader input = reader_of(data, size);
    struct store *store = NULL;
    struct store_recovery report;
    struct ds_error err = {0};
    memcpy(memory.table, image()->table, memory.table_bytes);
    memcpy(memory.pins, image()->pins, memory.pins_bytes);
    damage(&memory, &input);
    enum ds_status status = store_open(&memory, NOW, &store, &report, &err);
    if (status == DS_OK) {
        use(store, &memory, &input);
    } else {
        DS_ASSERT(status == DS_MISMATCH);
        DS_ASSERT(err.message[0] != '\0');
    }
    store_close(store);
    release(&memory);
    return 0;
}
