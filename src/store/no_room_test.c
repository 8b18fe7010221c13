/* When room ends, what is said about it, and how room comes back. */
#include "store/store.h"

#include "base/auto.h"
#include "store/fixture.h"
#include "store/pin.h"

#include <stdio.h>
#include <string.h>

/* ---- Reuse ---- */

/* Deleting without a tick must not use up the arena: room comes back as it is needed.
 */
TEST(dead_objects_are_reclaimed_as_new_ones_come)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    for (int i = 0; i < 10000; i++)
        (void)put(f.store, "a", 400000);
    CHECK(stats_of(f.store).dead <= 64);
    store_check(f.store);
}

/* The same few bytes are used again and again, long before the arena is full. */
TEST(overwriting_large_objects_stays_within_touched_memory)
{
    struct store_geometry geometry = fixture_geometry();
    geometry.arena_bytes = 64 << 20;
    geometry.slot_count = 4096;
    AUTO(fixture) struct fixture f;
    fixture_open(&f, geometry);
    for (int i = 0; i < 4000; i++)
        CHECK(put(f.store, "large", 1 << 20).offset < 24ull << 20);
}

TEST(overwriting_small_objects_stays_within_touched_slots)
{
    struct store_geometry geometry = fixture_geometry();
    geometry.slot_count = 4096;
    AUTO(fixture) struct fixture f;
    fixture_open(&f, geometry);
    for (int i = 0; i < 4000; i++)
        (void)put(f.store, "small", 64);
    CHECK(store_header(f.store)->slots_used < 128);
}

/* ---- No room ---- */

TEST(a_full_arena_says_what_is_needed_and_what_to_do)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    uint32_t region = add_client(f.store);
    struct object_view view = put(f.store, "a", 700 << 10);
    (void)put(f.store, "b", 200 << 10);
    struct pin_region *pins = region_of(&f, region);
    CHECK(pin_acquire(pins, 0, slot_of(&f, view.ref.slot), view.commit, view.offset));
    CHECK(delete_key(f.store, "a"));

    struct ds_error err = {0};
    CHECK_STATUS(try_create(f.store, "c", 500 << 10, &err), DS_FULL);
    CHECK_INT(strncmp(err.message, "Shared memory no space in arena: ", 33), 0);
    CHECK_CONTAINS(err.message, "need 500.0 KiB, free 124.0 KiB of 1.0 MiB");
    CHECK_CONTAINS(err.message, "largest hole 124.0 KiB");
    CHECK_CONTAINS(err.message, "700.0 KiB (68 %) are held by 1 deleted objects");
    CHECK_CONTAINS(err.message, "and 0 are unsealed (most by PID 100: 700.0 KiB)");
    CHECK_CONTAINS(err.message, "--shared_memory_size_mb");
    CHECK_CONTAINS(err.message, "delete");

    pin_release(pins, 0);
    CHECK_OK(try_create(f.store, "c", 500 << 10, &err));
    store_check(f.store);
}

TEST(expired_objects_make_room)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view view = create(f.store, "a", 1 << 20);
    struct seal_request request = {.ref = view.ref, .expires_ds = FIXTURE_NOW};
    CHECK_OK(try_seal(f.store, &request));
    CHECK_OK(try_create(f.store, "b", 1 << 20, NULL));
}

TEST(an_object_larger_than_the_arena_says_so)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct ds_error err = {0};
    CHECK_STATUS(try_create(f.store, "a", (1 << 20) + 1, &err), DS_FULL);
    CHECK_INT(strncmp(err.message, "Shared memory no space in arena: ", 33), 0);
    CHECK_CONTAINS(err.message, "larger than the whole arena of 1.0 MiB");
    CHECK_STATUS(try_create(f.store, "a", UINT64_MAX, &err), DS_FULL);
    store_check(f.store);
}

TEST(memory_still_being_prepared_is_mentioned)
{
    struct store_geometry geometry = fixture_geometry();
    geometry.arena_bytes = 4 << 20;
    AUTO(fixture) struct fixture fresh;
    fixture_open(&fresh, geometry);
    struct table_header *header = fresh.memory.table;
    atomic_store(&header->populated, 1 << 20);
    fixture_restart(&fresh);
    struct ds_error err = {0};
    CHECK_STATUS(try_create(fresh.store, "a", 2 << 20, &err), DS_FULL);
    CHECK_CONTAINS(err.message, "3.0 MiB of the arena are still being prepared");
    store_set_populated(fresh.store, 4 << 20);
    CHECK_OK(try_create(fresh.store, "a", 2 << 20, &err));
}

TEST(a_full_table_says_so_and_a_delete_makes_room)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    char key[8];
    for (uint64_t i = 0; i < f.geometry.slot_count; i++) {
        snprintf(key, sizeof key, "k%u", (unsigned)i);
        (void)put(f.store, key, 64);
    }
    struct ds_error err = {0};
    CHECK_STATUS(try_create(f.store, "more", 64, &err), DS_FULL);
    CHECK_CONTAINS(err.message, "Object table is full: all of its slots are in use");
    CHECK_CONTAINS(err.message, "64 slots");
    CHECK(delete_key(f.store, "k7"));
    CHECK_OK(try_create(f.store, "more", 64, &err));
    store_check(f.store);
}

TEST(a_full_key_heap_says_so)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    char key[DS_KEY_BYTES_MAX + 1];
    memset(key, 'k', sizeof key);
    key[DS_KEY_BYTES_MAX] = 0;
    for (char i = 0; i < 16; i++) {
        key[0] = (char)('a' + i);
        (void)put(f.store, key, 64);
    }
    key[0] = 'z';
    struct ds_error err = {0};
    CHECK_STATUS(try_create(f.store, key, 64, &err), DS_FULL);
    CHECK_CONTAINS(err.message, "no room is left for keys over 20 bytes");
    CHECK_OK(try_create(f.store, "short", 64, &err));
    store_check(f.store);
}

TEST_MAIN(RUN(dead_objects_are_reclaimed_as_new_ones_come),
          RUN(overwriting_large_objects_stays_within_touched_memory),
          RUN(overwriting_small_objects_stays_within_touched_slots),
          RUN(a_full_arena_says_what_is_needed_and_what_to_do),
          RUN(expired_objects_make_room), RUN(an_object_larger_than_the_arena_says_so),
          RUN(memory_still_being_prepared_is_mentioned),
          RUN(a_full_table_says_so_and_a_delete_makes_room),
          RUN(a_full_key_heap_says_so))
