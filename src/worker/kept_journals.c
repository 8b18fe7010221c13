#include "worker/kept_journals.h"

#include "base/log.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "meta/members.h"
#include "os/append_file.h"
#include "os/clock.h"
#include "os/files.h"
#include "store/table.h"
#include "worker/launch.h"
#include "worker/membership.h"
#include "worker/queues.h"
#include "worker/takeover.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A promise is for as long as it takes to ask and to start a controller. */
enum { PROMISE_MS = 40000 };

/* A controller that lost its worker is connected to the next one by then
 * (controller/worker_link.c). */
enum { RECONNECTED_MS = 2500 };

/* ---- Files ---- */

static bool
folder_path(const struct worker *worker, char *out, size_t out_bytes)
{
    int used = snprintf(out, out_bytes, "%s/journals", worker->resources->home);
    return used > 0 && (size_t)used < out_bytes;
}

/* A name may have any bytes: its hash is in the path. */
static bool
journal_path(const struct worker *worker, const struct kept_journal *journal,
             const char *suffix, char *out, size_t out_bytes)
{
    int used =
        snprintf(out, out_bytes, "%s/journals/%016" PRIx64 "%s",
                 worker->resources->home, kept_journal_hash(journal->name), suffix);
    return used > 0 && (size_t)used < out_bytes;
}

static enum ds_status
fail_too_long(const struct worker *worker, struct ds_error *err)
{
    return ds_fail(err, DS_INVALID, "home folder '%s' is too long a path",
                   worker->resources->home);
}

uint64_t
kept_journal_hash(const char *queue)
{
    return table_hash(slice_of_text(queue));
}

static void
close_file(struct kept_file *file)
{
    append_file_close(file->file);
    *file = (struct kept_file){0};
}

/* Closes and removes it, unless its controller has it now. */
static void
drop_file(const struct kept_journal *journal, struct kept_file *file)
{
    bool is_lent = journal->started_term != 0 && file == &journal->whole;
    if (file->file != NULL && !is_lent)
        append_file_remove(file->file);
    close_file(file);
}

struct kept_journal *
kept_journals_find(const struct worker *worker, struct ds_slice name)
{
    LIST_FOREACH (link, &worker->kept_journals) {
        struct kept_journal *journal = CONTAINER_OF(link, struct kept_journal, link);
        if (slice_equal(slice_of_text(journal->name), name))
            return journal;
    }
    return NULL;
}

uint32_t
kept_journals_count(const struct worker *worker)
{
    uint32_t count = 0;
    LIST_FOREACH (link, &worker->kept_journals)
        count += CONTAINER_OF(link, struct kept_journal, link)->whole.file != NULL;
    return count;
}

/* Who is no member any more, or another one, does not go on with anything. */
static bool
is_void(const struct worker *worker, const struct kept_promise *promise)
{
    const struct member *member = membership_find(worker->membership, promise->node);
    return clock_monotonic_ms() >= promise->until_ms || member == NULL ||
           member->incarnation != promise->incarnation ||
           member->since != promise->since;
}

uint64_t
kept_journal_promise(const struct worker *worker, const struct kept_journal *journal)
{
    const struct kept_promise *promise = &journal->promise;
    bool counts = promise->term > journal->term && !is_void(worker, promise);
    return counts ? promise->term : 0;
}

bool
kept_journal_is_dead(const struct kept_journal *journal, uint64_t term)
{
    return term > journal->term && term <= journal->dead;
}

void
kept_journal_promise_to(struct kept_journal *journal, const struct member *member,
                        uint64_t term)
{
    journal->heard = max_u64(journal->heard, term);
    bool is_same =
        term == journal->promise.term && member->node == journal->promise.node;
    if (term <= journal->promise.term && !is_same)
        return;
    journal->promise = (struct kept_promise){
        .term = term,
        .node = member->node,
        .incarnation = member->incarnation,
        .since = member->since,
        .until_ms = clock_monotonic_ms() + PROMISE_MS,
    };
}

void
kept_journal_withdraw(struct kept_journal *journal, uint64_t term)
{
    if (journal->promise.term == term)
        journal->promise = (struct kept_promise){0};
}

bool
kept_journal_path(const struct worker *worker, const struct kept_journal *journal,
                  char *out, size_t out_bytes)
{
    return journal_path(worker, journal, "", out, out_bytes);
}

void
kept_journal_drop_files(struct kept_journal *journal)
{
    drop_file(journal, &journal->fresh);
    if (journal->started_term == 0)
        drop_file(journal, &journal->whole);
}

void
kept_journal_let_go(struct kept_journal *journal)
{
    takeover_cancel(journal);
    drop_file(journal, &journal->fresh);
    drop_file(journal, &journal->whole);
    journal->started_term = 0;
    journal->sequence = 0;
}

void
kept_journal_note_served(struct kept_journal *journal, uint64_t term)
{
    journal->used_ms = clock_monotonic_ms();
    if (kept_journal_is_dead(journal, term))
        return;
    journal->term = max_u64(journal->term, term);
    journal->heard = max_u64(journal->heard, term);
}

void
kept_journals_note_past(struct worker *worker, const char *queue, uint64_t term)
{
    struct kept_journal *journal = kept_journals_find(worker, slice_of_text(queue));
    if (journal == NULL || journal->started_term != 0)
        return;
    journal->dead = max_u64(journal->dead, journal->heard);
    journal->term = term;
    if (journal->whole.file != NULL || journal->fresh.file != NULL)
        kept_journal_let_go(journal);
}

void
kept_journal_drop(struct kept_journal *journal)
{
    kept_journal_let_go(journal);
    list_remove(&journal->link);
    free(journal);
}

/* ---- JOURNAL_WRITE ---- */

static struct kept_journal *
find_or_add(struct worker *worker, struct ds_slice name)
{
    struct kept_journal *journal = kept_journals_find(worker, name);
    if (journal != NULL)
        return journal;
    journal = calloc(1, sizeof *journal);
    if (journal == NULL)
        return NULL;
    memcpy(journal->name, name.data, name.len);
    list_push_back(&worker->kept_journals, &journal->link);
    return journal;
}

static enum ds_status
begin_fresh(struct worker *worker, struct kept_journal *journal, uint64_t id,
            struct ds_error *err)
{
    char path[PATH_MAX];
    drop_file(journal, &journal->fresh);
    if (!folder_path(worker, path, sizeof path))
        return fail_too_long(worker, err);
    enum ds_status status = files_make_folder(path, 0700, err);
    if (status != DS_OK)
        return status;
    if (!journal_path(worker, journal, ".new", path, sizeof path))
        return fail_too_long(worker, err);
    status = append_file_open(path, &journal->fresh.file, err);
    if (status == DS_OK)
        status = append_file_cut(journal->fresh.file, 0, err);
    journal->fresh.id = id;
    return status;
}

/* NULL: nothing of that journal is kept. */
static struct kept_file *
file_with(struct kept_journal *journal, uint64_t id)
{
    if (journal->fresh.file != NULL && journal->fresh.id == id)
        return &journal->fresh;
    if (journal->whole.file != NULL && journal->whole.id == id)
        return &journal->whole;
    return NULL;
}

/* The fresh file takes the other's place. */
static enum ds_status
become_whole(struct worker *worker, struct kept_journal *journal, struct ds_error *err)
{
    char path[PATH_MAX];
    if (!journal_path(worker, journal, "", path, sizeof path))
        return fail_too_long(worker, err);
    enum ds_status status = append_file_rename(journal->fresh.file, path, err);
    if (status != DS_OK)
        return status;
    close_file(&journal->whole);
    journal->whole = journal->fresh;
    journal->fresh = (struct kept_file){0};
    return DS_OK;
}

/* *out_bytes: how much of that journal is kept then. */
static enum ds_status
write_piece(struct worker *worker, struct kept_journal *journal,
            const struct journal_write *piece, uint64_t *out_bytes,
            struct ds_error *err)
{
    enum ds_status status = DS_OK;
    if (piece->offset == 0)
        status = begin_fresh(worker, journal, piece->id, err);
    struct kept_file *file = status == DS_OK ? file_with(journal, piece->id) : NULL;
    *out_bytes = file == NULL ? 0 : file->bytes;
    if (file == NULL)
        return status;
    uint64_t end = piece->offset + piece->bytes.len;
    bool is_repeated =
        file->bytes == end; /* Its answer was lost, or it failed below. */
    if (file->bytes != piece->offset && !is_repeated)
        return status;
    if (!is_repeated)
        status = append_file_reserve(file->file, end, err);
    if (status == DS_OK && !is_repeated)
        status = append_file_write(file->file, piece->offset, piece->bytes, err);
    if (status != DS_OK)
        return status;
    *out_bytes = file->bytes = end;
    file->term = piece->term;
    if (piece->sequence == 0)
        return DS_OK;
    if (file == &journal->fresh)
        status = become_whole(worker, journal, err);
    if (status == DS_OK)
        journal->sequence = piece->sequence;
    return status;
}

/* A promise may come to nothing: then it goes on as it was. So may a controller that was
 * started here. Who goes on past a promise takes its chance from whoever had it. */
static enum ds_status
check_term(const struct worker *worker, const struct kept_journal *journal,
           const struct journal_write *piece, struct ds_error *err)
{
    uint64_t served = queues_term(worker, piece->name);
    const char *name = (const char *)piece->name.data;
    int name_bytes = (int)piece->name.len;
    uint64_t heard = max_u64(served, journal == NULL ? 0 : journal->term);
    bool is_dead = journal != NULL && kept_journal_is_dead(journal, piece->term);
    if ((piece->term < heard || is_dead) && !PLANTED(EARLIER_TERM))
        return ds_fail(err, DS_EXISTS, "another controller goes on with queue %.*s",
                       name_bytes, name);
    bool may_be_ours = worker->restarts > 0 &&
                       clock_monotonic_ms() < worker->started_ms + RECONNECTED_MS;
    if (piece->is_unsure && may_be_ours && served == 0)
        return ds_fail(err, DS_NOT_READY,
                       "this worker was started again, and a later controller of queue "
                       "%.*s may be here",
                       name_bytes, name);
    if (journal != NULL && !PLANTED(EARLIER_TERM) &&
        (piece->term < kept_journal_promise(worker, journal) ||
         piece->term < journal->started_term))
        return ds_fail(err, DS_NOT_READY,
                       "somebody may be about to go on with queue %.*s", name_bytes,
                       name);
    return DS_OK;
}

static void
note_writer(struct kept_journal *journal, const struct journal_write *piece)
{
    if (piece->term < journal->heard)
        journal->dead = max_u64(journal->dead, journal->heard);
    journal->term = piece->term;
    journal->heard = max_u64(journal->heard, piece->term);
    journal->node = piece->node;
    journal->incarnation = piece->incarnation;
    journal->used_ms = clock_monotonic_ms();
}

void
handle_journal_write(struct session *session, const struct frame_header *header,
                     struct ds_slice body)
{
    struct worker *worker = session->worker;
    struct journal_write piece;
    if (!decode_journal_write(body, &piece)) {
        session_reject(session, "malformed JOURNAL_WRITE");
        return;
    }
    struct ds_error err = {0};
    uint64_t bytes = 0;
    struct kept_journal *journal = kept_journals_find(worker, piece.name);
    enum ds_status status = DS_OK;
    if (worker->membership == NULL)
        status = ds_fail(&err, DS_NOT_READY, "this worker belongs to no cluster");
    if (status == DS_OK)
        status = check_term(worker, journal, &piece, &err);
    if (status == DS_OK) {
        journal = find_or_add(worker, piece.name);
        if (journal == NULL)
            status = ds_fail(&err, DS_NO_MEMORY, "worker is out of memory for a queue");
    }
    if (status == DS_OK) {
        note_writer(journal, &piece);
        takeover_note_writer(journal);
        status = write_piece(worker, journal, &piece, &bytes, &err);
    }
    if (status != DS_OK) {
        conn_reply_error(session->conn, header, &err);
        return;
    }
    AUTO_WRITER(reply);
    encode_journal_written(&reply, bytes);
    session_reply(session, header, &reply);
}

/* ---- JOURNAL_ASK, JOURNAL_DROP ---- */

/* Where the controller is, or is being started, nobody has more of its journal. */
static struct journal_known
known_of(const struct worker *worker, const struct kept_journal *journal,
         const struct journal_ask *ask)
{
    uint64_t served = queues_term(worker, ask->name);
    struct journal_known known = {.heard = served};
    if (journal != NULL) {
        known.heard = max_u64(served, max_u64(journal->heard, journal->term));
        known.dead = journal->dead;
    }
    if (served > 0 && (journal == NULL || served >= journal->term)) {
        known.has_copy = true;
        known.copy_term = served;
        known.sequence = UINT64_MAX;
    }
    if (known.has_copy || journal == NULL)
        return known;
    if (journal->promise.node != ask->node)
        known.promised = kept_journal_promise(worker, journal);
    known.has_copy = journal->whole.file != NULL;
    known.has_failed = journal->failed_until_ms != 0;
    known.copy_term = journal->started_term != 0 ? UINT64_MAX : journal->whole.term;
    known.sequence = journal->sequence;
    return known;
}

static void
note_intent(const struct worker *worker, struct kept_journal *journal,
            const struct journal_ask *ask)
{
    const struct member *member = membership_find(worker->membership, ask->node);
    bool has_other =
        kept_journal_promise(worker, journal) > 0 && journal->promise.node != ask->node;
    journal->used_ms = clock_monotonic_ms();
    if (ask->intent == ASK_WITHDRAWN)
        kept_journal_withdraw(journal, ask->term);
    else if (ask->intent == ASK_FOR_PROMISE && has_other)
        journal->heard = max_u64(journal->heard, ask->term);
    else if (ask->intent == ASK_FOR_PROMISE && member != NULL)
        kept_journal_promise_to(journal, member, ask->term);
}

void
handle_journal_ask(struct session *session, const struct frame_header *header,
                   struct ds_slice body)
{
    struct journal_ask ask;
    if (!decode_journal_ask(body, &ask)) {
        session_reject(session, "malformed JOURNAL_ASK");
        return;
    }
    struct worker *worker = session->worker;
    struct kept_journal *journal = kept_journals_find(worker, ask.name);
    struct journal_known known = known_of(worker, journal, &ask);
    if (ask.intent == ASK_FOR_PROMISE &&
        (worker->membership == NULL ||
         membership_find(worker->membership, ask.node) == NULL)) {
        struct ds_error err = {0};
        (void)ds_fail(&err, DS_NOT_READY, "node %u is no member, as we know it",
                      ask.node);
        conn_reply_error(session->conn, header, &err);
        return;
    }
    if (journal == NULL && ask.intent == ASK_FOR_PROMISE &&
        worker->membership != NULL &&
        (journal = find_or_add(worker, ask.name)) == NULL) {
        struct ds_error err = {0};
        (void)ds_fail(&err, DS_NO_MEMORY, "worker is out of memory for a queue");
        conn_reply_error(session->conn, header, &err);
        return;
    }
    if (journal != NULL)
        note_intent(worker, journal, &ask);
    AUTO_WRITER(reply);
    encode_journal_known(&reply, &known);
    session_reply(session, header, &reply);
}

/* A controller of that term wrote here, but came to nothing. */
static void
forget_failed(struct kept_journal *journal, uint64_t term)
{
    bool is_lent = journal->started_term != 0;
    if (journal->fresh.term == term)
        drop_file(journal, &journal->fresh);
    if (journal->whole.term == term && !is_lent)
        drop_file(journal, &journal->whole);
    if (journal->term != term)
        return;
    journal->term = journal->whole.file != NULL ? journal->whole.term : 0;
    if (journal->term == 0)
        journal->dead = 0;
}

void
handle_journal_drop(struct session *session, const struct frame_header *header,
                    struct ds_slice body)
{
    struct journal_ask ask;
    if (!decode_journal_ask(body, &ask)) {
        session_reject(session, "malformed JOURNAL_DROP");
        return;
    }
    struct kept_journal *journal = kept_journals_find(session->worker, ask.name);
    if (journal != NULL && ask.intent == ASK_WITHDRAWN)
        forget_failed(journal, ask.term);
    else if (journal != NULL && journal->term <= ask.term)
        kept_journal_drop_files(journal);
    conn_reply(session->conn, header, (struct ds_slice){0});
}

/* ---- Life ---- */

void
kept_journals_drop_all(struct worker *worker)
{
    takeover_end_programs(worker);
    LIST_FOREACH (link, &worker->kept_journals)
        kept_journal_drop(CONTAINER_OF(link, struct kept_journal, link));
}

void
kept_journals_open(struct worker *worker)
{
    char folder[PATH_MAX];
    list_init(&worker->kept_journals);
    if (worker->restarts == 0)
        launch_clean_up(worker);
    if (folder_path(worker, folder, sizeof folder))
        files_remove_folder(folder);
}

void
kept_journals_close(struct worker *worker)
{
    char folder[PATH_MAX];
    kept_journals_drop_all(worker);
    if (folder_path(worker, folder, sizeof folder))
        files_remove_folder(folder);
}
