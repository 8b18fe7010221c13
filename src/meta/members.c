#include "meta/members.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>
#include <string.h>

/* Between two ticks: more, and it was us who stood still. */
enum { TICKS_MS_MAX = 500 };

struct entry {
    struct member member; /* Its `queues` and `arenas` are owned. */
    uint64_t lease_until_ms;
    uint64_t renewed_ms;
    bool is_old; /* Belonged already to the epoch that we settle. */
};

/* Invariants: entries [0, count) are in the order of their nodes, and no two have one
 * node or one address. */
struct members {
    struct entry *entries;
    size_t count;
    size_t capacity;
    uint64_t lease_ms;
    uint64_t epoch; /* The last one that anybody was told. */
    uint64_t leap;  /* From there to the one after settling. */
    uint64_t version;
    bool settling;
    uint32_t old_count; /* Of those that belonged to `epoch`, */
    uint32_t old_found; /* and of those among them that have renewed. */
    uint64_t settled_at_ms;
    uint64_t ticked_ms; /* Last; 0: never. */
    uint64_t lapse_ms;  /* Until then one that is none any more may serve, */
    uint64_t away_ms;   /* and may come back with what it had. */
};

static void
entry_fini(struct entry *entry)
{
    free((void *)entry->member.queues.data);
    free((void *)entry->member.arenas.data);
    entry->member.queues = (struct ds_slice){0};
    entry->member.arenas = (struct ds_slice){0};
}

/* One that renewed then is gone without a word. */
static void
note_lost(struct members *members, uint64_t renewed_ms)
{
    uint64_t end = renewed_ms + member_key_lease_ms(members->lease_ms);
    members->lapse_ms = max_u64(members->lapse_ms, end);
    members->away_ms =
        max_u64(members->away_ms, renewed_ms + members->lease_ms + MEMBER_AWAY_MS);
}

static void
settle_later(struct members *members, struct members_past past, uint64_t now_ms)
{
    members->settling = true;
    members->epoch = past.epoch;
    members->old_count = past.count;
    members->old_found = 0;
    members->settled_at_ms = now_ms + members->lease_ms;
    note_lost(members, now_ms); /* Who was lost last is not known any more. */
    for (size_t i = 0; i < members->count; i++) {
        members->entries[i].is_old = false;
        members->entries[i].member.since = past.epoch + members->leap;
    }
}

enum ds_status
members_create(uint64_t lease_ms, struct members_past past, uint64_t now_ms,
               struct members **out, struct ds_error *err)
{
    struct members *members = calloc(1, sizeof *members);
    if (members == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for the members");
    members->lease_ms = lease_ms;
    members->epoch = past.epoch;
    members->leap = 1;
    if (past.count > 0)
        settle_later(members, past, now_ms);
    *out = members;
    return DS_OK;
}

void
members_destroy(struct members *members)
{
    if (members == NULL)
        return;
    for (size_t i = 0; i < members->count; i++)
        entry_fini(&members->entries[i]);
    free(members->entries);
    free(members);
}

/* ---- Entries ---- */

/* Where the node is, or would be. */
static size_t
position_of(const struct members *members, uint32_t node)
{
    size_t low = 0, high = members->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (members->entries[middle].member.node < node)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct entry *
find(struct members *members, uint32_t node)
{
    size_t at = position_of(members, node);
    struct entry *entry = &members->entries[at];
    return at < members->count && entry->member.node == node ? entry : NULL;
}

static struct entry *
find_address(struct members *members, const char *address)
{
    for (size_t i = 0; i < members->count; i++) {
        if (strcmp(members->entries[i].member.address, address) == 0)
            return &members->entries[i];
    }
    return NULL;
}

/* Who belonged to the epoch that we settle is waited for again. */
static void
forget_old(struct members *members, struct entry *entry)
{
    if (members->settling && entry->is_old)
        members->old_found--;
    entry->is_old = false;
}

static void
remove_entry(struct members *members, struct entry *entry)
{
    size_t at = (size_t)(entry - members->entries);
    forget_old(members, entry);
    entry_fini(entry);
    memmove(entry, entry + 1, (members->count - at - 1) * sizeof *entry);
    members->count--;
}

static bool
reserve_one(struct members *members)
{
    if (members->count < members->capacity)
        return true;
    size_t capacity = max_u64(16, 2 * members->capacity);
    struct entry *entries = realloc(members->entries, capacity * sizeof *entries);
    if (entries == NULL)
        return false;
    members->entries = entries;
    members->capacity = capacity;
    return true;
}

/* There is room. */
static struct entry *
insert(struct members *members, const struct member *who)
{
    size_t at = position_of(members, who->node);
    struct entry *entry = &members->entries[at];
    memmove(entry + 1, entry, (members->count - at) * sizeof *entry);
    members->count++;
    *entry = (struct entry){.member = *who};
    entry->member.queues = (struct ds_slice){0};
    entry->member.arenas = (struct ds_slice){0};
    return entry;
}

/* ---- Epochs ---- */

static void
change(struct members *members)
{
    members->version++;
    if (!members->settling)
        members->epoch++;
}

/* The one that a change just made, or settling will. */
static uint64_t
next_epoch(const struct members *members)
{
    return members->epoch + (members->settling ? members->leap : 0);
}

/* If it is settling, and `is_time`: all are here, or have had their time. */
static void
settle_if(struct members *members, bool is_time)
{
    if (!members->settling || !is_time)
        return;
    members->settling = false;
    members->epoch += members->leap;
    members->version++;
}

/* What a member says of itself, into `kept`, which is owned. */
static enum ds_status
note(struct members *members, struct ds_slice *kept, struct ds_slice said,
     struct ds_error *err)
{
    if (slice_equal(*kept, said))
        return DS_OK;
    void *copy = said.len == 0 ? NULL : malloc(said.len);
    if (said.len > 0 && copy == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for what a member has");
    if (said.len > 0)
        memcpy(copy, said.data, said.len);
    free((void *)kept->data);
    *kept = slice(copy, said.len);
    members->version++;
    return DS_OK;
}

/* A past that we do not know is that of a metastore before us. */
static void
learn_past(struct members *members, struct members_past past, uint64_t now_ms)
{
    if (past.epoch > members->epoch && !PLANTED(EPOCH_BACK))
        settle_later(members, past, now_ms);
}

static void
note_old(struct members *members, struct entry *entry, struct members_past past,
         uint64_t since)
{
    if (!members->settling || entry->is_old || past.epoch != members->epoch)
        return;
    entry->is_old = true;
    entry->member.since = since == 0 ? members->epoch : min_u64(since, members->epoch);
    members->old_found++;
}

/* ---- Renewing ---- */

/* Nobody is in the way of `who` after this, but perhaps an entry of its own node. */
static enum ds_status
make_way(struct members *members, const struct member *who, struct ds_error *err)
{
    const struct entry *same_node = find(members, who->node);
    if (same_node != NULL && strcmp(same_node->member.address, who->address) != 0)
        return ds_fail(err, DS_EXISTS, "node id %u is that of the worker at %s",
                       who->node, same_node->member.address);
    if (same_node == NULL && !reserve_one(members))
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a member");
    struct entry *same_address = find_address(members, who->address);
    if (same_address != NULL && same_address->member.node != who->node) {
        note_lost(members, same_address->renewed_ms);
        remove_entry(members, same_address);
        change(members);
    }
    return DS_OK;
}

enum ds_status
members_renew(struct members *members, const struct member *who,
              struct members_past past, uint64_t now_ms, struct ds_error *err)
{
    if (who->node == 0 || who->address[0] == '\0')
        return ds_fail(err, DS_INVALID, "a member needs a node id and an address");
    enum ds_status status = make_way(members, who, err);
    if (status != DS_OK)
        return status;
    learn_past(members, past, now_ms);
    struct entry *entry = find(members, who->node);
    bool is_new = entry == NULL || entry->member.incarnation != who->incarnation;
    if (entry == NULL) {
        entry = insert(members, who);
        change(members);
    } else if (entry->member.incarnation != who->incarnation ||
               entry->member.restarts != who->restarts) {
        if (is_new)
            note_lost(members, entry->renewed_ms);
        entry->member.incarnation = who->incarnation;
        entry->member.restarts = who->restarts;
        change(members);
    }
    entry->lease_until_ms = now_ms + members->lease_ms;
    entry->renewed_ms = now_ms;
    if (is_new)
        entry->member.since = next_epoch(members);
    note_old(members, entry, past, who->since);
    settle_if(members, members->old_found >= members->old_count);
    status = note(members, &entry->member.queues, who->queues, err);
    if (status == DS_OK)
        status = note(members, &entry->member.arenas, who->arenas, err);
    return status;
}

/* ---- Leaving ---- */

static struct entry *
find_arena(struct members *members, uint32_t node, uint32_t incarnation)
{
    struct entry *entry = find(members, node);
    return entry != NULL && entry->member.incarnation == incarnation ? entry : NULL;
}

bool
members_leave(struct members *members, uint32_t node, uint32_t incarnation)
{
    struct entry *entry = find_arena(members, node, incarnation);
    if (entry == NULL)
        return false;
    if (members->settling && entry->is_old)
        members->old_count--; /* It will not come. */
    remove_entry(members, entry);
    change(members);
    return true;
}

void
members_suspect(struct members *members, uint32_t node, uint32_t incarnation,
                uint64_t until_ms)
{
    struct entry *entry = find_arena(members, node, incarnation);
    if (entry != NULL)
        entry->lease_until_ms = min_u64(entry->lease_until_ms, until_ms);
}

/* Who renewed meanwhile was not heard: all have as much time as if that had not been, though
 * no more than a lease from now, as some were heard, or suspected, since. Who may serve until
 * when is by their own clocks. */
static void
make_up_for_standstill(struct members *members, uint64_t now_ms)
{
    uint64_t since_ms = members->ticked_ms == 0 ? 0 : now_ms - members->ticked_ms;
    members->ticked_ms = now_ms;
    if (since_ms <= TICKS_MS_MAX)
        return;
    uint64_t still_ms =
        since_ms - TICKS_MS_MAX; /* So that slow ticks end leases, too. */
    members->settled_at_ms += still_ms;
    for (size_t i = 0; i < members->count; i++) {
        uint64_t *until_ms = &members->entries[i].lease_until_ms;
        uint64_t latest_ms = max_u64(*until_ms, now_ms + members->lease_ms);
        *until_ms = min_u64(*until_ms + still_ms, latest_ms);
    }
}

void
members_tick(struct members *members, uint64_t now_ms)
{
    size_t kept = 0;
    make_up_for_standstill(members, now_ms);
    for (size_t i = 0; i < members->count; i++) {
        if (now_ms < members->entries[i].lease_until_ms) {
            members->entries[kept++] = members->entries[i];
        } else {
            note_lost(members, members->entries[i].renewed_ms);
            forget_old(members, &members->entries[i]);
            entry_fini(&members->entries[i]);
        }
    }
    bool changed = kept < members->count;
    members->count = kept;
    if (changed)
        change(members);
    settle_if(members, now_ms >= members->settled_at_ms);
}

/* ---- Reading ---- */

bool
members_is_settling(const struct members *members)
{
    return members->settling;
}

bool
members_lack_only(const struct members *members, uint32_t node)
{
    size_t at = position_of(members, node);
    const struct entry *entry = &members->entries[at];
    bool is_here = at < members->count && entry->member.node == node && entry->is_old;
    return members->settling && !is_here &&
           members->old_found + 1 >= members->old_count;
}

void
members_settle(struct members *members)
{
    settle_if(members, true);
}

void
members_come_after_another(struct members *members, uint64_t settled_at_ms)
{
    enum { LEAP = 1 << 20 }; /* More changes than a metastore sees in its last lease. */
    members->leap = LEAP;
    members->settled_at_ms = max_u64(members->settled_at_ms, settled_at_ms);
}

uint64_t
members_epoch(const struct members *members)
{
    return members->settling ? 0 : members->epoch;
}

uint64_t
members_version(const struct members *members)
{
    return members->version;
}

uint64_t
members_lease_ms(const struct members *members)
{
    return members->lease_ms;
}

bool
members_may_serve(const struct members *members, uint32_t node, uint32_t incarnation)
{
    size_t at = position_of(members, node);
    const struct entry *entry = &members->entries[at];
    return at < members->count && entry->member.node == node &&
           entry->member.incarnation == incarnation &&
           (!members->settling || entry->is_old);
}

uint64_t
members_away_ms(const struct members *members, uint64_t now_ms)
{
    return members->away_ms > now_ms ? members->away_ms - now_ms : 0;
}

uint64_t
members_lapse_ms(const struct members *members, uint64_t now_ms)
{
    return members->lapse_ms > now_ms ? members->lapse_ms - now_ms : 0;
}

struct members_past
members_past(const struct members *members)
{
    uint32_t count = (uint32_t)members->count;
    return (struct members_past){.epoch = members->epoch,
                                 .count =
                                     members->settling ? members->old_count : count};
}

size_t
members_count(const struct members *members)
{
    return members->count;
}

const struct member *
members_at(const struct members *members, size_t index)
{
    DS_ASSERT(index < members->count);
    return &members->entries[index].member;
}
