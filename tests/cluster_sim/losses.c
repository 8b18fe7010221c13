/* What docs/decisions/0014-keys.md does not promise, as seen from outside.
 *
 * A gap is the time in which a node is no member any more, until all nodes are whole again.
 * What it has is away meanwhile: a read may find nothing. If its memory went, that is lost.
 * Of two that were away at overlapping times either's values may come back. */
#include "sim.h"

#include "base/check.h"
#include "meta/members.h"
#include "store/layout.h"
#include "worker/membership.h"
#include "worker/owners.h"

enum {
    STAYED_MS = 10000,
    GAPS_MAX = 256,
    HELD_MAX = 256,
    OPEN_MAX = HELD_MAX + 4 * KEYS
};

struct held {
    uint32_t key;
    uint32_t value;
};

/* Invariant: `opened` have been begun by record_open() exactly while it is open. */
struct gap {
    const struct node *node;
    uint64_t begin_ns;
    uint64_t end_ns; /* 0: it is open. */
    struct held held[HELD_MAX];
    uint32_t held_count;
    uint32_t opened[OPEN_MAX];
    uint32_t opened_count;
    bool is_multiple; /* Another one was open as well. */
    bool may_lose;    /* An owner is gone who knew what was deleted meanwhile. */
    bool is_back;     /* It is a member again, but not all is whole. */
    bool has_moved; /* What is held was being moved when an owner or the taker ended. */
};

/* What others know of the node's membership. */
struct tenure {
    uint32_t incarnation;
    uint64_t since;
    uint64_t epoch_heard; /* Last, by its process; */
    uint64_t ended_count; /* so many processes had ended by then. */
    bool has_ended;       /* Its own, since then. */
    uint32_t put[KEYS]; /* What its clients set last: it may have let go of that before
                             anybody looks. */
};

static struct gap gaps[GAPS_MAX];
static uint32_t gap_count;
static struct tenure tenures[NODES_MAX];
static uint64_t ended_count; /* Processes, with what they remembered. */

/* Of a node that leaves, or was to: what its taker had begun by then it goes on with. */
static struct leaver {
    bool is_leaving;
    uint64_t end_ns; /* 0: it has not said yet that it stays. */
    bool is_alone;
    struct held held[KEYS];
    uint32_t count;
} leavers[NODES_MAX];

void
losses_reset(void)
{
    gap_count = 0;
    ended_count = 0;
    for (size_t i = 0; i < NODES_MAX; i++) {
        tenures[i] = (struct tenure){0};
        leavers[i].is_leaving = false;
    }
}

static const struct table_header *
header_of(const struct node *node)
{
    return node->memory.table;
}

static uint32_t
find_held(const struct node *node, struct held out[KEYS])
{
    uint32_t count = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
        uint32_t value = value_in_table(node, key);
        if (value != 0)
            out[count++] = (struct held){key, value};
    }
    return count;
}

/* ---- Gaps ---- */

/* In which it is away. */
static struct gap *
find_open(const struct node *node)
{
    for (uint32_t i = 0; i < gap_count; i++) {
        if (gaps[i].end_ns == 0 && gaps[i].node == node && !gaps[i].is_back)
            return &gaps[i];
    }
    return NULL;
}

bool
losses_are_open(void)
{
    for (uint32_t i = 0; i < gap_count; i++) {
        if (gaps[i].end_ns == 0)
            return true;
    }
    return false;
}

static void
open_one(struct gap *gap, struct held what, enum operation operation)
{
    DS_ASSERT(gap->opened_count < OPEN_MAX);
    gap->opened[gap->opened_count++] = record_open(what.key, operation, what.value);
}

static bool
is_moving(const struct leaver *leaver)
{
    return leaver->is_leaving &&
           (leaver->end_ns == 0 || virtual_now_ns() < leaver->end_ns);
}

static void
lose_moving(struct gap *gap, const struct leaver *leaver)
{
    for (uint32_t i = 0; i < leaver->count && gap->held_count < HELD_MAX; i++)
        gap->held[gap->held_count++] = leaver->held[i];
    gap->may_lose = gap->has_moved = true;
}

static struct gap *
begin_gap(const struct node *node)
{
    bool is_multiple = losses_are_open();
    DS_ASSERT(gap_count < GAPS_MAX);
    struct gap *gap = &gaps[gap_count++];
    *gap = (struct gap){.node = node, .begin_ns = virtual_now_ns()};
    gap->held_count = find_held(node, gap->held);
    for (uint32_t key = 0; key < KEYS; key++) {
        uint32_t value = tenures[node->index].put[key];
        if (value != 0)
            gap->held[gap->held_count++] = (struct held){key, value};
    }
    gap->may_lose = tenures[node->index].ended_count != ended_count;
    gap->is_multiple = tenures[node->index].has_ended;
    trace("node %u is no member any more%s", node->index,
          is_multiple ? ", as another one" : "");
    for (uint32_t i = 0; i < gap_count && is_multiple; i++) {
        if (gaps[i].end_ns == 0)
            gaps[i].is_multiple = gaps[i].may_lose = true;
    }
    for (uint32_t i = 0; i < cluster.count; i++) {
        if (is_moving(&leavers[i]) && i != node->index)
            lose_moving(gap, &leavers[i]);
    }
    return gap;
}

/* Of a key that is being moved just then nobody may know any more: a node is gone that was its
 * owner, or the taker. */
static void
lose_all_moving(void)
{
    for (uint32_t i = 0; i < cluster.count; i++) {
        struct gap *gap = find_open(&cluster.nodes[i]);
        if (!is_moving(&leavers[i]))
            continue;
        if (gap == NULL)
            gap = begin_gap(&cluster.nodes[i]);
        lose_moving(gap, &leavers[i]);
    }
}

/* What becomes of it is not promised. */
static void
close_held(const struct gap *gap)
{
    for (uint32_t i = 0; i < gap->held_count; i++) {
        const struct held *held = &gap->held[i];
        if (gap->is_multiple)
            record_close(record_open(held->key, OPERATION_PUT, held->value));
        if (gap->may_lose)
            record_close(record_open(held->key, OPERATION_LOSE, held->value));
    }
}

static void
lose_in_all(void)
{
    ended_count++;
    for (uint32_t i = 0; i < gap_count; i++)
        gaps[i].may_lose = gaps[i].may_lose || gaps[i].end_ns == 0;
}

void
losses_close(void)
{
    for (uint32_t i = 0; i < gap_count; i++) {
        struct gap *gap = &gaps[i];
        if (gap->end_ns != 0)
            continue;
        gap->end_ns = virtual_now_ns();
        for (uint32_t j = 0; j < gap->opened_count; j++)
            record_close(gap->opened[j]);
        close_held(gap);
        trace("node %u is whole again", gap->node->index);
    }
}

static bool
overlaps(const struct gap *gap, const struct history_event *event)
{
    return (event->end_ns == 0 || gap->begin_ns <= event->end_ns) &&
           (gap->end_ns == 0 || event->begin_ns <= gap->end_ns);
}

/* `value` 0: any. */
static bool
has_held(const struct gap *gap, uint32_t key, uint32_t value)
{
    for (uint32_t i = 0; i < gap->held_count; i++) {
        if (gap->held[i].key == key && (value == 0 || gap->held[i].value == value))
            return true;
    }
    return false;
}

bool
losses_may_miss(const struct history_event *event, uint32_t value)
{
    for (uint32_t i = 0; i < gap_count; i++) {
        if (overlaps(&gaps[i], event) && has_held(&gaps[i], event->key, value))
            return true;
    }
    return false;
}

/* What one of several that are away has may take the place of what is newer. */
bool
losses_may_see(const struct history_event *read)
{
    uint32_t value = read->operation == OPERATION_READ ? read->value : 0;
    for (uint32_t i = 0; i < gap_count; i++) {
        if (gaps[i].is_multiple && overlaps(&gaps[i], read) &&
            has_held(&gaps[i], read->key, value))
            return true;
    }
    return false;
}

/* Until its lease ends it may be given more, or when it is back. */
void
losses_note_put(const struct node *node, uint32_t key, uint32_t value)
{
    tenures[node->index].put[key] = value;
    for (uint32_t i = 0; i < gap_count; i++) {
        struct gap *gap = &gaps[i];
        if (gap->end_ns == 0 && gap->node == node && gap->held_count < HELD_MAX)
            gap->held[gap->held_count++] = (struct held){key, value};
    }
}

/* ---- Who belongs ---- */

/* As `by` knows it. */
static void
look_for(const struct node *by, const struct node *node)
{
    struct tenure *tenure = &tenures[node->index];
    const struct table_header *header = header_of(node);
    if (!node->has_supervisor || owners_epoch(by->worker.owners) < tenure->since)
        return; /* That is news of the past. */
    if (tenure->incarnation != header->incarnation)
        *tenure = (struct tenure){.incarnation = header->incarnation};
    const struct member *member = membership_find(by->worker.membership, header->node);
    bool is_there = member != NULL && member->incarnation == header->incarnation;
    bool was_there = tenure->since != 0;
    bool is_gap = was_there && (!is_there || member->since > tenure->since);
    if (is_gap && find_open(node) == NULL)
        (void)begin_gap(node);
    if (is_there && member->since > tenure->since) {
        struct gap *gap = find_open(node);
        if (gap != NULL)
            gap->is_back = true;
        tenure->since = member->since;
    } else if (!is_there) {
        tenure->since = 0;
    }
}

static void
look_at(struct node *node)
{
    uint64_t *heard = &tenures[node->index].epoch_heard;
    uint64_t epoch = owners_epoch(node->worker.owners);
    if (node->worker.membership == NULL || epoch == *heard)
        return;
    if (epoch < node->epoch_seen)
        cluster_fail("node %u goes back from epoch %ju to %ju", node->index,
                     (uintmax_t)node->epoch_seen, (uintmax_t)epoch);
    node->epoch_seen = epoch;
    *heard = epoch;
    run.troubles++;
    trace("node %u hears of epoch %ju", node->index, (uintmax_t)epoch);
    for (uint32_t i = 0; i < cluster.count; i++)
        look_for(node, &cluster.nodes[i]); /* It may hear that it was none itself. */
    tenures[node->index].ended_count = ended_count;
    tenures[node->index].has_ended = false;
}

static bool
has_others(const struct node *node)
{
    const struct membership *membership = node->worker.membership;
    for (uint32_t i = 0; i < membership_count(membership); i++) {
        if (membership_at(membership, i)->node != header_of(node)->node)
            return true;
    }
    return false;
}

void
losses_look(void)
{
    for (uint32_t i = 0; i < cluster.count; i++) {
        struct node *node = &cluster.nodes[i];
        if (!node->is_up)
            continue;
        if (leavers[i].is_leaving && !node->worker.stopping)
            leavers[i].is_alone = !has_others(node);
        look_at(node);
    }
}

/* ---- Memory that goes ---- */

/* It may be read for a while: others may have copies, and not know yet. */
void
losses_wipe(struct node *node)
{
    struct gap *gap = find_open(node);
    struct held held[KEYS];
    if (gap == NULL)
        gap = begin_gap(node);
    uint32_t count = find_held(node, held);
    blocks_wipe(node);
    for (uint32_t i = 0; i < count; i++)
        open_one(gap, held[i], OPERATION_LOSE);
    tenures[node->index] = (struct tenure){0};
    leavers[node->index].is_leaving = false;
    losses_crash(node);
}

void
losses_begin_leaving(struct node *node)
{
    struct leaver *leaver = &leavers[node->index];
    *leaver = (struct leaver){.is_leaving = true};
    leaver->count = find_held(node, leaver->held);
}

void
losses_crash(const struct node *node)
{
    struct gap *own = find_open(node);
    run.troubles++;
    lose_in_all();
    tenures[node->index].has_ended = true;
    if (own != NULL) /* It does not know any more who else was a member. */
        own->is_multiple = true;
    lose_all_moving();
}

void
losses_left(struct node *node)
{
    struct gap *gap = find_open(node);
    leavers[node->index].is_leaving = false;
    if (leavers[node->index].is_alone) { /* Nobody to move anything to. */
        trace("node %u was alone", node->index);
        losses_wipe(node);
        return;
    }
    blocks_left(node);
    if (gap != NULL && !gap->has_moved) /* It said goodbye: others have all. */
        gap->held_count = 0;
    lose_in_all();
    lose_all_moving(); /* Another one leaves as well. */
    tenures[node->index] = (struct tenure){0};
}

void
losses_stayed(const struct node *node)
{
    leavers[node->index].end_ns = virtual_now_ns() + STAYED_MS * VIRTUAL_MS;
}
