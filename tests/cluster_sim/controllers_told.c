/* What somebody was told of the queue, and who has it: it may be lost only with all of them. */
#include "controllers.h"

#include "base/numeric.h"
#include "base/slice.h"
#include "meta/members.h"
#include "worker/kept_journals.h"
#include "worker/membership.h"

#include <string.h>

/* In order: nothing of it may change. */
static uint64_t known[RECORDS_MAX];
static uint32_t known_count;
static uint64_t known_term;

/* Had all that is known when it became known, and nothing has happened to it since. */
static struct {
    bool has_all;
    uint64_t since;
} holders[NODES_MAX];

/* ---- Who has what ---- */

static const struct member *
member_of(const struct node *node)
{
    const struct node *head = &cluster.nodes[0];
    if (!head->is_up || head->worker.membership == NULL || !node->has_supervisor)
        return NULL;
    const struct table_header *table = (const struct table_header *)node->memory.table;
    return membership_find(head->worker.membership, table->node);
}

/* NULL: it has no copy. */
static const struct kept_journal *
kept_by(const struct node *node)
{
    if (!node->is_up || node->is_muted)
        return NULL;
    const struct kept_journal *kept =
        kept_journals_find(&node->worker, slice_of_text(queue_name));
    return kept != NULL && kept->whole.file != NULL ? kept : NULL;
}

static bool
keeps_all(const struct node *node)
{
    const struct kept_journal *kept = kept_by(node);
    return kept != NULL && kept->sequence > known_count;
}

static void
note_holders(const struct player *by)
{
    for (uint32_t i = 0; i < cluster.count; i++) {
        const struct node *node = &cluster.nodes[i];
        const struct member *member = member_of(node);
        holders[i].has_all = member != NULL && faults_spare(node) &&
                             (keeps_all(node) || node == by->node);
        holders[i].since = member == NULL ? 0 : member->since;
    }
}

void
controllers_note_trouble(const struct node *node)
{
    holders[node->index].has_all = false;
}

/* Who is no member any more, or a new one, has dropped it. */
void
told_look(void)
{
    for (uint32_t i = 0; i < cluster.count; i++) {
        const struct member *member = member_of(&cluster.nodes[i]);
        if (cluster.nodes[0].is_up &&
            (member == NULL || member->since != holders[i].since))
            holders[i].has_all = false;
    }
}

bool
told_is_held(void)
{
    bool holds = false;
    for (uint32_t i = 0; i < cluster.count; i++)
        holds |= holders[i].has_all;
    return holds;
}

static uint32_t
count_same(const struct player *player)
{
    uint32_t same = 0;
    while (same < player->count && same < known_count &&
           player->records[same] == known[same])
        same++;
    return same;
}

/* A later one than all that have answered, or the same. A node that is about to leave may have
 * gone on with less: nobody is bound by that, and it cannot answer any more. */
void
told_begin(const struct player *player)
{
    uint32_t same = count_same(player);
    told_look();
    if (same < known_count && told_is_held() && player->term >= known_term &&
        !player->node->worker.is_leaving)
        cluster_fail("%s: node %u goes on with %u records, and not all %u that were "
                     "acknowledged",
                     queue_name, player->node->index, same, known_count);
}

/* Nobody of a later term is there, nor a copy of what one wrote. */
static bool
is_latest(const struct player *player)
{
    for (uint32_t i = 0; i < player_count; i++) {
        if (!players[i]->is_over && players[i]->term > player->term)
            return false;
    }
    for (uint32_t i = 0; i < cluster.count; i++) {
        const struct kept_journal *kept = kept_by(&cluster.nodes[i]);
        if (kept != NULL && kept->whole.term > player->term)
            return false;
    }
    return true;
}

/* Whoever asked before cannot expect them. */
static void
lose_all_from(uint32_t first)
{
    known_count = first;
    for (uint32_t i = 0; i < player_count; i++) {
        for (uint32_t j = 0; j < ASKED_MAX; j++) {
            struct asked *asked = &players[i]->asked[j];
            asked->known_before = (uint32_t)min_u64(asked->known_before, first);
        }
    }
}

void
told_answer(const struct player *player, const struct asked *asked)
{
    uint32_t same = count_same(player);
    told_look();
    if (same < known_count && !told_is_held() && is_latest(player)) {
        trace("%s: %u records are lost", queue_name, known_count - same);
        lose_all_from(same);
    }
    if (same < min_u64(asked->count, known_count))
        cluster_fail("%s: node %u says another record %u", queue_name,
                     player->node->index, same);
    if (asked->count < asked->known_before)
        cluster_fail("%s: node %u says %u records, where %u were known before",
                     queue_name, player->node->index, asked->count,
                     asked->known_before);
    for (uint32_t i = known_count; i < asked->count; i++)
        known[i] = player->records[i];
    known_count = (uint32_t)max_u64(known_count, asked->count);
    known_term = max_u64(known_term, player->term);
    note_holders(player);
    run_note(virtual_now_ns() ^ asked->count);
}

void
told_reset(void)
{
    known_count = 0;
    known_term = 0;
    memset(holders, 0, sizeof holders);
}

uint32_t
told_count(void)
{
    return known_count;
}

uint32_t
told_copies(void)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < cluster.count; i++)
        count += kept_by(&cluster.nodes[i]) != NULL;
    return count;
}
