/* One framed connection, used by one thread at a time: a request goes out, its reply
 * comes back, then the next.
 *
 *      [idle] ── send ──► [request out] ── receive, payload ──► [idle]
 *                              └── the caller stopped waiting ──► [draining]
 *
 * A draining channel still owes a reply, which a later call picks up without waiting.
 * Owner: the thread that took it from its pool; `state`, `link` and `epoch` belong to
 * the library's lock. */
#ifndef CLIENT_CHANNEL_H
#define CLIENT_CHANNEL_H

#include "base/list.h"
#include "client/wait.h"
#include "wire/encryption.h"
#include "wire/frame.h"

#include <datasystem/datasystem.h>

#include <sys/types.h>

struct mapping;

enum channel_state { CHANNEL_BUSY, CHANNEL_IDLE, CHANNEL_DRAINING };
enum { CHANNEL_FDS_MAX = 4 };

struct channel {
    struct list link; /* In its pool. */
    enum channel_state state;
    int fd;
    struct encryption *encryption; /* Owned; NULL: what passes is plain. */
    pid_t encrypts_in; /* Which process: two that go on would use one nonce twice. */
    struct mapping *mapping; /* Counted; the memory that the peer's replies speak of. */
    uint64_t epoch;          /* mapping->epoch when it was last idle. */
    uint64_t whole_at_ms;    /* clock_coarse_ms() of pool_is_alive()'s last look. */
    struct spin spin;        /* Of waiting for replies. */

    /* The request that is out. `touched`: some of it was sent; `owed`: all of it, and
     * its reply has not arrived whole. */
    struct frame_header request;
    bool touched;
    bool owed;

    /* The reply as it arrives: header, body, and what came with them of the payload. */
    uint8_t *input;
    size_t input_len;
    size_t input_capacity;
    struct frame_header reply; /* Valid once input_len >= FRAME_HEADER_BYTES. */
    uint64_t payload_done;     /* Bytes of the payload that were handed out. */
    int fds[CHANNEL_FDS_MAX];  /* That came with the reply; owned. */
    size_t fd_count;
};

/* Takes `fd`, also on failure. */
DS_MUST_USE enum ds_status
channel_create(int fd, struct channel **out, struct ds_error *err);
void channel_destroy(struct channel *channel); /* Accepts NULL. */

/* Connect; the error names the address. DS_IO: nobody is there. */
DS_MUST_USE enum ds_status
channel_connect_tcp(const char *host, uint16_t port, const struct wait *wait,
                    struct channel **out, struct ds_error *err);
DS_MUST_USE enum ds_status
channel_connect_unix(const char *path, struct channel **out, struct ds_error *err);

/* What passes from here on is encrypted (wire/encryption.h); the channel has connected, and
 * nothing is under way. DS_NO_MEMORY */
DS_MUST_USE enum ds_status
channel_encrypt(struct channel *channel, const struct auth_key *key,
                const struct auth_opening *opening, struct ds_error *err);

struct outgoing {
    enum message_type type;
    uint32_t sequence;
    struct ds_slice body;
    struct ds_slice payload;
};

/* All of these: DS_IO with a text when the connection is broken, DS_TIMEOUT and
 * DS_INTERRUPTED without one. After a failed send the channel is of no use. */
DS_MUST_USE enum ds_status
channel_send(struct channel *channel, const struct outgoing *message,
             const struct wait *wait, struct ds_error *err);

/* Header and body of the reply; then channel_body() and channel->reply are valid until
 * the next send. */
DS_MUST_USE enum ds_status
channel_receive(struct channel *channel, const struct wait *wait, struct ds_error *err);
struct ds_slice channel_body(const struct channel *channel);

/* The reply is a refusal: its status, and its text as the error's. */
enum ds_status channel_fail_reply(const struct channel *channel, struct ds_error *err);
uint64_t channel_payload_left(const struct channel *channel);

/* The next `bytes` of the payload. */
DS_MUST_USE enum ds_status
channel_receive_payload(struct channel *channel, void *data, uint64_t bytes,
                        const struct wait *wait, struct ds_error *err);

/* send, then receive. */
DS_MUST_USE enum ds_status
channel_call(struct channel *channel, const struct outgoing *message,
             const struct wait *wait, struct ds_error *err);

/* Without waiting: the rest of the reply that is owed. True when it has arrived whole
 * (any payload is thrown away); false: not yet, or *out_broken. */
bool channel_drain(struct channel *channel, bool *out_broken);

/* True if the peer closed, or sent what nobody asked for. For idle channels. */
bool channel_is_broken(struct channel *channel);

void channel_close_fds(struct channel *channel);

/* Hands the descriptors over if there are at least `count_min` of them; the rest of
 * `out` is -1. */
bool
channel_take_fds(struct channel *channel, size_t count_min, int out[CHANNEL_FDS_MAX]);

#endif
