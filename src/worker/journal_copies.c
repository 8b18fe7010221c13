#include "worker/journal_copies.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "meta/members.h"
#include "os/append_file.h"
#include "os/clock.h"
#include "worker/journal_drop.h"
#include "worker/kept_journals.h"
#include "worker/membership.h"
#include "worker/owners.h"
#include "worker/peers.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LATE_MS = 1000 };

/* Who keeps a copy. node 0: nobody. */
struct keeper {
    uint32_t node;
    uint32_t incarnation;
    uint64_t since;      /* A member without a gap since that epoch. */
    struct piece *piece; /* Under way; NULL: none. */
    uint64_t id;         /* Of the journal that it has `bytes` of, */
    uint64_t bytes;
    uint64_t sequence; /* and, as far as it is whole, all before this record. */
    uint64_t number;   /* Of the latest request that it has answered something for, with
                        the members that are known now; 0: of none. */
    uint64_t heard_ms; /* When it took the last piece. */
    uint64_t late_ds;  /* Late since then (CLOCK_BOOTTIME); 0: it is not. */
    /* Since the members are these, and knows of no successor of ours. */
    bool has_spoken;
    bool is_promised; /* To somebody who may go on with the queue: so it refuses. */
    bool rests;       /* Until the next tick: it could not write. */
};

/* Owner: the queue that is served (queues.c). */
struct journal_copies {
    struct worker *worker;
    struct session *session;
    char *path; /* Owned. */
    struct append_file *file;
    uint64_t file_id;
    uint64_t epoch; /* Of the members that the keepers were chosen from; 0: not yet. */
    uint64_t since; /* We are a member without a gap since that epoch. */
    uint64_t dropped_epoch; /* In which the others were told to drop their copies. */
    struct journal_sync sync;
    uint64_t asked_ms;          /* Since then a request waits, */
    struct frame_header header; /* this one, */
    bool is_asked;              /* if one does. */
    bool has_sync;
    bool is_unreadable; /* For now: no copies can be made. */
    bool was_away;      /* No member for a while: somebody may have our place. */
    bool is_superseded;
    bool
        is_known; /* That we are a member, to all: so who was asked since whether it may
                          go on with the queue has told its keepers. */
    bool has_answered; /* So what it has written is more than an attempt. */
    uint64_t term;
    uint32_t keepers_max;
    struct keeper keepers[JOURNAL_COPIES_MAX];
    char name[QUEUE_PLACE_NAME_MAX + 1];
};

/* Bytes for a keeper. Owner: the peers. */
struct piece {
    struct peer_request request;
    struct journal_copies *copies; /* NULL: they are closed. */
    uint64_t number;
    uint64_t epoch;               /* When it was sent, */
    bool is_known;                /* as is this. */
    struct journal_write message; /* Its name and bytes are these: */
    char name[QUEUE_PLACE_NAME_MAX + 1];
    uint8_t bytes[];
};

static void step_all(struct journal_copies *copies);

/* ---- Answering ---- */

static bool
has_all(const struct journal_copies *copies, const struct keeper *keeper)
{
    return keeper->id == copies->sync.id && keeper->sequence >= copies->sync.sequence;
}

uint32_t
journal_copies_count(const struct journal_copies *copies)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < JOURNAL_COPIES_MAX; i++) {
        const struct keeper *keeper = &copies->keepers[i];
        count += keeper->node != 0 && copies->has_sync && has_all(copies, keeper);
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
            (!has_all(copies, keeper) || keeper->number == 0))
            return false;
        if (keeper->node != 0 && copies->was_away && !keeper->has_spoken)
            return false;
    }
    return copies->epoch > 0 && copies->is_known;
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
        if (!has_all(copies, keeper) || keeper->number < copies->sync.number)
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
    bool has_lease = owners_is_current(copies->worker) || PLANTED(LEASELESS_SYNC);
    if (!(has_lease && is_copied(copies)) && !is_confirmed(copies))
        return;
    copies->is_asked = false;
    copies->was_away = false;
    copies->has_answered = true;
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
        if (!copies->has_answered)
            journal_drop(copies->worker, copies->name, copies->term, JOURNAL_ATTEMPT,
                         NULL, 0);
    }
    copies->is_superseded = true;
    answer_if_safe(copies);
}

/* ---- Pieces ---- */

static void
encode_piece(const struct peer_request *request, struct writer *body)
{
    const struct piece *piece = CONTAINER_OF(request, const struct piece, request);
    encode_journal_write(body, &piece->message);
}

static struct keeper *
keeper_with(struct journal_copies *copies, const struct piece *piece)
{
    for (uint32_t i = 0; copies != NULL && i < JOURNAL_COPIES_MAX; i++) {
        if (copies->keepers[i].piece == piece)
            return &copies->keepers[i];
    }
    return NULL;
}

static void
note_caught_up(struct journal_copies *copies, struct keeper *keeper)
{
    if (keeper->late_ds == 0 || !has_all(copies, keeper))
        return;
    keeper->late_ds = 0;
    log_info("worker queue %s has a copy of its journal at node %" PRIu32, copies->name,
             keeper->node);
}

static void
take_answer(struct journal_copies *copies, struct keeper *keeper,
            const struct piece *piece, struct ds_slice body)
{
    const struct journal_write *message = &piece->message;
    uint64_t bytes;
    if (!decode_journal_written(body, &bytes)) {
        keeper->rests = true;
        return;
    }
    if (bytes != message->offset + message->bytes.len) { /* It has forgotten. */
        keeper->bytes = 0;
        keeper->sequence = 0;
        return;
    }
    keeper->bytes = bytes;
    keeper->heard_ms = clock_monotonic_ms();
    if (piece->epoch == copies->epoch && piece->is_known == copies->is_known) {
        /* Else it may be from before a gap. */
        keeper->number = piece->number;
        keeper->is_promised = false;
        keeper->has_spoken = true;
    }
    if (message->sequence > 0)
        keeper->sequence = message->sequence;
    note_caught_up(copies, keeper);
}

/* Its disk may be full: it is tried again at each tick. */
static void
note_refused(const struct journal_copies *copies, struct keeper *keeper,
             const struct peer_answer *answer)
{
    keeper->rests = true;
    keeper->is_promised = false;
    keeper->has_spoken = true;
    if (keeper->late_ds != 0)
        return;
    keeper->late_ds = clock_boot_ds();
    log_warn("worker queue %s: node %" PRIu32
             " cannot keep its journal reason=\"%.*s\"",
             copies->name, keeper->node, (int)min_u64(answer->body.len, 400),
             (const char *)answer->body.data);
}

static void
end_piece(struct worker *worker, struct peer_request *request,
          const struct peer_answer *answer)
{
    struct piece *piece = CONTAINER_OF(request, struct piece, request);
    struct journal_copies *copies = piece->copies;
    struct keeper *keeper = keeper_with(copies, piece);
    (void)worker;
    if (keeper != NULL) {
        keeper->piece = NULL;
        if (answer->header == NULL) {
            keeper->rests = true; /* It is no member any more. */
        } else if (answer->header->status == DS_EXISTS) {
            journal_copies_supersede(copies);
        } else if (answer->header->status == DS_NOT_READY) {
            keeper->is_promised = true;
            keeper->rests = true;
        } else if (answer->header->status != DS_OK) {
            note_refused(copies, keeper, answer);
        } else {
            take_answer(copies, keeper, piece, answer->body);
        }
        step_all(copies);
    }
    free(piece);
}

static const struct peer_request_ops piece_ops = {
    .type = MESSAGE_JOURNAL_WRITE, .encode = encode_piece, .end = end_piece};

/* Said once, tried again at each tick. */
static void
note_unreadable(struct journal_copies *copies, const struct ds_error *err)
{
    if (!copies->is_unreadable)
        log_error("worker queue %s has no copies of its journal reason=\"%s\"",
                  copies->name, err->message);
    copies->is_unreadable = true;
}

/* The next bytes for the keeper; NULL when out of memory, or the file is not there. */
static struct piece *
piece_new(struct journal_copies *copies, const struct keeper *keeper)
{
    const struct journal_sync *sync = &copies->sync;
    DS_ASSERT(keeper->bytes <= sync->bytes);
    size_t bytes = min_u64(sync->bytes - keeper->bytes, JOURNAL_WRITE_BYTES_MAX);
    struct piece *piece = calloc(1, sizeof *piece + bytes);
    struct ds_error err = {0};
    if (piece == NULL)
        return NULL;
    if (append_file_read(copies->file, keeper->bytes, piece->bytes, bytes, &err) !=
        DS_OK) {
        note_unreadable(copies, &err);
        append_file_close(copies->file);
        copies->file = NULL; /* To be opened again. */
        free(piece);
        return NULL;
    }
    memcpy(piece->name, copies->name, sizeof piece->name);
    piece->request.ops = &piece_ops;
    piece->request.node = keeper->node;
    piece->request.incarnation = keeper->incarnation;
    piece->copies = copies;
    piece->number = sync->number;
    piece->epoch = copies->epoch;
    piece->is_known = copies->is_known;
    bool is_last = keeper->bytes + bytes == sync->bytes;
    const struct table_header *table = store_header(copies->worker->store);
    piece->message =
        (struct journal_write){.name = slice_of_text(piece->name),
                               .term = copies->term,
                               .node = table->node,
                               .incarnation = table->incarnation,
                               .id = sync->id,
                               .offset = keeper->bytes,
                               .sequence = is_last ? sync->sequence : 0,
                               .is_unsure = copies->was_away || !copies->has_answered ||
                                            !owners_is_current(copies->worker),
                               .bytes = slice(piece->bytes, bytes)};
    return piece;
}

static void
step(struct journal_copies *copies, struct keeper *keeper)
{
    const struct journal_sync *sync = &copies->sync;
    if (keeper->node == 0 || keeper->piece != NULL || keeper->rests)
        return;
    if (keeper->id != sync->id || keeper->bytes > sync->bytes) {
        keeper->id = sync->id;
        keeper->bytes = 0;
        keeper->sequence = 0;
    }
    bool is_to_confirm =
        keeper->number == 0 || (copies->is_asked && keeper->number < sync->number &&
                                !owners_is_current(copies->worker));
    if (has_all(copies, keeper) && !is_to_confirm)
        return;
    struct piece *piece = piece_new(copies, keeper);
    if (piece == NULL || !peers_ask(copies->worker->peers, &piece->request)) {
        keeper->rests = true;
        free(piece);
        return;
    }
    keeper->piece = piece;
}

/* The journal may have been written anew meanwhile: then its controller asks again. */
static bool
open_file(struct journal_copies *copies)
{
    struct ds_error err = {0};
    if (copies->file != NULL && copies->file_id == copies->sync.id)
        return true;
    append_file_close(copies->file);
    copies->file = NULL;
    if (append_file_open_to_read(copies->path, &copies->file, &err) != DS_OK) {
        note_unreadable(copies, &err);
        return false;
    }
    if (append_file_inode(copies->file) != copies->sync.inode) {
        append_file_close(copies->file);
        copies->file = NULL;
        return false;
    }
    copies->file_id = copies->sync.id;
    copies->is_unreadable = false;
    return true;
}

static void
step_all(struct journal_copies *copies)
{
    for (uint32_t i = 0; i < JOURNAL_COPIES_MAX; i++) {
        if (copies->has_sync && !copies->is_superseded && open_file(copies))
            step(copies, &copies->keepers[i]);
    }
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
    step_all(copies);
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
    if (keeper->piece != NULL)
        keeper->piece->copies = NULL;
    *keeper = (struct keeper){0};
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
    copies->was_away |= copies->since != 0 && since != copies->since;
    copies->since = since;
    for (uint32_t i = 0; i < copies->keepers_max; i++) {
        struct keeper *keeper = &copies->keepers[i];
        keeper->number = 0;
        keeper->has_spoken = false;
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
    if (copies->is_known || copies->epoch == 0 ||
        store_header(worker->store)->known_epoch != owners_epoch(worker->owners))
        return;
    copies->is_known = true;
    for (uint32_t i = 0; i < JOURNAL_COPIES_MAX; i++) {
        copies->keepers[i].number = 0;
        copies->keepers[i].has_spoken = false;
    }
}

/* Who takes piece after piece of a long journal is not late. */
static void
note_late(struct journal_copies *copies)
{
    uint64_t now = clock_monotonic_ms();
    for (uint32_t i = 0; copies->is_asked && i < JOURNAL_COPIES_MAX; i++) {
        struct keeper *keeper = &copies->keepers[i];
        bool is_done = has_all(copies, keeper) && keeper->number > 0;
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
    step_all(copies);
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
    copies->was_away = owners_was_away(session->worker);
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
    for (uint32_t i = 0; i < JOURNAL_COPIES_MAX; i++) {
        if (copies->keepers[i].piece != NULL)
            copies->keepers[i].piece->copies = NULL;
    }
    append_file_close(copies->file);
    free(copies->path);
    free(copies);
}
