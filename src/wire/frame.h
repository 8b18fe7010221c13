/* The frame around every message between a client (or controller) and a worker.
 *
 *      magic u32 | type u16 | status u16 | sequence u32 | body_bytes u32 | payload u64
 *
 * then the body (a message of wire/message.h, or an error's text when status != DS_OK),
 * then the payload: value bytes of PUT, FILL and FETCH, which go straight into or out of
 * the arena and have no limit but the arena. A reply repeats type and sequence. */
#ifndef WIRE_FRAME_H
#define WIRE_FRAME_H

#include <datasystem/datasystem.h>

#include <stdbool.h>
#include <stdint.h>

#define FRAME_MAGIC          0x31575344u /* "DSW1" read as bytes. */
#define FRAME_HEADER_BYTES   24u
#define FRAME_BODY_BYTES_MAX (16u << 20)
#define PROTOCOL_VERSION     21u

/* Requests; values never change. Who may send which is in worker/session.c. */
enum message_type {
    MESSAGE_DISCOVER = 1,
    MESSAGE_HELLO = 2,
    MESSAGE_PING = 3,
    MESSAGE_CREATE = 4,
    MESSAGE_SEAL = 5,
    MESSAGE_ABORT = 6,
    MESSAGE_LOOKUP = 7,
    MESSAGE_EXIST = 8,
    MESSAGE_DELETE = 9,
    MESSAGE_EXPIRE = 10,
    MESSAGE_STATS = 11,
    MESSAGE_PUT = 12,
    MESSAGE_FETCH = 13,
    MESSAGE_BLOCK_CREATE = 14,
    MESSAGE_BLOCK_DELETE = 15,
    MESSAGE_BLOCK_ADOPT = 16,
    MESSAGE_ORPHANS = 17,
    MESSAGE_FORK_CLAIM = 18,
    MESSAGE_QUEUE_CALL = 19, /* To a controller; the payload is MessagePack. */
    MESSAGE_FILL = 20,
    MESSAGE_PUBLISH = 21,
    MESSAGE_HOLDERS = 22,
    MESSAGE_QUEUE_SERVE = 23,
    MESSAGE_QUEUE_FIND = 24,
    MESSAGE_MEMBER_RENEW = 25, /* To a metastore. */
    MESSAGE_MEMBERS = 26,
    MESSAGE_ORPHANS_FOUND = 27,  /* To another worker. */
    MESSAGE_AUTH_CHALLENGE = 28, /* Before any other: see wire/auth.h. */
    MESSAGE_AUTH_PROVE = 29,
    MESSAGE_KEY_ORDERS = 30, /* To another worker. */
    MESSAGE_KEY_REPORT = 31, /* To another worker. */
    MESSAGE_JOURNAL_SYNC = 32,
    MESSAGE_JOURNAL_END = 33,
    MESSAGE_JOURNAL_WRITE = 34, /* To another worker, as the next two. */
    MESSAGE_JOURNAL_ASK = 35,
    MESSAGE_JOURNAL_DROP = 36,
    MESSAGE_LEAVE = 37,
    MESSAGE_TAKE_ROOM = 38, /* To another worker, as the next three. */
    MESSAGE_TAKE = 39,
    MESSAGE_TAKE_KEYS = 40,
    MESSAGE_TAKE_END = 41,
    MESSAGE_TYPE_COUNT
};

struct frame_header {
    enum message_type type;
    enum ds_status status; /* DS_OK in requests. */
    uint32_t sequence;
    uint32_t body_bytes;
    uint64_t payload_bytes;
};

/* False if these 24 bytes cannot be a frame of ours: wrong magic, unknown type or
 * status, or a body over the limit. The connection is of no use then. */
bool frame_decode(const uint8_t bytes[FRAME_HEADER_BYTES], struct frame_header *out);
void frame_encode(const struct frame_header *header, uint8_t out[FRAME_HEADER_BYTES]);

#endif
