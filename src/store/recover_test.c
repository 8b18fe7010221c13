#include "store/store.h"

#include "base/auto.h"
#include "store/fixture.h"
#include "store/pin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct slot *
raw_slot(struct fixture *f, uint32_t slot)
{
    return (struct slot *)(uintptr_t)slot_of(f, slot);
}

static struct table_header *
raw_header(struct fixture *f)
{
    return f->memory.table;
}

static enum ds_status
reopen(struct fixture *f, struct ds_error *err)
{
    store_close(f->store);
    f->store = NULL;
    return fixture_reopen(f, err);
}

/* Readers that pinned an object go on using it across a restart: same slot, same word.
 */
TEST(sealed_objects_keep_slot_word_and_bytes)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view before[20];
    char key[48];
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "%0*d", 1 + 2 * i, i);
        before[i] = put(f.store, key, 1 + 37u * (uint64_t)i * (uint64_t)i);
    }
    fixture_restart(&f);
    CHECK_INT(f.report.sealed, 20);
    for (int i = 0; i < 20; i++) {
        struct object_view after;
        snprintf(key, sizeof key, "%0*d", 1 + 2 * i, i);
        CHECK(find(f.store, key, &after));
        CHECK_INT(after.ref.slot, before[i].ref.slot);
        CHECK_INT(after.commit, before[i].commit);
        CHECK_INT(after.offset, before[i].offset);
        CHECK_INT(after.size, before[i].size);
    }
}

TEST(unsealed_objects_wait_for_a_living_owner_only)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    uint32_t alive = add_client(f.store);
    uint32_t gone = add_client(f.store);
    struct create_request request = request_for("mine", 100);
    struct object_view mine;
    struct object_view view;
    request.client = alive + 1;
    CHECK_OK(store_create(f.store, &request, FIXTURE_NOW, &mine, NULL));
    request.client = gone + 1;
    CHECK_OK(store_create(f.store, &request, FIXTURE_NOW, &view, NULL));
    request.client = 0;
    CHECK_OK(store_create(f.store, &request, FIXTURE_NOW, &view, NULL));
    atomic_store(&region_of(&f, gone)->state, PIN_REGION_FREE);

    fixture_restart(&f);
    CHECK_INT(f.report.writing, 1);
    CHECK_INT(f.report.dead, 2);
    seal(f.store, mine.ref);
    CHECK(exists(f.store, "mine"));
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 2);
}

TEST(pins_of_before_keep_their_bytes)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    uint32_t region = add_client(f.store);
    struct object_view view = put(f.store, "a", 5000);
    CHECK(pin_acquire(region_of(&f, region), 9, slot_of(&f, view.ref.slot), view.commit,
                      view.offset));
    CHECK(delete_key(f.store, "a"));
    fixture_restart(&f);
    CHECK(!exists(f.store, "a"));
    CHECK_INT(f.report.dead, 1);
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 0);
    store_client_remove(f.store, region);
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 1);
    store_check(f.store);
}

TEST(expiry_and_versions_go_on)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    (void)put(f.store, "a", 10);
    CHECK(store_set_expiry(f.store, slice_of_text("a"), FIXTURE_NOW + 7, FIXTURE_NOW));
    struct object_view old = put(f.store, "b", 10);
    fixture_restart(&f);
    CHECK_INT(store_next_expiry(f.store), FIXTURE_NOW + 7);
    struct object_view fresh = put(f.store, "b", 10);
    CHECK(fresh.version > old.version);
    (void)store_tick(f.store, FIXTURE_NOW + 7);
    CHECK(!exists(f.store, "a"));
}

/* ---- Damage ---- */

TEST(objects_that_overlap_are_both_dropped_and_counted)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view a = put(f.store, "a", 9000);
    struct object_view b = put(f.store, "b", 9000);
    (void)put(f.store, "c", 9000);
    raw_slot(&f, b.ref.slot)->place = place_pack(a.offset + 8192, 0, 1);
    fixture_restart(&f);
    CHECK_INT(f.report.dropped_overlapping, 2);
    CHECK_INT(f.report.sealed, 1);
    CHECK(!exists(f.store, "a"));
    CHECK(!exists(f.store, "b"));
    CHECK(exists(f.store, "c"));
}

/* Two slots cannot have the same bytes of the key heap, whatever they say. */
TEST(objects_that_share_the_room_of_a_key_are_not_both_kept)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view a = put(f.store, "a key of more than twenty bytes", 100);
    struct object_view b = put(f.store, "b key of more than twenty bytes", 200);
    struct slot *copy = raw_slot(&f, b.ref.slot);
    memcpy(copy->key, raw_slot(&f, a.ref.slot)->key, sizeof copy->key);
    copy->tag = raw_slot(&f, a.ref.slot)->tag;
    fixture_restart(&f);
    CHECK_INT(f.report.dropped_overlapping, 1);
    CHECK_INT(f.report.sealed, 1);
    CHECK(delete_key(f.store, "a key of more than twenty bytes"));
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 1);
    store_check(f.store);
}

TEST(the_newer_of_two_sealed_objects_wins)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct object_view a = put(f.store, "a", 100);
    struct object_view b = put(f.store, "b", 200);
    struct slot *newer = raw_slot(&f, b.ref.slot);
    newer->key[0] = 'a';
    newer->tag = raw_slot(&f, a.ref.slot)->tag;
    fixture_restart(&f);
    struct object_view view;
    CHECK_INT(f.report.dropped_superseded, 1);
    CHECK(find(f.store, "a", &view));
    CHECK_INT(view.size, 200);
    CHECK_INT(store_tick(f.store, FIXTURE_NOW), 1);
    store_check(f.store);
}

/* Break one field of a sealed object; it must vanish, and nothing else. */
static void
check_dropped(struct fixture *f)
{
    fixture_restart(f);
    CHECK_INT(f->report.dropped_damaged, 1);
    CHECK(!exists(f->store, "a"));
    CHECK(exists(f->store, "b"));
    (void)put(f->store, "a", 100);
    store_check(f->store);
}

static struct slot *
slot_to_break(struct fixture *f)
{
    (void)put(f->store, "b", 100);
    return raw_slot(f, put(f->store, "a", 100).ref.slot);
}

TEST(a_slot_with_a_wrong_key_is_dropped)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    slot_to_break(&f)->key[0] = 'x';
    check_dropped(&f);
}

TEST(a_slot_with_a_wrong_tag_is_dropped)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    slot_to_break(&f)->tag ^= 1;
    check_dropped(&f);
}

TEST(a_slot_of_no_bytes_is_dropped)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    slot_to_break(&f)->size = 0;
    check_dropped(&f);
}

TEST(a_slot_that_leaves_the_arena_is_dropped)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    slot_to_break(&f)->size = UINT64_MAX - 50;
    check_dropped(&f);
}

TEST(a_slot_of_an_unknown_state_is_dropped)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct slot *slot = slot_to_break(&f);
    atomic_store(&slot->commit, atomic_load(&slot->commit) | 0xf0);
    check_dropped(&f);
}

TEST(a_slot_of_an_impossible_generation_is_dropped_and_rests)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct slot *slot = slot_to_break(&f);
    atomic_store(&slot->commit, commit_word((1ull << 56) - 1, SLOT_SEALED));
    check_dropped(&f);
}

TEST(a_slot_with_a_key_outside_the_heap_is_dropped)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct slot *slot = slot_to_break(&f);
    key_heap_place place = f.geometry.key_heap_bytes - 20;
    slot->place = place_pack(place_offset(slot->place), 0, 21);
    memcpy(slot->key, &place, sizeof place);
    check_dropped(&f);
}

TEST(counters_beyond_the_table_are_corrected)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    (void)put(f.store, "a", 100);
    atomic_store(&raw_header(&f)->slots_used, UINT64_MAX);
    atomic_store(&raw_header(&f)->populated, UINT64_MAX);
    fixture_restart(&f);
    CHECK(exists(f.store, "a"));
    CHECK_INT(store_header(f.store)->slots_used, f.geometry.slot_count);
    CHECK_INT(store_header(f.store)->populated, f.geometry.arena_bytes);
}

/* Slots past the counter are taken to be new; damage can leave something there. */
TEST(a_counter_that_forgets_slots_does_no_harm)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    (void)put(f.store, "a", 100);
    (void)put(f.store, "b", 100);
    struct slot *worn = raw_slot(&f, put(f.store, "c", 100).ref.slot);
    atomic_store(&worn->commit, commit_word(UINT64_C(1) << 55, SLOT_SEALED));
    atomic_store(&raw_header(&f)->slots_used, 1);
    fixture_restart(&f);
    CHECK(exists(f.store, "a"));
    CHECK(!exists(f.store, "b"));
    struct object_view again = put(f.store, "b", 200);
    struct object_view next = put(f.store, "d", 200);
    CHECK_INT(again.ref.slot, 1);
    CHECK_INT(again.ref.generation, 3); /* One that nobody saw before. */
    CHECK_INT(next.ref.slot, 3);        /* The worn one rests. */
    store_check(f.store);
}

/* ---- Memory of another kind ---- */

TEST(memory_that_is_no_table_is_refused)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct ds_error err = {0};
    raw_header(&f)->magic = 0;
    CHECK_STATUS(reopen(&f, &err), DS_MISMATCH);
    CHECK_CONTAINS(err.message, "not one of a datasystem worker");
}

TEST(another_layout_version_is_refused_by_name)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct ds_error err = {0};
    raw_header(&f)->layout_version = 77;
    CHECK_STATUS(reopen(&f, &err), DS_MISMATCH);
    CHECK_CONTAINS(err.message, "layout version 77");
    CHECK_CONTAINS(err.message, "this build has version 4");
}

TEST(another_slot_size_is_refused)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct ds_error err = {0};
    raw_header(&f)->slot_bytes = 96;
    CHECK_STATUS(reopen(&f, &err), DS_MISMATCH);
    CHECK_CONTAINS(err.message, "96 bytes");
}

TEST(a_table_larger_than_its_file_is_refused)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct ds_error err = {0};
    raw_header(&f)->slot_count = 1 << 30;
    CHECK_STATUS(reopen(&f, &err), DS_MISMATCH);
    CHECK_CONTAINS(err.message, "damaged");
}

TEST(a_table_of_another_arena_is_refused)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct ds_error err = {0};
    f.memory.arena_bytes *= 2;
    CHECK_STATUS(reopen(&f, &err), DS_MISMATCH);
    CHECK_CONTAINS(err.message, "arena of 1048576 bytes, but this one has 2097152");
}

TEST(pins_of_another_arena_are_refused)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct ds_error err = {0};
    ((struct pins_header *)f.memory.pins)->incarnation = 43;
    CHECK_STATUS(reopen(&f, &err), DS_MISMATCH);
    CHECK_CONTAINS(err.message, "another arena");
    ((struct pins_header *)f.memory.pins)->magic = 0;
    CHECK_STATUS(reopen(&f, &err), DS_MISMATCH);
    CHECK_CONTAINS(err.message, "pins file");
}

/* ---- Any bytes at all ---- */

enum { FUZZ_ROUNDS = 3000, FUZZ_FLIPS_MAX = 24 };

/* Mostly where something is: header, heads, used slots, keys. */
static void
flip_bytes(struct fixture *f, uint64_t *seed)
{
    uint8_t *table = f->memory.table;
    uint8_t *pins = f->memory.pins;
    const struct table_header *header = f->memory.table;
    const uint64_t slots_off = header->slots_off;
    const uint64_t used = 40 * sizeof(struct slot);
    const uint64_t keys_off = header->key_heap_off;
    uint64_t flips = 1 + test_random(seed) % FUZZ_FLIPS_MAX;
    for (uint64_t i = 0; i < flips; i++) {
        uint64_t random = test_random(seed);
        uint8_t bits = (uint8_t)(1u << (random & 7));
        uint64_t at = random >> 8;
        switch (random >> 3 & 15) {
        case 0:
            table[at % sizeof *header] ^= bits;
            break;
        case 1:
            table[header->buckets_off % 4097 + at % 64] ^= bits;
            break;
        case 2:
            table[keys_off % (1 << 14) + at % 1024] ^= bits;
            break;
        case 3:
            pins[at % f->memory.pins_bytes] ^= bits;
            break;
        default:
            table[slots_off % (1 << 14) + at % used] ^= bits;
        }
    }
}

static void
delete_it(const struct object_view *view, struct ds_slice key, void *arg)
{
    struct ds_slice *keys = arg;
    (void)view;
    if (keys->data == NULL)
        *keys = key;
}

static void
exercise(struct fixture *f)
{
    struct object_view view;
    struct create_request request = request_for("after the damage, a long key", 700);
    store_check(f->store);
    if (store_create(f->store, &request, FIXTURE_NOW, &view, NULL) == DS_OK)
        seal(f->store, view.ref);
    for (uint32_t i = 0; i < f->geometry.region_count; i++) {
        struct client_identity identity;
        if (store_client_get(f->store, i, &identity))
            store_client_remove(f->store, i);
    }
    for (;;) {
        struct ds_slice key = {0};
        store_each(f->store, delete_it, &key);
        if (key.data == NULL)
            break;
        uint64_t never = 0; /* So that nothing counts as expired. */
        CHECK(store_delete(f->store, key, never));
    }
    (void)store_tick(f->store, UINT64_MAX);
    store_check(f->store);
    CHECK_INT(stats_of(f->store).arena.used_bytes, 0);
}

static void
fill_for_damage(struct fixture *f)
{
    char key[64];
    uint32_t region = add_client(f->store);
    for (int i = 0; i < 30; i++) {
        snprintf(key, sizeof key, "%0*d", 1 + i * 2, i);
        struct object_view view = put(f->store, key, 1 + 700u * (uint64_t)i);
        if (i % 5 == 0)
            CHECK(pin_acquire(region_of(f, region), (uint32_t)i,
                              slot_of(f, view.ref.slot), view.commit, view.offset));
    }
    (void)put(f->store, "0", 40);
    CHECK(delete_key(f->store, "00002"));
    struct create_request request = request_for("unsealed", 4000);
    struct object_view view;
    request.client = region + 1;
    CHECK_OK(store_create(f->store, &request, FIXTURE_NOW, &view, NULL));
}

TEST(no_damage_to_the_table_crashes_recovery)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    fill_for_damage(&f);
    uint64_t seed = 20240601;
    uint64_t opened = 0;
    for (int round = 0; round < FUZZ_ROUNDS; round++) {
        AUTO(fixture) struct fixture copy;
        fixture_copy(&copy, &f);
        flip_bytes(&copy, &seed);
        if (fixture_reopen(&copy, NULL) != DS_OK)
            continue;
        opened++;
        exercise(&copy);
    }
    CHECK(opened > FUZZ_ROUNDS / 8); /* Else the slots are hardly tried. */
}

TEST_MAIN(RUN(sealed_objects_keep_slot_word_and_bytes),
          RUN(unsealed_objects_wait_for_a_living_owner_only),
          RUN(pins_of_before_keep_their_bytes), RUN(expiry_and_versions_go_on),
          RUN(objects_that_overlap_are_both_dropped_and_counted),
          RUN(objects_that_share_the_room_of_a_key_are_not_both_kept),
          RUN(the_newer_of_two_sealed_objects_wins),
          RUN(a_slot_with_a_wrong_key_is_dropped),
          RUN(a_slot_with_a_wrong_tag_is_dropped), RUN(a_slot_of_no_bytes_is_dropped),
          RUN(a_slot_that_leaves_the_arena_is_dropped),
          RUN(a_slot_of_an_unknown_state_is_dropped),
          RUN(a_slot_of_an_impossible_generation_is_dropped_and_rests),
          RUN(a_slot_with_a_key_outside_the_heap_is_dropped),
          RUN(counters_beyond_the_table_are_corrected),
          RUN(a_counter_that_forgets_slots_does_no_harm),
          RUN(memory_that_is_no_table_is_refused),
          RUN(another_layout_version_is_refused_by_name),
          RUN(another_slot_size_is_refused),
          RUN(a_table_larger_than_its_file_is_refused),
          RUN(a_table_of_another_arena_is_refused),
          RUN(pins_of_another_arena_are_refused),
          RUN(no_damage_to_the_table_crashes_recovery))
