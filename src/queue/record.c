#include "queue/record.h"

#include "queue/hash.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"

static const char magic[8] = {'T', 'Q', 'J', 'O', 'U', 'R', 'N', '\n'};

enum {
    HEADER_CHECKSUM_AT = JOURNAL_HEADER_BYTES - 8,
    RECORD_CHECKSUM_AT = RECORD_HEADER_BYTES - 8,
};

/* ---- The header ---- */

static void
put_u64(uint8_t *at, uint64_t value)
{
    for (size_t i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static bool
is_zero(struct ds_slice bytes)
{
    const uint8_t *at = bytes.data;
    return bytes.len == 0 || (at[0] == 0 && memcmp(at, at + 1, bytes.len - 1) == 0);
}

uint64_t
journal_session(struct ds_slice name)
{
    return hash_slice(name);
}

void
journal_header_encode(const struct journal_header *header,
                      uint8_t out[JOURNAL_HEADER_BYTES])
{
    memset(out, 0, JOURNAL_HEADER_BYTES);
    memcpy(out, magic, sizeof magic);
    put_u64(out + 8, JOURNAL_VERSION);
    put_u64(out + 16, header->id);
    put_u64(out + 24, header->session);
    put_u64(out + 32, header->first_sequence);
    put_u64(out + 40, header->syncs);
    put_u64(out + 48, header->compact_bytes);
    put_u64(out + HEADER_CHECKSUM_AT, hash_bytes(out, HEADER_CHECKSUM_AT));
}

enum ds_status
journal_header_decode(struct ds_slice file, struct journal_header *out,
                      struct ds_error *err)
{
    const uint8_t *bytes = file.data;
    size_t len = min_u64(file.len, JOURNAL_HEADER_BYTES);
    if (is_zero(slice(bytes, len)))
        return ds_fail(err, DS_NOT_FOUND, "it is empty");
    if (len < JOURNAL_HEADER_BYTES || memcmp(bytes, magic, sizeof magic) != 0)
        return ds_fail(err, DS_CORRUPT, "it does not begin as a journal does");
    struct reader reader = reader_of(bytes + 8, JOURNAL_HEADER_BYTES - 8);
    uint64_t version = read_u64(&reader);
    if (version != JOURNAL_VERSION)
        return ds_fail(err, DS_MISMATCH, "it is a journal of version %ju, this is %d",
                       (uintmax_t)version, JOURNAL_VERSION);
    struct journal_header header = {.id = read_u64(&reader)};
    header.session = read_u64(&reader);
    header.first_sequence = read_u64(&reader);
    header.syncs = read_u64(&reader) != 0;
    header.compact_bytes = read_u64(&reader);
    if (read_u64(&reader) != hash_bytes(bytes, HEADER_CHECKSUM_AT))
        return ds_fail(err, DS_CORRUPT, "its header is damaged");
    *out = header;
    return DS_OK;
}

/* ---- Records ---- */

uint64_t
record_bytes(size_t body_bytes)
{
    return round_up(RECORD_HEADER_BYTES + (uint64_t)body_bytes, RECORD_ALIGNMENT);
}

/* Of a record that stands at `at`, whole. */
static uint64_t
checksum(uint64_t journal_id, const uint8_t *at, size_t body_bytes)
{
    uint64_t of_header = XXH3_64bits_withSeed(at, RECORD_CHECKSUM_AT, journal_id);
    return XXH3_64bits_withSeed(at + RECORD_HEADER_BYTES, body_bytes, of_header);
}

void
record_write(struct writer *writer, uint64_t journal_id, const struct record *record)
{
    DS_ASSERT(record->body.len <= RECORD_BODY_BYTES_MAX);
    DS_ASSERT(record->type > 0 && record->type < RECORD_TYPE_COUNT);
    size_t at = writer->len;
    write_u32(writer, record->type); /* Never 0: a record begins unlike room does. */
    write_u32(writer, (uint32_t)record->body.len);
    write_u64(writer, record->sequence);
    write_u64(writer, record->client);
    write_u64(writer, record->request);
    write_u64(writer, 0);
    write_bytes(writer, record->body);
    static const uint8_t zeros[RECORD_ALIGNMENT];
    size_t padding =
        (size_t)record_bytes(record->body.len) - RECORD_HEADER_BYTES - record->body.len;
    write_bytes(writer, slice(zeros, padding));
    if (writer->failed)
        return;
    uint8_t *bytes = writer->data + at;
    put_u64(bytes + RECORD_CHECKSUM_AT, checksum(journal_id, bytes, record->body.len));
}

/* ---- Reading ---- */

struct record_reader
record_reader_of(struct ds_slice file, const struct journal_header *header)
{
    DS_ASSERT(file.len >= JOURNAL_HEADER_BYTES);
    return (struct record_reader){
        .file = file,
        .journal_id = header->id,
        .next_sequence = header->first_sequence,
        .at = JOURNAL_HEADER_BYTES,
    };
}

/* The record at this place if there is a whole one. */
static bool
read_at(const struct record_reader *reader, size_t at, struct record *out)
{
    const uint8_t *bytes = (const uint8_t *)reader->file.data + at;
    size_t left = reader->file.len - at;
    if (left < RECORD_HEADER_BYTES)
        return false;
    struct reader fields = reader_of(bytes, RECORD_HEADER_BYTES);
    uint32_t type = read_u32(&fields);
    uint32_t body_bytes = read_u32(&fields);
    struct record record = {.type = (enum record_type)type};
    record.sequence = read_u64(&fields);
    record.client = read_u64(&fields);
    record.request = read_u64(&fields);
    uint64_t expected = read_u64(&fields);
    if (type == 0 || type >= RECORD_TYPE_COUNT || body_bytes > RECORD_BODY_BYTES_MAX ||
        record_bytes(body_bytes) > left || record.sequence < reader->next_sequence)
        return false;
    if (checksum(reader->journal_id, bytes, body_bytes) != expected)
        return false;
    record.body = slice(bytes + RECORD_HEADER_BYTES, body_bytes);
    *out = record;
    return true;
}

/* What it is that stands where a record should. */
static enum record_found
judge(struct record_reader *reader)
{
    const uint8_t *bytes = reader->file.data;
    if (is_zero(slice(bytes + reader->at, reader->file.len - reader->at)))
        return RECORD_END;
    struct record later;
    for (size_t at = reader->at; at < reader->file.len; at += RECORD_ALIGNMENT) {
        if (!read_at(reader, at, &later))
            continue;
        reader->found_at = at;
        reader->found_sequence = later.sequence;
        return RECORD_DAMAGED;
    }
    return RECORD_CUT_OFF;
}

enum record_found
record_next(struct record_reader *reader, struct record *out)
{
    struct record record;
    DS_ASSERT(reader->at <= reader->file.len);
    if (!read_at(reader, reader->at, &record) ||
        record.sequence != reader->next_sequence)
        return judge(reader);
    reader->at += (size_t)record_bytes(record.body.len);
    reader->next_sequence++;
    *out = record;
    return RECORD_WHOLE;
}
