/* Every interleaving of a worker and a client that run the real code of the store. The
 * client is a reader, or (`lends`) writes to room that was lent to it.
 *
 * The worker runs a script of operations on a small store, the client one or more gets
 * (or writes), on a stack of its own. Each of them stops at each of its steps (step.h), and the
 * search decides who goes on, in every possible order: depth first, by running the
 * script again from the start for each new branch (stateless model checking), cut where
 * a state was seen before. A state is what both sides did and saw so far; since each of
 * them is deterministic, and writes words of its own, nothing else can differ.
 *
 * Stores reach the other side late: each side has a store buffer (TSO, as on x86),
 * emptied in order at any time, which a fence (and a reply) waits for. With `buffered` 0 each store is
 * visible at once (sequential consistency).
 *
 * The worker may be killed at any step, `kills` times; then the next one opens the store
 * and goes on with the script after the operation that was cut off. */
#ifndef TESTS_INTERLEAVE_H
#define TESTS_INTERLEAVE_H

#include <stdbool.h>
#include <stdint.h>

/* What is left out, to see that the search finds the accident. */
enum omission {
    OMIT_NOTHING,
    OMIT_READER_FENCE,   /* Pin, then the look at the commit word, in any order. */
    OMIT_WORKER_FENCE,   /* Death, then the scan, in any order. */
    OMIT_RECHECK,        /* The commit word is not looked at again after the pin. */
    OMIT_GENERATION,     /* Commit words are the same in each life of a slot. */
    OMIT_SCAN,           /* Dead extents are freed without a look at the pins. */
    OMIT_SCAN_AFTER,     /* The scan sees the pins from before the operation. */
    OMIT_WORDS_USED,     /* The reader does not say how far its words go. */
    OMIT_EPOCH,          /* The reader does not see that chains are made anew. */
    OMIT_PIN_UNTIL_READ, /* The pin is released before the last read. */
};

struct interleave_options {
    const char *script; /* One letter per operation: O overwrite "a", D delete "a",
                          * B put "b", T tick, E let "a" expire and tick. "a" is there
                          * at the start, or else an extent is lent. */
    bool lends;
    uint32_t gets;     /* Of "a", or writes, one after the other. */
    uint32_t buffered; /* Stores of the worker that may be late at once. */
    uint32_t kills;    /* Of the worker, at most. */
    enum omission omission;
};

struct interleave_result {
    uint64_t states;
    uint64_t runs;      /* Of the script. */
    uint64_t hits;      /* Gets that returned bytes, or writes that were made, */
    uint64_t misses;    /* and those that have to ask the worker. */
    uint64_t accidents; /* Wrong bytes, or bytes of no moment of the get; a write to
                         * what is another object's. */
    uint64_t unfound;   /* Misses while nothing else happened and "a" was there. */
    uint64_t leaks;     /* Ends at which not every byte could be freed. */
};

/* Ends at the first accident. */
struct interleave_result interleave(const struct interleave_options *options);

#endif
