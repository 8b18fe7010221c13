/* The machine: memory with store buffers, the worker's script, and who goes on next. */
#include "machine.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

/* What may be done next; a set of these is a mask of 1 << move. */
enum move { READER_STEP, WORKER_STEP, READER_DRAIN, WORKER_DRAIN, KILL };

/* ---- Memory ---- */

static uint64_t *
pin_place(struct machine *machine, uint32_t index)
{
    return index == 0 ? (uint64_t *)&machine->region->words_used
                      : (uint64_t *)&machine->region->words[0];
}

static void
show_pins(struct machine *machine, const uint64_t pins[PIN_WORDS])
{
    for (uint32_t i = 0; i < PIN_WORDS; i++)
        set_word(pin_place(machine, i), pins[i]);
}

static void
add_words(struct machine *machine, void *from, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes / 8; i++) {
        DS_ASSERT(machine->word_count < WORDS_MAX);
        machine->memory[machine->word_count++] = (uint64_t *)from + i;
    }
}

/* As `words` have it: machine->shared, or what the worker itself sees. */
static struct slot
slot_in(const struct machine *machine, const uint64_t *words, uint32_t index)
{
    const uint64_t *first = (const uint64_t *)slot_of(&machine->f, index);
    struct slot copy;
    uint32_t at = 0;
    while (machine->memory[at] != first)
        at++;
    memcpy(&copy, &words[at], sizeof copy);
    return copy;
}

uint32_t
newest(struct machine *machine)
{
    uint64_t version = 0;
    uint32_t serial = 0;
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct slot slot = slot_in(machine, machine->shared, i);
        if (commit_state(slot.commit) == SLOT_SEALED && slot.key[0] == 'a' &&
            slot.version > version) {
            version = slot.version;
            serial = (uint32_t)slot.size - SIZE_BASE;
        }
    }
    return serial;
}

bool
lent_is_anothers(const struct machine *machine)
{
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct slot slot = slot_in(machine, machine->seen_by_worker, i);
        enum slot_state state = commit_state(slot.commit);
        if ((state == SLOT_WRITING || state == SLOT_SEALED) &&
            place_offset(slot.place) == machine->lent.offset &&
            slot.commit != machine->lent.commit)
            return true;
    }
    return false;
}

static struct late_store
buffer_take(struct store_buffer *buffer)
{
    DS_ASSERT(buffer->count > 0);
    struct late_store first = buffer->stores[0];
    buffer->count--;
    memmove(buffer->stores, buffer->stores + 1, buffer->count * sizeof first);
    return first;
}

static void
buffer_add(struct store_buffer *buffer, uint32_t word, uint64_t value)
{
    DS_ASSERT(buffer->count < BUFFER_MAX);
    buffer->stores[buffer->count++] = (struct late_store){.word = word, .value = value};
}

static void
drain_worker(struct machine *machine)
{
    struct late_store store = buffer_take(&machine->worker_buffer);
    machine->shared[store.word] = store.value;
    machine->changes++;
    machine->allowed |= 1u << newest(machine);
}

static void
drain_reader(struct machine *machine)
{
    struct late_store store = buffer_take(&machine->reader_buffer);
    bool lost = machine->options->omission == OMIT_WORDS_USED && store.word == 0;
    if (!lost)
        machine->pins_shared[store.word] = store.value;
}

/* What the worker stored in the step that it just made. */
static void
note_worker_stores(struct machine *machine)
{
    for (uint32_t i = 0; i < machine->word_count; i++) {
        uint64_t value = word_now(machine->memory[i]);
        if (value == machine->seen_by_worker[i])
            continue;
        machine->seen_by_worker[i] = value;
        buffer_add(&machine->worker_buffer, i, value);
    }
    while (machine->options->buffered == 0 && machine->worker_buffer.count > 0)
        drain_worker(machine);
}

static void
note_reader_stores(struct machine *machine, const uint64_t before[PIN_WORDS])
{
    for (uint32_t i = 0; i < PIN_WORDS; i++) {
        uint64_t value = word_now(pin_place(machine, i));
        if (value != before[i])
            buffer_add(&machine->reader_buffer, i, value);
    }
    while (machine->options->buffered == 0 && machine->reader_buffer.count > 0)
        drain_reader(machine);
}

/* One step with the memory as the reader sees it: what is shared, and its own stores. */
static void
reader_step(struct machine *machine)
{
    uint64_t pins[PIN_WORDS];
    memcpy(pins, machine->pins_shared, sizeof pins);
    for (uint32_t i = 0; i < machine->reader_buffer.count; i++)
        pins[machine->reader_buffer.stores[i].word] =
            machine->reader_buffer.stores[i].value;
    for (uint32_t i = 0; i < machine->word_count; i++)
        set_word(machine->memory[i], machine->shared[i]);
    show_pins(machine, pins);
    reader_advance(machine);
    note_reader_stores(machine, pins);
    for (uint32_t i = 0; i < machine->word_count; i++)
        set_word(machine->memory[i], machine->seen_by_worker[i]);
}

/* ---- The search ---- */

static uint64_t
state_of(const struct machine *machine)
{
    uint64_t parts[] = {
        machine->worker_steps,
        machine->worker_saw,
        machine->reader_steps,
        machine->reader_saw,
        machine->worker_buffer.count,
        machine->reader_buffer.count,
        machine->allowed,
        machine->changes == machine->changes_at_begin,
        machine->present_at_begin,
        machine->kills,
    };
    return XXH3_64bits(parts, sizeof parts);
}

static bool
waits_for_fence(const struct machine *machine, bool is_reader)
{
    enum omission omitted = machine->options->omission;
    if (is_reader)
        return omitted != OMIT_READER_FENCE && machine->reader_buffer.count > 0 &&
               strcmp(machine->reader_at, "pin fence") == 0;
    return machine->worker_at_fence && machine->worker_buffer.count > 0;
}

static uint8_t
possible_moves(const struct machine *machine)
{
    uint8_t mask = 0;
    if (!machine->reader_ended && !waits_for_fence(machine, true))
        mask |= 1 << READER_STEP;
    if (!waits_for_fence(machine, false) &&
        machine->worker_buffer.count <= machine->options->buffered)
        mask |= 1 << WORKER_STEP;
    if (machine->reader_buffer.count > 0)
        mask |= 1 << READER_DRAIN;
    if (machine->worker_buffer.count > 0)
        mask |= 1 << WORKER_DRAIN;
    if (machine->kills < machine->options->kills)
        mask |= 1 << KILL;
    return mask;
}

/* Until it is the worker's turn. */
static void
schedule(struct machine *machine)
{
    for (;;) {
        uint8_t move;
        if (!search_choose(&machine->search, state_of(machine), possible_moves(machine),
                           &move)) {
            machine->dark = machine->pruned = true;
            return;
        }
        switch (move) {
        case READER_STEP:
            reader_step(machine);
            break;
        case READER_DRAIN:
            drain_reader(machine);
            break;
        case WORKER_DRAIN:
            drain_worker(machine);
            break;
        case KILL: /* What it stored leaves its buffer all the same. */
            while (machine->worker_buffer.count > 0)
                drain_worker(machine);
            machine->kills++;
            machine->dark = machine->killed = true;
            return;
        case WORKER_STEP:
        default:
            return;
        }
    }
}

static void
show_pins_to_worker(struct machine *machine)
{
    static const uint64_t none[PIN_WORDS];
    enum omission omission = machine->options->omission;
    if (omission == OMIT_SCAN)
        show_pins(machine, none);
    else if (omission == OMIT_SCAN_AFTER)
        show_pins(machine, machine->pins_before);
    else
        show_pins(machine, machine->pins_shared);
}

static void
note_worker_loads(struct machine *machine, const char *step)
{
    if (strcmp(step, "scan words used") == 0)
        fold(&machine->worker_saw, word_now(pin_place(machine, 0)));
    else if (strcmp(step, "scan word") == 0)
        fold(&machine->worker_saw, word_now(pin_place(machine, 1)));
}

/* After each step of either side. */
static void
on_step(const char *step, void *arg)
{
    struct machine *machine = arg;
    if (machine->dark)
        return;
    if (machine->reader_runs) {
        reader_pause(machine, step);
        return;
    }
    machine->worker_steps++;
    note_worker_loads(machine, step);
    note_worker_stores(machine);
    bool is_reply = strcmp(step, "reply") == 0;
    machine->worker_at_fence =
        is_reply || (strcmp(step, "reclaim fence") == 0 &&
                     machine->options->omission != OMIT_WORKER_FENCE);
    schedule(machine);
    if (is_reply && machine->options->omission == OMIT_SCAN_AFTER) {
        memcpy(machine->pins_before, machine->pins_shared, sizeof machine->pins_before);
        fold(&machine->worker_saw, machine->pins_before[0]);
        fold(&machine->worker_saw, machine->pins_before[1]);
    }
    show_pins_to_worker(machine);
}

/* ---- The script ---- */

static void
put_stamped(struct machine *machine, const char *key)
{
    struct store *store = machine->f.store;
    uint32_t serial = ++machine->serial;
    struct object_view view;
    struct create_request request = request_for(key, SIZE_BASE + serial);
    DS_ASSERT(serial < SERIALS_MAX);
    if (store_create(store, &request, FIXTURE_NOW, &view, NULL) != DS_OK)
        return; /* All is pinned. */
    if (!machine->dark)
        set_word((uint64_t *)(void *)(machine->f.arena + view.offset), serial);
    seal(store, view.ref);
}

static void
operate(struct machine *machine, char operation)
{
    struct store *store = machine->f.store;
    switch (operation) {
    case 'O':
        put_stamped(machine, "a");
        break;
    case 'B':
        put_stamped(machine, "b");
        break;
    case 'D':
        (void)delete_key(store, "a");
        break;
    case 'E':
        (void)store_set_expiry(store, slice_of_text("a"), FIXTURE_NOW + 1, FIXTURE_NOW);
        (void)store_tick(store, FIXTURE_NOW + 1);
        break;
    default:
        DS_ASSERT(operation == 'T');
        (void)store_tick(store, FIXTURE_NOW);
    }
    on_step("reply", machine);
}

/* The killed worker ran to the end of its operation without being seen; what it did
 * after its death is undone, and the next one begins. */
static void
recover(struct machine *machine)
{
    while (machine->killed) {
        machine->killed = machine->dark = false;
        store_close(machine->f.store);
        machine->f.store = NULL;
        memcpy(machine->seen_by_worker, machine->shared,
               sizeof machine->seen_by_worker);
        for (uint32_t i = 0; i < machine->word_count; i++)
            set_word(machine->memory[i], machine->shared[i]);
        show_pins_to_worker(machine);
        fold(&machine->worker_saw, machine->worker_steps);
        CHECK_OK(fixture_reopen(&machine->f, NULL));
        CHECK_INT(machine->f.report.dropped_damaged, 0);
        CHECK_INT(machine->f.report.dropped_overlapping, 0);
    }
}

/* The reader dies, wherever it is. Then all that was put can be deleted and freed. */
static void
end_and_empty(struct machine *machine)
{
    struct store *store = machine->f.store;
    machine->dark = true;
    show_pins(machine, machine->pins_shared);
    while (machine->reader_buffer.count > 0)
        drain_reader(machine);
    store_check(store);
    store_client_remove(store, machine->region_index);
    (void)delete_key(store, "a");
    (void)delete_key(store, "b");
    (void)store_tick(store, FIXTURE_NOW);
    struct store_stats stats = stats_of(store);
    machine->result.leaks +=
        stats.arena.used_bytes != 0 || stats.dead != 0 || stats.writing != 0;
    store_check(store);
}

static void
begin(struct machine *machine)
{
    for (uint32_t i = 0; i < machine->word_count; i++)
        set_word(machine->memory[i], machine->initial[i]);
    memcpy(machine->shared, machine->initial, sizeof machine->shared);
    memcpy(machine->seen_by_worker, machine->initial, sizeof machine->seen_by_worker);
    memset(machine->pins_shared, 0, sizeof machine->pins_shared);
    memset(machine->pins_before, 0, sizeof machine->pins_before);
    show_pins(machine, machine->pins_shared);
    atomic_store(&machine->region->state, PIN_REGION_USED);
    machine->worker_buffer.count = machine->reader_buffer.count = 0;
    machine->worker_steps = machine->worker_saw = 0;
    machine->reader_steps = machine->reader_saw = 0;
    machine->kills = 0;
    machine->reader_slot = 0;
    machine->changes = 1;
    machine->changes_at_begin = 0;
    machine->allowed = 0;
    machine->dark = machine->killed = machine->pruned = false;
    machine->reader_ended = machine->reader_runs = machine->worker_at_fence = false;
    machine->hit = (struct table_hit){0};
    machine->serial = 1;
    memset(machine->f.arena, 0, PAGES * EXTENT_PAGE_BYTES);
    set_word((uint64_t *)(void *)machine->f.arena, 1); /* Of the "a" at the start. */
    reader_start(machine);
}

static void
run_once(struct machine *machine)
{
    begin(machine);
    CHECK_OK(fixture_reopen(&machine->f, NULL));
    store_set_step_hook(on_step, machine);
    on_step("reply", machine);
    recover(machine);
    for (const char *at = machine->options->script; *at != '\0'; at++) {
        operate(machine, *at);
        recover(machine);
    }
    if (!machine->pruned)
        end_and_empty(machine);
    store_set_step_hook(NULL, NULL);
    store_close(machine->f.store);
    machine->f.store = NULL;
    machine->result.runs++;
}

/* Memory with "a" in it and a client that reads. */
static void
machine_open(struct machine *machine)
{
    struct store_geometry geometry = {
        .arena_bytes = PAGES * (uint64_t)EXTENT_PAGE_BYTES,
        .slot_count = SLOTS,
        .bucket_count = 1,
        .key_heap_bytes = EXTENT_PAGE_BYTES,
        .region_count = 1,
        .words_per_region = 8,
    };
    fixture_open(&machine->f, geometry);
    machine->region_index = add_client(machine->f.store);
    machine->region = region_of(&machine->f, machine->region_index);
    if (machine->options->lends) {
        bool is_lent = store_lend(machine->f.store, SIZE_BASE + 1,
                                  machine->region_index + 1, 1, &machine->lent);
        DS_ASSERT(is_lent);
    } else {
        struct object_view view = put(machine->f.store, "a", SIZE_BASE + 1);
        DS_ASSERT(view.offset == 0);
    }
    reader_open(machine);
    store_close(machine->f.store);
    machine->f.store = NULL;
    add_words(machine, machine->f.memory.table, sizeof(struct table_header));
    add_words(machine, (void *)(uintptr_t)machine->reader.heads, 8);
    add_words(machine, (void *)(uintptr_t)machine->reader.slots,
              SLOTS * sizeof(struct slot));
    for (uint32_t i = 0; i < machine->word_count; i++)
        machine->initial[i] = word_now(machine->memory[i]);
    search_init(&machine->search);
}

struct interleave_result
interleave(const struct interleave_options *options)
{
    struct machine *machine = calloc(1, sizeof *machine);
    DS_ASSERT(machine != NULL);
    machine->options = options;
    machine_open(machine);
    do {
        run_once(machine);
    } while (machine->result.accidents == 0 && search_next_run(&machine->search));
    struct interleave_result result = machine->result;
    result.states = machine->search.states;
    fixture_close(&machine->f);
    reader_close(machine);
    search_fini(&machine->search);
    free(machine);
    return result;
}
