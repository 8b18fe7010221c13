/* What may go when room is short, and what may not. */
#include "store/store.h"

#include "base/auto.h"
#include "store/fixture.h"
#include "store/pin.h"

#include <stdio.h>

enum { SIZE = 100 << 10, FIT = 10 }; /* So many such objects the arena has room for. */

static struct object_view
put_with(struct store *store, const char *key, uint8_t flags)
{
    struct object_view view;
    struct create_request request = request_for(key, SIZE);
    request.flags = flags;
    CHECK_OK(store_create(store, &request, FIXTURE_NOW, &view, NULL));
    seal(store, view.ref);
    CHECK(find(store, key, &view));
    return view;
}

static void
fill(struct store *store, const char *letter, int count, uint8_t flags)
{
    for (int i = 0; i < count; i++) {
        char key[16];
        snprintf(key, sizeof key, "%s%d", letter, i);
        (void)put_with(store, key, flags);
    }
}

static int
count_of(struct store *store, const char *letter)
{
    int count = 0;
    for (int i = 0; i < FIT; i++) {
        char key[16];
        snprintf(key, sizeof key, "%s%d", letter, i);
        count += exists(store, key);
    }
    return count;
}

TEST(copies_go_before_what_may_go_and_nothing_else_goes)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    fill(f.store, "evictable", 3, SLOT_FLAG_EVICTABLE);
    fill(f.store, "own", 4, 0);
    fill(f.store, "copy", 3, SLOT_FLAG_COPY);
    CHECK_INT(stats_of(f.store).copies, 3);
    CHECK_INT(stats_of(f.store).evictable, 3);

    fill(f.store, "new", 3, 0);
    CHECK_INT(count_of(f.store, "copy"), 0);
    CHECK_INT(count_of(f.store, "evictable"), 3);
    fill(f.store, "more", 3, 0);
    CHECK_INT(count_of(f.store, "evictable"), 0);
    CHECK_INT(count_of(f.store, "own") + count_of(f.store, "new"), 7);
    CHECK_STATUS(try_create(f.store, "too much", SIZE, NULL), DS_FULL);
    CHECK_INT(stats_of(f.store).objects, 10);
    store_check(f.store);
}

/* One at a time, in turn: not all of them for one. */
TEST(no_more_go_than_are_needed)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    fill(f.store, "copy", FIT, SLOT_FLAG_COPY);
    (void)put_with(f.store, "first", 0);
    CHECK_INT(count_of(f.store, "copy"), FIT - 1);
    CHECK(!exists(f.store, "copy0"));
    (void)put_with(f.store, "second", SLOT_FLAG_COPY);
    CHECK_INT(count_of(f.store, "copy"), FIT - 2);
    CHECK(!exists(f.store, "copy1"));
    store_check(f.store);
}

TEST(a_large_object_takes_the_room_of_several)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    fill(f.store, "copy", FIT, SLOT_FLAG_COPY);
    CHECK_OK(try_create(f.store, "large", 7 * SIZE, NULL));
    CHECK(count_of(f.store, "copy") >= FIT - 8);
    store_check(f.store);
}

TEST(what_is_pinned_or_held_stays)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    uint32_t region = add_client(f.store);
    struct pin_region *pins = region_of(&f, region);
    struct object_view pinned = put_with(f.store, "pinned", SLOT_FLAG_COPY);
    struct object_view held = put_with(f.store, "held", SLOT_FLAG_EVICTABLE);
    fill(f.store, "own", FIT - 2, 0);
    CHECK(pin_acquire(pins, 0, slot_of(&f, pinned.ref.slot), pinned.commit,
                      pinned.offset));
    store_hold(f.store, &held);
    CHECK_STATUS(try_create(f.store, "new", SIZE, NULL), DS_FULL);
    CHECK(exists(f.store, "pinned") && exists(f.store, "held"));
    pin_release(pins, 0);
    CHECK_OK(try_create(f.store, "new", SIZE, NULL));
    CHECK(!exists(f.store, "pinned") && exists(f.store, "held"));
    store_unhold(f.store, held.offset);
    CHECK_OK(try_create(f.store, "newer", SIZE, NULL));
    CHECK(!exists(f.store, "held"));
    store_check(f.store);
}

TEST(a_copy_is_one_after_a_restart_too)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    fill(f.store, "copy", FIT, SLOT_FLAG_COPY);
    fixture_restart(&f);
    CHECK_INT(stats_of(f.store).copies, FIT);
    fill(f.store, "own", FIT, 0);
    CHECK_INT(stats_of(f.store).copies, 0);
    CHECK_INT(count_of(f.store, "own"), FIT);
    store_check(f.store);
}

TEST_MAIN(RUN(copies_go_before_what_may_go_and_nothing_else_goes),
          RUN(no_more_go_than_are_needed),
          RUN(a_large_object_takes_the_room_of_several),
          RUN(what_is_pinned_or_held_stays), RUN(a_copy_is_one_after_a_restart_too))
