/* Pins, holds and clients: who keeps bytes, and what a client leaves behind. */
#include "store/store.h"

#include "base/auto.h"
#include "store/fixture.h"
#include "store/pin.h"

#include <string.h>

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
    char keys[64] = "";
    store_client_provisional(f.store, region + 1, collect_key, keys);
    CHECK_TEXT(keys, "b");
    CHECK(delete_key(f.store, "b"));
    keys[0] = 0;
    store_client_provisional(f.store, region + 1, collect_key, keys);
    CHECK_TEXT(keys, "");
    store_check(f.store);
}

TEST(provisional_parts_of_a_dead_client_are_nobodys)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    uint8_t flags = SLOT_FLAG_BLOCK | SLOT_FLAG_PROVISIONAL;
    char keys[64] = "";
    uint32_t region = add_client(f.store);
    struct object_view old = create_for(f.store, "old", region, 1, flags);
    seal(f.store, old.ref);
    store_client_remove(f.store, region);
    CHECK_INT(add_client(f.store), region); /* Taken over by another. */
    struct object_view new = create_for(f.store, "new", region, 1, flags);
    seal(f.store, new.ref);
    store_check(f.store);

    fixture_restart(&f);
    store_client_provisional(f.store, 0, collect_key, keys);
    CHECK_TEXT(keys, "old");
    keys[0] = 0;
    store_client_provisional(f.store, region + 1, collect_key, keys);
    CHECK_TEXT(keys, "new");
    CHECK(store_adopt(f.store, slice_of_text("old"), FIXTURE_NOW));
    CHECK(delete_key(f.store, "new"));
    keys[0] = 0;
    store_client_provisional(f.store, 0, collect_key, keys);
    CHECK_TEXT(keys, "");
    store_check(f.store);
}

/* As a part of another node's block that is taken over, and of one that stays after all. */
TEST(what_was_a_copy_may_become_nobodys_and_back)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct ds_slice key = slice_of_text("a");
    char keys[64] = "";
    struct create_request request = request_for("a", 10);
    struct object_view a;
    request.flags = SLOT_FLAG_BLOCK | SLOT_FLAG_COPY;
    CHECK_OK(store_create(f.store, &request, FIXTURE_NOW, &a, NULL));
    seal(f.store, a.ref);
    CHECK(!store_set_kind(f.store, slice_of_text("b"), 0, FIXTURE_NOW));
    CHECK(store_set_kind(f.store, key, SLOT_FLAG_PROVISIONAL, FIXTURE_NOW));
    CHECK(store_set_kind(f.store, key, SLOT_FLAG_PROVISIONAL, FIXTURE_NOW));
    CHECK_INT(stats_of(f.store).copies, 0);
    store_check(f.store);
    fixture_restart(&f);
    store_client_provisional(f.store, 0, collect_key, keys);
    CHECK_TEXT(keys, "a");
    CHECK(store_set_kind(f.store, key, 0, FIXTURE_NOW));
    keys[0] = 0;
    store_client_provisional(f.store, 0, collect_key, keys);
    CHECK_TEXT(keys, "");
    CHECK(store_set_kind(f.store, key, SLOT_FLAG_COPY, FIXTURE_NOW));
    CHECK_INT(stats_of(f.store).copies, 1);
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

TEST_MAIN(RUN(deleted_bytes_stay_while_they_are_pinned),
          RUN(a_pin_that_comes_too_late_is_refused),
          RUN(nonsense_in_a_region_does_no_harm),
          RUN(held_bytes_stay_until_the_last_hold_ends),
          RUN(a_forked_client_keeps_the_pins_of_its_parent),
          RUN(a_dead_client_leaves_only_what_it_sealed),
          RUN(a_returning_client_keeps_what_it_names),
          RUN(aborting_a_request_takes_all_of_its_objects),
          RUN(provisional_parts_are_listed_until_adopted),
          RUN(provisional_parts_of_a_dead_client_are_nobodys),
          RUN(what_was_a_copy_may_become_nobodys_and_back),
          RUN(too_many_clients_are_refused_with_the_text_that_users_know))
