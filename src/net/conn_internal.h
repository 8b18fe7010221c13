/* What conn.c (life cycle and receiving), conn_send.c and the two files between them and
 * the socket share. */
#ifndef NET_CONN_INTERNAL_H
#define NET_CONN_INTERNAL_H

#include "net/conn.h"

#include "base/list.h"
#include "wire/auth.h"
#include "wire/encryption.h"

#include <sys/uio.h>

enum {
    CONN_REASON_BYTES = 256,
    CONN_PARTS_MAX = 128, /* Of one sendmsg(). */
};

/* Bytes received and not yet consumed are [start, end); the frame being received begins
 * at start. Invariant: start <= end <= capacity. */
struct conn_input {
    uint8_t *data; /* Owned. */
    size_t start;
    size_t end;
    size_t capacity;

    bool in_payload;            /* Header and body are whole, the payload is not: */
    struct frame_header header; /* they lie at start, and nothing follows them. */
    uint8_t *payload;           /* Where the next byte of it goes; NULL: nowhere. */
    uint64_t payload_left;

    int fds[CONN_FDS_MAX]; /* Owned: closed after the frame that they came with. */
    size_t fd_count;
    bool fds_are_bound; /* To the frame at start; nothing behind it is read yet. */
};

/* How far the proof of a key has come (conn_auth.c). */
enum conn_auth_step {
    CONN_AUTH_OVER,     /* There is nothing (more) to prove. */
    CONN_AUTH_ASKED,    /* We have connected: our challenge is out, */
    CONN_AUTH_PROVING,  /* then our proof. */
    CONN_AUTH_EXPECTED, /* We have accepted: a challenge is to come, */
    CONN_AUTH_ANSWERED, /* then the peer's proof. */
    CONN_AUTH_REFUSED,  /* The peer was told why. */
};
struct conn_auth {
    enum conn_auth_step step;
    bool is_trusted;            /* Of one we accepted: it may prove a key, or not. */
    const struct auth_key *key; /* NULL: we have none. */
    struct auth_opening opening;
    bool is_encrypted; /* Of what follows the proof; once both openings are there. */
};

/* Invariant: handles_open counts the uv handles whose close callback has not run; the
 * connection is freed with the last one. */
struct conn {
    uv_poll_t poll;
    uv_timer_t silence; /* Runs until conn_accept_peer(). */
    int handles_open;
    int fd; /* Owned. */
    const struct conn_ops *ops;
    void *user;

    bool closing;
    bool has_reason;
    char reason[CONN_REASON_BYTES];

    struct conn_auth auth;
    struct encryption *encryption; /* Owned; NULL: what passes is plain. */
    struct conn_input input;

    struct list held;    /* Of struct outgoing, owned: goes into the queue once both
                         ends have proven their key. */
    struct list queue;   /* Of struct outgoing, owned. */
    size_t queued_bytes; /* Of memory in both, payloads not counted. */
    bool is_polling_writable; /* Exactly while something waits for the socket. */
};

/* Reports to uv what the connection waits for now. */
void conn_poll(struct conn *conn);

/* Sends what is queued until the socket is full, or enough for one turn. */
void conn_flush(struct conn *conn);

/* Gives every queued payload back and empties the queue. */
void conn_drop_queue(struct conn *conn);

/* What conn_send() held goes out now. */
void conn_send_held(struct conn *conn);

/* ---- Proving a key (conn_auth.c) ---- */

/* This frame of ours has to wait for the proof. */
bool conn_auth_holds(const struct conn *conn, const struct frame_header *header);

/* The header of a frame has arrived. False, and a closing connection: it is none that may
 * come now, or too large. */
bool conn_auth_admits(struct conn *conn, const struct frame_header *header);

/* A whole frame. True if it was for us: on_frame shall not see it. */
bool conn_auth_takes(struct conn *conn, const struct frame_header *header,
                     struct ds_slice body);

/* ---- The socket, encrypted where both ends want it (conn_encrypted.c) ---- */

/* From here on, of the end `us`. May close the connection. */
void conn_encrypt(struct conn *conn, enum auth_end us);

/* As socket_send(). Bytes that were taken are on their way, but maybe not in the socket:
 * conn_has_unsent(). */
ssize_t conn_write(struct conn *conn, const struct iovec *parts, int part_count,
                   const int *fds, size_t fd_count, struct ds_error *err);
bool conn_has_unsent(const struct conn *conn);

/* One receive to `at`. Bytes received; 0 when there is no more for now, or the connection
 * is closing. */
size_t conn_read(struct conn *conn, void *at, size_t bytes);

/* conn_read() would find something without a look at the socket. */
bool conn_has_received(const struct conn *conn);

#endif
