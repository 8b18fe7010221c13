/* Encrypted records: whatever is handed out is what the other end would have sent as these
 * very bytes, and the sizes in which bytes arrive and are read change nothing.
 *
 *   size u8 of the pieces | bytes as they arrive */
#include "fuzz.h"

#include "encryption_ends.h"

#include <stdlib.h>
#include <string.h>

/* What was handed out of one input. */
struct outcome {
    bool is_right; /* No record was wrong. */
    size_t len;
    uint8_t *bytes;
};

static size_t
at_most(size_t bytes, size_t limit)
{
    return bytes < limit ? bytes : limit;
}

/* Gives the bytes in pieces, and reads in pieces, of at most so many bytes. */
static struct outcome
receive(const uint8_t *data, size_t size, size_t piece)
{
    struct encryption *encryption = encryption_end(AUTH_ACCEPTED);
    size_t capacity =
        size + 1; /* Never full: a record has more bytes than its content. */
    struct outcome outcome = {.is_right = true, .bytes = malloc(capacity)};
    DS_ASSERT(outcome.bytes != NULL);
    for (;;) {
        size_t got, room;
        size_t left = at_most(capacity - outcome.len, piece);
        outcome.is_right =
            decryptor_read(&encryption->in, outcome.bytes + outcome.len, left, &got);
        DS_ASSERT(got <= left);
        outcome.len += got;
        if (!outcome.is_right || (got == 0 && size == 0))
            break;
        if (got > 0)
            continue;
        DS_ASSERT(!decryptor_has_record(&encryption->in));
        void *at = decryptor_room(&encryption->in, &room);
        size_t step = at_most(at_most(room, piece), size);
        memcpy(at, data, step);
        decryptor_received(&encryption->in, step);
        data += step;
        size -= step;
    }
    encryption_destroy(encryption);
    return outcome;
}

/* Each record that opened, made again by the other end. */
static void
check_records(const uint8_t *data, const struct outcome *outcome)
{
    struct encryption *sender = encryption_end(AUTH_CONNECTED);
    for (size_t done = 0; done < outcome->len;) {
        uint32_t length = data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16;
        struct ds_slice part = slice(outcome->bytes + done, length);
        DS_ASSERT(length <= outcome->len - done);
        size_t taken = encryptor_fill(&sender->out, &part, 1, 0);
        DS_ASSERT(taken == length);
        struct ds_slice record = encryptor_unsent(&sender->out);
        DS_ASSERT(memcmp(record.data, data, record.len) == 0);
        encryptor_sent(&sender->out, record.len);
        data += record.len;
        done += length;
    }
    encryption_destroy(sender);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t piece = (size_t)data[0] + 1;
    data++;
    size--;
    struct outcome whole = receive(data, size, size + 1);
    struct outcome pieces = receive(data, size, piece);
    DS_ASSERT(whole.is_right == pieces.is_right);
    DS_ASSERT(whole.len == pieces.len);
    DS_ASSERT(memcmp(whole.bytes, pieces.bytes, whole.len) == 0);
    check_records(data, &whole);
    free(whole.bytes);
    free(pieces.bytes);
    return 0;
}
