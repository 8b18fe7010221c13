/* The journal's records: what the queue did, as bytes of a file, and back.
 *
 *   file     header (JOURNAL_HEADER_BYTES), records one after another, zeros
 *   record   type u32 | body_bytes u32 | sequence u64 | client u64 | request u64 |
 *            checksum u64 | body | zeros up to a multiple of 8
 *
 * All numbers are little endian. The checksum (XXH3-64 with the journal's id as seed)
 * is over the rest of the record's header and the body, so that bytes of another
 * journal, or of this place's past, never count as a record. Sequences have no gap.
 *
 * Behind the last record the file has zeros: room taken from the disk in advance. What
 * is neither a record nor zeros is either a tail that was being written when everything
 * stopped, and nobody was told that it is kept; or damage, if there are whole records
 * behind it. record_next() tells the two apart. Pure.
 */
#ifndef QUEUE_RECORD_H
#define QUEUE_RECORD_H

#include "wire/cursor.h"

enum {
    JOURNAL_VERSION = 2,
    JOURNAL_HEADER_BYTES = 64,
    RECORD_HEADER_BYTES = 40,
    RECORD_ALIGNMENT = 8,
    RECORD_BODY_BYTES_MAX = 512 << 20,
};

/* ---- The header ---- */

struct journal_header {
    uint64_t id;             /* Random. */
    uint64_t session;        /* Whose journal it is: a hash of a text. */
    uint64_t first_sequence; /* Of the records. */
    bool syncs;              /* Also a power cut loses nothing that was acknowledged. */
    uint64_t compact_bytes;  /* It is written anew when it has grown by so many; 0: by
                                what its controller takes by itself. */
};

/* The number that stands for a session's name. */
uint64_t journal_session(struct ds_slice name);
void journal_header_encode(const struct journal_header *header,
                           uint8_t out[JOURNAL_HEADER_BYTES]);

/* DS_NOT_FOUND   nothing there yet: no bytes, or zeros only
 * DS_MISMATCH    of another version
 * DS_CORRUPT     not a journal, or damaged */
DS_MUST_USE enum ds_status
journal_header_decode(struct ds_slice file, struct journal_header *out,
                      struct ds_error *err);

/* ---- Records ---- */

enum record_type {
    RECORD_REQUEST = 1, /* A request that was applied; body: as it came. */
    RECORD_REFUSED,     /* A block given up; body: its id, 16 bytes. */
    SNAPSHOT_FIELDS,    /* A snapshot, from FIELDS to END: queue/snapshot.h. */
    SNAPSHOT_INDEXES,
    SNAPSHOT_BLOCKS,
    SNAPSHOT_ROWS,
    SNAPSHOT_PAST,
    SNAPSHOT_DEAD,
    SNAPSHOT_REPLIES,
    SNAPSHOT_END,
    RECORD_TYPE_COUNT
};

struct record {
    enum record_type type;
    uint64_t sequence;
    uint64_t client;  /* Who asked, and with which number; 0, 0: nobody in */
    uint64_t request; /* particular. */
    struct ds_slice body;
};

/* Bytes in the file. */
uint64_t record_bytes(size_t body_bytes);

void
record_write(struct writer *writer, uint64_t journal_id, const struct record *record);

/* ---- Reading ---- */

enum record_found {
    RECORD_WHOLE,
    RECORD_END,     /* Only zeros are left. */
    RECORD_CUT_OFF, /* A record that was not written to its end, and none behind it. */
    RECORD_DAMAGED, /* No record here, but whole ones behind it, from `found_at` on. */
};

/* Owner: whoever holds it; borrows the file's bytes. */
struct record_reader {
    struct ds_slice file;
    uint64_t journal_id;
    uint64_t next_sequence;
    size_t at;               /* Of the next record; the end of the last whole one. */
    size_t found_at;         /* With RECORD_DAMAGED: the next whole record's place, */
    uint64_t found_sequence; /* and its number. */
};
struct record_reader
record_reader_of(struct ds_slice file, const struct journal_header *header);

/* Steps over one record, whose body is borrowed from the file. */
enum record_found record_next(struct record_reader *reader, struct record *out);

#endif
