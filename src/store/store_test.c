#include "store/store.h"

#include "base/auto.h"
#include "store/fixture.h"

#include <string.h>

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

TEST(a_checksum_can_come_later_but_only_once)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view view = create(f.store, "a", 100);
    CHECK(!store_set_checksum(f.store, view.ref, 1)); /* Not sealed. */
    seal(f.store, view.ref);
    CHECK_INT(stats_of(f.store).objects_without_checksum, 1);
    CHECK(store_set_checksum(f.store, view.ref, 7));
    CHECK(!store_set_checksum(f.store, view.ref, 8));
    CHECK(find(f.store, "a", &view));
    CHECK((view.flags & SLOT_FLAG_CHECKSUM) != 0);
    CHECK_INT(view.checksum, 7);
    CHECK_INT(stats_of(f.store).objects_without_checksum, 0);
    CHECK(delete_key(f.store, "a"));
    CHECK(!store_set_checksum(f.store, view.ref, 9));
    CHECK(!store_set_checksum(f.store, (struct object_ref){.slot = 999}, 9));
}

TEST(what_has_no_checksum_is_found_a_few_slots_at_a_time)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    char name[] = "a";
    for (int i = 0; i < 9; i++, name[0]++)
        (void)create(f.store, name, 10);
    struct object_view view = put(f.store, "wanted", 10);
    uint32_t cursor = 0;
    struct object_view found;
    CHECK(!store_next_without_checksum(f.store, &cursor, 9, &found));
    CHECK(store_next_without_checksum(f.store, &cursor, 9, &found));
    CHECK_INT(found.ref.slot, view.ref.slot);
    CHECK(store_next_without_checksum(f.store, &cursor, 10, &found)); /* Around. */
    CHECK(store_set_checksum(f.store, view.ref, 1));
    CHECK(!store_next_without_checksum(f.store, &cursor, 100, &found));
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

TEST_MAIN(RUN(an_object_exists_from_seal_to_delete),
          RUN(overwriting_replaces_at_once_and_frees_the_old_bytes),
          RUN(aborting_gives_the_room_back), RUN(aborting_a_sealed_object_does_nothing),
          RUN(only_if_absent_keeps_the_existing_object),
          RUN(only_if_absent_replaces_an_expired_object),
          RUN(sealing_again_is_success_even_after_overwrite_and_reuse),
          RUN(sealing_what_was_never_there_is_invalid),
          RUN(keys_are_any_bytes_of_any_length), RUN(keys_that_collide_are_told_apart),
          RUN(a_checksum_is_kept), RUN(a_checksum_can_come_later_but_only_once),
          RUN(what_has_no_checksum_is_found_a_few_slots_at_a_time),
          RUN(the_creator_of_an_object_is_known), RUN(any_slot_can_be_inspected),
          RUN(each_sealed_object_is_visited_once),
          RUN(an_expired_object_is_gone_before_any_tick),
          RUN(expiry_can_be_set_moved_and_taken_back))
