/* What becomes of users' keys when a node was away. Who comes back has values of the past:
 * none that was deleted or changed meanwhile may be served again, so it matters who owned its
 * key then, and whether that one still is there to say so, or has handed on what it knew.
 *
 *      another is back  ──► it reports what it has ──► taken, or refused, as who owned the key
 *                           meanwhile is gone (owners_remember), which one that came since was
 *                           told (owners_tell_lost)
 *      we are back      ──► what is ours by the ring goes, if who owned it meanwhile is gone
 *                           before it told us what it knew (owners_find_forgetful)
 *
 * Owner: loop thread. */
#include "base/log.h"
#include "base/planted.h"
#include "base/slice.h"
#include "os/clock.h"
#include "worker/objects.h"
#include "worker/owners_internal.h"

#include <inttypes.h>
#include <stdlib.h>

/* A member of whom we knew, and what is known of it now. */
struct then_and_now {
    const struct known_member *then;
    const struct member *now; /* NULL: it belongs no more, or has another arena. */
};

static struct then_and_now
compare(const struct known_member *then, const struct next_members *next)
{
    struct then_and_now both = {then, NULL};
    for (uint32_t i = 0; i < next->count && both.now == NULL; i++) {
        const struct member *member = &next->members[i];
        if (member->node == then->who.node &&
            member->incarnation == then->who.incarnation)
            both.now = member;
    }
    return both;
}

/* It was a member all the time, maybe as another process. */
static bool
has_stayed(struct then_and_now both)
{
    return both.now != NULL && both.now->since == both.then->who.since;
}

/* And it knows what it knew. */
static bool
is_same(struct then_and_now both)
{
    return has_stayed(both) && both.now->restarts == both.then->who.restarts;
}

static bool
is_self(const struct worker *worker, const struct known_member *member)
{
    return member->who.node == store_header(worker->store)->node;
}

static struct past_member
past_of(struct then_and_now both, bool is_gone)
{
    const struct key_owner *who = &both.then->who;
    return (struct past_member){who->node, who->incarnation, is_gone,
                                is_gone && !has_stayed(both)};
}

/* Of a ring in which some owners are gone. Nothing is noted where none is. False when out of
 * memory. */
static bool
note(struct lost_owners *lost, const struct past_member *past, uint32_t count)
{
    bool is_any = false;
    for (uint32_t i = 0; i < count; i++)
        is_any = is_any || past[i].is_gone;
    return !is_any || lost_owners_add(lost, past, count);
}

/* ---- Another one is back ---- */

/* Who is gone, by the ring of the members that we knew. */
static bool
note_of_ring(const struct worker *worker, const struct next_members *next,
             struct past_member *past)
{
    struct owners *owners = worker->owners;
    for (uint32_t i = 0; i < owners->count; i++) {
        struct then_and_now both = compare(&owners->members[i], next);
        past[i] = past_of(both, !is_self(worker, both.then) && !is_same(both));
    }
    return note(&owners->lost, past, owners->count);
}

/* Who is gone before it told us of the keys that came to us: of the members before the epoch
 * that we know our keys of, or before us. Those that went since are noted by their own. */
static bool
note_unreported(const struct worker *worker, const struct next_members *next,
                struct past_member *past)
{
    struct owners *owners = worker->owners;
    uint64_t before = owners->ready_epoch + 1;
    uint32_t count = 0;
    if (owners->ready_epoch == 0)
        before = owners_self(worker).since;
    for (uint32_t i = 0; i < owners->count; i++) {
        const struct known_member *member = &owners->members[i];
        struct then_and_now both = compare(member, next);
        bool is_gone = !is_self(worker, member) && member->reported < owners->epoch &&
                       !is_same(both);
        if (member->who.since < before)
            past[count++] = past_of(both, is_gone);
    }
    return note(&owners->lost, past, count);
}

bool
owners_note_lost(const struct worker *worker, const struct next_members *next)
{
    const struct owners *owners = worker->owners;
    struct past_member *past = calloc((size_t)owners->count + 1, sizeof *past);
    bool is_noted =
        past != NULL &&
        (owners_is_complete(owners) || note_unreported(worker, next, past)) &&
        note_of_ring(worker, next, past);
    free(past);
    return is_noted;
}

/* A process that was started again does not know what the one before remembered of who was
 * away then. Who was away itself does not know better than the one that is back, and whoever
 * became a member after that was told by those that know. */
bool
owners_remember(const struct worker *worker, const struct key_owner *member,
                struct ds_slice key)
{
    struct owners *owners = worker->owners;
    bool came_later = owners_self(worker).since >= member->since;
    bool has_seen_it_go =
        lost_owners_has(&owners->lost, member->node, member->incarnation);
    bool may_know = came_later || has_seen_it_go || worker->restarts == 0;
    return owners->was_away || PLANTED(FORGOTTEN_OWNER) ||
           (may_know && lost_owners_none_since(&owners->lost, member->node,
                                               member->incarnation, key));
}

/* A process that was started again has not seen all. */
static bool
is_eldest(const struct worker *worker)
{
    const struct owners *owners = worker->owners;
    const struct known_member *eldest = NULL;
    for (uint32_t i = 0; i < owners->count; i++) {
        const struct known_member *member = &owners->members[i];
        if (member->who.restarts == 0 &&
            (eldest == NULL || member->who.since < eldest->who.since))
            eldest = member;
    }
    return eldest != NULL && is_self(worker, eldest);
}

void
owners_tell_lost(const struct worker *worker, struct writer *out)
{
    if (is_eldest(worker))
        lost_owners_encode(&worker->owners->lost, out);
}

/* Who was away, or whose process before knew it, judges in another way (owners_remember). */
bool
owners_hear_lost(struct worker *worker, struct ds_slice lost)
{
    struct owners *owners = worker->owners;
    if (lost.len == 0 || owners->was_away || worker->restarts > 0 ||
        !owners_may_come_back(worker) || PLANTED(FORGOTTEN_OWNER))
        return true;
    return lost_owners_hear(&owners->lost, lost);
}

/* ---- We are back ---- */

uint64_t
owners_find_return(const struct worker *worker, const struct next_members *next)
{
    const struct table_header *table = store_header(worker->store);
    uint64_t known = table->known_epoch;
    for (uint32_t i = 0; i < next->count; i++) {
        const struct member *member = &next->members[i];
        if (member->node == table->node && known != 0 && member->since > known &&
            !PLANTED(KEPT_TABLE))
            return member->since;
    }
    return 0;
}

static bool
has_anybody_stayed(const struct owners *owners, const struct next_members *next)
{
    bool has_anybody = false;
    for (uint32_t i = 0; i < owners->count; i++)
        has_anybody = has_anybody || has_stayed(compare(&owners->members[i], next));
    return has_anybody;
}

bool
owners_find_forgetful(const struct worker *worker, const struct next_members *next,
                      uint64_t back_since, struct lost_owners *out)
{
    struct owners *owners = worker->owners;
    struct past_member *past = calloc((size_t)owners->count + 1, sizeof *past);
    uint32_t count = 0;
    if (back_since != owners->back_since)
        owners->others_went_on = has_anybody_stayed(owners, next);
    for (uint32_t i = 0; past != NULL && i < owners->count; i++) {
        const struct known_member *member = &owners->members[i];
        struct then_and_now both = compare(member, next);
        bool is_gone = both.now == NULL || (has_stayed(both) && !is_same(both));
        bool has_told = member->reported >= back_since || PLANTED(FORGOTTEN_OWNER);
        if (!is_self(worker, member) && member->who.since < back_since)
            past[count++] = past_of(both, is_gone && !has_told);
    }
    bool is_noted = past != NULL && (!owners->others_went_on || note(out, past, count));
    free(past);
    return is_noted;
}

/* Users' keys that cannot be believed any more. */
struct stale_keys {
    struct worker *worker;
    struct lost_owners *of; /* NULL: whosever they were. */
    struct writer keys;
    uint32_t count;
};

static void
collect_stale(const struct object_view *view, struct ds_slice key, void *arg)
{
    struct stale_keys *stale = arg;
    bool is_stale = stale->of == NULL || (owners_is_our_share(stale->worker, key) &&
                                          lost_owners_had(stale->of, key));
    if ((view->flags & SLOT_FLAG_BLOCK) != 0 || !is_stale)
        return;
    write_short_bytes(&stale->keys, key);
    stale->count += !stale->keys.failed;
}

static void
forget_stale(struct worker *worker, struct lost_owners *of, const char *reason)
{
    struct stale_keys stale = {.worker = worker, .of = of};
    store_each(worker->store, collect_stale, &stale);
    struct reader reader = reader_of(stale.keys.data, stale.keys.len);
    for (uint32_t i = 0; i < stale.count; i++)
        (void)store_delete(worker->store, read_short_bytes(&reader), clock_boot_ds());
    if (stale.count > 0 || of == NULL)
        log_warn("worker lets go of %" PRIu32 " objects of users reason=\"%s\"",
                 stale.count, reason);
    writer_fini(&stale.keys);
}

void
owners_forget_theirs(struct worker *worker, struct lost_owners *forgetful)
{
    if (!list_is_empty(&forgetful->seen))
        forget_stale(worker, forgetful, "who owned their keys meanwhile is gone");
}

/* It still is remembered what was deleted meanwhile. */
static bool
is_soon(const struct worker *worker)
{
    enum { MS_PER_DS = 100 };
    uint64_t ended_ds = store_header(worker->store)->lease_until;
    return clock_boot_ds() < ended_ds + MEMBER_AWAY_MS / MS_PER_DS;
}

static void
end_lease(struct worker *worker)
{
    uint64_t now = clock_boot_ds();
    if (store_header(worker->store)->lease_until > now)
        store_set_lease(worker->store, now);
}

void
owners_begin_anew(struct worker *worker)
{
    struct owners *owners = worker->owners;
    if (!owners->was_away)
        log_warn("worker was no member for a while, and asks what its keys are "
                 "epoch=%" PRIu64,
                 owners->epoch);
    if (!owners->was_away && !is_soon(worker))
        forget_stale(worker, NULL, "was away for too long");
    owners->was_away = true;
    end_lease(worker);
    lost_owners_forget(&owners->lost);
    if (owners->ready_ring != owners->ring)
        ring_destroy(owners->ready_ring);
    owners->ready_ring = NULL;
    owners->ready_epoch = 0;
    owners->epoch_before = 0;
}
