/* The reader's side: gets of "a" by the real code, on a stack of its own that is left at
 * each step; what it saw; and whether what it got was right. */
#include "machine.h"

#include "base/check.h"
#include "store/pin.h"

#include <stdlib.h>
#include <string.h>

enum { STACK_BYTES = 256 * 1024 };

void
reader_pause(struct machine *machine, const char *step)
{
    machine->reader_at = step;
    machine->reader_runs = false;
    DS_ASSERT(swapcontext(&machine->reader_context, &machine->scheduler_context) == 0);
}

static uint64_t
stamp_at(const struct machine *machine, uint64_t offset)
{
    return word_now((const uint64_t *)(void *)(machine->f.arena + offset));
}

static void
judge_hit(struct machine *machine, uint64_t first, uint64_t last)
{
    machine->result.hits++;
    uint64_t serial = machine->hit.size - SIZE_BASE;
    bool right = first == last && first == serial && serial < SERIALS_MAX &&
                 (machine->allowed >> serial & 1) != 0;
    machine->result.accidents += !right;
}

static void
judge_miss(struct machine *machine)
{
    machine->result.misses++;
    if (machine->present_at_begin && machine->changes == machine->changes_at_begin)
        machine->result.unfound++;
}

/* True with a pin, as open_present() of src/client/lookup.c does it. */
static bool
find_and_pin(struct machine *machine)
{
    struct table_hit *hit = &machine->hit;
    const struct table_reader *reader = &machine->reader;
    if (!table_reader_find(reader, slice_of_text("a"), false, FIXTURE_NOW, hit) ||
        !pin_acquire(machine->region, 0, &reader->slots[hit->slot], hit->commit,
                     hit->offset))
        return false;
    if (table_reader_confirms(reader, hit))
        return true;
    pin_release(machine->region, 0);
    return false;
}

static void
reader_get(struct machine *machine)
{
    bool early = machine->options->omission == OMIT_PIN_UNTIL_READ;
    if (!find_and_pin(machine)) {
        judge_miss(machine);
        return;
    }
    if (early)
        pin_release(machine->region, 0);
    uint64_t first = stamp_at(machine, machine->hit.offset);
    reader_pause(machine, "use");
    uint64_t last = stamp_at(machine, machine->hit.offset);
    judge_hit(machine, first, last);
    reader_pause(machine, "used");
    if (!early)
        pin_release(machine->region, 0);
}

/* As open_lent() of src/client/object.c does it: pinned, and still lent, or not used. */
static void
writer_write(struct machine *machine)
{
    bool early = machine->options->omission == OMIT_PIN_UNTIL_READ;
    const struct slot *slot = &machine->reader.slots[machine->lent.ref.slot];
    machine->hit.slot = machine->lent.ref.slot;
    machine->hit.commit = machine->lent.commit;
    machine->hit.offset = machine->lent.offset;
    if (!pin_acquire(machine->region, 0, slot, machine->lent.commit,
                     machine->lent.offset)) {
        machine->result.misses++;
        return;
    }
    if (early)
        pin_release(machine->region, 0);
    reader_pause(machine, "write");
    machine->result.hits++;
    machine->result.accidents += lent_is_anothers(machine);
    reader_pause(machine, "written");
    if (!early)
        pin_release(machine->region, 0);
}

/* makecontext() passes ints only. */
static struct machine *reader_machine;

static void
reader_main(void)
{
    struct machine *machine = reader_machine;
    for (uint32_t i = 0; i < machine->options->gets; i++) {
        machine->allowed = 1u << newest(machine);
        machine->changes_at_begin = machine->changes;
        machine->present_at_begin =
            newest(machine) != 0 && machine->reader.header->epoch % 2 == 0;
        if (machine->options->lends)
            writer_write(machine);
        else
            reader_get(machine);
        reader_pause(machine, "got");
    }
    machine->reader_ended = true;
    reader_pause(machine, "ended");
}

void
reader_start(struct machine *machine)
{
    DS_ASSERT(getcontext(&machine->reader_context) == 0);
    machine->reader_context.uc_stack.ss_sp = machine->stack;
    machine->reader_context.uc_stack.ss_size = STACK_BYTES;
    machine->reader_context.uc_link = NULL;
    reader_machine = machine;
    makecontext(&machine->reader_context, reader_main, 0);
    machine->reader_at = "start";
}

/* What it has just read, by the name of the step; and which slot it looks at. */
static uint64_t
just_read(struct machine *machine)
{
    const char *step = machine->reader_at;
    const struct slot *slot = slot_of(&machine->f, machine->reader_slot);
    if (strcmp(step, "read epoch") == 0 || strcmp(step, "read epoch again") == 0)
        return machine->reader.header->epoch;
    if (strcmp(step, "read head") == 0)
        return machine->reader_slot = machine->reader.heads[0] - 1;
    if (strcmp(step, "read commit") == 0)
        return slot->commit;
    if (strcmp(step, "read place") == 0)
        return slot->place ^ (uint64_t)slot->tag << 32;
    if (strcmp(step, "read key") == 0)
        return slot->key[0];
    if (strcmp(step, "read size") == 0)
        return slot->size ^ (uint64_t)slot->expires_ds << 32;
    if (strcmp(step, "read next") == 0) {
        machine->reader_slot = slot->next;
        return slot->next ^ (uint64_t)slot->tag << 32;
    }
    if (strcmp(step, "pin check") == 0)
        return machine->reader.slots[machine->hit.slot].commit;
    if (strcmp(step, "use") == 0)
        return stamp_at(machine, machine->hit.offset);
    return 0;
}

/* What the reader is to see that is not so. */
static void
mislead(struct machine *machine)
{
    enum omission omission = machine->options->omission;
    struct slot *pinned = (struct slot *)&machine->reader.slots[machine->hit.slot];
    if (omission == OMIT_RECHECK && strcmp(machine->reader_at, "pin fence") == 0)
        pinned->commit = machine->hit.commit;
    for (uint32_t i = 0; omission == OMIT_GENERATION && i < SLOTS; i++) {
        struct slot *slot = (struct slot *)slot_of(&machine->f, i);
        slot->commit = commit_word(1, commit_state(slot->commit));
    }
    if (omission == OMIT_EPOCH)
        ((struct table_header *)machine->f.memory.table)->epoch = 0;
}

void
reader_advance(struct machine *machine)
{
    mislead(machine);
    machine->reader_runs = true;
    DS_ASSERT(swapcontext(&machine->scheduler_context, &machine->reader_context) == 0);
    machine->reader_steps++;
    fold(&machine->reader_saw, just_read(machine));
    if (machine->reader_slot >= SLOTS)
        machine->reader_slot = 0; /* It was the end of the chain. */
}

void
reader_open(struct machine *machine)
{
    CHECK_OK(table_reader_init(&machine->reader, machine->f.memory.table,
                               machine->f.memory.table_bytes, NULL));
    machine->stack = malloc(STACK_BYTES);
    DS_ASSERT(machine->stack != NULL);
}

void
reader_close(struct machine *machine)
{
    free(machine->stack);
}
