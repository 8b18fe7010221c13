#include "controller/journal.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/append_file.h"
#include "os/clock.h"
#include "os/files.h"
#include "os/random.h"
#include "queue/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PENDING_BYTES_KEPT = 1 << 20 };

/* Invariants: records up to `end` are in the file; `pending` has those behind, and both
 * the file and `pending` have room for what was reserved. */
struct journal {
    const struct journal_options *options;
    struct append_file *file;
    struct journal_header header;
    uint64_t next_sequence;
    uint64_t end;
    uint64_t snapshot_bytes; /* With which it begins; 0: with none. */
    uint64_t long_at;        /* From that many bytes on it is worth a snapshot. */
    struct writer pending;
    bool is_full; /* Said in the log, once until there is room again. */
};

/* ---- Replaying ---- */

/* A replay under way. Owner: journal_open(). */
struct replay {
    const struct journal_options *options;
    struct queue *queue;
    struct replies *replies;
    struct record_reader reader;
    uint64_t count;
    uint64_t snapshot_end; /* 0: it has none. */
};

static enum ds_status
apply(struct replay *replay, const struct record *record, struct ds_error *err)
{
    struct ds_error reason = {0};
    enum ds_status status =
        replay_record(replay->queue, replay->replies, record, &reason);
    if (status == DS_OK || status == DS_NO_MEMORY)
        return status == DS_OK ? status : ds_fail(err, status, "%s", reason.message);
    return ds_fail(
        err, DS_CORRUPT,
        "the journal '%s' does not fit this queue: its record %ju is refused "
        "(%s). Keep the file for inspection, or remove it to start with an "
        "empty queue",
        replay->options->path, (uintmax_t)record->sequence, reason.message);
}

static enum ds_status
fail_damaged(const struct replay *replay, struct ds_error *err)
{
    const struct record_reader *reader = &replay->reader;
    return ds_fail(err, DS_CORRUPT,
                   "the journal '%s' is damaged at byte %zu: records %ju to %ju cannot "
                   "be read, and there are whole ones behind them, from byte %zu on. "
                   "Going on would lose what was acknowledged. Keep the file for "
                   "inspection, or remove it to start with an empty queue",
                   replay->options->path, reader->at, (uintmax_t)reader->next_sequence,
                   (uintmax_t)(reader->found_sequence - 1), reader->found_at);
}

/* Applies all records; *out_is_cut_off: behind them is the beginning of one more. */
static enum ds_status
replay_all(struct replay *replay, bool *out_is_cut_off, struct ds_error *err)
{
    struct record record;
    enum record_found found;
    while ((found = record_next(&replay->reader, &record)) == RECORD_WHOLE) {
        enum ds_status status = apply(replay, &record, err);
        if (status != DS_OK)
            return status;
        replay->count++;
        if (record.type == SNAPSHOT_END)
            replay->snapshot_end = replay->reader.at;
    }
    if (found == RECORD_DAMAGED)
        return fail_damaged(replay, err);
    if (queue_is_loading(replay->queue))
        return ds_fail(err, DS_CORRUPT,
                       "the journal '%s' ends in the middle of its snapshot. Keep the "
                       "file for inspection, or remove it to start with an empty queue",
                       replay->options->path);
    *out_is_cut_off = found == RECORD_CUT_OFF;
    return DS_OK;
}

/* ---- Opening ---- */

/* FILE.new, or NULL. */
static char *
new_path(const char *path)
{
    size_t bytes = strlen(path) + sizeof ".new";
    char *made = malloc(bytes);
    if (made != NULL)
        snprintf(made, bytes, "%s.new", path);
    return made;
}

/* A snapshot that never took FILE's place is nobody's. */
static void
remove_unfinished(const char *path)
{
    char *unfinished = new_path(path);
    if (unfinished != NULL)
        files_remove(unfinished);
    free(unfinished);
}

static enum ds_status
write_header(struct journal *journal, struct ds_error *err)
{
    uint8_t bytes[JOURNAL_HEADER_BYTES];
    journal_header_encode(&journal->header, bytes);
    enum ds_status status =
        append_file_write(journal->file, 0, slice(bytes, sizeof bytes), err);
    if (status == DS_OK && journal->header.syncs)
        status = append_file_sync(journal->file, err);
    return status;
}

/* `from` is where the snapshot ends, or where the last try to make one was. */
static void
rest_before_compacting(struct journal *journal, uint64_t from)
{
    uint64_t step = journal->header.compact_bytes;
    journal->long_at = from + max_u64(step == 0 ? JOURNAL_COMPACT_BYTES : step,
                                      2 * journal->snapshot_bytes);
}

static enum ds_status
begin(struct journal *journal, uint64_t first_sequence, struct ds_error *err)
{
    journal->header.id = random_u64();
    journal->header.session = journal_session(slice_of_text(journal->options->session));
    journal->header.first_sequence = first_sequence;
    journal->next_sequence = first_sequence;
    journal->end = JOURNAL_HEADER_BYTES;
    rest_before_compacting(journal, journal->end);
    enum ds_status status = append_file_reserve(journal->file, journal->end, err);
    return status == DS_OK ? write_header(journal, err) : status;
}

/* True: the header says something else now. */
static bool
take_options(struct journal *journal)
{
    const struct journal_options *options = journal->options;
    struct journal_header before = journal->header;
    struct journal_header *header = &journal->header;
    header->syncs = options->sync || (options->goes_on && before.syncs);
    if (options->compact_bytes != 0 || !options->goes_on)
        header->compact_bytes = options->compact_bytes;
    return header->syncs != before.syncs ||
           header->compact_bytes != before.compact_bytes;
}

/* Cuts off what follows the last whole record. */
static enum ds_status
cut_tail(struct journal *journal, struct ds_error *err)
{
    uint64_t bytes = append_file_bytes(journal->file);
    log_warn("controller journal cut file=%s at=%ju bytes=%ju reason=\"the last record "
             "was not written to its end; nobody was told that it was kept\"",
             journal->options->path, (uintmax_t)journal->end,
             (uintmax_t)(bytes - journal->end));
    return append_file_cut(journal->file, journal->end, err);
}

static enum ds_status
resume(struct journal *journal, struct replay *replay, struct ds_slice content,
       struct ds_error *err)
{
    uint64_t began_ms = clock_monotonic_ms();
    bool is_cut_off = false;
    replay->reader = record_reader_of(content, &journal->header);
    enum ds_status status = replay_all(replay, &is_cut_off, err);
    if (status != DS_OK)
        return status;
    journal->next_sequence = replay->reader.next_sequence;
    journal->end = replay->reader.at;
    journal->snapshot_bytes = replay->snapshot_end;
    rest_before_compacting(journal, replay->snapshot_end);
    log_info("controller journal replayed file=%s records=%ju bytes=%ju ms=%ju",
             journal->options->path, (uintmax_t)replay->count, (uintmax_t)journal->end,
             (uintmax_t)(clock_monotonic_ms() - began_ms));
    return is_cut_off ? cut_tail(journal, err) : DS_OK;
}

static enum ds_status
begin_or_resume(struct journal *journal, struct replay *replay, struct ds_slice content,
                bool *out_is_foreign, struct ds_error *err)
{
    struct ds_error reason = {0};
    enum ds_status status = journal_header_decode(content, &journal->header, &reason);
    if (status == DS_NOT_FOUND) {
        (void)take_options(journal);
        return begin(journal, 1, err);
    }
    if (status != DS_OK)
        return ds_fail(err, status,
                       "the journal '%s': %s. Keep the file for inspection, or remove "
                       "it to start with an empty queue",
                       journal->options->path, reason.message);
    *out_is_foreign = journal->header.session !=
                      journal_session(slice_of_text(journal->options->session));
    bool is_other = take_options(journal);
    status = resume(journal, replay, content, err);
    return status == DS_OK && is_other ? write_header(journal, err) : status;
}

enum ds_status
journal_open(const struct journal_options *options, struct queue *queue,
             struct replies *replies, struct journal **out, bool *out_is_foreign,
             struct ds_error *err)
{
    AUTO(journal) struct journal *journal = calloc(1, sizeof *journal);
    if (journal == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for the journal");
    journal->options = options;
    *out_is_foreign = false;
    remove_unfinished(options->path);
    enum ds_status status = append_file_open(options->path, &journal->file, err);
    if (status != DS_OK)
        return status;
    struct ds_slice content = {0};
    status = append_file_map(journal->file, &content, err);
    if (status != DS_OK)
        return status;
    struct replay replay = {.options = options, .queue = queue, .replies = replies};
    status = begin_or_resume(journal, &replay, content, out_is_foreign, err);
    append_file_unmap(content);
    if (status != DS_OK)
        return status;
    *out = TAKE(journal);
    return DS_OK;
}

void
journal_close(struct journal *journal)
{
    if (journal == NULL)
        return;
    append_file_close(journal->file);
    writer_fini(&journal->pending);
    free(journal);
}

enum ds_status
journal_take_over(struct journal *journal, struct ds_error *err)
{
    journal->header.session = journal_session(slice_of_text(journal->options->session));
    return write_header(journal, err);
}

/* ---- Writing ---- */

static void
note_full(struct journal *journal, bool is_full, const struct ds_error *err)
{
    if (is_full && !journal->is_full)
        log_error("controller journal full, the queue is read-only: %s", err->message);
    if (!is_full && journal->is_full)
        log_info("controller journal has room again, the queue can be changed");
    journal->is_full = is_full;
}

enum ds_status
journal_reserve(struct journal *journal, size_t body_bytes, struct ds_error *err)
{
    struct ds_error reason = {0};
    uint64_t bytes = record_bytes(body_bytes);
    uint64_t end = journal->end + journal->pending.len + bytes;
    enum ds_status status = append_file_reserve(journal->file, end, &reason);
    note_full(journal, status == DS_FULL, &reason);
    if (status != DS_OK)
        return ds_fail(err, status,
                       "the queue can be read but not changed now, because its journal "
                       "cannot grow: %s",
                       reason.message);
    if (!writer_reserve(&journal->pending, bytes))
        return ds_fail(err, DS_NO_MEMORY, "the controller is out of memory");
    return DS_OK;
}

void
journal_append(struct journal *journal, enum record_type type, struct request_id id,
               struct ds_slice body)
{
    struct record record = {
        .type = type,
        .sequence = journal->next_sequence++,
        .client = id.client,
        .request = id.number,
        .body = body,
    };
    record_write(&journal->pending, journal->header.id, &record);
    DS_ASSERT(!journal->pending.failed);
    DS_ASSERT(journal->end + journal->pending.len <= append_file_bytes(journal->file));
}

bool
journal_is_pending(const struct journal *journal)
{
    return journal->pending.len > 0;
}

struct journal_extent
journal_extent(const struct journal *journal)
{
    DS_ASSERT(journal->pending.len == 0);
    return (struct journal_extent){.id = journal->header.id,
                                   .inode = append_file_inode(journal->file),
                                   .bytes = journal->end,
                                   .sequence = journal->next_sequence};
}

/* All that is pending is in the file then. */
static enum ds_status
write_pending(struct journal *journal, struct ds_error *err)
{
    struct writer *pending = &journal->pending;
    enum ds_status status = append_file_write(journal->file, journal->end,
                                              slice(pending->data, pending->len), err);
    if (status != DS_OK)
        return status;
    journal->end += pending->len;
    if (pending->capacity > PENDING_BYTES_KEPT)
        writer_fini(pending);
    else
        writer_clear(pending);
    return DS_OK;
}

enum ds_status
journal_flush(struct journal *journal, struct ds_error *err)
{
    if (journal->pending.len == 0)
        return DS_OK;
    enum ds_status status = write_pending(journal, err);
    if (status == DS_OK && journal->header.syncs)
        status = append_file_sync(journal->file, err);
    return status;
}

/* ---- A snapshot in its place ---- */

/* One more record of a journal that nobody uses yet. */
static enum ds_status
take_record(enum record_type type, struct ds_slice body, void *arg,
            struct ds_error *err)
{
    struct journal *journal = arg;
    if (!writer_reserve(&journal->pending, record_bytes(body.len)))
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a snapshot");
    uint64_t end = journal->end + record_bytes(body.len);
    enum ds_status status = append_file_reserve(journal->file, end, err);
    if (status != DS_OK)
        return status;
    journal_append(journal, type, (struct request_id){0}, body);
    return write_pending(journal, err);
}

static enum ds_status
write_snapshot(struct journal *fresh, uint64_t first_sequence, const char *path,
               const struct snapshot_source *source, struct ds_error *err)
{
    enum ds_status status = append_file_open(path, &fresh->file, err);
    if (status == DS_OK)
        status = begin(fresh, first_sequence, err);
    if (status == DS_OK)
        status = snapshot_write(source, take_record, fresh, err);
    if (status == DS_OK && fresh->header.syncs)
        status = append_file_sync(fresh->file, err);
    if (status == DS_OK)
        status = append_file_rename(fresh->file, fresh->options->path, err);
    return status;
}

/* `fresh` takes the place of what `journal` had; what that had goes with `fresh`. */
static void
exchange(struct journal *journal, struct journal *fresh)
{
    struct append_file *file = journal->file;
    journal->file = fresh->file;
    journal->header = fresh->header;
    journal->next_sequence = fresh->next_sequence;
    journal->end = fresh->end;
    journal->snapshot_bytes = fresh->end;
    fresh->file = file;
}

bool
journal_is_long(const struct journal *journal)
{
    return journal->end >= journal->long_at;
}

/* DS_OK also when it was not done. */
static enum ds_status
finish_compacting(struct journal *journal, struct journal *fresh, enum ds_status status,
                  const struct ds_error *reason, struct ds_error *err)
{
    uint64_t before = journal->end;
    if (status == DS_OK)
        exchange(journal, fresh);
    rest_before_compacting(journal, journal->end);
    if (status != DS_OK) {
        log_warn("controller journal cannot be compacted, it grows on reason=\"%s\"",
                 reason->message);
        return DS_OK;
    }
    log_info("controller journal compacted file=%s bytes=%ju before=%ju",
             journal->options->path, (uintmax_t)journal->end, (uintmax_t)before);
    return journal->header.syncs ? append_file_sync_name(journal->file, err) : DS_OK;
}

enum ds_status
journal_compact(struct journal *journal, const struct snapshot_source *source,
                struct ds_error *err)
{
    DS_ASSERT(journal->pending.len == 0);
    struct journal fresh = {.options = journal->options, .header = journal->header};
    struct ds_error reason = {.message = "out of memory"};
    enum ds_status status = DS_NO_MEMORY;
    remove_unfinished(journal->options->path);
    char *path = new_path(journal->options->path);
    if (path != NULL)
        status = write_snapshot(&fresh, journal->next_sequence, path, source, &reason);
    if (status != DS_OK)
        remove_unfinished(journal->options->path);
    free(path);
    status = finish_compacting(journal, &fresh, status, &reason, err);
    append_file_close(fresh.file);
    writer_fini(&fresh.pending);
    return status;
}

void
journal_remove(struct journal *journal)
{
    files_remove(journal->options->path);
}
