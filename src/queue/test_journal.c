#include "queue/test_journal.h"

#include "queue/replay.h"
#include "queue/snapshot.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"

enum { CLIENT = 1 };

static const struct journal_header header = {.id = 77, .first_sequence = 1};

struct test_journal
test_journal_begin(void)
{
    struct test_journal journal = {.next_sequence = header.first_sequence};
    uint8_t bytes[JOURNAL_HEADER_BYTES];
    journal_header_encode(&header, bytes);
    write_bytes(&journal.file, slice(bytes, sizeof bytes));
    return journal;
}

void
test_journal_end(struct test_journal *journal)
{
    writer_fini(&journal->file);
    writer_fini(&journal->last_reply);
}

void
test_journal_append(struct test_journal *journal, const struct talk *talk)
{
    struct record record = {
        .type = RECORD_REQUEST,
        .sequence = journal->next_sequence++,
        .client = CLIENT,
        .request = ++journal->last_request,
        .body = slice(talk->request.data, talk->request.len),
    };
    record_write(&journal->file, header.id, &record);
    writer_clear(&journal->last_reply);
    write_bytes(&journal->last_reply, slice(talk->reply.data, talk->reply.len));
    DS_ASSERT(!journal->file.failed);
    DS_ASSERT(!journal->last_reply.failed);
}

static enum ds_status
take_record(enum record_type type, struct ds_slice body, void *arg,
            struct ds_error *err)
{
    struct test_journal *journal = arg;
    (void)err;
    struct record record = {
        .type = type, .sequence = journal->next_sequence++, .body = body};
    record_write(&journal->file, header.id, &record);
    return DS_OK;
}

void
test_journal_compact(struct test_journal *journal, const struct queue *queue)
{
    AUTO(replies) struct replies *replies = NULL;
    enum ds_status status = replies_create(&replies, NULL);
    DS_ASSERT(status == DS_OK);
    struct request_id id = {CLIENT, journal->last_request};
    if (id.number > 0 && replies_reserve(replies, id))
        replies_keep(replies, id,
                     slice(journal->last_reply.data, journal->last_reply.len));
    struct journal_header anew = header;
    anew.first_sequence = journal->next_sequence;
    uint8_t bytes[JOURNAL_HEADER_BYTES];
    journal_header_encode(&anew, bytes);
    writer_clear(&journal->file);
    write_bytes(&journal->file, slice(bytes, sizeof bytes));
    struct snapshot_source source = {.queue = queue, .replies = replies};
    status = snapshot_write(&source, take_record, journal, NULL);
    DS_ASSERT(status == DS_OK);
    DS_ASSERT(!journal->file.failed);
}

static void
check_last_reply(const struct test_journal *journal, const struct replies *replies)
{
    struct request_id id = {CLIENT, journal->last_request};
    struct ds_slice kept = {0};
    if (id.number == 0)
        return;
    enum reply_found found = replies_find(replies, id, &kept);
    DS_ASSERT(found == REPLY_KEPT);
    DS_ASSERT(
        slice_equal(kept, slice(journal->last_reply.data, journal->last_reply.len)));
}

void
test_journal_replay(struct test_journal *journal, struct queue *queue,
                    size_t half_bytes)
{
    static const char half[] = "\1\0\0\0half a record";
    size_t whole = journal->file.len;
    write_bytes(&journal->file, slice(half, min_u64(half_bytes, sizeof half)));
    struct ds_slice file = slice(journal->file.data, journal->file.len);
    struct journal_header found_header;
    enum ds_status status = journal_header_decode(file, &found_header, NULL);
    DS_ASSERT(status == DS_OK);
    struct record_reader reader = record_reader_of(file, &found_header);
    AUTO(replies) struct replies *replies = NULL;
    status = replies_create(&replies, NULL);
    DS_ASSERT(status == DS_OK);
    struct record record;
    enum record_found found;
    while ((found = record_next(&reader, &record)) == RECORD_WHOLE) {
        status = replay_record(queue, replies, &record, NULL);
        DS_ASSERT(status == DS_OK);
    }
    DS_ASSERT(found == (half_bytes == 0 ? RECORD_END : RECORD_CUT_OFF));
    DS_ASSERT(reader.at == whole);
    DS_ASSERT(reader.next_sequence == journal->next_sequence);
    check_last_reply(journal, replies);
    journal->file.len = whole;
}
