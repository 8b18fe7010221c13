/* The worker stops after every single store to shared memory. Each test runs one
 * operation; the hook copies table and pins at every step; then each copy is opened as
 * the next worker would, walked, compared with what was visible before and after, and
 * used and emptied. */
#include "store/store.h"

#include "base/auto.h"
#include "base/check.h"
#include "store/fixture.h"
#include "store/pin.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS_MAX = 128, KEYS = 4 };

#define NEWCOMER_TOKEN 4711
#define LONG_KEY       "a key that does not fit into its slot, since it is this long"

static const char *const keys[KEYS] = {"a", "b", LONG_KEY, "new"};

/* What a client can see. */
struct visible {
    struct {
        uint64_t found;
        uint64_t offset;
        uint64_t size;
        uint64_t slot;
        uint64_t commit;
    } objects[KEYS];
};

/* One operation under test, and a copy of the memory at each of its steps. */
struct trial {
    struct fixture f;
    struct object_view writing; /* Unsealed object of client 0's region. */
    struct object_view doomed;  /* Unsealed object under "new". */
    struct pin_region *pins;
    uint32_t region;
    struct fixture copies[STEPS_MAX];
    const char *steps[STEPS_MAX];
    uint32_t count;
};

static struct visible
visible_in(struct store *store)
{
    struct visible out;
    memset(&out, 0, sizeof out);
    for (int i = 0; i < KEYS; i++) {
        struct object_view view;
        if (!find(store, keys[i], &view))
            continue;
        out.objects[i].found = true;
        out.objects[i].offset = view.offset;
        out.objects[i].size = view.size;
        out.objects[i].slot = view.ref.slot;
        out.objects[i].commit = view.commit;
    }
    return out;
}

static bool
same(const struct visible *a, const struct visible *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static void
copy_now(const char *step, void *arg)
{
    struct trial *trial = arg;
    CHECK(trial->count < STEPS_MAX);
    fixture_copy(&trial->copies[trial->count], &trial->f);
    trial->steps[trial->count++] = step;
}

static struct object_view
create_for_client(struct trial *trial, const char *key, uint64_t size)
{
    struct create_request request = request_for(key, size);
    request.client = trial->region + 1;
    request.sequence = 9;
    struct object_view view;
    CHECK_OK(store_create(trial->f.store, &request, FIXTURE_NOW, &view, NULL));
    return view;
}

/* Sealed "a" (small), "b" (large, expires at FIXTURE_NOW + 10) and the long key; a dead
 * object that is pinned and one that is not; two unsealed ones. */
static struct trial *
trial_begin(void)
{
    struct trial *trial = calloc(1, sizeof *trial);
    DS_ASSERT(trial != NULL);
    fixture_open(&trial->f, fixture_geometry());
    struct store *store = trial->f.store;
    trial->region = add_client(store);
    trial->pins = region_of(&trial->f, trial->region);
    struct object_view view = put(store, "a", 7000);
    CHECK(pin_acquire(trial->pins, 0, slot_of(&trial->f, view.ref.slot), view.commit,
                      view.offset));
    (void)put(store, LONG_KEY, 100);
    (void)put(store, "a", 100);
    (void)put(store, LONG_KEY, 5000);
    (void)put(store, "b", 20000);
    CHECK(store_set_expiry(store, slice_of_text("b"), FIXTURE_NOW + 10, FIXTURE_NOW));
    trial->writing = create_for_client(trial, "a", 300);
    trial->doomed = create_for_client(trial, "new", 9000);
    return trial;
}

static void
trial_end(struct trial *trial)
{
    for (uint32_t i = 0; i < trial->count; i++)
        fixture_close(&trial->copies[i]);
    fixture_close(&trial->f);
    free(trial);
}

/* After recovery the store must be as good as new: what was deleted can be created
 * again, and when everything is gone, every byte is free. */
static void
use_and_empty(struct trial *trial, struct fixture *copy)
{
    struct store *store = copy->store;
    (void)put(store, "other", 12345);
    (void)put(store, LONG_KEY, 64);
    store_check(store);
    for (int i = 0; i < KEYS; i++)
        (void)delete_key(store, keys[i]);
    CHECK(delete_key(store, "other"));
    struct client_identity identity;
    if (store_client_get(store, trial->region, &identity))
        store_client_remove(store, trial->region);
    (void)store_tick(store, FIXTURE_NOW);
    struct store_stats stats = stats_of(store);
    CHECK_INT(stats.arena.used_bytes, 0);
    CHECK_INT(stats.writing, 0);
    CHECK_INT(stats.dead, 0);
    store_check(store);
}

static void
recover_copy(struct trial *trial, uint32_t index, const struct visible *before,
             const struct visible *after, bool *is_after)
{
    struct fixture *copy = &trial->copies[index];
    CHECK_OK(fixture_reopen(copy, NULL));
    store_check(copy->store);
    CHECK_INT(copy->report.dropped_damaged, 0);
    CHECK_INT(copy->report.dropped_overlapping, 0);
    struct visible now = visible_in(copy->store);
    CHECK(same(&now, before) || same(&now, after));
    /* Once it took effect it never goes back. */
    CHECK(!*is_after || same(&now, after));
    *is_after = same(&now, after);
    use_and_empty(trial, copy);
}

/* Run `operation` and recover from each of its steps. Returns how many there were. */
static uint32_t
stop_at_every_step(struct trial *trial, void (*operation)(struct trial *trial))
{
    struct visible before = visible_in(trial->f.store);
    store_set_step_hook(copy_now, trial);
    operation(trial);
    store_set_step_hook(NULL, NULL);
    store_check(trial->f.store);
    struct visible after = visible_in(trial->f.store);

    bool is_after = same(&before, &after);
    for (uint32_t i = 0; i < trial->count; i++)
        recover_copy(trial, i, &before, &after, &is_after);
    CHECK(trial->count == 0 || is_after);
    uint32_t steps = trial->count;
    trial_end(trial);
    return steps;
}

/* An unsealed object of a living client must survive every step of what others do. */
static void
writing_survives(struct trial *trial, void (*operation)(struct trial *trial))
{
    store_set_step_hook(copy_now, trial);
    operation(trial);
    store_set_step_hook(NULL, NULL);
    for (uint32_t i = 0; i < trial->count; i++) {
        struct fixture *copy = &trial->copies[i];
        struct object_view view;
        enum slot_state found;
        CHECK_OK(fixture_reopen(copy, NULL));
        CHECK(store_inspect(copy->store, trial->writing.ref.slot, &view, &found));
        CHECK_INT(found, SLOT_WRITING);
        CHECK_INT(view.offset, trial->writing.offset);
        seal(copy->store, trial->writing.ref);
        CHECK(find(copy->store, "a", &view));
        CHECK_INT(view.offset, trial->writing.offset);
        store_check(copy->store);
    }
    trial_end(trial);
}

/* ---- The operations ---- */

static void
do_create(struct trial *trial)
{
    (void)create_for_client(trial, "new", 64);
}

static void
do_lend(struct trial *trial)
{
    struct object_view view;
    CHECK(store_lend(trial->f.store, 5000, trial->region + 1, 10, &view));
}

static void
do_create_long_key(struct trial *trial)
{
    (void)create_for_client(trial, LONG_KEY "!", 30000);
}

static void
do_seal_new(struct trial *trial)
{
    seal(trial->f.store, trial->doomed.ref);
}

static void
do_overwrite(struct trial *trial)
{
    struct seal_request request = {
        .ref = trial->writing.ref,
        .expires_ds = FIXTURE_NOW + 100,
        .has_checksum = true,
        .checksum = 5,
    };
    CHECK_OK(store_seal(trial->f.store, &request, FIXTURE_NOW, NULL));
}

static void
do_set_checksum(struct trial *trial)
{
    struct object_view view;
    CHECK(find(trial->f.store, "a", &view));
    CHECK(store_set_checksum(trial->f.store, view.ref, 5));
}

static void
do_lose(struct trial *trial)
{
    struct seal_request request = {.ref = trial->writing.ref, .only_if_absent = true};
    CHECK_OK(store_seal(trial->f.store, &request, FIXTURE_NOW, NULL));
}

static void
do_abort(struct trial *trial)
{
    store_abort(trial->f.store, trial->doomed.ref);
}

static void
do_abort_request(struct trial *trial)
{
    store_abort_request(trial->f.store, trial->region + 1, 9);
}

static void
do_delete(struct trial *trial)
{
    CHECK(delete_key(trial->f.store, LONG_KEY));
}

static void
do_delete_large(struct trial *trial)
{
    CHECK(delete_key(trial->f.store, "b"));
}

static void
do_set_expiry(struct trial *trial)
{
    struct ds_slice key = slice_of_text("a");
    CHECK(store_set_expiry(trial->f.store, key, FIXTURE_NOW + 3, FIXTURE_NOW));
}

static void
do_reclaim(struct trial *trial)
{
    CHECK(store_tick(trial->f.store, FIXTURE_NOW) > 0);
}

static void
do_expire(struct trial *trial)
{
    (void)store_tick(trial->f.store, FIXTURE_NOW + 10);
    CHECK(!exists(trial->f.store, "b"));
}

static void
do_remove_client(struct trial *trial)
{
    store_client_remove(trial->f.store, trial->region);
}

static void
do_add_client(struct trial *trial)
{
    (void)add_client(trial->f.store);
}

static void
do_replace_client(struct trial *trial)
{
    struct client_identity newcomer = {.pid = 2, .token = NEWCOMER_TOKEN};
    uint32_t region;
    store_client_remove(trial->f.store, trial->region);
    CHECK_OK(store_client_add(trial->f.store, &newcomer, &region, NULL));
    CHECK_INT(region, trial->region);
}

static void
do_reopen(struct trial *trial)
{
    fixture_restart(&trial->f);
}

TEST(create_can_stop_anywhere)
{
    CHECK(stop_at_every_step(trial_begin(), do_create) >= 10);
    CHECK(stop_at_every_step(trial_begin(), do_create_long_key) >= 11);
    CHECK(stop_at_every_step(trial_begin(), do_lend) >= 10);
}

/* What is being named is still there at every step, and takes its name again. */
TEST(what_is_lent_can_be_named_again_at_every_step)
{
    struct trial *trial = trial_begin();
    struct object_view lent;
    CHECK(store_lend(trial->f.store, 5000, trial->region + 1, 10, &lent));
    struct name_request name = {.ref = lent.ref,
                                .client = trial->region + 1,
                                .key = slice_of_text(LONG_KEY "!"),
                                .size = 4100,
                                .flags = SLOT_FLAG_EVICTABLE};
    store_set_step_hook(copy_now, trial);
    CHECK_OK(store_name(trial->f.store, &name, NULL));
    store_set_step_hook(NULL, NULL);
    store_check(trial->f.store);
    for (uint32_t i = 0; i < trial->count; i++) {
        struct store *store = NULL;
        struct object_view view;
        CHECK_OK(fixture_reopen(&trial->copies[i], NULL));
        store = trial->copies[i].store;
        store_check(store);
        CHECK_OK(store_name(store, &name, NULL));
        seal(store, lent.ref);
        CHECK(find(store, LONG_KEY "!", &view));
        CHECK_INT(view.offset, lent.offset);
        CHECK_INT(view.size, 4100);
        store_check(store);
        CHECK(delete_key(store, LONG_KEY "!"));
        use_and_empty(trial, &trial->copies[i]);
    }
    CHECK(trial->count > 3);
    trial_end(trial);
}

TEST(seal_can_stop_anywhere)
{
    CHECK(stop_at_every_step(trial_begin(), do_seal_new) >= 5);
    CHECK(stop_at_every_step(trial_begin(), do_overwrite) >= 9);
    CHECK(stop_at_every_step(trial_begin(), do_lose) >= 1);
}

/* At every step the object has no checksum, or its own. */
static void
checksum_is_right_or_missing(struct trial *trial,
                             void (*operation)(struct trial *trial))
{
    store_set_step_hook(copy_now, trial);
    operation(trial);
    store_set_step_hook(NULL, NULL);
    uint32_t flagged = 0;
    for (uint32_t i = 0; i < trial->count; i++) {
        struct fixture *copy = &trial->copies[i];
        struct object_view view;
        CHECK_OK(fixture_reopen(copy, NULL));
        CHECK(find(copy->store, "a", &view));
        bool has_one = (view.flags & SLOT_FLAG_CHECKSUM) != 0;
        CHECK(!has_one || view.checksum == 5);
        flagged += has_one;
        store_check(copy->store);
    }
    CHECK(flagged >= 1);
    trial_end(trial);
}

TEST(a_checksum_is_right_or_missing_at_every_step)
{
    checksum_is_right_or_missing(trial_begin(), do_set_checksum);
    checksum_is_right_or_missing(trial_begin(), do_overwrite);
}

TEST(abort_can_stop_anywhere)
{
    CHECK(stop_at_every_step(trial_begin(), do_abort) >= 1);
    CHECK(stop_at_every_step(trial_begin(), do_abort_request) >= 2);
}

TEST(delete_can_stop_anywhere)
{
    CHECK(stop_at_every_step(trial_begin(), do_delete) >= 2);
    CHECK(stop_at_every_step(trial_begin(), do_delete_large) >= 2);
}

TEST(expiry_can_stop_anywhere)
{
    CHECK(stop_at_every_step(trial_begin(), do_set_expiry) >= 1);
    CHECK(stop_at_every_step(trial_begin(), do_expire) >= 3);
}

TEST(reclaim_can_stop_anywhere)
{
    CHECK(stop_at_every_step(trial_begin(), do_reclaim) >= 1);
}

TEST(clients_can_come_and_go_anywhere)
{
    CHECK(stop_at_every_step(trial_begin(), do_add_client) >= 4);
    CHECK(stop_at_every_step(trial_begin(), do_remove_client) >= 5);
}

static void
append_key(struct ds_slice key, void *arg)
{
    strncat(arg, key.data, key.len);
}

/* What the dead client left is found by whoever opens the store next, at whatever step,
 * and is never taken for the newcomer's in the same region. */
TEST(a_part_whose_creator_died_is_nobodys_before_the_region_is_anothers)
{
    struct trial *trial = trial_begin();
    struct create_request request = request_for("part", 7000);
    struct object_view view;
    request.client = trial->region + 1;
    request.flags = SLOT_FLAG_BLOCK | SLOT_FLAG_PROVISIONAL;
    CHECK_OK(store_create(trial->f.store, &request, FIXTURE_NOW, &view, NULL));
    seal(trial->f.store, view.ref);
    store_set_step_hook(copy_now, trial);
    do_replace_client(trial);
    store_set_step_hook(NULL, NULL);
    CHECK(trial->count >= 10);
    for (uint32_t i = 0; i < trial->count; i++) {
        struct fixture *copy = &trial->copies[i];
        struct client_identity identity;
        char orphans[64] = "";
        char others[64] = "";
        CHECK_OK(fixture_reopen(copy, NULL));
        if (store_client_get(copy->store, trial->region, &identity) &&
            identity.token != NEWCOMER_TOKEN)
            store_client_remove(copy->store, trial->region); /* It is dead. */
        store_client_provisional(copy->store, 0, append_key, orphans);
        store_client_provisional(copy->store, trial->region + 1, append_key, others);
        CHECK_TEXT(orphans, "part");
        CHECK_TEXT(others, "");
        store_check(copy->store);
    }
    trial_end(trial);
}

TEST(recovery_can_stop_anywhere)
{
    CHECK(stop_at_every_step(trial_begin(), do_reopen) >= 4);
}

/* A seal that stopped half way is recovered, and that recovery stops half way too. */
TEST(recovery_of_half_a_seal_can_stop_anywhere)
{
    struct trial *first = trial_begin();
    store_set_step_hook(copy_now, first);
    do_overwrite(first);
    store_set_step_hook(NULL, NULL);
    for (uint32_t i = 0; i < first->count; i++) {
        struct trial *second = calloc(1, sizeof *second);
        DS_ASSERT(second != NULL);
        second->region = first->region;
        fixture_copy(&second->f, &first->copies[i]);
        CHECK_OK(fixture_reopen(&second->f, NULL));
        store_close(second->f.store);
        memcpy(second->f.memory.table, first->copies[i].memory.table,
               second->f.memory.table_bytes);
        CHECK_OK(fixture_reopen(&second->f, NULL));
        struct visible wanted = visible_in(second->f.store);
        memcpy(second->f.memory.table, first->copies[i].memory.table,
               second->f.memory.table_bytes);
        store_set_step_hook(copy_now, second);
        fixture_restart(&second->f);
        store_set_step_hook(NULL, NULL);
        bool is_after = true;
        for (uint32_t step = 0; step < second->count; step++)
            recover_copy(second, step, &wanted, &wanted, &is_after);
        trial_end(second);
    }
    trial_end(first);
}

TEST(unsealed_objects_of_others_survive_every_step)
{
    writing_survives(trial_begin(), do_create_long_key);
    writing_survives(trial_begin(), do_seal_new);
    writing_survives(trial_begin(), do_abort);
    writing_survives(trial_begin(), do_delete);
    writing_survives(trial_begin(), do_expire);
    writing_survives(trial_begin(), do_reclaim);
    writing_survives(trial_begin(), do_reopen);
}

static void
do_overwrite_other(struct trial *trial)
{
    (void)put(trial->f.store, LONG_KEY, 333);
    (void)store_tick(trial->f.store, FIXTURE_NOW);
}

/* Bytes that a reader holds are not handed out at any step of anything. */
TEST(pinned_bytes_survive_every_step)
{
    struct trial *trial = trial_begin();
    struct object_view view;
    CHECK(find(trial->f.store, LONG_KEY, &view));
    const struct slot *slot = slot_of(&trial->f, view.ref.slot);
    CHECK(pin_acquire(trial->pins, 1, slot, view.commit, view.offset));
    store_set_step_hook(copy_now, trial);
    do_overwrite_other(trial);
    store_set_step_hook(NULL, NULL);
    for (uint32_t i = 0; i < trial->count; i++) {
        struct fixture *copy = &trial->copies[i];
        CHECK_OK(fixture_reopen(copy, NULL));
        (void)store_tick(copy->store, FIXTURE_NOW);
        struct create_request request = request_for("filler", 64);
        struct object_view filler;
        for (request.size = 1 << 20; request.size >= 64;) {
            if (store_create(copy->store, &request, FIXTURE_NOW, &filler, NULL) !=
                DS_OK) {
                request.size /= 2;
                continue;
            }
            CHECK(filler.offset + filler.size <= view.offset ||
                  filler.offset >= view.offset + view.size);
        }
        store_check(copy->store);
    }
    trial_end(trial);
}

TEST_MAIN(RUN(create_can_stop_anywhere),
          RUN(what_is_lent_can_be_named_again_at_every_step),
          RUN(seal_can_stop_anywhere),
          RUN(a_checksum_is_right_or_missing_at_every_step),
          RUN(abort_can_stop_anywhere), RUN(delete_can_stop_anywhere),
          RUN(expiry_can_stop_anywhere), RUN(reclaim_can_stop_anywhere),
          RUN(clients_can_come_and_go_anywhere),
          RUN(a_part_whose_creator_died_is_nobodys_before_the_region_is_anothers),
          RUN(recovery_can_stop_anywhere),
          RUN(recovery_of_half_a_seal_can_stop_anywhere),
          RUN(unsealed_objects_of_others_survive_every_step),
          RUN(pinned_bytes_survive_every_step))
