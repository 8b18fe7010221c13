/* Every interleaving of a reader that pins and a worker that reclaims, on a machine
 * whose stores become visible late (each side has a store buffer, drained in order at
 * any time). The steps are those of pin_acquire() and of object_die() with
 * limbo_reclaim(); the machine is small, so all of its states are visited. Without
 * either fence the search finds the accident, which shows that it would see one. */
#include "test.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum variable { COMMIT, WORDS_USED, WORD, VARIABLES };
enum { BUFFER = 4, READER_END = 7, WORKER_END = 6 };

struct buffered {
    uint8_t variable;
    uint8_t value;
};

/* One side: how far it is, and what it stored that nobody else sees yet. */
struct side {
    uint8_t step;
    uint8_t count;
    struct buffered stores[BUFFER];
    uint8_t seen; /* What it read and decided. */
};

struct machine {
    uint8_t memory[VARIABLES]; /* COMMIT: 0 sealed, 1 dead. WORD: 1 names the extent. */
    struct side reader;
    struct side worker;
    bool reading; /* The reader uses the extent. */
    bool freed;   /* The worker gave it to somebody else. */
};

struct fences {
    bool reader;
    bool worker;
};

static void
store(struct side *side, enum variable variable, uint8_t value)
{
    assert_true(side->count < BUFFER);
    side->stores[side->count++] =
        (struct buffered){.variable = (uint8_t)variable, .value = value};
}

/* A load sees the side's own latest store first. */
static uint8_t
load(const struct machine *machine, const struct side *side, enum variable variable)
{
    for (uint8_t i = side->count; i > 0; i--) {
        if (side->stores[i - 1].variable == variable)
            return side->stores[i - 1].value;
    }
    return machine->memory[variable];
}

static bool
drain(struct machine *machine, struct side *side)
{
    if (side->count == 0)
        return false;
    machine->memory[side->stores[0].variable] = side->stores[0].value;
    memmove(side->stores, side->stores + 1, sizeof side->stores - sizeof *side->stores);
    side->count--;
    return true;
}

/* pin_acquire(), use, pin_release(). False: cannot go on now. */
static bool
reader_step(struct machine *machine, bool fence)
{
    struct side *side = &machine->reader;
    switch (side->step) {
    case 0:
        store(side, WORDS_USED, 1);
        break;
    case 1:
        store(side, WORD, 1);
        break;
    case 2: /* The fence waits until its stores are visible. */
        if (fence && side->count > 0)
            return false;
        break;
    case 3:
        side->seen = load(machine, side, COMMIT) == 0;
        break;
    case 4:
        machine->reading = side->seen;
        break;
    case 5:
        machine->reading = false;
        break;
    case 6:
        store(side, WORD, 0);
        break;
    default:
        return false;
    }
    side->step++;
    return true;
}

/* The death of the object, then one scan. */
static bool
worker_step(struct machine *machine, bool fence)
{
    struct side *side = &machine->worker;
    switch (side->step) {
    case 0:
        store(side, COMMIT, 1);
        break;
    case 1:
        if (fence && side->count > 0)
            return false;
        break;
    case 2:
        side->seen = load(machine, side, WORDS_USED);
        break;
    case 3:
        side->seen = side->seen && load(machine, side, WORD) == 1;
        break;
    case 4:
        machine->freed = !side->seen;
        break;
    case 5: /* Somebody else writes there from now on. */
        break;
    default:
        return false;
    }
    side->step++;
    return true;
}

/* Visits every order of steps and drains from here on; counts ends and accidents. */
struct search {
    struct fences fences;
    uint64_t ends;
    uint64_t accidents;
};

static void
explore(struct search *search, const struct machine *from)
{
    if (from->reading && from->freed) {
        search->accidents++;
        return;
    }
    bool moved = false;
    for (int choice = 0; choice < 4; choice++) {
        struct machine next = *from;
        bool possible = choice == 0   ? reader_step(&next, search->fences.reader)
                        : choice == 1 ? worker_step(&next, search->fences.worker)
                        : choice == 2 ? drain(&next, &next.reader)
                                      : drain(&next, &next.worker);
        if (!possible)
            continue;
        moved = true;
        explore(search, &next);
    }
    if (moved)
        return;
    CHECK_INT(from->reader.step, READER_END);
    CHECK_INT(from->worker.step, WORKER_END);
    search->ends++;
}

static struct search
search_with(bool reader_fence, bool worker_fence)
{
    struct machine machine;
    struct search search = {.fences = {.reader = reader_fence, .worker = worker_fence}};
    memset(&machine, 0, sizeof machine);
    explore(&search, &machine);
    return search;
}

TEST(with_both_fences_no_order_frees_what_is_read)
{
    struct search search = search_with(true, true);
    CHECK_INT(search.accidents, 0);
    CHECK(search.ends > 1000);
}

TEST(without_the_readers_fence_some_order_does)
{
    CHECK(search_with(false, true).accidents > 0);
}

TEST(without_the_workers_fence_some_order_does)
{
    CHECK(search_with(true, false).accidents > 0);
}

TEST_MAIN(RUN(with_both_fences_no_order_frees_what_is_read),
          RUN(without_the_readers_fence_some_order_does),
          RUN(without_the_workers_fence_some_order_does))
