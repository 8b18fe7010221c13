#include "store/store.h"

#include "base/auto.h"
#include "store/fixture.h"
#include "store/pin.h"

#include <stdio.h>
#include <string.h>

#define FIXTURE(name)                  \
    AUTO(fixture) struct fixture name; \
    fixture_open(&name, fixture_geometry())

static enum ds_status
try_create(struct store *store, const char *key, uint64_t size, struct ds_error *err)
{
    struct create_request request = request_for(key, size);
    struct object_view view;
    return store_create(store, &request, FIXTURE_NOW, &view, err);
}

static enum ds_status
try_seal(struct store *store, const struct seal_request *request)
{
    struct ds_error err = {0};
    return store_seal(store, request, FIXTURE_NOW, &err);
}

/* ---- Objects ---- */

TEST(an_object_exists_from_seal_to_delete)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view created = create(f.store, "a", 100);
    CHECK(!exists(f.store, "a"));
    seal(f.store, created.ref);
    struct object_view found;
    CHECK(find(f.store, "a", &found));
    CHECK_INT(found.offset, created.offset);
    CHECK_INT(found.size, 100);
    CHECK_INT(commit_state(found.commit), SLOT_SEALED);
    CHECK(delete_key(f.store, "a"));
    CHECK(!exists(f.store, "a"));
    CHECK(!delete_key(f.store, "a"));
    store_check(f.store);
}

TEST(overwriting_replaces_at_once_and_frees_the_old_bytes)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view old = put(f.store, "a", 5000);
    struct object_view fresh = put(f.store, "a", 6000);
    CHECK(fresh.offset != old.offset);
    CHECK(fresh.version > old.version);
    CHECK_INT(stats_of(f.store).objects, 1);
    CHECK_INT(stats_of(f.store).dead, 1);
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 1);
    CHECK_INT(stats_of(f.store).arena.used_bytes, 8192);
    store_check(f.store);
}

TEST(aborting_gives_the_room_back)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view view = create(f.store, "a", 5000);
    store_abort(f.store, view.ref);
    store_abort(f.store, view.ref);
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 1);
    CHECK_INT(stats_of(f.store).arena.used_bytes, 0);
    CHECK_INT(stats_of(f.store).writing, 0);
    CHECK(!exists(f.store, "a"));
}

TEST(aborting_a_sealed_object_does_nothing)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view view = put(f.store, "a", 100);
    store_abort(f.store, view.ref);
    CHECK(exists(f.store, "a"));
    store_abort(f.store, (struct object_ref){.slot = 9999, .generation = 1});
    store_check(f.store);
}

TEST(only_if_absent_keeps_the_existing_object)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view old = put(f.store, "a", 100);
    struct object_view fresh = create(f.store, "a", 200);
    struct seal_request request = {.ref = fresh.ref, .only_if_absent = true};
    CHECK_OK(try_seal(f.store, &request));
    struct object_view found;
    CHECK(find(f.store, "a", &found));
    CHECK_INT(found.version, old.version);
    CHECK_OK(try_seal(f.store, &request)); /* A repeat of the same request. */
    CHECK_INT(stats_of(f.store).writing, 0);
}

TEST(only_if_absent_replaces_an_expired_object)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view old = create(f.store, "a", 100);
    struct seal_request request = {.ref = old.ref, .expires_ds = FIXTURE_NOW};
    CHECK_OK(try_seal(f.store, &request));
    struct object_view fresh = create(f.store, "a", 200);
    request = (struct seal_request){.ref = fresh.ref, .only_if_absent = true};
    CHECK_OK(try_seal(f.store, &request));
    struct object_view found;
    CHECK(find(f.store, "a", &found));
    CHECK_INT(found.size, 200);
    store_check(f.store);
}

TEST(sealing_again_is_success_even_after_overwrite_and_reuse)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view view = create(f.store, "a", 100);
    struct seal_request request = {.ref = view.ref};
    CHECK_OK(try_seal(f.store, &request));
    CHECK_OK(try_seal(f.store, &request));
    CHECK(delete_key(f.store, "a"));
    CHECK_OK(try_seal(f.store, &request));
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 1);
    CHECK_OK(try_seal(f.store, &request));
    struct object_view again = create(f.store, "b", 100);
    CHECK_INT(again.ref.slot, view.ref.slot);
    CHECK_OK(try_seal(f.store, &request));
    CHECK(!exists(f.store, "a"));
    CHECK(!exists(f.store, "b"));
}

TEST(sealing_what_was_never_there_is_invalid)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view view = create(f.store, "a", 100);
    struct seal_request request = {.ref = view.ref};
    request.ref.generation += 2;
    CHECK_STATUS(try_seal(f.store, &request), DS_INVALID);
    request.ref.generation = 2;
    CHECK_STATUS(try_seal(f.store, &request), DS_INVALID);
    request.ref = (struct object_ref){.slot = 63, .generation = 1};
    CHECK_STATUS(try_seal(f.store, &request), DS_INVALID);
    request.ref.slot = UINT32_MAX;
    CHECK_STATUS(try_seal(f.store, &request), DS_INVALID);
    store_abort(f.store, view.ref);
    request.ref = view.ref;
    CHECK_STATUS(try_seal(f.store, &request), DS_INVALID);
}

TEST(keys_are_any_bytes_of_any_length)
{
    struct store_geometry geometry = fixture_geometry();
    geometry.key_heap_bytes = 1 << 20;
    AUTO(fixture) struct fixture f;
    fixture_open(&f, geometry);
    char key[DS_KEY_BYTES_MAX];
    memset(key, 'k', sizeof key);
    for (size_t len = 1; len <= sizeof key; len += 63) {
        key[len - 1] = 0;
        struct create_request request = {.key = slice(key, len), .size = len};
        struct object_view view;
        struct ds_error err = {0};
        CHECK_OK(store_create(f.store, &request, FIXTURE_NOW, &view, &err));
        seal(f.store, view.ref);
        CHECK(store_find(f.store, slice(key, len), FIXTURE_NOW, &view));
        CHECK_INT(view.size, len);
        key[len - 1] = 'k';
        CHECK(!store_find(f.store, slice(key, len), FIXTURE_NOW, &view));
    }
    store_check(f.store);
}

/* Two keys with equal tags, in one bucket: only the whole key tells them apart. */
TEST(keys_that_collide_are_told_apart)
{
    struct store_geometry geometry = fixture_geometry();
    geometry.bucket_count = 1;
    AUTO(fixture) struct fixture f;
    fixture_open(&f, geometry);
    struct object_view a = put(f.store, "key78812", 11);
    struct object_view b = put(f.store, "key73564", 22);
    CHECK_INT(slot_of(&f, a.ref.slot)->tag, slot_of(&f, b.ref.slot)->tag);
    CHECK(find(f.store, "key78812", &a));
    CHECK_INT(a.size, 11);
    CHECK(delete_key(f.store, "key73564"));
    CHECK(exists(f.store, "key78812"));
    store_check(f.store);
}

TEST(a_checksum_is_kept)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view view = create(f.store, "a", 100);
    struct seal_request request = {
        .ref = view.ref, .has_checksum = true, .checksum = 0x1234567890abcdef};
    CHECK_OK(try_seal(f.store, &request));
    CHECK(find(f.store, "a", &view));
    CHECK_INT(view.checksum, 0x1234567890abcdef);
    CHECK((view.flags & SLOT_FLAG_CHECKSUM) != 0);
}

TEST(the_creator_of_an_object_is_known)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    uint32_t region = add_client(f.store);
    struct create_request request = request_for("a", 10);
    request.client = region + 1;
    request.sequence = 1234;
    struct object_view view;
    uint32_t client = 0;
    uint32_t sequence = 0;
    CHECK_OK(store_create(f.store, &request, FIXTURE_NOW, &view, NULL));
    struct ds_slice key = slice_of_text("a");
    CHECK(!store_find_creator(f.store, key, FIXTURE_NOW, &client, &sequence));
    seal(f.store, view.ref);
    CHECK(store_find_creator(f.store, key, FIXTURE_NOW, &client, &sequence));
    CHECK_INT(client, region + 1);
    CHECK_INT(sequence, 1234);
}

TEST(any_slot_can_be_inspected)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view view = create(f.store, "a key that is longer than a slot", 100);
    struct object_view seen;
    enum slot_state slot_state;
    uint8_t buffer[DS_KEY_BYTES_MAX];
    CHECK(store_inspect(f.store, view.ref.slot, &seen, &slot_state));
    CHECK_INT(slot_state, SLOT_WRITING);
    CHECK_INT(seen.offset, view.offset);
    CHECK(slice_equal(store_key(f.store, view.ref.slot, buffer),
                      slice_of_text("a key that is longer than a slot")));
    store_abort(f.store, view.ref);
    CHECK(store_inspect(f.store, view.ref.slot, &seen, &slot_state));
    CHECK_INT(slot_state, SLOT_DEAD);
    (void)store_tick(f.store, FIXTURE_NOW);
    CHECK(!store_inspect(f.store, view.ref.slot, &seen, &slot_state));
    CHECK(!store_inspect(f.store, UINT32_MAX, &seen, &slot_state));
}

static void
count_object(const struct object_view *view, struct ds_slice key, void *arg)
{
    CHECK(key.len > 0);
    *(uint64_t *)arg += view->size;
}

TEST(each_sealed_object_is_visited_once)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    (void)put(f.store, "a", 100);
    (void)put(f.store, "b", 20);
    (void)put(f.store, "b", 3);
    (void)create(f.store, "c", 5000);
    uint64_t bytes = 0;
    store_each(f.store, count_object, &bytes);
    CHECK_INT(bytes, 103);
}

/* ---- Time to live ---- */

TEST(an_expired_object_is_gone_before_any_tick)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view view = create(f.store, "a", 5000);
    struct seal_request request = {.ref = view.ref, .expires_ds = FIXTURE_NOW + 10};
    CHECK_OK(try_seal(f.store, &request));
    struct ds_slice key = slice_of_text("a");
    CHECK(store_find(f.store, key, FIXTURE_NOW + 9, &view));
    CHECK(!store_find(f.store, key, FIXTURE_NOW + 10, &view));
    CHECK(!store_delete(f.store, key, FIXTURE_NOW + 10));
    CHECK_INT(store_next_expiry(f.store), FIXTURE_NOW + 10);
    CHECK_INT(store_tick(f.store, FIXTURE_NOW + 9), 0);
    CHECK_INT(store_tick(f.store, FIXTURE_NOW + 10), 1);
    CHECK_INT(store_next_expiry(f.store), 0);
    CHECK_INT(stats_of(f.store).arena.used_bytes, 0);
}

TEST(expiry_can_be_set_moved_and_taken_back)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct ds_slice a = slice_of_text("a");
    struct ds_slice b = slice_of_text("b");
    (void)put(f.store, "a", 10);
    (void)put(f.store, "b", 10);
    CHECK(store_set_expiry(f.store, a, FIXTURE_NOW + 50, FIXTURE_NOW));
    CHECK(store_set_expiry(f.store, b, FIXTURE_NOW + 20, FIXTURE_NOW));
    CHECK_INT(store_next_expiry(f.store), FIXTURE_NOW + 20);
    CHECK(store_set_expiry(f.store, b, 0, FIXTURE_NOW));
    CHECK_INT(store_next_expiry(f.store), FIXTURE_NOW + 50);
    CHECK(store_set_expiry(f.store, a, FIXTURE_NOW + 5, FIXTURE_NOW));
    (void)store_tick(f.store, FIXTURE_NOW + 1000);
    CHECK(!exists(f.store, "a"));
    CHECK(exists(f.store, "b"));
    CHECK(!store_set_expiry(f.store, a, 1, FIXTURE_NOW));
    store_check(f.store);
}

/* ---- Pins and holds ---- */

TEST(deleted_bytes_stay_while_they_are_pinned)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    uint32_t region = add_client(f.store);
    struct object_view view = put(f.store, "a", 5000);
    struct pin_region *pins = region_of(&f, region);
    CHECK(pin_acquire(pins, 3, slot_of(&f, view.ref.slot), view.commit, view.offset));
    CHECK(delete_key(f.store, "a"));
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 0);
    CHECK_INT(stats_of(f.store).dead_bytes, 5000);
    CHECK_INT(stats_of(f.store).pins, 1);
    pin_release(pins, 3);
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 1);
    CHECK_INT(stats_of(f.store).dead_bytes, 0);
}

TEST(a_pin_that_comes_too_late_is_refused)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    uint32_t region = add_client(f.store);
    struct object_view view = put(f.store, "a", 5000);
    struct pin_region *pins = region_of(&f, region);
    const struct slot *slot = slot_of(&f, view.ref.slot);
    CHECK(delete_key(f.store, "a"));
    CHECK(!pin_acquire(pins, 0, slot, view.commit, view.offset));
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 1);
    struct object_view reused = put(f.store, "a", 5000);
    CHECK_INT(reused.ref.slot, view.ref.slot);
    CHECK(!pin_acquire(pins, 0, slot, view.commit, view.offset));
}

/* A client may write anything into its region; at worst bytes stay longer. */
TEST(nonsense_in_a_region_does_no_harm)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    uint32_t region = add_client(f.store);
    struct pin_region *pins = region_of(&f, region);
    atomic_store(&pins->words_used, UINT64_MAX);
    for (uint32_t i = 0; i < f.geometry.words_per_region; i++)
        atomic_store(&pins->words[i], UINT64_MAX - i * 977);
    atomic_store(&pins->state, PIN_REGION_FREE);
    (void)put(f.store, "a", 5000);
    CHECK(delete_key(f.store, "a"));
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 1);
    store_client_remove(f.store, region);
    CHECK_INT(stats_of(f.store).pins, 0);
    store_check(f.store);
}

TEST(held_bytes_stay_until_the_last_hold_ends)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view view = put(f.store, "a", 5000);
    store_hold(f.store, &view);
    store_hold(f.store, &view);
    CHECK(delete_key(f.store, "a"));
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 0);
    store_unhold(f.store, view.offset);
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 0);
    store_unhold(f.store, view.offset);
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 1);
}

TEST(a_forked_client_keeps_the_pins_of_its_parent)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    uint32_t parent = add_client(f.store);
    struct object_view view = put(f.store, "a", 5000);
    CHECK(pin_acquire(region_of(&f, parent), 2, slot_of(&f, view.ref.slot), view.commit,
                      view.offset));
    uint32_t child = add_client(f.store);
    store_client_copy_pins(f.store, parent, child);
    store_client_remove(f.store, parent);
    CHECK(delete_key(f.store, "a"));
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 0);
    pin_release(region_of(&f, child), 2);
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 1);
}

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
    CHECK_CONTAINS(err.message, "700.0 KiB are held by 1 deleted objects");
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

/* ---- Clients ---- */

static struct object_view
create_for(struct store *store, const char *key, uint32_t region, uint32_t sequence,
           uint8_t flags)
{
    struct create_request request = request_for(key, 5000);
    request.client = region + 1;
    request.sequence = sequence;
    request.flags = flags;
    struct object_view view;
    CHECK_OK(store_create(store, &request, FIXTURE_NOW, &view, NULL));
    return view;
}

TEST(a_dead_client_leaves_only_what_it_sealed)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    uint32_t region = add_client(f.store);
    uint32_t other = add_client(f.store);
    struct object_view sealed = create_for(f.store, "sealed", region, 1, 0);
    seal(f.store, sealed.ref);
    CHECK(find(f.store, "sealed", &sealed));
    struct object_view theirs = create_for(f.store, "theirs", other, 1, 0);
    for (uint32_t i = 0; i < 10; i++)
        (void)create_for(f.store, "unsealed", region, i, 0);
    CHECK(pin_acquire(region_of(&f, region), 0, slot_of(&f, sealed.ref.slot),
                      sealed.commit, sealed.offset));

    store_client_remove(f.store, region);
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 10);
    CHECK_INT(stats_of(f.store).pins, 0);
    CHECK_INT(stats_of(f.store).writing, 1);
    CHECK_INT(stats_of(f.store).clients, 1);
    CHECK(exists(f.store, "sealed"));
    seal(f.store, theirs.ref);
    struct client_identity identity;
    CHECK(!store_client_get(f.store, region, &identity));
    CHECK(store_client_get(f.store, other, &identity));
    CHECK_INT(identity.token, 77);
    store_check(f.store);
}

TEST(a_returning_client_keeps_what_it_names)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    uint32_t region = add_client(f.store);
    uint32_t other = add_client(f.store);
    struct object_view a = create_for(f.store, "a", region, 1, 0);
    struct object_view b = create_for(f.store, "b", region, 1, 0);
    struct object_view theirs = create_for(f.store, "c", other, 1, 0);
    struct object_ref keep[] = {
        b.ref,
        theirs.ref,
        {.slot = 5000, .generation = 1},
        {.slot = a.ref.slot, .generation = a.ref.generation + 2},
    };
    store_client_keep_only(f.store, region, keep, 4);
    CHECK_INT(stats_of(f.store).writing, 2);
    seal(f.store, b.ref);
    seal(f.store, theirs.ref);
    struct seal_request request = {.ref = a.ref};
    CHECK_STATUS(try_seal(f.store, &request), DS_INVALID);
    store_client_keep_only(f.store, region, NULL, 0);
    store_check(f.store);
}

TEST(aborting_a_request_takes_all_of_its_objects)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    uint32_t region = add_client(f.store);
    struct object_view sealed = create_for(f.store, "a", region, 7, 0);
    seal(f.store, sealed.ref);
    (void)create_for(f.store, "b", region, 7, 0);
    (void)create_for(f.store, "c", region, 7, 0);
    (void)create_for(f.store, "d", region, 8, 0);
    store_abort_request(f.store, region + 1, 7);
    CHECK_INT(stats_of(f.store).writing, 1);
    CHECK(exists(f.store, "a"));
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 2);
}

static void
collect_key(struct ds_slice key, void *arg)
{
    strncat(arg, key.data, key.len);
}

TEST(provisional_parts_are_listed_until_adopted)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    uint8_t flags = SLOT_FLAG_BLOCK | SLOT_FLAG_PROVISIONAL;
    uint32_t region = add_client(f.store);
    struct object_view a = create_for(f.store, "a", region, 1, flags);
    struct object_view b = create_for(f.store, "b", region, 1, flags);
    (void)create_for(f.store, "unsealed", region, 1, flags);
    seal(f.store, a.ref);
    seal(f.store, b.ref);
    CHECK(store_adopt(f.store, slice_of_text("a"), FIXTURE_NOW));
    CHECK(store_adopt(f.store, slice_of_text("a"), FIXTURE_NOW));
    CHECK(!store_adopt(f.store, slice_of_text("unsealed"), FIXTURE_NOW));
    fixture_restart(&f);
    store_client_remove(f.store, region);

    char keys[64] = "";
    store_client_provisional(f.store, region, collect_key, keys);
    CHECK_TEXT(keys, "b");
    CHECK(delete_key(f.store, "b"));
    keys[0] = 0;
    store_client_provisional(f.store, region, collect_key, keys);
    CHECK_TEXT(keys, "");
    store_check(f.store);
}

TEST(too_many_clients_are_refused_with_the_text_that_users_know)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    for (uint32_t i = 0; i < f.geometry.region_count; i++)
        CHECK_INT(add_client(f.store), i);
    struct client_identity identity = {.token = 1};
    struct ds_error err = {0};
    uint32_t region;
    CHECK_STATUS(store_client_add(f.store, &identity, &region, &err), DS_FULL);
    CHECK_CONTAINS(err.message, "Client number upper to the limit");
    store_client_remove(f.store, 3);
    CHECK_INT(add_client(f.store), 3);
}

TEST_MAIN(RUN(an_object_exists_from_seal_to_delete),
          RUN(overwriting_replaces_at_once_and_frees_the_old_bytes),
          RUN(aborting_gives_the_room_back), RUN(aborting_a_sealed_object_does_nothing),
          RUN(only_if_absent_keeps_the_existing_object),
          RUN(only_if_absent_replaces_an_expired_object),
          RUN(sealing_again_is_success_even_after_overwrite_and_reuse),
          RUN(sealing_what_was_never_there_is_invalid),
          RUN(keys_are_any_bytes_of_any_length), RUN(keys_that_collide_are_told_apart),
          RUN(a_checksum_is_kept), RUN(the_creator_of_an_object_is_known),
          RUN(any_slot_can_be_inspected), RUN(each_sealed_object_is_visited_once),
          RUN(an_expired_object_is_gone_before_any_tick),
          RUN(expiry_can_be_set_moved_and_taken_back),
          RUN(deleted_bytes_stay_while_they_are_pinned),
          RUN(a_pin_that_comes_too_late_is_refused),
          RUN(nonsense_in_a_region_does_no_harm),
          RUN(held_bytes_stay_until_the_last_hold_ends),
          RUN(a_forked_client_keeps_the_pins_of_its_parent),
          RUN(dead_objects_are_reclaimed_as_new_ones_come),
          RUN(overwriting_large_objects_stays_within_touched_memory),
          RUN(overwriting_small_objects_stays_within_touched_slots),
          RUN(a_full_arena_says_what_is_needed_and_what_to_do),
          RUN(expired_objects_make_room), RUN(an_object_larger_than_the_arena_says_so),
          RUN(memory_still_being_prepared_is_mentioned),
          RUN(a_full_table_says_so_and_a_delete_makes_room),
          RUN(a_full_key_heap_says_so), RUN(a_dead_client_leaves_only_what_it_sealed),
          RUN(a_returning_client_keeps_what_it_names),
          RUN(aborting_a_request_takes_all_of_its_objects),
          RUN(provisional_parts_are_listed_until_adopted),
          RUN(too_many_clients_are_refused_with_the_text_that_users_know))
