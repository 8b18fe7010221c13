/* What goes wrong: processes die, also between two stores to shared memory, stand still, or
 * lose their memory; nodes are told to stop, or to leave; the network is cut, slow, or
 * changes a bit; clocks jump. Each node has one trouble of its own at a time, and may be cut
 * off as well. */
#include "sim.h"

#include "base/slice.h"
#include "wire/leaving.h"
#include "worker/leaving.h"

#include <string.h>

enum {
    PAUSE_MS_MAX = 5000,      /* Between two faults, once all is well. */
    LEAVING_MS_MAX = 25000,   /* Then it is told to stay after all. */
    LATE_NS_MAX = 2000000000, /* What waited behind a cut comes within so long. */
    HURRY_MS = 400,
    SOON_MS = 1500,
    BEFORE_NS = 20000000,
};

enum phase {
    WELL,
    CRASHED, /* Its supervisor starts another child. */
    WIPED,   /* And its memory is gone: another worker is started. */
    STALLED,
    ASLEEP,
    STOPPING, /* Was told to. */
    LEAVING,  /* And to move what it has before. */
};

static struct trouble {
    enum phase phase;
    uint64_t begin_ns;
    uint64_t until_ns;
    uint64_t cut_begin_ns;
    uint64_t cut_until_ns; /* 0: it is not cut off. */
} troubles[NODES_MAX];

static bool is_over; /* No more begin. */
static bool crashes_meanwhile;
static bool was_away; /* Somebody, at the last tick. */
static uint64_t next_ns;

static struct trouble *
trouble_of(const struct node *node)
{
    return &troubles[node->index];
}

static void
hurry(void)
{
    run.troubles++;
    run.hurry_until_ns = virtual_now_ns() + HURRY_MS * VIRTUAL_MS;
}

static void
enter(const struct node *node, enum phase phase, uint64_t ms)
{
    struct trouble *trouble = trouble_of(node);
    trouble->phase = phase;
    trouble->begin_ns = virtual_now_ns();
    trouble->until_ns = trouble->begin_ns + ms * VIRTUAL_MS;
    if (phase != WELL)
        controllers_note_trouble(node);
    hurry();
}

/* Mostly short, sometimes longer than any lease. */
static uint64_t
some_ms(void)
{
    uint64_t chance = chance_below(8);
    return chance < 4   ? chance_between(1, 300)
           : chance < 6 ? chance_between(300, 4500)
                        : chance_between(4500, 15000);
}

/* ---- What happens to a node ---- */

static void
note_crash(const struct node *node)
{
    uint64_t ms = chance_of(5, 6) ? chance_below(900) : chance_below(8000);
    trace("node %u: its worker was killed, another comes after %ju ms", node->index,
          (uintmax_t)ms);
    losses_crash(node);
    enter(node, CRASHED, ms);
}

static void
crash(struct node *node)
{
    if (chance_of(1, 2)) {
        node_crash(node);
        note_crash(node);
        return;
    }
    uint64_t steps = chance_between(1, chance_of(1, 2) ? 8 : 60);
    trace("node %u: its worker dies after %ju stores", node->index, (uintmax_t)steps);
    node_crash_after(node, steps);
}

static void
wipe(struct node *node)
{
    uint64_t ms = chance_between(50, chance_of(2, 3) ? 2500 : 12000);
    trace("node %u: its supervisor was killed, another comes after %ju ms", node->index,
          (uintmax_t)ms);
    if (node->is_up && node->is_muted)
        node_crash(node);
    losses_wipe(node);
    node_kill(node);
    enter(node, WIPED, ms);
}

static void
stall(struct node *node, bool sleeps)
{
    uint64_t ms = some_ms();
    trace("node %u %s for %ju ms", node->index, sleeps ? "sleeps" : "gets no processor",
          (uintmax_t)ms);
    node_stall(node);
    enter(node, sleeps ? ASLEEP : STALLED, ms);
}

static void
cut(struct node *node)
{
    struct trouble *trouble = trouble_of(node);
    uint64_t ms = some_ms();
    trace("node %u is cut off for %ju ms", node->index, (uintmax_t)ms);
    node->side = 1 + node->index;
    controllers_note_trouble(node);
    trouble->cut_begin_ns = virtual_now_ns();
    trouble->cut_until_ns = trouble->cut_begin_ns + ms * VIRTUAL_MS;
    if (chance_of(1, 3))
        network_break_cut(chance_of(1, 2));
    hurry();
}

static void
heal(struct node *node)
{
    struct trouble *trouble = trouble_of(node);
    uint64_t cut_ns = virtual_now_ns() - trouble->cut_begin_ns;
    trace("node %u is not cut off any more", node->index);
    if (chance_of(1, 3))
        network_break_cut(chance_of(1, 2));
    node->side = 0;
    trouble->cut_until_ns = 0;
    network_changed(cut_ns < LATE_NS_MAX ? cut_ns + 1 : LATE_NS_MAX);
    hurry();
}

static void
stop(struct node *node)
{
    trace("node %u is told to stop", node->index);
    node_stop(node);
    enter(node, STOPPING, 0);
}

static void
on_leave_answer(void *arg, const struct frame_header *header, struct ds_slice body,
                const uint8_t *payload)
{
    const struct node *node = arg;
    (void)payload;
    if (header != NULL)
        trace("node %u was told to leave: %.*s", node->index, (int)body.len,
              (const char *)body.data);
}

static void
tell_to_leave(struct node *node, enum leave_action action)
{
    AUTO_WRITER(body);
    encode_leave(&body, action);
    call_once(node, MESSAGE_LEAVE, slice(body.data, body.len), on_leave_answer, node);
}

static void
leave(struct node *node)
{
    trace("node %u is told to leave", node->index);
    losses_begin_leaving(node);
    tell_to_leave(node, LEAVE_BEGIN);
    enter(node, LEAVING, LEAVING_MS_MAX);
}

/* ---- What happens to the network, and to clocks ---- */

static bool
disturb_network(void)
{
    uint64_t now_ns = virtual_now_ns();
    uint64_t ms = some_ms();
    switch (chance_below(8)) {
    case 0:
    case 1:
    case 2:
        trace("a connection breaks");
        hurry();
        return network_break_one();
    case 3:
    case 4:
        trace("a connection stalls for %ju ms", (uintmax_t)ms);
        hurry();
        return network_stall_one(now_ns + ms * VIRTUAL_MS);
    case 5:
        trace("the network is slow for %ju ms", (uintmax_t)ms);
        network_faults.slow_until_ns = now_ns + ms * VIRTUAL_MS;
        break;
    case 6:
        trace("payloads are damaged for %ju ms", (uintmax_t)ms);
        network_faults.damage_until_ns = now_ns + ms * VIRTUAL_MS;
        break;
    default:
        trace("wall clocks are set");
        for (uint32_t i = 0; i < cluster.count; i++)
            cluster.nodes[i].wall_ns += (int64_t)chance_below(VIRTUAL_S * 100000) -
                                        (int64_t)chance_below(VIRTUAL_S * 100000);
    }
    hurry();
    return true;
}

/* ---- When ---- */

static bool
is_well(const struct node *node)
{
    return trouble_of(node)->phase == WELL && node->is_up && !node->is_muted;
}

bool
faults_spare(const struct node *node)
{
    return is_well(node) && trouble_of(node)->cut_until_ns == 0;
}

bool
faults_let_run(const struct node *node)
{
    return trouble_of(node)->phase != ASLEEP;
}

static bool
all_are_well(void)
{
    for (uint32_t i = 0; i < cluster.count; i++) {
        if (!faults_spare(&cluster.nodes[i]))
            return false;
    }
    return true;
}

/* False: nothing happened. */
static bool
begin(struct node *node)
{
    uint64_t chance = chance_below(100);
    bool is_cut = trouble_of(node)->cut_until_ns != 0;
    if (chance < 8)
        return controllers_disturb();
    if (chance < 34)
        return disturb_network();
    if (chance < 48 && !is_cut) {
        cut(node);
        return true;
    }
    if (!is_well(node))
        return false;
    if (chance < 70)
        crash(node);
    else if (chance < 77)
        wipe(node);
    else if (chance < 89)
        stall(node, chance_of(1, 4));
    else if (chance < 92)
        stop(node);
    else
        leave(node);
    return true;
}

/* What is over, or has come to something. */
static void
go_on(struct node *node)
{
    struct trouble *trouble = trouble_of(node);
    uint64_t now_ns = virtual_now_ns();
    bool is_due = now_ns >= trouble->until_ns;
    bool has_had_time = now_ns >= trouble->begin_ns + 100 * VIRTUAL_MS;
    if (trouble->cut_until_ns != 0 && now_ns >= trouble->cut_until_ns)
        heal(node);
    if (!node->is_up && trouble->phase == STOPPING) {
        wipe(node); /* It is not started again. */
    } else if (!node->is_up && node->has_supervisor && trouble->phase != CRASHED) {
        note_crash(node);
    } else if (node_has_stopped(node)) {
        trace("node %u has stopped", node->index);
        if (trouble->phase == LEAVING)
            losses_left(node);
        else
            losses_wipe(node);
        node_end(node);
        enter(node, WIPED, chance_between(50, 3000));
    } else if (trouble->phase == CRASHED && is_due) {
        trace("node %u is started again", node->index);
        enter(node, WELL, 0);
        node_revive(node);
    } else if (trouble->phase == WIPED && is_due) {
        trace("node %u is started anew", node->index);
        enter(node, WELL, 0);
        node_start(node);
    } else if ((trouble->phase == STALLED || trouble->phase == ASLEEP) && is_due) {
        trace("node %u goes on", node->index);
        node_go_on(node, trouble->phase == ASLEEP, now_ns - trouble->begin_ns);
        enter(node, WELL, 0);
    } else if (trouble->phase == LEAVING && has_had_time &&
               !leaving_is_active(&node->worker)) {
        trace("node %u stays", node->index);
        losses_stayed(node);
        enter(node, WELL, 0);
    } else if (trouble->phase == LEAVING && is_due) {
        tell_to_leave(node, LEAVE_CANCEL);
        enter(node, LEAVING, LEAVING_MS_MAX);
    }
}

/* Somebody is no member any more: clients change what it has, and the next fault comes soon. */
static void
note_away(void)
{
    bool is_away = losses_are_open();
    uint64_t soon_ns = virtual_now_ns() + chance_below(SOON_MS * VIRTUAL_MS);
    if (is_away && !was_away) {
        hurry();
        next_ns = next_ns < soon_ns ? next_ns : soon_ns;
    }
    was_away = is_away;
}

/* While a node is away, the process of another: what only that remembered is gone. */
static bool
crash_meanwhile(struct node *node)
{
    if (!crashes_meanwhile || !losses_are_open() || !is_well(node))
        return false;
    crash(node);
    return true;
}

void
faults_tick(void)
{
    for (uint32_t i = 0; i < cluster.count; i++)
        go_on(&cluster.nodes[i]);
    note_away();
    if (!is_over && virtual_now_ns() + BEFORE_NS > next_ns &&
        virtual_now_ns() < next_ns + BEFORE_NS)
        run.hurry_until_ns = virtual_now_ns() + BEFORE_NS; /* It meets with much. */
    if (is_over || virtual_now_ns() < next_ns)
        return;
    bool may_begin = run.allows_overlap ||
                     (all_are_well() && run.whole_since_ns != 0 && !losses_are_open());
    struct node *node = &cluster.nodes[chance_below(cluster.count)];
    bool has_begun = may_begin ? begin(node) : crash_meanwhile(node);
    if (!may_begin && !has_begun)
        return;
    run.faults += has_begun;
    run_note(run.faults);
    next_ns = virtual_now_ns() + chance_below(PAUSE_MS_MAX * VIRTUAL_MS);
}

void
faults_reset(void)
{
    memset(troubles, 0, sizeof troubles);
    is_over = true;
    was_away = false;
}

void
faults_start(void)
{
    run.allows_overlap = chance_of(1, 4);
    crashes_meanwhile = chance_of(1, 2);
    is_over = run.faults_wanted == 0;
    next_ns = virtual_now_ns() + chance_below(2 * VIRTUAL_S);
}

bool
faults_are_over(void)
{
    return is_over && all_are_well();
}

void
faults_end(void)
{
    uint64_t now_ns = virtual_now_ns();
    is_over = true;
    network_faults.slow_until_ns = 0;
    network_faults.damage_until_ns = 0;
    for (uint32_t i = 0; i < cluster.count; i++) {
        struct node *node = &cluster.nodes[i];
        struct trouble *trouble = trouble_of(node);
        node->steps_left = 0;
        trouble->cut_until_ns = trouble->cut_until_ns == 0 ? 0 : now_ns;
        trouble->until_ns = now_ns;
    }
}
