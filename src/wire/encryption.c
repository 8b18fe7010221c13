#include "wire/encryption.h"

#include "wire/cursor.h"

#include "base/check.h"
#include "base/numeric.h"

#include <sodium/crypto_aead_chacha20poly1305.h>
#include <sodium/utils.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_BYTES = crypto_aead_chacha20poly1305_ietf_NPUBBYTES };

static_assert(sizeof(struct auth_key) == crypto_aead_chacha20poly1305_ietf_KEYBYTES,
              "the cipher takes such a key");
static_assert(RECORD_TAG_BYTES == crypto_aead_chacha20poly1305_ietf_ABYTES,
              "the cipher makes such a tag");

/* Little-endian, as all numbers here. */
static void
store(uint8_t *at, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

/* The cipher's nonce: 4 bytes that are the same for all, then the record's number. */
static void
store_number(uint8_t out[NUMBER_BYTES], uint64_t number)
{
    DS_ASSERT(number < UINT64_MAX);
    memset(out, 0, NUMBER_BYTES);
    store(out + 4, number, sizeof number);
}

/* ---- Life ---- */

struct encryption *
encryption_create(const struct auth_key *key, const struct auth_opening *opening,
                  enum auth_end us)
{
    struct encryption *encryption = calloc(1, sizeof *encryption);
    if (encryption == NULL)
        return NULL;
    enum auth_end peer = us == AUTH_CONNECTED ? AUTH_ACCEPTED : AUTH_CONNECTED;
    auth_stream_key(key, opening, us, &encryption->out.key);
    auth_stream_key(key, opening, peer, &encryption->in.key);
    return encryption;
}

void
encryption_destroy(struct encryption *encryption)
{
    if (encryption == NULL)
        return;
    sodium_memzero(encryption, sizeof *encryption);
    free(encryption);
}

/* ---- Sending ---- */

/* Encrypts `content`, which may be where it goes already. */
static void
seal(struct encryptor *encryptor, const uint8_t *content, size_t bytes)
{
    uint8_t number[NUMBER_BYTES];
    uint8_t *at = encryptor->record + RECORD_LENGTH_BYTES;
    store_number(number, encryptor->number++);
    store(encryptor->record, bytes, RECORD_LENGTH_BYTES);
    int result = crypto_aead_chacha20poly1305_ietf_encrypt_detached(
        at, at + bytes, NULL, content, bytes, encryptor->record, RECORD_LENGTH_BYTES,
        NULL, number, encryptor->key.bytes);
    DS_ASSERT(result == 0);
    encryptor->start = 0;
    encryptor->end = bytes + RECORD_OVERHEAD_BYTES;
}

size_t
encryptor_fill(struct encryptor *encryptor, const struct ds_slice *parts,
               size_t part_count, uint64_t skip)
{
    DS_ASSERT(encryptor->start == encryptor->end);
    uint8_t *content = encryptor->record + RECORD_LENGTH_BYTES;
    size_t bytes = 0;
    for (size_t i = 0; i < part_count && bytes < RECORD_CONTENT_BYTES_MAX; i++) {
        if (skip >= parts[i].len) {
            skip -= parts[i].len;
            continue;
        }
        const uint8_t *from = (const uint8_t *)parts[i].data + skip;
        size_t step = min_u64(parts[i].len - skip, RECORD_CONTENT_BYTES_MAX - bytes);
        skip = 0;
        if (step == RECORD_CONTENT_BYTES_MAX) { /* Without a copy in between. */
            seal(encryptor, from, step);
            return step;
        }
        memcpy(content + bytes, from, step);
        bytes += step;
    }
    if (bytes > 0)
        seal(encryptor, content, bytes);
    return bytes;
}

struct ds_slice
encryptor_unsent(const struct encryptor *encryptor)
{
    return (struct ds_slice){encryptor->record + encryptor->start,
                             encryptor->end - encryptor->start};
}

void
encryptor_sent(struct encryptor *encryptor, size_t bytes)
{
    DS_ASSERT(bytes <= encryptor->end - encryptor->start);
    encryptor->start += bytes;
}

/* ---- Receiving ---- */

static size_t
content_left(const struct decryptor *decryptor)
{
    return decryptor->content_end - decryptor->content_start;
}

static size_t
received(const struct decryptor *decryptor)
{
    return decryptor->end - decryptor->start;
}

/* What the record at start says; only once so much of it was received. */
static uint32_t
length_at_start(const struct decryptor *decryptor)
{
    DS_ASSERT(received(decryptor) >= RECORD_LENGTH_BYTES);
    struct reader reader =
        reader_of(decryptor->input + decryptor->start, RECORD_LENGTH_BYTES);
    return read_u32(&reader);
}

static bool
is_possible(uint32_t length)
{
    return length > 0 && length <= RECORD_CONTENT_BYTES_MAX;
}

bool
decryptor_has_record(const struct decryptor *decryptor)
{
    if (content_left(decryptor) > 0)
        return true;
    if (received(decryptor) < RECORD_LENGTH_BYTES)
        return false;
    uint32_t length = length_at_start(decryptor);
    return !is_possible(length) ||
           received(decryptor) >= length + RECORD_OVERHEAD_BYTES;
}

/* Decrypts the record at start to `out`, which may be where its content lies, and steps
 * behind it: not if it is wrong, so that it stays so. */
static bool
open_record(struct decryptor *decryptor, uint32_t length, uint8_t *out)
{
    uint8_t number[NUMBER_BYTES];
    const uint8_t *record = decryptor->input + decryptor->start;
    const uint8_t *content = record + RECORD_LENGTH_BYTES;
    store_number(number, decryptor->number);
    int result = crypto_aead_chacha20poly1305_ietf_decrypt_detached(
        out, NULL, content, length, content + length, record, RECORD_LENGTH_BYTES,
        number, decryptor->key.bytes);
    if (result != 0)
        return false;
    decryptor->number++;
    decryptor->start += length + RECORD_OVERHEAD_BYTES;
    return true;
}

/* Decrypts the record at start where it lies. */
static bool
open_in_place(struct decryptor *decryptor, uint32_t length)
{
    size_t at = decryptor->start + RECORD_LENGTH_BYTES;
    if (!open_record(decryptor, length, decryptor->input + at))
        return false;
    decryptor->content_start = at;
    decryptor->content_end = at + length;
    return true;
}

bool
decryptor_read(struct decryptor *decryptor, void *out, size_t bytes, size_t *out_got)
{
    DS_ASSERT(bytes > 0);
    *out_got = 0;
    if (!decryptor_has_record(decryptor))
        return true;
    if (content_left(decryptor) == 0) {
        uint32_t length = length_at_start(decryptor);
        if (!is_possible(length))
            return false;
        if (length <= bytes) {
            bool is_right = open_record(decryptor, length, out);
            *out_got = is_right ? length : 0;
            return is_right;
        }
        if (!open_in_place(decryptor, length))
            return false;
    }
    *out_got = min_u64(bytes, content_left(decryptor));
    memcpy(out, decryptor->input + decryptor->content_start, *out_got);
    decryptor->content_start += *out_got;
    return true;
}

/* Little is ever moved: no more is asked for than RECORD_AHEAD_BYTES, or the rest of a record
 * and the length of the next. */
void *
decryptor_room(struct decryptor *decryptor, size_t *out_bytes)
{
    DS_ASSERT(!decryptor_has_record(decryptor));
    size_t len = received(decryptor);
    size_t wanted = RECORD_AHEAD_BYTES;
    if (len > 0 && decryptor->start > 0)
        memmove(decryptor->input, decryptor->input + decryptor->start, len);
    decryptor->content_start = decryptor->content_end = 0;
    decryptor->start = 0;
    decryptor->end = len;
    if (len >= RECORD_LENGTH_BYTES) {
        size_t missing = length_at_start(decryptor) + RECORD_OVERHEAD_BYTES - len;
        wanted = max_u64(wanted, missing + RECORD_LENGTH_BYTES);
    }
    DS_ASSERT(wanted <= sizeof decryptor->input - len);
    *out_bytes = wanted;
    return decryptor->input + len;
}

void
decryptor_received(struct decryptor *decryptor, size_t bytes)
{
    DS_ASSERT(bytes <= sizeof decryptor->input - decryptor->end);
    decryptor->end += bytes;
}

bool
decryptor_is_empty(const struct decryptor *decryptor)
{
    return content_left(decryptor) == 0 && received(decryptor) == 0;
}
