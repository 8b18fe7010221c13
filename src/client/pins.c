#include "client/pins.h"

#include "base/check.h"
#include "base/list.h"
#include "store/pin.h"

#include <stdlib.h>

struct pin {
    struct hmap_node node; /* In by_offset. */
    struct pin *next_free;
    uint64_t offset;
    uint32_t word;
    uint32_t holders; /* Buffers. */
};

void
pins_init(struct pins *pins, struct pin_region *region, uint32_t word_count)
{
    *pins = (struct pins){.region = region, .word_count = word_count};
    hmap_init(&pins->by_offset);
}

void
pins_fini(struct pins *pins)
{
    HMAP_FOREACH (node, &pins->by_offset) {
        hmap_remove(&pins->by_offset, node);
        free(CONTAINER_OF(node, struct pin, node));
    }
    hmap_fini(&pins->by_offset);
    while (pins->free != NULL) {
        struct pin *pin = pins->free;
        pins->free = pin->next_free;
        free(pin);
    }
}

/* Offsets are multiples of 64: spread them over the buckets (Fibonacci hashing). */
static uint64_t
hash_of(uint64_t offset)
{
    return (offset / EXTENT_UNIT_BYTES * 0x9e3779b97f4a7c15u) >> 20;
}

static struct pin *
find(const struct pins *pins, uint64_t offset)
{
    uint64_t hash = hash_of(offset);
    struct hmap_node *node = hmap_chain(&pins->by_offset, hash);
    for (; node != NULL; node = node->next) {
        struct pin *pin = CONTAINER_OF(node, struct pin, node);
        if (pin->offset == offset)
            return pin;
    }
    return NULL;
}

static struct pin *
take_free(struct pins *pins)
{
    struct pin *pin = pins->free;
    if (pin != NULL) {
        pins->free = pin->next_free;
        return pin;
    }
    if (pins->next_word == pins->word_count)
        return NULL;
    pin = calloc(1, sizeof *pin);
    if (pin == NULL)
        return NULL;
    pin->word = pins->next_word++;
    return pin;
}

static void
give_free(struct pins *pins, struct pin *pin)
{
    pin->next_free = pins->free;
    pins->free = pin;
}

static bool
is_current(const struct slot *slot, uint64_t commit)
{
    return atomic_load_explicit(&slot->commit, memory_order_acquire) == commit;
}

enum pin_result
pins_acquire(struct pins *pins, const struct slot *slot, uint64_t commit,
             uint64_t offset)
{
    struct pin *pin = find(pins, offset);
    if (pin != NULL) {
        /* The word was set before, but maybe for what lay here earlier. */
        atomic_thread_fence(memory_order_seq_cst);
        if (!is_current(slot, commit))
            return PIN_STALE;
        pin->holders++;
        return PIN_TAKEN;
    }
    pin = take_free(pins);
    if (pin == NULL)
        return PIN_EXHAUSTED;
    pin->offset = offset;
    pin->holders = 1;
    if (!pin_acquire(pins->region, pin->word, slot, commit, offset)) {
        give_free(pins, pin);
        return PIN_STALE;
    }
    if (!hmap_insert(&pins->by_offset, &pin->node, hash_of(offset))) {
        pin_release(pins->region, pin->word);
        give_free(pins, pin);
        return PIN_EXHAUSTED;
    }
    return PIN_TAKEN;
}

void
pins_release(struct pins *pins, uint64_t offset)
{
    struct pin *pin = find(pins, offset);
    DS_ASSERT(pin != NULL);
    DS_ASSERT(pin->holders > 0);
    if (--pin->holders > 0)
        return;
    pin_release(pins->region, pin->word);
    hmap_remove(&pins->by_offset, &pin->node);
    give_free(pins, pin);
}

uint32_t
pins_count(const struct pins *pins)
{
    return (uint32_t)pins->by_offset.count;
}

void
pins_check(const struct pins *pins)
{
    uint32_t free_count = 0;
    for (const struct pin *pin = pins->free; pin != NULL; pin = pin->next_free) {
        DS_ASSERT(pin->word < pins->next_word);
        DS_ASSERT(atomic_load(&pins->region->words[pin->word]) == 0);
        free_count++;
    }
    DS_ASSERT(free_count + pins_count(pins) == pins->next_word);
    HMAP_FOREACH (node, &pins->by_offset) {
        const struct pin *pin = CONTAINER_OF(node, struct pin, node);
        DS_ASSERT(pin->holders > 0);
        DS_ASSERT(atomic_load(&pins->region->words[pin->word]) ==
                  pin_word(pin->offset));
    }
}
