#include "worker/owners_internal.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "worker/directory.h"
#include "worker/kept_journals.h"
#include "worker/keys.h"
#include "worker/lookup.h"
#include "worker/reports.h"
#include "worker/waiters.h"

#include <inttypes.h>
#include <stdlib.h>

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

bool
owners_is_complete(const struct owners *owners)
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
           (owners_is_complete(owners) ||
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
owners_knew(const struct worker *worker, struct ds_slice key)
{
    const struct owners *owners = worker->owners;
    return owners->ready_ring != NULL && !owners->was_away &&
           owners_is_our_share(worker, key) &&
           ring_owner(owners->ready_ring, ring_position(key)) == own_node(worker);
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

/* ---- When we know what our keys are ---- */

/* To all others it is known what there was in that epoch, which they have reported for or come
 * after. */
static bool
all_know(const struct worker *worker, uint64_t epoch)
{
    const struct owners *owners = worker->owners;
    for (uint32_t i = 0; i < owners->count; i++) {
        const struct known_member *member = &owners->members[i];
        if (member->who.node != own_node(worker) && member->reported < epoch &&
            member->who.since <= epoch)
            return false;
    }
    return true;
}

bool
owners_all_know_us(const struct worker *worker)
{
    uint64_t since = owners_self(worker).since;
    return since > 0 && all_know(worker, since);
}

static void
complete_if_all_have_reported(struct worker *worker)
{
    struct owners *owners = worker->owners;
    bool is_told = !owners->was_away || list_is_empty(&worker->reports);
    if (owners->ring == NULL || owners_is_complete(owners) || !is_told ||
        !all_know(worker, owners->epoch) ||
        (clock_monotonic_ms() < owners->lapse_ms && !PLANTED(NO_LAPSE)))
        return;
    ring_destroy(owners->ready_ring);
    owners->ready_ring = owners->ring;
    owners->ready_epoch = owners->epoch;
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
owners_knows_later(const struct worker *worker, const struct key_owner *member,
                   uint64_t epoch)
{
    const struct known_member *known = find_member(worker->owners, member->node);
    return epoch < owners_self(worker).since ||
           (known != NULL && key_owner_equal(&known->who, member) &&
            epoch < known->reported);
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
    uint64_t back_since = owners_find_return(worker, next);
    bool is_anew = back_since != 0 && back_since != owners->back_since;
    struct report_to to = {next->epoch, ring, members, count, back_since != 0};
    AUTO_WRITER(ours);
    struct lost_owners forgetful;
    lost_owners_init(&forgetful);
    if (known == NULL || ring == NULL || !owners_note_lost(worker, next) ||
        (back_since != 0 &&
         !owners_find_forgetful(worker, next, back_since, &forgetful)) ||
        !reports_members_changed(worker, &to, &ours)) {
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
        owners_begin_anew(worker);
        kept_journals_drop_all(worker);
    }
    owners_forget_theirs(worker, &forgetful);
    lost_owners_forget(&forgetful);
    directory_forget(worker, is_anew);
    if (!reports_take_ours(worker, &ours))
        log_warn("worker is out of memory for keys that were deleted, or are bound");
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
