#include "store/store.h"

#include "base/auto.h"
#include "store/fixture.h"
#include "store/pin.h"

#include <string.h>

enum { CLIENT = 1 };

static void
open_with_client(struct fixture *f)
{
    fixture_open(f, fixture_geometry());
    CHECK_INT(add_client(f->store) + 1, CLIENT);
}

static struct object_view
lend(struct store *store, uint64_t size)
{
    struct object_view view;
    CHECK(store_lend(store, size, CLIENT, 7, &view));
    return view;
}

static enum ds_status
name_as(struct store *store, const struct object_view *lent, const char *key,
        uint64_t size)
{
    struct name_request request = {
        .ref = lent->ref, .client = CLIENT, .key = slice_of_text(key), .size = size};
    return store_name(store, &request, NULL);
}

static void
pin_it(const struct fixture *f, const struct object_view *view)
{
    CHECK(pin_acquire(region_of(f, CLIENT - 1), 0, slot_of(f, view->ref.slot),
                      view->commit, view->offset));
}

TEST(what_was_lent_becomes_an_object_of_any_size_with_the_same_room)
{
    AUTO(fixture) struct fixture f;
    open_with_client(&f);
    struct object_view lent = lend(f.store, 5000);
    CHECK_OK(name_as(f.store, &lent, "a", 8192));
    CHECK(!exists(f.store, "a"));
    CHECK_OK(name_as(f.store, &lent, "a", 8192)); /* A repeat. */
    seal(f.store, lent.ref);
    struct object_view found;
    CHECK(find(f.store, "a", &found));
    CHECK_INT(found.size, 8192);
    CHECK_INT(found.offset, lent.offset);
    CHECK_OK(name_as(f.store, &lent, "a", 8192)); /* Another, after the seal. */
    CHECK(delete_key(f.store, "a"));
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 1);
    CHECK_INT(stats_of(f.store).arena.used_bytes, 0);
}

TEST(only_its_borrower_gives_it_one_key_that_fits)
{
    AUTO(fixture) struct fixture f;
    open_with_client(&f);
    struct object_view lent = lend(f.store, 5000);
    struct seal_request request = {.ref = lent.ref};
    CHECK_STATUS(try_seal(f.store, &request), DS_INVALID);
    CHECK_STATUS(name_as(f.store, &lent, "a", 4096), DS_INVALID);
    CHECK_STATUS(name_as(f.store, &lent, "a", 8193), DS_INVALID);
    CHECK_STATUS(name_as(f.store, &lent, "a", UINT64_MAX), DS_INVALID);
    CHECK_STATUS(name_as(f.store, &lent, "a", 0), DS_INVALID);
    uint32_t other = add_client(f.store) + 1;
    struct name_request of_other = {
        .ref = lent.ref, .client = other, .key = slice_of_text("b"), .size = 5000};
    CHECK_OK(store_name(f.store, &of_other, NULL));
    CHECK_STATUS(try_seal(f.store, &request), DS_INVALID); /* It was no use. */
    CHECK_OK(name_as(f.store, &lent, "a", 5000));
    CHECK_STATUS(name_as(f.store, &lent, "b", 5000), DS_INVALID);
    CHECK_STATUS(name_as(f.store, &lent, "a", 5001), DS_INVALID);
    CHECK_OK(try_seal(f.store, &request));
    CHECK(exists(f.store, "a"));
    CHECK(!exists(f.store, "b"));
}

TEST(what_is_lent_is_there_for_others_when_room_is_short)
{
    AUTO(fixture) struct fixture f;
    open_with_client(&f);
    (void)lend(f.store, 300000);
    (void)lend(f.store, 64);
    CHECK_INT(stats_of(f.store).lent, 2);
    CHECK_INT(stats_of(f.store).writing, 0);
    CHECK_INT(stats_of(f.store).arena.used_bytes, 0);
    (void)put(f.store, "all", f.geometry.arena_bytes);
    CHECK_INT(stats_of(f.store).lent, 0);
    struct object_view view;
    CHECK(!store_lend(f.store, 64, CLIENT, 8, &view));
    store_check(f.store);
}

TEST(what_is_being_written_is_not_taken_back)
{
    AUTO(fixture) struct fixture f;
    open_with_client(&f);
    struct object_view lent = lend(f.store, 5000);
    pin_it(&f, &lent);
    struct ds_error err = {0};
    CHECK_STATUS(try_create(f.store, "all", f.geometry.arena_bytes, &err), DS_FULL);
    CHECK_OK(name_as(f.store, &lent, "a", 5000));
    seal(f.store, lent.ref);
    CHECK(exists(f.store, "a"));
}

/* The borrower must hear of it, whatever it asked for: nobody else has its bytes. */
TEST(sealing_what_was_taken_back_while_it_was_pinned_fails)
{
    AUTO(fixture) struct fixture f;
    open_with_client(&f);
    struct object_view lent = lend(f.store, 5000);
    pin_it(&f, &lent);
    store_abort(f.store, lent.ref);
    (void)store_tick(f.store, FIXTURE_NOW);
    for (int only_if_absent = 0; only_if_absent < 2; only_if_absent++) {
        struct seal_request request = {.ref = lent.ref,
                                       .only_if_absent = only_if_absent != 0};
        CHECK_OK(name_as(f.store, &lent, "a", 5000));
        CHECK_STATUS(try_seal(f.store, &request), DS_INVALID);
    }
}

TEST(little_is_lent_and_not_when_most_is_used)
{
    AUTO(fixture) struct fixture f;
    open_with_client(&f);
    struct object_view view;
    CHECK(!store_lend(f.store, 0, CLIENT, 8, &view));
    CHECK(!store_lend(f.store, LEASE_BYTES_MAX + 1, CLIENT, 8, &view));
    (void)put(f.store, "most", f.geometry.arena_bytes / 2 + 4096);
    CHECK(!store_lend(f.store, 64, CLIENT, 8, &view));
}

TEST(what_is_lent_outlives_the_worker_but_not_its_borrower)
{
    AUTO(fixture) struct fixture f;
    open_with_client(&f);
    struct object_view first = lend(f.store, 5000);
    (void)lend(f.store, 100);
    fixture_restart(&f);
    CHECK_INT(stats_of(f.store).lent, 2);
    CHECK_OK(name_as(f.store, &first, "a", 5000));
    seal(f.store, first.ref);
    store_client_remove(f.store, CLIENT - 1);
    CHECK_INT(stats_of(f.store).lent, 0);
    CHECK(exists(f.store, "a"));
    store_check(f.store);
}

TEST_MAIN(RUN(what_was_lent_becomes_an_object_of_any_size_with_the_same_room),
          RUN(only_its_borrower_gives_it_one_key_that_fits),
          RUN(what_is_lent_is_there_for_others_when_room_is_short),
          RUN(what_is_being_written_is_not_taken_back),
          RUN(sealing_what_was_taken_back_while_it_was_pinned_fails),
          RUN(little_is_lent_and_not_when_most_is_used),
          RUN(what_is_lent_outlives_the_worker_but_not_its_borrower))
