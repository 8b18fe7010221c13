/* A framed connection on the loop, used by both daemons.
 *
 * Reads frames (wire/frame.h) into memory and hands each to on_frame; a payload goes
 * where on_payload_begin says, without a copy in between. Sends frames with an optional
 * payload, in order. Closes itself on garbage, on silence before the first accepted
 * frame (10 s), and when the peer closes.
 *
 *      conn_create ──► [open] ──► on_closed ──► freed
 *                        └─ conn_close() ─┘
 *
 * Owner: loop thread. conn_create() hands the connection to the loop; it lives until
 * on_closed has returned, which is always called exactly once, from the loop (never
 * from inside a conn_*() call). Memory per connection is bounded: one body (16 MiB at
 * most, and only as much as has arrived, in 64 KiB steps), and a send queue of at most
 * CONN_SEND_BYTES_MAX beyond payloads: a peer that does not read is closed. Another 144 KiB
 * if it is encrypted. */
#ifndef NET_CONN_H
#define NET_CONN_H

#include "wire/auth.h"
#include "wire/frame.h"

#include <datasystem/datasystem.h>

#include <uv.h>

enum { CONN_SEND_BYTES_MAX = 64 << 20, CONN_SILENCE_MS = 10000, CONN_FDS_MAX = 4 };

struct conn;

struct conn_ops {
    /* A whole frame; body and fds are borrowed (a descriptor that is kept must be
     * dup()ed). For frames with a payload it comes after the payload. Requests of one
     * connection come one after another; the handler may reply later. None comes after
     * conn_close(). */
    void (*on_frame)(struct conn *conn, const struct frame_header *header,
                     struct ds_slice body, const int *fds, size_t fd_count);

    /* A frame announces header->payload_bytes > 0 after this body. Return where the
     * bytes go (valid until on_frame or on_closed), or NULL to swallow them (on_frame
     * comes all the same, with the payload gone). */
    void *(*on_payload_begin)(struct conn *conn, const struct frame_header *header,
                              struct ds_slice body);

    /* `reason` is for one log line; NULL when the peer closed in good order. */
    void (*on_closed)(struct conn *conn, const char *reason);
};

/* Takes `fd` (non-blocking), also on failure. */
DS_MUST_USE enum ds_status
conn_create(uv_loop_t *loop, int fd, const struct conn_ops *ops, void *user,
            struct conn **out, struct ds_error *err);

void *conn_user(const struct conn *conn);
void conn_set_user(struct conn *conn, void *user);
int conn_fd(const struct conn *conn);

/* ---- Proving a key (wire/auth.h), before anything else
 *
 * To be called right after conn_create(); `key` is borrowed for as long as the connection
 * lives. A peer that is refused hears why, DS_NOT_AUTHORIZED, and the log has a line.
 *
 * What follows the proof is encrypted (wire/encryption.h) where both ends want it; where
 * they do not want the same, the peer is refused as well. A peer that is trusted without a
 * proof has none to encrypt with. No descriptors pass then, and a record that is not what
 * the peer has sent closes the connection. */

/* Of a connection that we have accepted: no body of a frame is looked at before the peer
 * has proven `key`. One that is trusted without may prove it, and has to do so right if it
 * tries. NULL: there is none, so peers are trusted; who wants to prove one is refused. */
void conn_expect_proof(struct conn *conn, const struct auth_key *key,
                       enum auth_encryption encryption, bool is_trusted);

/* The same of one over TCP: a process of our user on this host is trusted, as it could read
 * the key out of our memory. */
void conn_expect_proof_over_tcp(struct conn *conn, const struct auth_key *key,
                                enum auth_encryption encryption);

/* Of a connection that we have made: what is sent waits until both ends have proven `key`.
 * A peer that cannot closes the connection. NULL: nothing is proven. */
void conn_prove(struct conn *conn, const struct auth_key *key,
                enum auth_encryption encryption);

/* The peer has said who it is: no more silence timer. */
void conn_accept_peer(struct conn *conn);

/* Queue one frame; `body` is copied. Descriptors are dup()ed. A payload is borrowed
 * until `on_sent` is called with it, once, also when the connection closes first. On a
 * closing connection everything is dropped (and on_sent called). */
struct conn_payload {
    const void *data;
    uint64_t bytes;
    void (*on_sent)(void *arg);
    void *arg;
};
void conn_send(struct conn *conn, const struct frame_header *header,
               struct ds_slice body, const int *fds, size_t fd_count,
               const struct conn_payload *payloads, size_t payload_count);

/* Replies to `request`: DS_OK with a body, or a status with the error's text. */
void
conn_reply(struct conn *conn, const struct frame_header *request, struct ds_slice body);
void conn_reply_error(struct conn *conn, const struct frame_header *request,
                      const struct ds_error *err);

/* Close soon; what is queued is dropped. */
void conn_close(struct conn *conn, const char *reason);

/* ---- Accepting ---- */

struct listener;

typedef void (*listener_fn)(int fd, void *arg); /* Takes fd. */

/* Accepts on `fd` (borrowed) until listener_close(); rests 100 ms when the process runs
 * out of descriptors. */
DS_MUST_USE enum ds_status
listener_create(uv_loop_t *loop, int fd, listener_fn on_accept, void *arg,
                struct listener **out, struct ds_error *err);
void listener_close(struct listener *listener);

#endif
