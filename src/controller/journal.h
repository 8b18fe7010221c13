/* The controller's journal: a change of the queue is in a file before anybody hears of
 * it, so a controller that is killed knows all of it again when it comes back.
 *
 *   request ──► journal_reserve() ── DS_FULL ──► refused, nothing has happened
 *                    │ room for its record is there
 *                    ▼
 *               queue_apply() ── error ──► refused, nothing to write
 *                    ▼
 *               journal_append()                (in memory)
 *                    ▼
 *               journal_flush(), once per turn of the loop: one write for all records
 *                    ▼                          (with fsync: one fdatasync as well)
 *               replies go out, the worker is told
 *
 * Written down are the requests as they came; the queue is a state machine, so the same
 * requests lead to the same state and the same replies. A journal that has grown long
 * begins anew with a snapshot (queue/snapshot.h). The file is in queue/record.h.
 * docs/decisions/0006-journal.md says why it is so.
 *
 * Owner: loop thread. */
#ifndef CONTROLLER_JOURNAL_H
#define CONTROLLER_JOURNAL_H

#include "queue/queue.h"
#include "queue/record.h"
#include "queue/replies.h"
#include "queue/snapshot.h"

#include "base/auto.h"

struct journal;

/* Texts are borrowed for as long as the journal is open. */
struct journal_options {
    const char *path;
    const char *session; /* Whose it is. */
    bool sync;           /* Also a power cut loses nothing that was acknowledged. */
    /* When it has grown by so many bytes, and to three times what it says, it is written
     * anew. 0: JOURNAL_COMPACT_BYTES. */
    uint64_t compact_bytes;
    /* With another controller's queue: what is not said here is as the journal says. */
    bool goes_on;
};

enum { JOURNAL_COMPACT_BYTES = 16 << 20 };

/* Opens the journal, which is made if absent, and applies what it says to the empty
 * `queue` and `replies`. *out_is_foreign: it was another session's, and what the queue
 * knows now is over; see journal_take_over(). A tail that was not written to its end is
 * cut off, with a line in the log.
 *   DS_CORRUPT    damaged before its end, or no journal: left as it is
 *   DS_MISMATCH   of another version
 *   DS_FULL, DS_IO, DS_NO_MEMORY */
DS_MUST_USE enum ds_status
journal_open(const struct journal_options *options, struct queue *queue,
             struct replies *replies, struct journal **out, bool *out_is_foreign,
             struct ds_error *err);

/* What is not flushed is lost. Accepts NULL. */
void journal_close(struct journal *journal);
DEFINE_AUTO(journal, struct journal, journal_close)

/* The journal is this session's from now on. DS_IO. */
DS_MUST_USE enum ds_status
journal_take_over(struct journal *journal, struct ds_error *err);

/* Room in the file and in memory for one record. DS_FULL and its end are logged once.
 *   DS_FULL       the disk is; the text says which file and how much
 *   DS_NO_MEMORY, DS_IO */
DS_MUST_USE enum ds_status
journal_reserve(struct journal *journal, size_t body_bytes, struct ds_error *err);

/* Room must be reserved. */
void journal_append(struct journal *journal, enum record_type type,
                    struct request_id id, struct ds_slice body);

/* Records are appended and not flushed. */
bool journal_is_pending(const struct journal *journal);

/* DS_IO: what is in the file is not known, so the queue must not go on with what it has
 * in memory. */
DS_MUST_USE enum ds_status journal_flush(struct journal *journal, struct ds_error *err);

/* What is in the file: see struct journal_sync (wire/journals.h), but for its number. */
struct journal_extent {
    uint64_t id;
    uint64_t inode;
    uint64_t bytes;
    uint64_t sequence;
};
struct journal_extent journal_extent(const struct journal *journal);

/* It has grown long for what it says. */
bool journal_is_long(const struct journal *journal);

/* Puts a snapshot in its place, in one step: FILE.new becomes FILE. Nothing may be
 * pending. Takes about 1 us a row. If that cannot be done, for want of room or
 * memory, the log says why, the journal goes on as it was and is not long for a while.
 *   DS_IO   what is on the disk is not known, so the queue must not go on */
DS_MUST_USE enum ds_status
journal_compact(struct journal *journal, const struct snapshot_source *source,
                struct ds_error *err);

/* The queue has ended: nobody needs the file. */
void journal_remove(struct journal *journal);

#endif
