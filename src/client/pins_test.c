#include "client/pins.h"

#include "test.h"

#include <stdlib.h>

enum { WORDS = 4 };

/* A region and a few sealed slots in plain memory. */
struct fixture {
    struct pin_region *region;
    struct slot slots[WORDS + 1];
    struct pins pins;
};

static uint64_t
sealed(uint64_t generation)
{
    return commit_word(generation, SLOT_SEALED);
}

static void
fixture_init(struct fixture *f)
{
    f->region = calloc(1, sizeof *f->region + WORDS * sizeof(uint64_t));
    for (size_t i = 0; i <= WORDS; i++)
        f->slots[i] = (struct slot){.commit = sealed(1)};
    pins_init(&f->pins, f->region, WORDS);
}

static void
fixture_fini(struct fixture *f)
{
    pins_fini(&f->pins);
    free(f->region);
}

static uint64_t
word(const struct fixture *f, size_t index)
{
    return atomic_load(&f->region->words[index]);
}

TEST(one_word_holds_an_extent_however_often_it_is_held)
{
    struct fixture f;
    fixture_init(&f);
    CHECK(pins_acquire(&f.pins, &f.slots[0], sealed(1), 128) == PIN_TAKEN);
    CHECK(pins_acquire(&f.pins, &f.slots[0], sealed(1), 128) == PIN_TAKEN);
    CHECK_INT(pins_count(&f.pins), 1);
    CHECK_INT(word(&f, 0), pin_word(128));
    CHECK_INT(atomic_load(&f.region->words_used), 1);

    pins_release(&f.pins, 128);
    CHECK_INT(word(&f, 0), pin_word(128));
    pins_release(&f.pins, 128);
    CHECK_INT(word(&f, 0), 0);
    CHECK_INT(pins_count(&f.pins), 0);
    pins_check(&f.pins);
    fixture_fini(&f);
}

TEST(a_slot_in_another_life_is_not_pinned)
{
    struct fixture f;
    fixture_init(&f);
    atomic_store(&f.slots[0].commit, commit_word(2, SLOT_DEAD));
    CHECK(pins_acquire(&f.pins, &f.slots[0], sealed(1), 64) == PIN_STALE);
    CHECK_INT(word(&f, 0), 0);
    pins_check(&f.pins);
    fixture_fini(&f);
}

/* The word may have been set for what lay at the same place before. */
TEST(a_pin_that_is_there_already_is_no_proof_of_what_lies_there)
{
    struct fixture f;
    fixture_init(&f);
    CHECK(pins_acquire(&f.pins, &f.slots[0], sealed(1), 64) == PIN_TAKEN);
    atomic_store(&f.slots[1].commit, commit_word(9, SLOT_DEAD));
    CHECK(pins_acquire(&f.pins, &f.slots[1], sealed(8), 64) == PIN_STALE);
    CHECK_INT(word(&f, 0), pin_word(64));
    pins_release(&f.pins, 64);
    CHECK_INT(word(&f, 0), 0);
    fixture_fini(&f);
}

TEST(running_out_of_words_is_told_and_words_come_back)
{
    struct fixture f;
    fixture_init(&f);
    for (uint64_t i = 0; i < WORDS; i++)
        CHECK(pins_acquire(&f.pins, &f.slots[i], sealed(1), i * 64) == PIN_TAKEN);
    CHECK(pins_acquire(&f.pins, &f.slots[WORDS], sealed(1), 4096) == PIN_EXHAUSTED);
    pins_check(&f.pins);
    pins_release(&f.pins, 64);
    CHECK(pins_acquire(&f.pins, &f.slots[WORDS], sealed(1), 4096) == PIN_TAKEN);
    CHECK_INT(atomic_load(&f.region->words_used), WORDS);
    pins_check(&f.pins);
    fixture_fini(&f);
}

/* A forked child frees its bookkeeping of what its parent still holds. */
TEST(ending_the_bookkeeping_leaves_the_words_alone)
{
    struct fixture f;
    fixture_init(&f);
    CHECK(pins_acquire(&f.pins, &f.slots[0], sealed(1), 64) == PIN_TAKEN);
    pins_fini(&f.pins);
    CHECK_INT(word(&f, 0), pin_word(64));
    free(f.region);
}

TEST_MAIN(RUN(one_word_holds_an_extent_however_often_it_is_held),
          RUN(a_slot_in_another_life_is_not_pinned),
          RUN(a_pin_that_is_there_already_is_no_proof_of_what_lies_there),
          RUN(running_out_of_words_is_told_and_words_come_back),
          RUN(ending_the_bookkeeping_leaves_the_words_alone))
