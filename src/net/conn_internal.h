/* What conn.c (life cycle and receiving) and conn_send.c share. */
#ifndef NET_CONN_INTERNAL_H
#define NET_CONN_INTERNAL_H

#include "net/conn.h"

#include "base/list.h"
#include "wire/auth.h"

enum { CONN_REASON_BYTES = 256 };

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
    struct auth_nonces nonces;
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
    struct conn_input input;

    struct list held;    /* Of struct outgoing, owned: goes into the queue once both
                         ends have proven their key. */
    struct list queue;   /* Of struct outgoing, owned. */
    size_t queued_bytes; /* Of memory in both, payloads not counted. */
    bool is_polling_writable; /* Exactly while the queue is not empty. */
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

#endif
