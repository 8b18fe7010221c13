/* Snapshots of the queue: any records at all are refused, or make a queue that is whole.
 *
 * The first byte says how the file is damaged; then come records, each
 * type u8 | body_bytes u16 | body, which are put into a journal and read from there. */
#include "fuzz.h"

#include "queue/replay.h"
#include "queue/snapshot.h"

static enum ds_status
apply(struct queue *queue, struct replies *replies, const struct record *record)
{
    struct ds_error err = {0};
    enum ds_status status = replay_record(queue, replies, record, &err);
    DS_ASSERT(status == DS_OK || err.message[0] != '\0');
    return status;
}

/* The records of the input, as a journal's file. */
static void
write_file(struct reader *input, const struct journal_header *header,
           struct writer *out)
{
    uint8_t bytes[JOURNAL_HEADER_BYTES];
    uint64_t sequence = header->first_sequence;
    journal_header_encode(header, bytes);
    write_bytes(out, slice(bytes, sizeof bytes));
    while (reader_left(input) > 0) {
        uint8_t type = read_u8(input);
        struct ds_slice body = read_short_bytes(input);
        if (!reader_ok(input) || type == 0 || type >= RECORD_TYPE_COUNT)
            return;
        struct record record = {.type = (enum record_type)type,
                                .sequence = sequence,
                                .client = type,
                                .request = sequence,
                                .body = body};
        record_write(out, header->id, &record);
        sequence++;
    }
}

/* One byte becomes another, and the end is cut off. */
static void
damage(struct writer *file, uint8_t how)
{
    if ((how & 2) != 0)
        file->data[how * 7u % file->len] ^= how;
    if ((how & 4) != 0)
        file->len -= how % file->len;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    AUTO(queue) struct queue *queue = NULL;
    AUTO(replies) struct replies *replies = NULL;
    AUTO_WRITER(file);
    struct queue_options options = {.limits = queue_limits_default()};
    options.limits.rows_max = 4096; /* Its indexes are allocated at once. */
    if (queue_create(&options, &queue, NULL) != DS_OK ||
        replies_create(&replies, NULL) != DS_OK)
        return 0;
    struct journal_header header = {.id = 7, .first_sequence = 1};
    struct reader input = reader_of(data + 1, size - 1);
    write_file(&input, &header, &file);
    damage(&file, data[0]);
    struct ds_slice whole = slice(file.data, file.len);
    if (journal_header_decode(whole, &header, NULL) != DS_OK)
        return 0;
    struct record record;
    struct record_reader reader = record_reader_of(whole, &header);
    while (record_next(&reader, &record) == RECORD_WHOLE) {
        if (apply(queue, replies, &record) != DS_OK)
            return 0;
        if (!queue_is_loading(queue))
            queue_check(queue);
    }
    DS_ASSERT(reader.at <= whole.len);
    return 0;
}
