/* Who keeps room from being free. A pin names a unit of the arena, and nothing leads from
 * there to a slot: the units in question are marked, the pins that name one are sorted,
 * and each slot finds those of its unit. */
#include "store/internal.h"

#include "base/auto.h"
#include "base/numeric.h"

#include <stdlib.h>
#include <string.h>

/* That are counted; whoever is refused room again and again pays for each. */
enum { PINS_MAX = 1 << 16 };

struct pinned {
    uint64_t unit;
    uint32_t region;
};

/* Owner: store_holders(). */
struct survey {
    struct store *store;
    bool only_dead;
    struct pinned *pinned; /* By unit, then by region, each once. */
    size_t count;
    uint32_t region;            /* That is visited. */
    struct store_holder *tally; /* By region. */
};

static void
survey_auto(struct survey *survey)
{
    free(survey->pinned);
    free(survey->tally);
}

static bool
survey_init(struct survey *survey, struct store *store, bool only_dead)
{
    survey->store = store;
    survey->only_dead = only_dead;
    survey->pinned = calloc(PINS_MAX, sizeof *survey->pinned);
    survey->tally = calloc(store->pins.region_count, sizeof *survey->tally);
    if (survey->pinned != NULL && survey->tally != NULL)
        return true;
    survey_auto(survey);
    *survey = (struct survey){0};
    return false;
}

/* Calls fn with the index of every slot in question. */
static void
each_slot(struct survey *survey, void (*fn)(struct survey *survey, uint32_t index))
{
    const struct store *store = survey->store;
    const struct limbo *limbo = &store->limbo;
    uint32_t used = table_slots_used(&store->table);
    uint32_t count = survey->only_dead ? limbo->count : used;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = survey->only_dead ? limbo->slots[i] : i;
        if (slot_state_of(table_slot(&store->table, index)) != SLOT_FREE)
            fn(survey, index);
    }
}

static void
mark_slot(struct survey *survey, uint32_t index)
{
    const struct slot *slot = table_slot(&survey->store->table, index);
    unit_map_set(&survey->store->limbo.marks, slot_unit(slot));
}

static void
note_pin(uint64_t unit, void *arg)
{
    struct survey *survey = arg;
    const struct unit_map *marks = &survey->store->limbo.marks;
    if (survey->count == PINS_MAX || unit >= marks->units ||
        !unit_map_test(marks, unit))
        return;
    survey->pinned[survey->count++] = (struct pinned){unit, survey->region};
}

static int
compare_pinned(const void *a, const void *b)
{
    const struct pinned *left = a;
    const struct pinned *right = b;
    if (left->unit != right->unit)
        return left->unit < right->unit ? -1 : 1;
    return (left->region > right->region) - (left->region < right->region);
}

/* A client may pin the same extent several times. */
static void
drop_repeats(struct survey *survey)
{
    size_t kept = 0;
    for (size_t i = 0; i < survey->count; i++) {
        const struct pinned *at = &survey->pinned[i];
        if (kept == 0 || compare_pinned(&survey->pinned[kept - 1], at) != 0)
            survey->pinned[kept++] = *at;
    }
    survey->count = kept;
}

static void
collect_pins(struct survey *survey)
{
    const struct pins *pins = &survey->store->pins;
    for (uint32_t region = 0; region < pins->region_count; region++) {
        survey->region = region;
        pins_visit_region(pins, region, note_pin, survey);
    }
    qsort(survey->pinned, survey->count, sizeof *survey->pinned, compare_pinned);
    drop_repeats(survey);
}

/* The first pin of a unit. */
static size_t
find_unit(const struct survey *survey, uint64_t unit)
{
    size_t low = 0;
    size_t high = survey->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (survey->pinned[middle].unit < unit)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void
count_slot(struct survey *survey, uint32_t index)
{
    const struct slot *slot = table_slot(&survey->store->table, index);
    enum slot_state state = slot_state_of(slot);
    uint64_t unit = slot_unit(slot);
    uint64_t bytes = extent_bytes(slot->size);
    for (size_t i = find_unit(survey, unit);
         i < survey->count && survey->pinned[i].unit == unit; i++) {
        struct store_holder *holder = &survey->tally[survey->pinned[i].region];
        holder->pinned++;
        holder->pinned_bytes += bytes;
        if (state == SLOT_DEAD) {
            holder->dead++;
            holder->dead_bytes += bytes;
        }
    }
    unit_map_clear(&survey->store->limbo.marks, unit);
}

static void
count_unsealed(struct survey *survey)
{
    const struct store *store = survey->store;
    for (uint32_t i = 0; i < store->pending_count; i++) {
        const struct pending *pending = &store->pending[i];
        const struct slot *slot = table_slot(&store->table, pending->slot);
        bool is_unsealed = slot_state_of(slot) == SLOT_WRITING && !slot_is_lent(slot);
        if (!is_unsealed || pending->client == 0)
            continue;
        struct store_holder *holder = &survey->tally[pending->client - 1];
        holder->unsealed++;
        holder->unsealed_bytes += extent_bytes(slot->size);
    }
}

static bool
holds_more(const struct store_holder *a, const struct store_holder *b)
{
    uint64_t in_the_way = a->dead_bytes + a->unsealed_bytes;
    uint64_t other = b->dead_bytes + b->unsealed_bytes;
    return in_the_way != other ? in_the_way > other : a->pinned_bytes > b->pinned_bytes;
}

static size_t
insert(struct store_holder *out, size_t count, size_t max,
       const struct store_holder *holder)
{
    size_t at = count;
    while (at > 0 && holds_more(holder, &out[at - 1]))
        at--;
    if (at == max)
        return count;
    size_t kept = min_u64(count, max - 1);
    memmove(&out[at + 1], &out[at], (kept - at) * sizeof *out);
    out[at] = *holder;
    return kept + 1;
}

size_t
store_holders(struct store *store, bool only_dead, struct store_holder *out, size_t max)
{
    AUTO(survey) struct survey survey = {0};
    if (max == 0 || !survey_init(&survey, store, only_dead))
        return 0;
    each_slot(&survey, mark_slot);
    collect_pins(&survey);
    each_slot(&survey, count_slot);
    count_unsealed(&survey);
    size_t count = 0;
    for (uint32_t region = 0; region < store->pins.region_count; region++) {
        struct store_holder *holder = &survey.tally[region];
        if (holder->pinned + holder->unsealed == 0 ||
            !store_client_get(store, region, &holder->identity))
            continue;
        count = insert(out, count, max, holder);
    }
    return count;
}
