/* Objects that were sealed without a checksum get theirs later. */
#include "worker/checksums.h"

#include "base/check.h"
#include "os/checksum.h"
#include "worker/fixture.h"

enum { MIB = 1 << 20 };

/* Seals an object without a checksum. The loop does not turn meanwhile. */
static void
put_bytes(struct fixture *f, const char *key, uint64_t size)
{
    struct store *store = f->worker.store;
    struct create_request create = {.key = slice_of_text(key), .size = size};
    struct object_view view;
    CHECK_OK(store_create(store, &create, clock_boot_ds(), &view, NULL));
    for (uint64_t i = 0; i < size; i++)
        f->worker.arena[view.offset + i] = (uint8_t)(i * 31 + size);
    struct seal_request seal = {.ref = view.ref};
    CHECK_OK(store_seal(store, &seal, clock_boot_ds(), NULL));
}

static bool
has_right_checksum(struct fixture *f, const char *key)
{
    struct object_view view;
    CHECK(store_find(f->worker.store, slice_of_text(key), clock_boot_ds(), &view));
    return (view.flags & SLOT_FLAG_CHECKSUM) != 0 &&
           view.checksum == checksum_of(f->worker.arena + view.offset, view.size);
}

static uint64_t
unchecked(struct fixture *f)
{
    return stats_of(f).objects_without_checksum;
}

TEST(what_was_sealed_without_a_checksum_gets_its_own)
{
    FIXTURE(f, 64);
    put_bytes(&f, "small", 1);
    put_bytes(&f, "step", 4 * MIB);
    put_bytes(&f, "large", 9 * MIB + 77);
    CHECK_INT(unchecked(&f), 3);
    RUN_UNTIL(&f, unchecked(&f) == 0);
    CHECK(has_right_checksum(&f, "small"));
    CHECK(has_right_checksum(&f, "step"));
    CHECK(has_right_checksum(&f, "large"));
}

/* The worker stops before it has begun, and in the middle of one. */
TEST(the_next_worker_goes_on)
{
    FIXTURE(f, 64);
    put_bytes(&f, "first", 20 * MIB);
    put_bytes(&f, "second", 3 * MIB);
    checksums_tick(f.worker.checksums);
    fixture_stop(&f);
    fixture_start_again(&f);
    CHECK_INT(unchecked(&f), 2);
    RUN_UNTIL(&f, unchecked(&f) == 0);
    CHECK(has_right_checksum(&f, "first"));
    CHECK(has_right_checksum(&f, "second"));
}

/* Its bytes are held while a helper reads them, and its checksum is not another's. */
TEST(an_object_may_be_deleted_and_written_anew_while_it_is_hashed)
{
    FIXTURE(f, 64);
    put_bytes(&f, "a", 24 * MIB);
    checksums_tick(f.worker.checksums);
    CHECK(store_delete(f.worker.store, slice_of_text("a"), clock_boot_ds()));
    (void)store_tick(f.worker.store, clock_boot_ds());
    CHECK_INT(stats_of(&f).dead, 1);
    put_bytes(&f, "a", 20 * MIB);
    RUN_UNTIL(&f, unchecked(&f) == 0 && stats_of(&f).dead == 0);
    CHECK(has_right_checksum(&f, "a"));
}

TEST(nothing_is_held_after_the_worker_has_stopped)
{
    FIXTURE(f, 64);
    put_bytes(&f, "a", 24 * MIB);
    checksums_tick(f.worker.checksums);
    fixture_stop(&f); /* With a step in the helper's hands. */
    fixture_start_again(&f);
    CHECK_INT(stats_of(&f).objects, 1);
}

TEST_MAIN(RUN(what_was_sealed_without_a_checksum_gets_its_own),
          RUN(the_next_worker_goes_on),
          RUN(an_object_may_be_deleted_and_written_anew_while_it_is_hashed),
          RUN(nothing_is_held_after_the_worker_has_stopped))
