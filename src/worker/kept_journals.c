#include "worker/kept_journals.h"

#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/append_file.h"
#include "os/files.h"
#include "store/table.h"
#include "worker/membership.h"
#include "worker/queues.h"
#include "worker/takeover.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    bool is_lent = journal->started_ms != 0 && file == &journal->whole;
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

/* Who is no member any more does not go on with anything. */
uint32_t
kept_journal_promise(const struct worker *worker, const struct kept_journal *journal)
{
    if (journal->promised_term <= journal->term ||
        membership_find(worker->membership, journal->promised_node) == NULL)
        return 0;
    return journal->promised_term;
}

bool
kept_journal_path(const struct worker *worker, const struct kept_journal *journal,
                  char *out, size_t out_bytes)
{
    return journal_path(worker, journal, "", out, out_bytes);
}

void
kept_journal_drop(struct kept_journal *journal)
{
    takeover_cancel(journal);
    drop_file(journal, &journal->fresh);
    drop_file(journal, &journal->whole);
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
    journal->started_ms = 0;
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

/* The highest term of a controller that served here, or wrote here. */
static uint32_t
heard_term(const struct worker *worker, const struct kept_journal *journal,
           struct ds_slice name)
{
    uint32_t served = queues_term(worker, name);
    return journal != NULL && journal->term > served ? journal->term : served;
}

/* A promise may come to nothing: then it goes on as it was. */
static enum ds_status
check_term(const struct worker *worker, const struct kept_journal *journal,
           const struct journal_write *piece, struct ds_error *err)
{
    uint32_t heard = heard_term(worker, journal, piece->name);
    uint32_t promise = journal == NULL ? 0 : kept_journal_promise(worker, journal);
    const char *name = (const char *)piece->name.data;
    if (piece->term < heard)
        return ds_fail(err, DS_EXISTS, "controller %u of queue %.*s comes after %u",
                       heard, (int)piece->name.len, name, piece->term);
    if (piece->term < promise)
        return ds_fail(err, DS_NOT_READY,
                       "node %u may be about to go on with queue %.*s",
                       journal->promised_node, (int)piece->name.len, name);
    return DS_OK;
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
        journal->term = piece.term;
        journal->node = piece.node;
        journal->incarnation = piece.incarnation;
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
         struct ds_slice name)
{
    uint32_t served = queues_term(worker, name);
    struct journal_known known = {.heard = heard_term(worker, journal, name)};
    if (served > 0 && served == known.heard) {
        known.has_copy = true;
        known.copy_term = served;
        known.sequence = UINT64_MAX;
    }
    if (known.has_copy || journal == NULL)
        return known;
    known.promised = kept_journal_promise(worker, journal);
    known.has_copy = journal->whole.file != NULL && journal->failed_until_ms == 0;
    known.copy_term = journal->started_ms != 0 ? UINT32_MAX : journal->whole.term;
    known.sequence = journal->sequence;
    return known;
}

static void
note_promise(const struct worker *worker, struct kept_journal *journal,
             const struct journal_ask *ask)
{
    bool is_its =
        journal->promised_term == ask->term && journal->promised_node == ask->node;
    if (ask->withdraws && is_its) {
        journal->promised_term = 0;
    } else if (!ask->withdraws && ask->term > journal->term &&
               ask->term > kept_journal_promise(worker, journal)) {
        journal->promised_term = ask->term;
        journal->promised_node = ask->node;
    }
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
    struct journal_known known = known_of(worker, journal, ask.name);
    if (journal == NULL && !ask.withdraws && worker->membership != NULL &&
        (journal = find_or_add(worker, ask.name)) == NULL) {
        struct ds_error err = {0};
        (void)ds_fail(&err, DS_NO_MEMORY, "worker is out of memory for a queue");
        conn_reply_error(session->conn, header, &err);
        return;
    }
    if (journal != NULL)
        note_promise(worker, journal, &ask);
    AUTO_WRITER(reply);
    encode_journal_known(&reply, &known);
    session_reply(session, header, &reply);
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
    if (journal != NULL && journal->term <= ask.term)
        kept_journal_drop(journal);
    conn_reply(session->conn, header, (struct ds_slice){0});
}

/* ---- Life ---- */

void
kept_journals_drop_all(struct worker *worker)
{
    LIST_FOREACH (link, &worker->kept_journals)
        kept_journal_drop(CONTAINER_OF(link, struct kept_journal, link));
}

void
kept_journals_open(struct worker *worker)
{
    char folder[PATH_MAX];
    list_init(&worker->kept_journals);
    if (worker->restarts == 0)
        takeover_clean_up(worker);
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
