#include "queue/record.h"

#include "base/slice.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

enum { RECORDS = 4, ROOM = 256 };

/* A journal of RECORDS records with bodies of different lengths, then zeros. */
struct sample {
    struct journal_header header;
    struct writer file;
    size_t ends[RECORDS + 1]; /* ends[i]: where the first i records end. */
};

static const char *const bodies[RECORDS] = {"12345678", "", "a body of 22 bytes now",
                                            "x"};

static struct record
record_of(uint64_t i)
{
    return (struct record){
        .type = i == 1 ? RECORD_REFUSED : RECORD_REQUEST,
        .sequence = 100 + i,
        .client = 7 * i,
        .request = i,
        .body = slice(bodies[i], strlen(bodies[i])),
    };
}

static struct sample
sample_begin(void)
{
    struct sample sample = {.header = {.id = 0x123456789abcdef0,
                                       .session = 3,
                                       .first_sequence = 100,
                                       .syncs = true,
                                       .compact_bytes = 5000}};
    uint8_t header[JOURNAL_HEADER_BYTES];
    journal_header_encode(&sample.header, header);
    write_bytes(&sample.file, slice(header, sizeof header));
    sample.ends[0] = sample.file.len;
    for (uint64_t i = 0; i < RECORDS; i++) {
        struct record record = record_of(i);
        size_t before = sample.file.len;
        record_write(&sample.file, sample.header.id, &record);
        CHECK_INT(sample.file.len - before, record_bytes(record.body.len));
        sample.ends[i + 1] = sample.file.len;
    }
    static const uint8_t room[ROOM];
    write_bytes(&sample.file, slice(room, sizeof room));
    CHECK(!sample.file.failed);
    return sample;
}

static void
sample_end(struct sample *sample)
{
    writer_fini(&sample->file);
}

#define SAMPLE(name) \
    __attribute__((cleanup(sample_end))) struct sample name = sample_begin()

/* Reads whole records, which must be the sample's; returns how many, and what ended it.
 */
static uint64_t
read_all(const struct sample *sample, struct ds_slice file,
         struct record_reader *reader, enum record_found *out_end)
{
    *reader = record_reader_of(file, &sample->header);
    struct record record = {0};
    uint64_t count = 0;
    while ((*out_end = record_next(reader, &record)) == RECORD_WHOLE) {
        struct record expected = record_of(count);
        CHECK_INT(record.type, expected.type);
        CHECK_INT(record.sequence, expected.sequence);
        CHECK_INT(record.client, expected.client);
        CHECK_INT(record.request, expected.request);
        CHECK(slice_equal(record.body, expected.body));
        count++;
    }
    CHECK_INT(reader->at, sample->ends[count]);
    return count;
}

TEST(what_was_written_is_read)
{
    SAMPLE(sample);
    struct record_reader reader;
    enum record_found end;
    struct ds_slice file = slice(sample.file.data, sample.file.len);
    CHECK_INT(read_all(&sample, file, &reader, &end), RECORDS);
    CHECK_INT(end, RECORD_END);
}

/* A file that ends anywhere gives its whole records and, unless it ends exactly behind
 * one, says that there was more. */
TEST(a_file_cut_at_any_byte_gives_its_whole_records)
{
    SAMPLE(sample);
    for (size_t len = JOURNAL_HEADER_BYTES; len <= sample.ends[RECORDS]; len++) {
        struct record_reader reader;
        enum record_found end;
        uint8_t *copy = malloc(len); /* Exactly, so that ASan sees a byte too far. */
        CHECK(copy != NULL);
        memcpy(copy, sample.file.data, len);
        uint64_t count = read_all(&sample, slice(copy, len), &reader, &end);
        CHECK(len >= sample.ends[count]);
        CHECK(count == RECORDS || len < sample.ends[count + 1]);
        CHECK_INT(end, len == sample.ends[count] ? RECORD_END : RECORD_CUT_OFF);
        free(copy);
    }
}

/* The same where the rest of the room is zeros, as after a kill in a write: bytes that
 * happen to be zero cannot be told from room, and then the end is an end. */
TEST(a_write_cut_at_any_byte_gives_its_whole_records)
{
    SAMPLE(sample);
    for (size_t len = JOURNAL_HEADER_BYTES; len <= sample.ends[RECORDS]; len++) {
        struct record_reader reader;
        enum record_found end;
        AUTO_WRITER(copy);
        write_bytes(&copy, slice(sample.file.data, sample.file.len));
        memset(copy.data + len, 0, copy.len - len);
        uint64_t count = read_all(&sample, slice(copy.data, copy.len), &reader, &end);
        /* The last bytes of a record may be padding, which is zeros anyway. */
        CHECK(count == RECORDS || len < sample.ends[count + 1]);
        CHECK(len + RECORD_ALIGNMENT > sample.ends[count]);
        CHECK(end == RECORD_END || end == RECORD_CUT_OFF);
    }
}

/* Any flipped bit in a record is seen, and what is behind it is not passed over in
 * silence. */
TEST(a_flipped_bit_is_seen)
{
    SAMPLE(sample);
    for (size_t bit = 8 * sample.ends[0]; bit < 8 * sample.ends[RECORDS]; bit++) {
        size_t at = bit / 8;
        sample.file.data[at] ^= (uint8_t)(1 << bit % 8);
        struct record_reader reader;
        enum record_found end;
        uint64_t count =
            read_all(&sample, slice(sample.file.data, sample.file.len), &reader, &end);
        if (count == RECORDS) { /* In the padding of the last one. */
            CHECK_INT(end, RECORD_END);
        } else {
            CHECK(at >= sample.ends[count] && at < sample.ends[count + 1]);
            CHECK_INT(end, count == RECORDS - 1 ? RECORD_CUT_OFF : RECORD_DAMAGED);
            if (end == RECORD_DAMAGED)
                CHECK_INT(reader.found_sequence, 100 + count + 1);
        }
        sample.file.data[at] ^= (uint8_t)(1 << bit % 8);
    }
}

/* A record in the middle that became zeros is no end. */
TEST(zeros_before_records_are_damage)
{
    SAMPLE(sample);
    memset(sample.file.data + sample.ends[1], 0, sample.ends[2] - sample.ends[1]);
    struct record_reader reader;
    enum record_found end;
    CHECK_INT(
        read_all(&sample, slice(sample.file.data, sample.file.len), &reader, &end), 1);
    CHECK_INT(end, RECORD_DAMAGED);
    CHECK_INT(reader.found_at, sample.ends[2]);
    CHECK_INT(reader.found_sequence, 102);
}

TEST(records_of_another_journal_do_not_count)
{
    SAMPLE(sample);
    sample.header.id++;
    struct record_reader reader;
    enum record_found end;
    CHECK_INT(
        read_all(&sample, slice(sample.file.data, sample.file.len), &reader, &end), 0);
    CHECK_INT(end, RECORD_CUT_OFF);
}

TEST(the_header_comes_back)
{
    SAMPLE(sample);
    struct journal_header header = {0};
    CHECK_OK(
        journal_header_decode(slice(sample.file.data, sample.file.len), &header, NULL));
    CHECK_INT(header.id, sample.header.id);
    CHECK_INT(header.session, 3);
    CHECK_INT(header.first_sequence, 100);
    CHECK(header.syncs);
    CHECK_INT(header.compact_bytes, 5000);
}

TEST(what_is_no_header_is_refused)
{
    SAMPLE(sample);
    struct journal_header header;
    struct ds_error err = {0};
    uint8_t *bytes = sample.file.data;
    CHECK_STATUS(journal_header_decode(slice(bytes, 0), &header, &err), DS_NOT_FOUND);
    CHECK_STATUS(journal_header_decode(slice(bytes, 63), &header, &err), DS_CORRUPT);
    for (size_t at = 0; at < JOURNAL_HEADER_BYTES; at++) {
        bytes[at] ^= 0x10;
        enum ds_status expected = at >= 8 && at < 16 ? DS_MISMATCH : DS_CORRUPT;
        CHECK_STATUS(
            journal_header_decode(slice(bytes, JOURNAL_HEADER_BYTES), &header, &err),
            expected);
        bytes[at] ^= 0x10;
    }
    memset(bytes, 0, JOURNAL_HEADER_BYTES);
    CHECK_STATUS(
        journal_header_decode(slice(bytes, JOURNAL_HEADER_BYTES), &header, &err),
        DS_NOT_FOUND);
}

TEST_MAIN(RUN(what_was_written_is_read),
          RUN(a_file_cut_at_any_byte_gives_its_whole_records),
          RUN(a_write_cut_at_any_byte_gives_its_whole_records),
          RUN(a_flipped_bit_is_seen), RUN(zeros_before_records_are_damage),
          RUN(records_of_another_journal_do_not_count), RUN(the_header_comes_back),
          RUN(what_is_no_header_is_refused))
