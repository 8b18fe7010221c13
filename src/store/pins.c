#include "store/pins.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/status.h"
#include "store/format.h"
#include "store/step.h"

#include <stdlib.h>

enum ds_status
pins_init(struct pins *pins, const struct store_memory *memory, struct ds_error *err)
{
    enum ds_status status = format_check_pins(memory, err);
    if (status != DS_OK)
        return status;
    struct pins_header *header = memory->pins;
    *pins = (struct pins){
        .header = header,
        .regions = (uint8_t *)memory->pins + PINS_HEADER_BYTES,
        .region_bytes = header->region_bytes,
        .region_count = header->region_count,
        .words_per_region = header->words_per_region,
    };
    pins->used = calloc(pins->region_count, sizeof *pins->used);
    if (pins->used == NULL)
        return ds_fail(err, DS_NO_MEMORY, "no memory for the list of clients");
    for (uint32_t i = 0; i < pins->region_count; i++) {
        uint32_t state = atomic_load(&pins_region(pins, i)->state);
        pins->used[i] = state != PIN_REGION_FREE;
        pins->used_count += pins->used[i];
    }
    return DS_OK;
}

void
pins_fini(struct pins *pins)
{
    free(pins->used);
    *pins = (struct pins){0};
}

struct pin_region *
pins_region(const struct pins *pins, uint32_t region)
{
    DS_ASSERT(region < pins->region_count);
    return (struct pin_region *)(void *)(pins->regions + region * pins->region_bytes);
}

static uint64_t
words_used(const struct pins *pins, const struct pin_region *region)
{
    uint64_t used = atomic_load_explicit(&region->words_used, memory_order_acquire);
    return min_u64(used, pins->words_per_region);
}

static void
clear_words(const struct pins *pins, struct pin_region *region)
{
    uint64_t used = words_used(pins, region);
    for (uint64_t i = 0; i < used; i++) {
        if (atomic_load_explicit(&region->words[i], memory_order_relaxed) != 0)
            STEP_RELEASE(&region->words[i], 0, "region word");
    }
    STEP_RELEASE(&region->words_used, 0, "region words used");
}

enum ds_status
pins_add(struct pins *pins, const struct client_identity *identity,
         uint32_t *out_region, struct ds_error *err)
{
    uint32_t index = 0;
    while (index < pins->region_count && pins->used[index])
        index++;
    if (index == pins->region_count)
        return ds_fail(
            err, DS_FULL,
            "Client number upper to the limit: all %u places for clients are "
            "taken; close clients, or increase --max_client_num",
            pins->region_count);
    struct pin_region *region = pins_region(pins, index);
    clear_words(pins, region);
    STEP_STORE(region->pid, identity->pid, "region pid");
    STEP_STORE(region->pid_start_time, identity->pid_start_time, "region start time");
    STEP_STORE(region->token, identity->token, "region token");
    STEP_RELEASE(&region->state,
                 identity->has_mark ? PIN_REGION_MARKED : PIN_REGION_USED,
                 "region used");
    pins->used[index] = true;
    pins->used_count++;
    *out_region = index;
    return DS_OK;
}

void
pins_remove(struct pins *pins, uint32_t index)
{
    DS_ASSERT(pins->used[index]);
    struct pin_region *region = pins_region(pins, index);
    clear_words(pins, region);
    STEP_RELEASE(&region->state, PIN_REGION_FREE, "region free");
    pins->used[index] = false;
    pins->used_count--;
}

void
pins_copy(struct pins *pins, uint32_t from, uint32_t to)
{
    DS_ASSERT(from != to);
    DS_ASSERT(pins->used[to]);
    const struct pin_region *source = pins_region(pins, from);
    struct pin_region *target = pins_region(pins, to);
    uint64_t used = words_used(pins, source);
    STEP_RELEASE(&target->words_used, used, "region words used");
    for (uint64_t i = 0; i < used; i++) {
        uint64_t word = atomic_load_explicit(&source->words[i], memory_order_relaxed);
        if (word != 0)
            STEP_RELEASE(&target->words[i], word, "region word");
    }
}

void
pins_visit_region(const struct pins *pins, uint32_t index, pins_visit_fn fn, void *arg)
{
    if (!pins->used[index])
        return;
    const struct pin_region *region = pins_region(pins, index);
    uint64_t used = words_used(pins, region);
    step_reached("scan words used");
    for (uint64_t i = 0; i < used; i++) {
        uint64_t word = atomic_load_explicit(&region->words[i], memory_order_acquire);
        step_reached("scan word");
        if (word != 0)
            fn(word - 1, arg);
    }
}

void
pins_visit(const struct pins *pins, pins_visit_fn fn, void *arg)
{
    for (uint32_t index = 0; index < pins->region_count; index++)
        pins_visit_region(pins, index, fn, arg);
}
