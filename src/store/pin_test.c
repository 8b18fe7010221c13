/* The pin protocol with real threads: readers pin, check and read, while the owner of
 * the store overwrites and reuses memory. Also run under ThreadSanitizer. */
#include "store/pin.h"

#include "base/auto.h"
#include "store/fixture.h"

#include <pthread.h>
#include <string.h>

enum { READERS = 3, OVERWRITES = 20000, OBJECT_BYTES = 6000, KEYS = 4 };

static const char *const keys[KEYS] = {"a", "b", "c", "d"};

/* What a lookup answers: the owner writes it, readers copy it, under the lock. */
struct answer {
    struct object_view view;
    uint8_t fill; /* Every byte of the object. */
};

struct board {
    pthread_mutex_t lock;
    struct answer answers[KEYS];
    bool ended;
};

/* Owner: its thread. */
struct reader {
    struct fixture *f;
    struct board *board;
    struct pin_region *region;
    uint64_t seed;
    uint64_t pinned;
    uint64_t refused;
    uint64_t wrong; /* Bytes of some other object. */
};

static bool
ask(struct reader *reader, struct answer *out)
{
    pthread_mutex_lock(&reader->board->lock);
    *out = reader->board->answers[test_random(&reader->seed) % KEYS];
    bool ended = reader->board->ended;
    pthread_mutex_unlock(&reader->board->lock);
    return !ended;
}

static uint64_t
wrong_bytes(const struct reader *reader, const struct answer *answer)
{
    const uint8_t *bytes = reader->f->arena + answer->view.offset;
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < answer->view.size; i += 16)
        wrong += bytes[i] != answer->fill;
    return wrong;
}

static void *
read_on(void *arg)
{
    struct reader *reader = arg;
    struct answer answer;
    while (ask(reader, &answer)) {
        uint32_t word = (uint32_t)(test_random(&reader->seed) % 8);
        const struct slot *slot = slot_of(reader->f, answer.view.ref.slot);
        if (!pin_acquire(reader->region, word, slot, answer.view.commit,
                         answer.view.offset)) {
            reader->refused++;
            continue;
        }
        reader->pinned++;
        reader->wrong += wrong_bytes(reader, &answer);
        pin_release(reader->region, word);
    }
    return NULL;
}

/* The answer is published after the old bytes may have been reused, so that readers try
 * stale ones all the time. */
static void
overwrite(struct fixture *f, struct board *board, uint64_t round)
{
    struct answer *answer = &board->answers[round % KEYS];
    uint8_t fill = (uint8_t)round;
    struct object_view view = create(f->store, keys[round % KEYS], OBJECT_BYTES);
    memset(f->arena + view.offset, fill, view.size);
    seal(f->store, view.ref);
    (void)store_tick(f->store, FIXTURE_NOW);
    CHECK(find(f->store, keys[round % KEYS], &view));
    pthread_mutex_lock(&board->lock);
    *answer = (struct answer){.view = view, .fill = fill};
    pthread_mutex_unlock(&board->lock);
}

static void
end_board(struct board *board)
{
    pthread_mutex_lock(&board->lock);
    board->ended = true;
    pthread_mutex_unlock(&board->lock);
}

TEST(readers_never_see_bytes_of_another_object)
{
    AUTO(fixture) struct fixture f;
    struct board board = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct reader readers[READERS];
    pthread_t threads[READERS];
    fixture_open(&f, fixture_geometry());
    for (uint64_t round = 0; round < KEYS; round++)
        overwrite(&f, &board, round);
    for (uint32_t i = 0; i < READERS; i++) {
        uint32_t region = add_client(f.store);
        readers[i] = (struct reader){
            .f = &f, .board = &board, .region = region_of(&f, region), .seed = i + 1};
        CHECK_INT(pthread_create(&threads[i], NULL, read_on, &readers[i]), 0);
    }
    for (uint64_t round = KEYS; round < OVERWRITES; round++)
        overwrite(&f, &board, round);
    end_board(&board);
    uint64_t pinned = 0;
    for (uint32_t i = 0; i < READERS; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
        CHECK_INT(readers[i].wrong, 0);
        pinned += readers[i].pinned;
    }
    CHECK(pinned > 0);
    CHECK_INT(stats_of(f.store).pins, 0);
    (void)store_tick(f.store, FIXTURE_NOW);
    CHECK_INT(stats_of(f.store).dead, 0);
    store_check(f.store);
    pthread_mutex_destroy(&board.lock);
}

TEST(a_refused_pin_leaves_nothing_behind)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct pin_region *region = region_of(&f, add_client(f.store));
    struct object_view view = put(f.store, "a", 100);
    CHECK(delete_key(f.store, "a"));
    const struct slot *slot = slot_of(&f, view.ref.slot);
    CHECK(!pin_acquire(region, 40, slot, view.commit, view.offset));
    CHECK_INT(atomic_load(&region->words[40]), 0);
    CHECK_INT(stats_of(f.store).pins, 0);
}

TEST(words_used_covers_every_word_and_never_shrinks)
{
    AUTO(fixture) struct fixture f;
    fixture_open(&f, fixture_geometry());
    struct pin_region *region = region_of(&f, add_client(f.store));
    struct object_view view = put(f.store, "a", 100);
    const struct slot *slot = slot_of(&f, view.ref.slot);
    CHECK(pin_acquire(region, 40, slot, view.commit, view.offset));
    CHECK(pin_acquire(region, 3, slot, view.commit, view.offset));
    CHECK_INT(atomic_load(&region->words_used), 41);
    CHECK_INT(stats_of(f.store).pins, 2);
    pin_release(region, 40);
    pin_release(region, 3);
    CHECK_INT(stats_of(f.store).pins, 0);
}

TEST_MAIN(RUN(readers_never_see_bytes_of_another_object),
          RUN(a_refused_pin_leaves_nothing_behind),
          RUN(words_used_covers_every_word_and_never_shrinks))
