/* What passes on a connection after the proof of a key (wire/auth.h), encrypted: a stream
 * of bytes for each direction, cut into records.
 *
 *      bytes u32 | as many encrypted bytes | tag, 16 bytes
 *
 * Each is encrypted and authenticated, length included, with ChaCha20-Poly1305 (RFC 8439),
 * under the direction's own key and the record's number, which counts up from 0 and is not
 * sent. So a record that was changed, repeated, left out, or comes in another order or from
 * another connection does not open, and nothing of it is handed out.
 *
 * A stream that ends between two records looks like one that was closed: what it carries
 * has to tell by itself whether something is missing. Pure. */
#ifndef WIRE_ENCRYPTION_H
#define WIRE_ENCRYPTION_H

#include "wire/auth.h"

#include <datasystem/datasystem.h>

#include <stdbool.h>
#include <stdint.h>

enum {
    RECORD_LENGTH_BYTES = 4,
    RECORD_TAG_BYTES = 16,
    RECORD_OVERHEAD_BYTES = RECORD_LENGTH_BYTES + RECORD_TAG_BYTES,
    RECORD_CONTENT_BYTES_MAX = 64 << 10,
    RECORD_BYTES_MAX = RECORD_CONTENT_BYTES_MAX + RECORD_OVERHEAD_BYTES,
    RECORD_AHEAD_BYTES = 16 << 10, /* Received at once while its length is not known. */
};

/* Makes one record after the other. Invariant: start <= end; [start, end) of `record` was
 * not sent yet. */
struct encryptor {
    struct auth_key key;
    uint64_t number; /* Of the next record. */
    size_t start;
    size_t end;
    uint8_t record[RECORD_BYTES_MAX];
};

/* Opens one record after the other. Invariant: content_start <= content_end <= start <= end;
 * [content_start, content_end) is of an open record and was not handed out yet, [start, end)
 * was received and is not open. */
struct decryptor {
    struct auth_key key;
    uint64_t number; /* Of the next record. */
    size_t content_start;
    size_t content_end;
    size_t start;
    size_t end;
    uint8_t input[RECORD_BYTES_MAX + RECORD_AHEAD_BYTES];
};

/* Both directions of one connection. Owner: the connection. One process alone may use it:
 * a number must not be used for two records. */
struct encryption {
    struct encryptor out;
    struct decryptor in;
};

/* Of the end `us`. NULL: out of memory. */
struct encryption *
encryption_create(const struct auth_key *key, const struct auth_opening *opening,
                  enum auth_end us);
void encryption_destroy(struct encryption *encryption); /* Accepts NULL. */

/* ---- Sending ---- */

/* Makes a record of what follows the first `skip` bytes of all the parts; how many bytes of
 * them it has: 0 only if none follow. The record before it was sent. */
size_t encryptor_fill(struct encryptor *encryptor, const struct ds_slice *parts,
                      size_t part_count, uint64_t skip);

/* What is to be sent before the next record; then tell how much of it was. */
struct ds_slice encryptor_unsent(const struct encryptor *encryptor);
void encryptor_sent(struct encryptor *encryptor, size_t bytes);

/* ---- Receiving ---- */

/* Hands out up to `bytes` > 0 of what has arrived: straight into `out` if all of a record
 * fits there. *out_got 0: more of a record has to arrive first. False: the record is not
 * what the other end has sent here; the connection is of no use then. */
bool
decryptor_read(struct decryptor *decryptor, void *out, size_t bytes, size_t *out_got);

/* decryptor_read() would hand out something, or say that it cannot. */
bool decryptor_has_record(const struct decryptor *decryptor);

/* When that has said 0: where to receive to, and how much is of use; then tell how much
 * has arrived. */
void *decryptor_room(struct decryptor *decryptor, size_t *out_bytes);
void decryptor_received(struct decryptor *decryptor, size_t bytes);

/* Everything that has arrived was handed out. */
bool decryptor_is_empty(const struct decryptor *decryptor);

#endif
