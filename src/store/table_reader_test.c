/* Reading the table without the worker: what is found, and what a reader sees when the
 * table changes under it. For the latter the memory is copied at every store of a
 * worker that overwrites, deletes, reclaims, uses slots and keys again, is killed and
 * recovers; then a reader is run for every pair of these moments and every one of its
 * own steps at which the table jumps from the one moment to the other. */
#include "store/table_reader.h"

#include "base/auto.h"
#include "base/check.h"
#include "store/fixture.h"

#include <stdlib.h>
#include <string.h>

enum { MOMENTS_MAX = 512, KEYS = 3 };

#define LONG_KEY "a key that does not fit into its slot, since it is this long"

static const char *const keys[KEYS] = {"a", "b", LONG_KEY};

static struct table_reader
reader_of(const struct fixture *f)
{
    struct table_reader reader;
    CHECK_OK(table_reader_init(&reader, f->memory.table, f->memory.table_bytes, NULL));
    return reader;
}

static bool
is_found(const struct fixture *f, const char *key, bool is_block, uint64_t now_ds,
         struct table_hit *out)
{
    struct table_reader reader = reader_of(f);
    return table_reader_find(&reader, slice_of_text(key), is_block, now_ds, out) &&
           table_reader_confirms(&reader, out);
}

/* ---- What is found ---- */

TEST(a_reader_finds_what_the_worker_finds)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    for (int i = 0; i < KEYS; i++)
        (void)put(f.store, keys[i], 100 + (uint64_t)i);
    (void)put(f.store, "a", 5000); /* The newer one counts. */
    for (int i = 0; i < KEYS; i++) {
        struct object_view view;
        struct table_hit hit;
        CHECK(find(f.store, keys[i], &view));
        CHECK(is_found(&f, keys[i], false, FIXTURE_NOW, &hit));
        CHECK_INT(hit.slot, view.ref.slot);
        CHECK_INT(hit.commit, view.commit);
        CHECK_INT(hit.offset, view.offset);
        CHECK_INT(hit.size, view.size);
    }
}

TEST(what_is_unsealed_deleted_expired_or_of_another_kind_is_a_miss)
{
    AUTO(fixture) struct fixture f;
    struct table_hit hit;
    fixture_open(&f, fixture_geometry());
    CHECK(!is_found(&f, "a", false, FIXTURE_NOW, &hit));
    struct object_view view = create(f.store, "a", 64);
    CHECK(!is_found(&f, "a", false, FIXTURE_NOW, &hit));
    seal(f.store, view.ref);
    CHECK(is_found(&f, "a", false, FIXTURE_NOW, &hit));
    CHECK(!is_found(&f, "a", true, FIXTURE_NOW, &hit));
    CHECK(store_set_expiry(f.store, slice_of_text("a"), FIXTURE_NOW + 5, FIXTURE_NOW));
    CHECK(is_found(&f, "a", false, FIXTURE_NOW + 4, &hit));
    CHECK(!is_found(&f, "a", false, FIXTURE_NOW + 5, &hit));
    CHECK(delete_key(f.store, "a"));
    CHECK(!is_found(&f, "a", false, FIXTURE_NOW, &hit));
}

TEST(no_table_no_reader)
{
    struct table_reader reader;
    struct ds_error err = {0};
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    CHECK_STATUS(table_reader_init(&reader, f.memory.table, 100, &err), DS_MISMATCH);
    uint64_t bytes = f.memory.table_bytes;
    CHECK_STATUS(table_reader_init(&reader, f.memory.table, bytes - 1, &err),
                 DS_MISMATCH);
}

/* ---- While it changes ---- */

/* `newest` is the size of the newest sealed object of each key; 0: there is none. Sizes
 * grow with every object of a key. */
struct moment {
    uint8_t *table;
    uint64_t newest[KEYS];
    bool in_recovery;
};

struct history {
    struct fixture f;
    struct moment moments[MOMENTS_MAX];
    uint32_t count;
    bool in_recovery;
};

/* The bytes of a slot's key, in the slot or in the heap. */
static uint8_t *
key_bytes_of(const struct fixture *f, struct slot *slot)
{
    const struct table_header *header = f->memory.table;
    key_heap_place place;
    if (place_key_bytes(slot->place) <= KEY_INLINE_BYTES)
        return slot->key;
    memcpy(&place, slot->key, sizeof place);
    return (uint8_t *)f->memory.table + header->key_heap_off + place;
}

/* By a look at all slots, whatever chains there are. */
static uint64_t
newest_size(const struct fixture *f, const char *key)
{
    uint64_t newest = 0;
    for (uint32_t i = 0; i < f->geometry.slot_count; i++) {
        struct slot *slot = (struct slot *)slot_of(f, i);
        if (commit_state(slot->commit) == SLOT_SEALED &&
            place_key_bytes(slot->place) == strlen(key) &&
            memcmp(key_bytes_of(f, slot), key, strlen(key)) == 0 && slot->size > newest)
            newest = slot->size;
    }
    return newest;
}

static void
record(const char *step, void *arg)
{
    struct history *history = arg;
    DS_ASSERT(history->count < MOMENTS_MAX);
    struct moment *moment = &history->moments[history->count++];
    if (strcmp(step, "recover epoch") == 0)
        history->in_recovery = true;
    if (strcmp(step, "recovered epoch") == 0)
        history->in_recovery = false;
    moment->in_recovery = history->in_recovery;
    moment->table = malloc(history->f.memory.table_bytes);
    DS_ASSERT(moment->table != NULL);
    memcpy(moment->table, history->f.memory.table, history->f.memory.table_bytes);
    for (int i = 0; i < KEYS; i++)
        moment->newest[i] = newest_size(&history->f, keys[i]);
}

/* Killed between the commit of a new object and the end of the old one, the worst
 * moment: both are sealed. */
static void
seal_and_be_killed(struct history *history, const char *key, uint64_t size)
{
    struct object_view view = create(history->f.store, key, size);
    uint32_t before = history->count;
    seal(history->f.store, view.ref);
    uint32_t both = before;
    while (history->moments[both].newest[0] != size)
        both++;
    while (history->count > both + 1)
        free(history->moments[--history->count].table);
    memcpy(history->f.memory.table, history->moments[both].table,
           history->f.memory.table_bytes);
    fixture_restart(&history->f);
}

static struct history *
history_make(void)
{
    struct history *history = calloc(1, sizeof *history);
    DS_ASSERT(history != NULL);
    fixture_open(&history->f, fixture_geometry());
    (void)put(history->f.store, "a", 100);
    (void)put(history->f.store, LONG_KEY, 100);
    store_set_step_hook(record, history);
    (void)put(history->f.store, "a", 200);
    CHECK(delete_key(history->f.store, LONG_KEY));
    (void)store_tick(history->f.store, FIXTURE_NOW); /* Their slots are free. */
    (void)put(history->f.store, "b", 100);
    (void)put(history->f.store, LONG_KEY, 300);
    seal_and_be_killed(history, "a", 400);
    (void)store_tick(history->f.store, FIXTURE_NOW);
    (void)put(history->f.store, LONG_KEY, 500);
    (void)put(history->f.store, "a", 600);
    store_set_step_hook(NULL, NULL);
    return history;
}

static void
history_free(struct history *history)
{
    for (uint32_t i = 0; i < history->count; i++)
        free(history->moments[i].table);
    fixture_close(&history->f);
    free(history);
}

/* The table jumps to `then` at the reader's step number `at`. */
struct jump {
    struct fixture *view;
    const struct moment *then;
    uint32_t step;
    uint32_t at;
};

static void
maybe_jump(const char *step, void *arg)
{
    struct jump *jump = arg;
    (void)step;
    if (jump->step++ == jump->at)
        memcpy(jump->view->memory.table, jump->then->table,
               jump->view->memory.table_bytes);
}

static bool
was_newest(const struct history *history, uint32_t from, uint32_t to, int key,
           uint64_t size)
{
    for (uint32_t i = from; i <= to; i++)
        if (history->moments[i].newest[key] == size)
            return true;
    return false;
}

/* Returns how many steps the reader made; counts its hits. */
static uint32_t
read_across(const struct history *history, struct fixture *view, uint32_t from,
            uint32_t to, int key, uint32_t at, uint64_t *hits)
{
    const struct moment *first = &history->moments[from], *last = &history->moments[to];
    struct table_reader reader = reader_of(view);
    struct jump jump = {.view = view, .then = last, .at = at};
    struct table_hit hit;
    memcpy(view->memory.table, first->table, view->memory.table_bytes);
    store_set_step_hook(maybe_jump, &jump);
    bool found =
        table_reader_find(&reader, slice_of_text(keys[key]), false, FIXTURE_NOW, &hit);
    store_set_step_hook(NULL, NULL);
    found = found && slot_of(view, hit.slot)->commit == hit.commit &&
            table_reader_confirms(&reader, &hit);
    if (found)
        CHECK(was_newest(history, from, to, key, hit.size));
    if (from == to && !first->in_recovery)
        CHECK_INT(found, first->newest[key] != 0);
    *hits += found;
    return jump.step;
}

TEST(a_reader_sees_what_was_there_at_some_moment_of_its_read_or_nothing)
{
    struct history *history = history_make();
    struct fixture view;
    uint64_t hits = 0, runs = 0;
    fixture_copy(&view, &history->f);
    CHECK(history->count > 100);
    for (uint32_t from = 0; from < history->count; from++)
        for (uint32_t to = from; to < history->count; to++)
            for (int key = 0; key < KEYS; key++) {
                uint32_t steps = 1;
                for (uint32_t at = 0; at < steps; at++, runs++)
                    steps = read_across(history, &view, from, to, key, at, &hits);
            }
    CHECK(hits > runs / 10); /* It is not that everything is a miss. */
    fixture_close(&view);
    history_free(history);
}

/* ---- Damage ---- */

/* A copy of exactly the table's bytes, so that a sanitizer sees a step outside. */
TEST(a_damaged_table_never_leads_a_reader_outside)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    for (int i = 0; i < KEYS; i++)
        (void)put(f.store, keys[i], 100 + (uint64_t)i);
    const struct table_header *header = f.memory.table;
    uint64_t bytes = f.memory.table_bytes, seed = test_seed(20261124);
    uint64_t body = header->buckets_off;
    uint8_t *damaged = malloc(bytes);
    DS_ASSERT(damaged != NULL);
    for (int round = 0; round < 20000; round++) {
        memcpy(damaged, f.memory.table, bytes);
        for (int i = 0; i < 8; i++)
            damaged[body + test_random(&seed) % (bytes - body)] =
                (uint8_t)test_random(&seed);
        uint64_t slot = test_random(&seed) % 8;
        uint8_t *field = damaged + header->slots_off + slot * sizeof(struct slot);
        field[8 + test_random(&seed) % (sizeof(struct slot) - 8)] =
            (uint8_t)test_random(&seed);
        struct table_reader reader;
        CHECK_OK(table_reader_init(&reader, damaged, bytes, NULL));
        for (int i = 0; i < KEYS; i++) {
            struct table_hit hit;
            if (table_reader_find(&reader, slice_of_text(keys[i]), false, FIXTURE_NOW,
                                  &hit))
                CHECK(hit.offset + hit.size <= header->arena_bytes);
        }
    }
    free(damaged);
}

/* 32 bits of the hash are not the key. */
TEST(a_slot_with_the_same_tag_and_another_key_is_a_miss)
{
    AUTO(fixture) struct fixture f;
    struct table_hit hit;
    fixture_open(&f, fixture_geometry());
    for (int i = 0; i < KEYS; i++) {
        struct object_view view = put(f.store, keys[i], 100);
        struct slot *slot = (struct slot *)slot_of(&f, view.ref.slot);
        uint8_t *byte = key_bytes_of(&f, slot);
        *byte ^= 1;
        CHECK(!is_found(&f, keys[i], false, FIXTURE_NOW, &hit));
        *byte ^= 1;
        CHECK(is_found(&f, keys[i], false, FIXTURE_NOW, &hit));
    }
}

TEST(a_chain_in_a_circle_ends)
{
    AUTO(fixture) struct fixture f;
    struct table_hit hit;
    fixture_open(&f, fixture_geometry());
    struct object_view view = put(f.store, "a", 100);
    struct slot *slot = (struct slot *)slot_of(&f, view.ref.slot);
    struct table_reader reader = reader_of(&f);
    slot->tag++;
    slot->next = view.ref.slot;
    CHECK(!table_reader_find(&reader, slice_of_text("a"), false, FIXTURE_NOW, &hit));
    slot->tag--; /* As the fixture's end checks it. */
    slot->next = SLOT_NONE;
}

TEST_MAIN(RUN(a_reader_finds_what_the_worker_finds),
          RUN(what_is_unsealed_deleted_expired_or_of_another_kind_is_a_miss),
          RUN(no_table_no_reader),
          RUN(a_reader_sees_what_was_there_at_some_moment_of_its_read_or_nothing),
          RUN(a_damaged_table_never_leads_a_reader_outside),
          RUN(a_slot_with_the_same_tag_and_another_key_is_a_miss),
          RUN(a_chain_in_a_circle_ends))
