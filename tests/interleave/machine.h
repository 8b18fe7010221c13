/* What the files of interleave.h share: the machine. */
#ifndef TESTS_INTERLEAVE_MACHINE_H
#define TESTS_INTERLEAVE_MACHINE_H

#include "interleave.h"
#include "search.h"
#include "store/fixture.h"
#include "store/table_reader.h"

#include <ucontext.h>
#include <xxhash.h>

enum {
    SLOTS = 3,
    PAGES = 2,
    SERIALS_MAX = 32,
    SIZE_BASE = 3000, /* A page each; the size tells the serial. */
    WORDS_MAX = 128,
    PIN_WORDS = 2,   /* words_used, and one pin. */
    BUFFER_MAX = 16, /* Late stores of one side. */
};

/* A store that only its own side sees yet. */
struct late_store {
    uint32_t word; /* Index in `memory` (worker), or of a word of the pins (reader). */
    uint64_t value;
};

struct store_buffer {
    struct late_store stores[BUFFER_MAX];
    uint32_t count;
};

/* `memory` is where the code of both sides sees the words that the worker writes,
 * `shared` what has left its store buffer. In the scheduler, `memory` is as the worker
 * sees it. Owner: interleave(). */
struct machine {
    const struct interleave_options *options;
    struct interleave_result result;
    struct search search;
    struct fixture f;
    struct pin_region *region;
    uint32_t region_index;

    uint64_t *memory[WORDS_MAX];
    uint64_t shared[WORDS_MAX];
    uint64_t initial[WORDS_MAX];
    uint64_t seen_by_worker[WORDS_MAX]; /* After its last step. */
    uint32_t word_count;
    uint64_t pins_shared[PIN_WORDS];
    uint64_t pins_before[PIN_WORDS]; /* The operation. */
    uint64_t changes;                /* Of what is shared. */

    struct store_buffer worker_buffer;
    uint64_t worker_steps;
    uint64_t worker_saw; /* A hash of all that it read of the pins. */
    bool worker_at_fence;
    bool dark; /* The worker was killed, or the state is known: it only runs out. */
    bool killed;
    bool pruned;
    uint32_t kills;
    uint32_t serial; /* Of the latest put. */

    struct store_buffer reader_buffer;
    ucontext_t reader_context;
    ucontext_t scheduler_context;
    uint8_t *stack;
    struct table_reader reader;
    struct table_hit hit;
    struct object_view lent;
    const char *reader_at; /* The step it made last. */
    uint32_t reader_slot;  /* That it looks at. */
    uint64_t reader_steps;
    uint64_t reader_saw;
    bool reader_runs; /* It is on its stack now. */
    bool reader_ended;
    uint32_t allowed; /* Bits of the serials of "a" that were newest since the get
                       * began; bit 0: there was none. */
    uint64_t changes_at_begin;
    bool present_at_begin;
};

/* Words that the code under test reads and writes as atomics, or as plain fields. */
static inline uint64_t
word_now(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static inline void
set_word(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static inline void
fold(uint64_t *hash, uint64_t value)
{
    uint64_t pair[2] = {*hash, value};
    *hash = XXH3_64bits(pair, sizeof pair);
}

/* Serial of the newest sealed object "a" that others can see; 0: none. */
uint32_t newest(struct machine *machine);

/* Does the worker count on the lent extent's bytes for another object? */
bool lent_is_anothers(const struct machine *machine);

/* ---- reader.c ---- */

void reader_open(struct machine *machine);
void reader_close(struct machine *machine);

/* To the start of its first get. */
void reader_start(struct machine *machine);

/* Runs it to its next step, in the memory as it is now. */
void reader_advance(struct machine *machine);

/* Called while it runs, at each step: back to the scheduler. */
void reader_pause(struct machine *machine, const char *step);

#endif
