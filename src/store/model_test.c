/* Random operations against a plain dict, from a seed: whatever the store answers, the
 * dict must have answered; every byte of every visible or pinned object must be what
 * was written; and at any moment, in the middle of any operation, the worker may stop
 * and the next one recover. */
#include "store/store.h"

#include "base/auto.h"
#include "base/check.h"
#include "base/numeric.h"
#include "store/fixture.h"
#include "store/pin.h"

#include <stdlib.h>
#include <string.h>

enum {
    KEYS = 40,
    CLIENTS = 3,
    UNSEALED_MAX = 12,
    PINS_MAX = 24,
    OPERATIONS = 12000,
    SEEDS = 4,
};

/* What the dict says about one key. */
struct entry {
    bool present;
    uint64_t size;
    uint32_t expires_ds;
    uint8_t fill; /* Every byte of the value. */
};

struct unsealed {
    struct object_ref ref;
    uint64_t offset;
    uint64_t size;
    uint32_t key;
    uint32_t client;
    uint32_t sequence;
    uint8_t fill;
};

struct pinned {
    uint64_t offset;
    uint64_t size;
    uint32_t client;
    uint32_t word;
    uint8_t fill;
};

/* Owner: the test. */
struct model {
    struct fixture f;
    struct entry dict[KEYS];
    struct unsealed unsealed[UNSEALED_MAX];
    struct pinned pins[PINS_MAX];
    uint32_t unsealed_count;
    uint32_t pin_count;
    uint32_t clients[CLIENTS]; /* Region numbers. */
    uint64_t seed;
    uint64_t now_ds;
    uint32_t sequence;

    /* Counts down at every store; at 0 the memory is copied: the worker stopped there.
     */
    uint64_t steps_left;
    struct fixture stopped;
    uint64_t stops;
    uint64_t fulls;
};

static uint64_t
below(struct model *model, uint64_t limit)
{
    return test_random(&model->seed) % limit;
}

/* Some keys fit into a slot, some do not, some are as long as they may be. */
static struct ds_slice
key_of(uint32_t key)
{
    static char texts[KEYS][DS_KEY_BYTES_MAX];
    static const size_t lengths[] = {1, 8, 20, 21, 64, 65, 300, DS_KEY_BYTES_MAX};
    memset(texts[key], 'A' + (int)(key % 26), sizeof texts[key]);
    texts[key][0] = (char)key;
    return slice(texts[key], lengths[key % 8]);
}

static uint64_t
random_size(struct model *model)
{
    static const uint64_t limits[] = {64, 300, 2048, 9000, 60000, 150000};
    return 1 + below(model, limits[below(model, 6)]);
}

static void
check_bytes(const struct model *model, uint64_t offset, uint64_t size, uint8_t fill)
{
    const uint8_t *bytes = model->f.arena + offset;
    CHECK_INT(bytes[0], fill);
    CHECK(size == 1 || memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* ---- Stopping ---- */

static void
count_step(const char *step, void *arg)
{
    struct model *model = arg;
    (void)step;
    if (model->steps_left == 0 || --model->steps_left > 0)
        return;
    fixture_copy(&model->stopped, &model->f);
}

/* Before some operations: stop at one of the next few stores. */
static void
maybe_stop_soon(struct model *model)
{
    model->steps_left = below(model, 8) == 0 ? 1 + below(model, 12) : 0;
    store_set_step_hook(count_step, model);
}

static bool
entry_matches(const struct model *model, const struct entry *entry, uint32_t key)
{
    struct object_view view;
    bool found = store_find(model->f.store, key_of(key), model->now_ds, &view);
    bool expired = entry->expires_ds != 0 && entry->expires_ds <= model->now_ds;
    if (!entry->present || expired)
        return !found;
    return found && view.size == entry->size &&
           model->f.arena[view.offset] == entry->fill;
}

/* Not if its worker stopped between lending it and giving it its key. */
static bool
still_unsealed(const struct model *model, const struct unsealed *unsealed)
{
    struct object_view view;
    enum slot_state found;
    uint8_t buffer[DS_KEY_BYTES_MAX];
    uint32_t slot = unsealed->ref.slot;
    return store_inspect(model->f.store, slot, &view, &found) &&
           found == SLOT_WRITING && view.ref.generation == unsealed->ref.generation &&
           store_key(model->f.store, slot, buffer).len > 0;
}

static void
restart(struct model *model)
{
    store_close(model->f.store);
    model->f.store = NULL;
    CHECK_OK(store_open(&model->f.memory, model->now_ds, &model->f.store,
                        &model->f.report, NULL));
    CHECK_INT(model->f.report.dropped_damaged, 0);
    CHECK_INT(model->f.report.dropped_overlapping, 0);
    store_check(model->f.store);
}

/* After an operation on `key` that turned `before` into the dict's entry. If the worker
 * stopped in the middle of it, either is right, and the dict follows. An object that
 * was created may be there or not, without an owner who knows: it is given up. */
static void
after_operation(struct model *model, uint32_t key, const struct entry *before)
{
    store_set_step_hook(NULL, NULL);
    if (model->stopped.memory.table == NULL) {
        model->steps_left = 0;
        return;
    }
    memcpy(model->f.memory.table, model->stopped.memory.table,
           model->f.memory.table_bytes);
    memcpy(model->f.memory.pins, model->stopped.memory.pins,
           model->f.memory.pins_bytes);
    fixture_close(&model->stopped);
    model->stops++;
    restart(model);
    if (!entry_matches(model, &model->dict[key], key)) {
        model->dict[key] = *before;
        CHECK(entry_matches(model, &model->dict[key], key));
    }
}

/* The owners come back and say what they hold: the others' room returns. */
static void
clients_return(struct model *model)
{
    for (uint32_t i = model->unsealed_count; i > 0; i--) {
        if (!still_unsealed(model, &model->unsealed[i - 1]))
            model->unsealed[i - 1] = model->unsealed[--model->unsealed_count];
    }
    for (uint32_t client = 0; client < CLIENTS; client++) {
        struct object_ref keep[UNSEALED_MAX];
        size_t count = 0;
        for (uint32_t i = 0; i < model->unsealed_count; i++) {
            if (model->unsealed[i].client == client)
                keep[count++] = model->unsealed[i].ref;
        }
        store_client_keep_only(model->f.store, model->clients[client], keep, count);
    }
    CHECK_INT(stats_of(model->f.store).writing, model->unsealed_count);
    CHECK_INT(stats_of(model->f.store).lent, 0);
}

static void
op_restart(struct model *model)
{
    restart(model);
    clients_return(model);
}

/* ---- Operations ---- */

/* Small objects come from runs of up to 8 pages, aligned to their size: a hole has one
 * for sure from 15 pages on. */
static uint64_t
hole_bytes_enough(uint64_t size)
{
    enum { PAGE = 4096, SMALL_MAX = 2048, RUN_PAGES_SURE = 15 };
    return size <= SMALL_MAX ? (uint64_t)RUN_PAGES_SURE * PAGE : round_up(size, PAGE);
}

/* DS_FULL is right only if there is no such hole, or no slot, or no key room. */
static void
check_really_full(struct model *model, uint64_t size, const struct ds_error *err)
{
    struct store_stats stats = stats_of(model->f.store);
    model->fulls++;
    if (strncmp(err->message, "Shared memory no space", 22) == 0)
        CHECK(stats.arena.largest_free < hole_bytes_enough(size));
    else
        CHECK_CONTAINS(err->message, "Object table is full");
}

/* Some are lent first, and get their key then. */
static enum ds_status
reserve(struct model *model, const struct create_request *request,
        struct object_view *out, struct ds_error *err)
{
    struct store *store = model->f.store;
    if (below(model, 3) == 0 &&
        store_lend(store, request->size, request->client, request->sequence, out))
        return store_name(store,
                          &(struct name_request){.ref = out->ref,
                                                 .client = request->client,
                                                 .key = request->key,
                                                 .size = request->size,
                                                 .flags = request->flags},
                          err);
    return store_create(store, request, model->now_ds, out, err);
}

/* Nobody uses it; the store has to take it back. */
static void
op_lend(struct model *model)
{
    struct object_view view;
    uint32_t key = (uint32_t)below(model, KEYS);
    uint32_t client = model->clients[below(model, CLIENTS)] + 1;
    struct entry before = model->dict[key];
    (void)store_lend(model->f.store, random_size(model), client, ++model->sequence,
                     &view);
    bool stopped = model->stopped.memory.table != NULL;
    after_operation(model, key, &before);
    if (stopped)
        clients_return(model);
}

static void
op_create(struct model *model)
{
    if (model->unsealed_count == UNSEALED_MAX)
        return;
    struct unsealed made = {
        .key = (uint32_t)below(model, KEYS),
        .size = random_size(model),
        .client = (uint32_t)below(model, CLIENTS),
        .sequence = ++model->sequence,
        .fill = (uint8_t)test_random(&model->seed),
    };
    struct create_request request = {
        .key = key_of(made.key),
        .size = made.size,
        .client = model->clients[made.client] + 1,
        .sequence = made.sequence,
    };
    struct object_view view;
    struct ds_error err = {0};
    struct entry before = model->dict[made.key];
    enum ds_status status = reserve(model, &request, &view, &err);
    if (status == DS_OK) {
        made.ref = view.ref;
        made.offset = view.offset;
        memset(model->f.arena + view.offset, made.fill, made.size);
        model->unsealed[model->unsealed_count++] = made;
    } else {
        CHECK_STATUS(status, DS_FULL);
        check_really_full(model, made.size, &err);
    }
    bool stopped = model->stopped.memory.table != NULL;
    after_operation(model, made.key, &before);
    if (stopped)
        clients_return(model);
}

static struct unsealed
pick_unsealed(struct model *model)
{
    uint32_t index = (uint32_t)below(model, model->unsealed_count);
    struct unsealed picked = model->unsealed[index];
    model->unsealed[index] = model->unsealed[--model->unsealed_count];
    check_bytes(model, picked.offset, picked.size, picked.fill);
    return picked;
}

static bool
is_live(const struct model *model, const struct entry *entry)
{
    bool expired = entry->expires_ds != 0 && entry->expires_ds <= model->now_ds;
    return entry->present && !expired;
}

static void
op_seal(struct model *model)
{
    if (model->unsealed_count == 0)
        return;
    struct unsealed object = pick_unsealed(model);
    struct entry before = model->dict[object.key];
    uint64_t ttl = below(model, 4) == 0 ? 1 + below(model, 50) : 0;
    struct seal_request request = {
        .ref = object.ref,
        .expires_ds = (uint32_t)(ttl == 0 ? 0 : model->now_ds + ttl),
        .only_if_absent = below(model, 5) == 0,
    };
    CHECK_OK(store_seal(model->f.store, &request, model->now_ds, NULL));
    if (!request.only_if_absent || !is_live(model, &before))
        model->dict[object.key] = (struct entry){.present = true,
                                                 .size = object.size,
                                                 .expires_ds = request.expires_ds,
                                                 .fill = object.fill};
    bool stopped = model->stopped.memory.table != NULL;
    after_operation(model, object.key, &before);
    if (stopped)
        clients_return(model); /* Not sealed, and its owner forgot it. */
    else
        CHECK_OK(store_seal(model->f.store, &request, model->now_ds, NULL));
}

static void
op_abort(struct model *model)
{
    if (model->unsealed_count == 0)
        return;
    struct unsealed object = pick_unsealed(model);
    struct entry before = model->dict[object.key];
    if (below(model, 2) == 0)
        store_abort(model->f.store, object.ref);
    else
        store_abort_request(model->f.store, model->clients[object.client] + 1,
                            object.sequence);
    bool stopped = model->stopped.memory.table != NULL;
    after_operation(model, object.key, &before);
    if (stopped)
        clients_return(model);
}

static void
op_delete(struct model *model)
{
    uint32_t key = (uint32_t)below(model, KEYS);
    struct entry before = model->dict[key];
    bool was_there = store_delete(model->f.store, key_of(key), model->now_ds);
    CHECK_INT(was_there, is_live(model, &before));
    model->dict[key].present = false;
    after_operation(model, key, &before);
}

static void
op_set_expiry(struct model *model)
{
    uint32_t key = (uint32_t)below(model, KEYS);
    struct entry before = model->dict[key];
    uint64_t ttl = below(model, 3) == 0 ? 0 : 1 + below(model, 60);
    uint32_t expires_ds = (uint32_t)(ttl == 0 ? 0 : model->now_ds + ttl);
    bool was_there =
        store_set_expiry(model->f.store, key_of(key), expires_ds, model->now_ds);
    CHECK_INT(was_there, is_live(model, &before));
    if (was_there)
        model->dict[key].expires_ds = expires_ds;
    after_operation(model, key, &before);
}

static void
op_find(struct model *model)
{
    uint32_t key = (uint32_t)below(model, KEYS);
    const struct entry *entry = &model->dict[key];
    CHECK(entry_matches(model, entry, key));
    struct object_view view;
    if (store_find(model->f.store, key_of(key), model->now_ds, &view))
        check_bytes(model, view.offset, view.size, entry->fill);
}

static bool
word_in_use(const struct model *model, uint32_t client, uint32_t word)
{
    for (uint32_t i = 0; i < model->pin_count; i++) {
        if (model->pins[i].client == client && model->pins[i].word == word)
            return true;
    }
    return false;
}

static void
op_pin(struct model *model)
{
    uint32_t key = (uint32_t)below(model, KEYS);
    uint32_t client = (uint32_t)below(model, CLIENTS);
    uint32_t word = (uint32_t)below(model, model->f.geometry.words_per_region);
    struct object_view view;
    if (model->pin_count == PINS_MAX || word_in_use(model, client, word) ||
        !store_find(model->f.store, key_of(key), model->now_ds, &view))
        return;
    CHECK(pin_acquire(region_of(&model->f, model->clients[client]), word,
                      slot_of(&model->f, view.ref.slot), view.commit, view.offset));
    model->pins[model->pin_count++] = (struct pinned){.offset = view.offset,
                                                      .size = view.size,
                                                      .client = client,
                                                      .word = word,
                                                      .fill = model->dict[key].fill};
}

static void
op_unpin(struct model *model)
{
    if (model->pin_count == 0)
        return;
    uint32_t index = (uint32_t)below(model, model->pin_count);
    struct pinned pin = model->pins[index];
    model->pins[index] = model->pins[--model->pin_count];
    check_bytes(model, pin.offset, pin.size, pin.fill);
    pin_release(region_of(&model->f, model->clients[pin.client]), pin.word);
}

static void
op_tick(struct model *model)
{
    model->now_ds += below(model, 12);
    (void)store_tick(model->f.store, model->now_ds);
    after_operation(model, 0, &model->dict[0]);
}

static void
op_client_dies(struct model *model)
{
    uint32_t client = (uint32_t)below(model, CLIENTS);
    store_set_step_hook(NULL, NULL);
    model->steps_left = 0;
    store_client_remove(model->f.store, model->clients[client]);
    for (uint32_t i = model->pin_count; i > 0; i--) {
        if (model->pins[i - 1].client == client)
            model->pins[i - 1] = model->pins[--model->pin_count];
    }
    for (uint32_t i = model->unsealed_count; i > 0; i--) {
        if (model->unsealed[i - 1].client == client)
            model->unsealed[i - 1] = model->unsealed[--model->unsealed_count];
    }
    model->clients[client] = add_client(model->f.store);
}

typedef void (*operation_fn)(struct model *model);

static operation_fn
random_operation(struct model *model)
{
    static const operation_fn often[] = {op_create, op_create, op_create, op_seal,
                                         op_seal,   op_seal,   op_delete, op_find,
                                         op_find,   op_pin,    op_unpin,  op_set_expiry,
                                         op_abort,  op_tick,   op_lend};
    uint64_t rare = below(model, 300);
    if (rare == 0)
        return op_restart;
    if (rare <= 2)
        return op_client_dies;
    return often[below(model, sizeof often / sizeof *often)];
}

/* ---- Runs ---- */

static void
check_all(const struct model *model)
{
    store_check(model->f.store);
    for (uint32_t key = 0; key < KEYS; key++)
        CHECK(entry_matches(model, &model->dict[key], key));
    for (uint32_t i = 0; i < model->pin_count; i++)
        check_bytes(model, model->pins[i].offset, model->pins[i].size,
                    model->pins[i].fill);
    for (uint32_t i = 0; i < model->unsealed_count; i++)
        CHECK(still_unsealed(model, &model->unsealed[i]));
    CHECK_INT(stats_of(model->f.store).writing, model->unsealed_count);
    CHECK_INT(stats_of(model->f.store).pins, model->pin_count);
}

/* Returns how often there was no room. */
static uint64_t
run_model(uint64_t seed, struct store_geometry geometry)
{
    struct model *model = calloc(1, sizeof *model);
    DS_ASSERT(model != NULL);
    model->seed = seed;
    model->now_ds = FIXTURE_NOW;
    fixture_open(&model->f, geometry);
    for (uint32_t i = 0; i < CLIENTS; i++)
        model->clients[i] = add_client(model->f.store);
    for (uint32_t i = 0; i < OPERATIONS; i++) {
        operation_fn operation = random_operation(model);
        maybe_stop_soon(model);
        operation(model);
        store_set_step_hook(NULL, NULL);
        fixture_close(&model->stopped);
        if (i % 16 == 0)
            check_all(model);
    }
    check_all(model);
    CHECK(model->stops > 50);
    uint64_t fulls = model->fulls;
    fixture_close(&model->f);
    free(model);
    return fulls;
}

TEST(the_store_answers_as_a_dict_does)
{
    struct store_geometry geometry = fixture_geometry();
    geometry.key_heap_bytes = 1 << 18;
    uint64_t fulls = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        fulls += run_model(test_seed(seed), geometry);
    CHECK(fulls > 10);
}

/* All keys in two buckets, few slots, hardly any room for keys. */
TEST(the_store_answers_as_a_dict_does_when_everything_is_tight)
{
    struct store_geometry geometry = fixture_geometry();
    geometry.bucket_count = 2;
    geometry.slot_count = 30;
    geometry.key_heap_bytes = 1 << 15;
    uint64_t fulls = 0;
    for (uint64_t seed = 101; seed <= 100 + SEEDS; seed++)
        fulls += run_model(test_seed(seed), geometry);
    CHECK(fulls > 10);
}

TEST_MAIN(RUN(the_store_answers_as_a_dict_does),
          RUN(the_store_answers_as_a_dict_does_when_everything_is_tight))
