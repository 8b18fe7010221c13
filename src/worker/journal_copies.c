#include "worker/journal_copies_internal.h"

#include "base/log.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/status.h"
#include "meta/members.h"
#include "os/append_file.h"
#include "os/clock.h"
#include "worker/journal_drop.h"
#include "worker/kept_journals.h"
#include "worker/membership.h"
#include "worker/owners.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LATE_MS = 1000 };

/* ---- Answering ---- */

uint32_t
journal_copies_count(const struct journal_copies *copies)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < JOURNAL_COPIES_MAX; i++) {
        const struct keeper *keeper = &copies->keepers[i];
        count += keeper->node != 0 && copies->has_sync &&
                 journal_keeper_has_all(copies, keeper);
    }
    return count;
}

/* Who is late is waited for until we know that it was not us who were cut off; all
 * say then whether somebody has our place. */
static bool
is_waited_for(const struct journal_copies *copies, const struct keeper *keeper)
{
    return keeper->node != 0 &&
           (keeper->late_ds == 0 || keeper->is_promised ||
            membership_confirmed_ds(copies->worker->membership) <= keeper->late_ds);
}

/* Everybody who is waited for has it, and has answered since the members are these: who was
 * no member for a while may have a successor. */
static bool
is_copied(const struct journal_copies *copies)
{
    for (uint32_t i = 0; i < JOURNAL_COPIES_MAX && !PLANTED(UNCOPIED_SYNC); i++) {
        const struct keeper *keeper = &copies->keepers[i];
        if (is_waited_for(copies, keeper) &&
            (!journal_keeper_has_all(copies, keeper) || keeper->number == 0))
            return false;
        if (keeper->node != 0 && copies->was_away && !keeper->has_spoken)
            return false;
    }
    return copies->epoch > 0;
}

bool
journal_copies_have_lease(const struct journal_copies *copies)
{
    return owners_is_current(copies->worker) && copies->is_known;
}

bool
journal_copies_is_unsure(const struct journal_copies *copies)
{
    return copies->was_away || !copies->has_answered ||
           !owners_is_current(copies->worker);
}

/* Each has answered since we were asked, so none has heard of another controller. */
static bool
is_confirmed(const struct journal_copies *copies)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < JOURNAL_COPIES_MAX; i++) {
        const struct keeper *keeper = &copies->keepers[i];
        if (keeper->node == 0)
            continue;
        if (!journal_keeper_has_all(copies, keeper) ||
            keeper->number < copies->sync.number)
            return false;
        count++;
    }
    return count > 0;
}

static void
refuse(struct journal_copies *copies)
{
    struct ds_error err = {0};
    (void)ds_fail(&err, DS_EXISTS, "another controller goes on with queue %s",
                  copies->name);
    conn_reply_error(copies->session->conn, &copies->header, &err);
    copies->is_asked = false;
}

static void
answer_if_safe(struct journal_copies *copies)
{
    if (!copies->is_asked || copies->worker->membership == NULL)
        return;
    if (copies->is_superseded) {
        refuse(copies);
        return;
    }
    bool has_lease = journal_copies_have_lease(copies) || PLANTED(LEASELESS_SYNC);
    if (!(has_lease && is_copied(copies)) &&
        !(copies->is_settled && is_confirmed(copies)))
        return;
    copies->is_settled |= has_lease;
    copies->is_asked = false;
    copies->was_away &= !copies->is_known;
    copies->has_answered = true;
    copies->is_attempt = false;
    kept_journals_note_past(copies->worker, copies->name, copies->term);
    struct journal_synced message = {.number = copies->sync.number};
    if (has_lease)
        message.lease_until = store_header(copies->worker->store)->lease_until;
    AUTO_WRITER(body);
    encode_journal_synced(&body, &message);
    session_reply(copies->session, &copies->header, &body);
}

void
journal_copies_supersede(struct journal_copies *copies)
{
    if (!copies->is_superseded) {
        log_warn("worker queue %s: another controller goes on with it", copies->name);
        if (copies->is_attempt)
            journal_drop(copies->worker, copies->name, copies->term, JOURNAL_ATTEMPT,
                         NULL, 0);
    }
    copies->is_superseded = true;
    answer_if_safe(copies);
}

void
journal_copies_step(struct journal_copies *copies)
{
    for (uint32_t i = 0; i < JOURNAL_COPIES_MAX; i++)
        journal_keeper_step(copies, &copies->keepers[i]);
    answer_if_safe(copies);
}

void
journal_copies_sync(struct journal_copies *copies, const struct frame_header *header,
                    const struct journal_sync *sync)
{
    copies->header = *header;
    copies->sync = *sync;
    copies->has_sync = true;
    copies->is_asked = true;
    copies->asked_ms = clock_monotonic_ms();
    journal_copies_step(copies);
}

/* ---- Keepers ---- */

static struct keeper *
keeper_at(struct journal_copies *copies, uint32_t node)
{
    for (uint32_t i = 0; i < JOURNAL_COPIES_MAX; i++) {
        if (copies->keepers[i].node == node)
            return &copies->keepers[i];
    }
    return NULL;
}

/* The next member behind us that is none yet. */
static const struct member *
find_keeper(struct journal_copies *copies)
{
    uint32_t own = store_header(copies->worker->store)->node;
    const struct membership *membership = copies->worker->membership;
    const struct member *member = membership_next(membership, own, NULL);
    while (member != NULL && keeper_at(copies, member->node) != NULL)
        member = membership_next(membership, own, member);
    return member;
}

/* Is no keeper any more, if it is another member now: who was none for a while has dropped
 * what it kept. */
static void
forget_if_gone(struct journal_copies *copies, struct keeper *keeper)
{
    const struct member *member =
        membership_find(copies->worker->membership, keeper->node);
    if (member != NULL && member->incarnation == keeper->incarnation &&
        member->since == keeper->since)
        return;
    journal_keeper_let_go(keeper);
    *keeper = (struct keeper){0};
}

/* What they have said was before something that they have to know. Each has its second to
 * answer anew. */
static void
hear_all_again(struct journal_copies *copies)
{
    for (uint32_t i = 0; i < JOURNAL_COPIES_MAX; i++) {
        copies->keepers[i].number = 0;
        copies->keepers[i].has_spoken = false;
    }
    copies->asked_ms = clock_monotonic_ms();
}

/* Who comes later is not waited for until it has all, which may be much. */
static void
choose(struct journal_copies *copies)
{
    struct worker *worker = copies->worker;
    uint64_t epoch = owners_epoch(worker->owners);
    if (epoch == copies->epoch)
        return;
    uint64_t since = owners_self(worker).since;
    bool is_back = copies->since != 0 && since != copies->since;
    copies->was_away |= is_back || owners_was_away(worker);
    copies->is_known &= !is_back;
    copies->since = since;
    hear_all_again(copies);
    for (uint32_t i = 0; i < copies->keepers_max; i++) {
        struct keeper *keeper = &copies->keepers[i];
        forget_if_gone(copies, keeper);
        const struct member *member = keeper->node == 0 ? find_keeper(copies) : NULL;
        if (member == NULL)
            continue;
        *keeper = (struct keeper){.node = member->node,
                                  .incarnation = member->incarnation,
                                  .since = member->since,
                                  .late_ds = copies->epoch > 0 ? clock_boot_ds() : 0};
    }
    copies->epoch = epoch;
}

/* A process of ours that has just begun, or that the controller has just found, may be no
 * member yet to somebody who is about to go on with the queue: the keepers are heard once
 * more when all know. */
static void
note_known(struct journal_copies *copies)
{
    struct worker *worker = copies->worker;
    if (copies->is_known || copies->epoch == 0 || !owners_all_know_us(worker))
        return;
    copies->is_known = true;
    hear_all_again(copies);
}

/* Who takes piece after piece of a long journal is not late. */
static void
note_late(struct journal_copies *copies)
{
    uint64_t now = clock_monotonic_ms();
    for (uint32_t i = 0; copies->is_asked && i < JOURNAL_COPIES_MAX; i++) {
        struct keeper *keeper = &copies->keepers[i];
        bool is_done = journal_keeper_has_all(copies, keeper) && keeper->number > 0;
        if (keeper->node == 0 || keeper->late_ds != 0 || is_done ||
            now < max_u64(copies->asked_ms, keeper->heard_ms) + LATE_MS)
            continue;
        keeper->late_ds = clock_boot_ds();
        log_warn("worker queue %s: node %" PRIu32
                 " does not keep up with its journal, and is not waited for",
                 copies->name, keeper->node);
    }
}

/* ---- Copies that are of no use any more ---- */

void
journal_copies_end(struct journal_copies *copies)
{
    journal_drop(copies->worker, copies->name, copies->term, JOURNAL_WHOLE, NULL, 0);
}

/* Who kept a copy for the controller's process before this one, or before we chose others,
 * has an old one: once the keepers have all, it goes. */
static void
drop_others(struct journal_copies *copies)
{
    uint32_t count = journal_copies_count(copies);
    if (copies->dropped_epoch == copies->epoch || count < copies->keepers_max)
        return;
    uint32_t nodes[JOURNAL_COPIES_MAX];
    for (uint32_t i = 0; i < JOURNAL_COPIES_MAX; i++)
        nodes[i] = copies->keepers[i].node;
    copies->dropped_epoch = copies->epoch;
    journal_drop(copies->worker, copies->name, copies->term, JOURNAL_WHOLE, nodes,
                 JOURNAL_COPIES_MAX);
}

void
journal_copies_tick(struct journal_copies *copies)
{
    for (uint32_t i = 0; i < JOURNAL_COPIES_MAX; i++)
        copies->keepers[i].rests = false;
    choose(copies);
    note_known(copies);
    note_late(copies);
    journal_copies_step(copies);
    drop_others(copies);
}

/* ---- Life ---- */

enum ds_status
journal_copies_open(struct session *session, const struct queue_serve *serve,
                    struct journal_copies **out, struct ds_error *err)
{
    struct journal_copies *copies = calloc(1, sizeof *copies);
    char *path = calloc(1, serve->journal_path.len + 1);
    if (copies == NULL || path == NULL) {
        free(copies);
        free(path);
        return ds_fail(err, DS_NO_MEMORY, "worker is out of memory for a queue");
    }
    memcpy(path, serve->journal_path.data, serve->journal_path.len);
    memcpy(copies->name, serve->place.name.data, serve->place.name.len);
    copies->worker = session->worker;
    copies->session = session;
    copies->term = serve->place.term;
    copies->path = path;
    copies->keepers_max = serve->copies_max;
    copies->is_attempt = !serve->has_answered;
    choose(copies);
    note_known(copies);
    *out = copies;
    return DS_OK;
}

void
journal_copies_close(struct journal_copies *copies)
{
    if (copies == NULL)
        return;
    for (uint32_t i = 0; i < JOURNAL_COPIES_MAX; i++)
        journal_keeper_let_go(&copies->keepers[i]);
    append_file_close(copies->file);
    free(copies->path);
    free(copies);
}
