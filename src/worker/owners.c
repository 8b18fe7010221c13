#include "worker/owners.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "meta/members.h"
#include "meta/ring.h"
#include "os/clock.h"
#include "worker/directory.h"
#include "worker/kept_journals.h"
#include "worker/keys.h"
#include "worker/lookup.h"
#include "worker/lost_owners.h"
#include "worker/reports.h"
#include "worker/waiters.h"

#include <inttypes.h>
#include <stdlib.h>

/* A member, and the epoch of its last whole report to us. */
struct known_member {
    struct key_owner who;
    uint64_t reported;
    uint64_t
        is_back; /* The last epoch that it wanted to report for after it was away. */
};

/* Invariants: `members` and `ring` are those of `epoch`; `ready_ring` is that of the last
 * epoch which all members have reported for, and NULL before the first. */
struct owners {
    struct ring *ring; /* Owned, as the next; they may be the same. */
    struct ring *ready_ring;
    struct known_member *members; /* Owned; in the order of their nodes. */
    uint32_t count;
    uint64_t epoch;
    uint64_t epoch_before;
    uint64_t lapse_ms;   /* Until then somebody that is no member any more may serve, */
    uint64_t away_ms;    /* and may come back with what it had. */
    uint64_t lease_ds;   /* As granted; it is in the table unless was_away. */
    bool was_away;       /* And not all has been told, by us and to us, since. */
    uint64_t back_since; /* The epoch of our return for which we began anew. */
    bool
        others_went_on; /* Without us, before that: somebody was a member all the time. */
    struct lost_owners lost; /* While somebody may come back. */
};

/* ---- Who owns a key ---- */

static uint32_t
own_node(const struct worker *worker)
{
    return store_header(worker->store)->node;
}

bool
key_owner_equal(const struct key_owner *one, const struct key_owner *two)
{
    return one->node == two->node && one->incarnation == two->incarnation &&
           one->restarts == two->restarts && one->since == two->since;
}

static struct known_member *
find_member(const struct owners *owners, uint32_t node)
{
    uint32_t low = 0, high = owners->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (owners->members[middle].who.node < node)
            low = middle + 1;
        else
            high = middle;
    }
    bool is_found = low < owners->count && owners->members[low].who.node == node;
    return is_found ? &owners->members[low] : NULL;
}

static bool
is_complete(const struct owners *owners)
{
    return owners->ring != NULL && owners->ready_ring == owners->ring;
}

struct key_owner
owners_self(const struct worker *worker)
{
    const struct table_header *table = store_header(worker->store);
    struct key_owner own = {table->node, table->incarnation, (uint32_t)worker->restarts,
                            0};
    const struct known_member *member = find_member(worker->owners, own.node);
    if (member != NULL)
        own.since = member->who.since;
    return own;
}

bool
owners_is_current(const struct worker *worker)
{
    return clock_boot_ds() < store_header(worker->store)->lease_until;
}

/* We know what this key is, which the ring says is ours. */
static bool
is_known(const struct worker *worker, const struct known_member *member,
         uint32_t position)
{
    const struct owners *owners = worker->owners;
    struct key_owner own = owners_self(worker);
    return key_owner_equal(&member->who, &own) &&
           (owners_is_current(worker) || PLANTED(LEASELESS_OWNER)) &&
           (is_complete(owners) ||
            (owners->ready_ring != NULL &&
             ring_owner(owners->ready_ring, position) == own.node));
}

struct key_owner
owners_find(const struct worker *worker, struct ds_slice key)
{
    const struct owners *owners = worker->owners;
    struct key_owner nobody = {0};
    if (worker->membership == NULL)
        return owners_self(worker);
    if (owners->ring == NULL)
        return nobody;
    uint32_t position = ring_position(key);
    const struct known_member *member =
        find_member(owners, ring_owner(owners->ring, position));
    if (member == NULL ||
        (member->who.node == own_node(worker) && !is_known(worker, member, position)))
        return nobody;
    return member->who;
}

bool
owners_is_self(const struct worker *worker, const struct key_owner *owner)
{
    return owner->node == own_node(worker);
}

bool
owners_is_our_share(const struct worker *worker, struct ds_slice key)
{
    const struct ring *ring = worker->owners->ring;
    return ring != NULL && ring_owner(ring, ring_position(key)) == own_node(worker);
}

bool
owners_may_be_served(const struct worker *worker)
{
    return clock_monotonic_ms() < worker->owners->lapse_ms;
}

bool
owners_may_come_back(const struct worker *worker)
{
    return clock_monotonic_ms() < worker->owners->away_ms;
}

bool
owners_was_away(const struct worker *worker)
{
    return worker->owners->was_away;
}

/* A process that was started again does not know what the one before remembered of who was
 * away then. Who was away itself, or has been a member for no longer than the one that is back,
 * does not know better than that. */
bool
owners_remember(const struct worker *worker, const struct key_owner *member,
                struct ds_slice key)
{
    struct owners *owners = worker->owners;
    bool is_no_better = owners->was_away || owners_self(worker).since >= member->since;
    bool has_seen_it_go =
        lost_owners_has(&owners->lost, member->node, member->incarnation);
    return is_no_better || PLANTED(FORGOTTEN_OWNER) ||
           ((has_seen_it_go || worker->restarts == 0) &&
            lost_owners_none_since(&owners->lost, member->node, member->incarnation,
                                   key));
}

/* ---- When we know what our keys are ---- */

static bool
all_have_reported(const struct worker *worker)
{
    const struct owners *owners = worker->owners;
    for (uint32_t i = 0; i < owners->count; i++) {
        const struct known_member *member = &owners->members[i];
        if (member->who.node != own_node(worker) && member->reported < owners->epoch)
            return false;
    }
    return true;
}

static void
complete_if_all_have_reported(struct worker *worker)
{
    struct owners *owners = worker->owners;
    bool is_told = !owners->was_away || list_is_empty(&worker->reports);
    if (owners->ring == NULL || is_complete(owners) || !is_told ||
        !all_have_reported(worker) ||
        (clock_monotonic_ms() < owners->lapse_ms && !PLANTED(NO_LAPSE)))
        return;
    ring_destroy(owners->ready_ring);
    owners->ready_ring = owners->ring;
    owners->was_away = false;
    store_set_lease(worker->store, owners->lease_ds);
    store_set_known_epoch(worker->store, owners->epoch);
    log_info("worker knows its keys epoch=%" PRIu64 " elsewhere=%zu", owners->epoch,
             directory_count(worker->directory));
    keys_retry(worker);
}

void
owners_reported(struct worker *worker, const struct key_owner *member, uint64_t epoch)
{
    struct known_member *known = find_member(worker->owners, member->node);
    if (known == NULL || !key_owner_equal(&known->who, member))
        return;
    if (known->reported < epoch)
        known->reported = epoch;
    complete_if_all_have_reported(worker);
}

bool
owners_listen(struct worker *worker, const struct key_owner *member, uint64_t epoch)
{
    struct owners *owners = worker->owners;
    struct known_member *known = find_member(owners, member->node);
    if (known != NULL && key_owner_equal(&known->who, member))
        known->is_back = max_u64(known->is_back, epoch);
    for (uint32_t i = 0; i < owners->count; i++) {
        const struct known_member *other = &owners->members[i];
        if (other->who.node != own_node(worker) && other->reported < owners->epoch &&
            other->is_back < owners->epoch)
            return false;
    }
    return true;
}

/* ---- Another epoch ---- */

static struct ring *
make_ring(const struct member *members, uint32_t count)
{
    uint32_t *nodes = calloc((size_t)count + 1, sizeof *nodes);
    struct ring *ring = NULL;
    for (uint32_t i = 0; nodes != NULL && i < count; i++)
        nodes[i] = members[i].node;
    if (nodes != NULL && ring_create(nodes, count, &ring, NULL) != DS_OK)
        ring = NULL;
    free(nodes);
    return ring;
}

/* The epoch of our return, if the others went on without us after the last that we had part
 * in; else 0. */
static uint64_t
find_return(const struct worker *worker, const struct next_members *next)
{
    uint64_t known = store_header(worker->store)->known_epoch;
    for (uint32_t i = 0; i < next->count; i++) {
        const struct member *member = &next->members[i];
        if (member->node == own_node(worker) && known != 0 && member->since > known &&
            !PLANTED(KEPT_TABLE))
            return member->since;
    }
    return 0;
}

static void
end_lease(struct worker *worker)
{
    uint64_t now = clock_boot_ds();
    if (store_header(worker->store)->lease_until > now)
        store_set_lease(worker->store, now);
}

/* It still is remembered what was deleted meanwhile. */
static bool
is_soon(const struct worker *worker)
{
    enum { MS_PER_DS = 100 };
    uint64_t ended_ds = store_header(worker->store)->lease_until;
    return clock_boot_ds() < ended_ds + MEMBER_AWAY_MS / MS_PER_DS;
}

/* Keys of users' objects that cannot be believed any more. */
struct own_keys {
    struct worker *worker;
    struct lost_owners *lost; /* NULL: whosever they were. */
    struct writer keys;
    uint32_t count;
};

static void
collect_own(const struct object_view *view, struct ds_slice key, void *arg)
{
    struct own_keys *own = arg;
    bool is_lost = own->lost == NULL || (owners_is_our_share(own->worker, key) &&
                                         lost_owners_had(own->lost, key));
    if ((view->flags & SLOT_FLAG_BLOCK) != 0 || !is_lost)
        return;
    write_short_bytes(&own->keys, key);
    own->count += !own->keys.failed;
}

static void
forget_own(struct worker *worker, struct lost_owners *lost, const char *reason)
{
    struct own_keys own = {.worker = worker, .lost = lost};
    store_each(worker->store, collect_own, &own);
    struct reader reader = reader_of(own.keys.data, own.keys.len);
    for (uint32_t i = 0; i < own.count; i++)
        (void)store_delete(worker->store, read_short_bytes(&reader), clock_boot_ds());
    if (own.count > 0 || lost == NULL)
        log_warn("worker lets go of %" PRIu32 " objects of users reason=\"%s\"",
                 own.count, reason);
    writer_fini(&own.keys);
}

/* NULL: it belongs no more, or another arena is in its place. */
static const struct member *
find_next(const struct known_member *known, const struct next_members *next)
{
    for (uint32_t i = 0; i < next->count; i++) {
        const struct member *member = &next->members[i];
        if (member->node == known->who.node &&
            member->incarnation == known->who.incarnation)
            return member;
    }
    return NULL;
}

/* It was a member all the time that we were none. */
static bool
has_stayed(const struct known_member *known, const struct member *member)
{
    return member != NULL && member->since == known->who.since;
}

static bool
has_anybody_stayed(const struct owners *owners, const struct next_members *next)
{
    bool has_anybody = false;
    for (uint32_t i = 0; i < owners->count; i++) {
        const struct known_member *known = &owners->members[i];
        has_anybody = has_anybody || has_stayed(known, find_next(known, next));
    }
    return has_anybody;
}

/* Those that owned our keys while we were away, without us, and are other processes by now, or
 * gone, before they told us what they knew: what was deleted then nobody tells us. False when
 * out of memory. */
static bool
find_forgetful(const struct worker *worker, const struct next_members *next,
               uint64_t back_since, struct lost_owners *out)
{
    const struct owners *owners = worker->owners;
    struct past_member *past = calloc((size_t)owners->count + 1, sizeof *past);
    uint32_t count = 0;
    bool is_any = false;
    for (uint32_t i = 0; past != NULL && i < owners->count; i++) {
        const struct known_member *known = &owners->members[i];
        const struct member *member = find_next(known, next);
        if (known->who.node == own_node(worker) || known->who.since >= back_since)
            continue;
        bool is_other =
            has_stayed(known, member) && member->restarts != known->who.restarts;
        bool is_forgetful = (member == NULL || is_other) &&
                            known->reported < back_since && !PLANTED(FORGOTTEN_OWNER);
        past[count++] =
            (struct past_member){known->who.node, known->who.incarnation, is_forgetful};
        is_any = is_any || is_forgetful;
    }
    bool is_noted = past != NULL && (!is_any || lost_owners_add(out, past, count));
    free(past);
    return is_noted;
}

static void
begin_anew(struct worker *worker)
{
    struct owners *owners = worker->owners;
    if (!owners->was_away)
        log_warn("worker was no member for a while, and asks what its keys are "
                 "epoch=%" PRIu64,
                 owners->epoch);
    if (!owners->was_away && !is_soon(worker))
        forget_own(worker, NULL, "was away for too long");
    owners->was_away = true;
    end_lease(worker);
    if (owners->ready_ring != owners->ring)
        ring_destroy(owners->ready_ring);
    owners->ready_ring = NULL;
    owners->epoch_before = 0;
}

static bool
is_same(const struct known_member *known, const struct member *member)
{
    struct key_owner who = {member->node, member->incarnation, member->restarts,
                            member->since};
    return key_owner_equal(&known->who, &who);
}

/* Notes who is gone, if somebody is. False when out of memory. */
static bool
note_lost(const struct worker *worker, const struct next_members *next)
{
    struct owners *owners = worker->owners;
    struct past_member *past = calloc((size_t)owners->count + 1, sizeof *past);
    bool is_anybody_gone = false;
    uint32_t at = 0;
    for (uint32_t i = 0; past != NULL && i < owners->count; i++) {
        const struct known_member *known = &owners->members[i];
        while (at < next->count && next->members[at].node < known->who.node)
            at++;
        bool is_gone = at == next->count || !is_same(known, &next->members[at]);
        bool is_other = is_gone && known->who.node != own_node(worker);
        past[i] =
            (struct past_member){known->who.node, known->who.incarnation, is_other};
        is_anybody_gone = is_anybody_gone || is_other;
    }
    bool is_noted =
        past != NULL &&
        (!is_anybody_gone || lost_owners_add(&owners->lost, past, owners->count));
    free(past);
    return is_noted;
}

/* Of an epoch for which not all had reported: what was ours before may have been another's
 * in it, so we know nothing before all report for the next. */
static void
forget_ring(struct owners *owners)
{
    if (owners->ring == owners->ready_ring)
        return;
    ring_destroy(owners->ring);
    ring_destroy(owners->ready_ring);
    owners->ready_ring = NULL;
}

bool
owners_changed(struct worker *worker, const struct next_members *next)
{
    struct owners *owners = worker->owners;
    const struct member *members = next->members;
    uint32_t count = next->count;
    struct known_member *known = calloc((size_t)count + 1, sizeof *known);
    struct ring *ring = make_ring(members, count);
    uint64_t back_since = find_return(worker, next);
    bool is_anew = back_since != 0 && back_since != owners->back_since;
    bool others_went_on =
        is_anew ? has_anybody_stayed(owners, next) : owners->others_went_on;
    struct report_to to = {next->epoch, ring, members, count, back_since != 0};
    struct lost_owners forgetful;
    lost_owners_init(&forgetful);
    if (known == NULL || ring == NULL || !note_lost(worker, next) ||
        (back_since != 0 && others_went_on &&
         !find_forgetful(worker, next, back_since, &forgetful)) ||
        !reports_members_changed(worker, &to)) {
        lost_owners_forget(&forgetful);
        free(known);
        ring_destroy(ring);
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        known[i].who = (struct key_owner){members[i].node, members[i].incarnation,
                                          members[i].restarts, members[i].since};
        const struct known_member *before = find_member(owners, members[i].node);
        if (before != NULL && key_owner_equal(&before->who, &known[i].who))
            known[i] = *before;
    }
    forget_ring(owners);
    free(owners->members);
    owners->members = known;
    owners->count = count;
    owners->ring = ring;
    owners->epoch_before = owners->epoch;
    owners->epoch = next->epoch;
    uint64_t now = clock_monotonic_ms();
    owners->lapse_ms = max_u64(owners->lapse_ms, now + next->lapse_ms);
    owners->away_ms = max_u64(owners->away_ms, now + next->away_ms);
    if (is_anew) {
        owners->back_since = back_since;
        owners->others_went_on = others_went_on;
        lost_owners_forget(&owners->lost);
        begin_anew(worker);
        kept_journals_drop_all(worker);
    }
    if (!list_is_empty(&forgetful.epochs))
        forget_own(worker, &forgetful, "who owned their keys meanwhile is gone");
    lost_owners_forget(&forgetful);
    directory_forget(worker, is_anew);
    return true;
}

void
owners_set_lease(struct worker *worker, uint64_t until_ds)
{
    worker->owners->lease_ds = until_ds;
    if (store_header(worker->store)->known_epoch == 0)
        store_set_known_epoch(worker->store, worker->owners->epoch);
    if (!worker->owners->was_away)
        store_set_lease(worker->store, until_ds);
}

void
owners_tick(struct worker *worker)
{
    complete_if_all_have_reported(worker);
    if (!owners_may_come_back(worker)) {
        directory_forget_deleted(worker);
        lost_owners_forget(&worker->owners->lost);
    }
    reports_tick(worker);
    keys_retry(worker);
}

void
owners_look_again(struct worker *worker)
{
    owners_tick(worker);
    waiters_look_again(worker, key_orders_find);
    waiters_look_again(worker, lookup_user_keys);
}

uint64_t
owners_epoch(const struct owners *owners)
{
    return owners->epoch;
}

const struct ring *
owners_ring(const struct owners *owners)
{
    return owners->ring;
}

bool
owners_has_member(const struct owners *owners, const struct key_owner *member)
{
    const struct known_member *known = find_member(owners, member->node);
    return known != NULL && key_owner_equal(&known->who, member);
}

bool
owners_stayed_since(const struct worker *worker, uint32_t node, uint32_t restarts,
                    uint64_t epoch)
{
    const struct known_member *known = find_member(worker->owners, node);
    return known != NULL && known->who.restarts == restarts &&
           epoch >= known->who.since && epoch >= owners_self(worker).since;
}

uint64_t
owners_epoch_before(const struct owners *owners)
{
    return owners->epoch_before;
}

/* ---- Life ---- */

enum ds_status
owners_open(struct owners **out, struct ds_error *err)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for the owners of keys");
    lost_owners_init(&(*out)->lost);
    return DS_OK;
}

void
owners_close(struct owners *owners)
{
    if (owners == NULL)
        return;
    if (owners->ring != owners->ready_ring)
        ring_destroy(owners->ring);
    ring_destroy(owners->ready_ring);
    lost_owners_forget(&owners->lost);
    free(owners->members);
    free(owners);
}
