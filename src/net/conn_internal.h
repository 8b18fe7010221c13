/* What conn.c (life cycle and receiving) and conn_send.c share. */
#ifndef NET_CONN_INTERNAL_H
#define NET_CONN_INTERNAL_H

#include "net/conn.h"

#include "base/list.h"

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

    struct conn_input input;

    struct list queue;        /* Of struct outgoing, owned. */
    size_t queued_bytes;      /* Of memory in them, payloads not counted. */
    bool is_polling_writable; /* Exactly while the queue is not empty. */
};

/* Reports to uv what the connection waits for now. */
void conn_poll(struct conn *conn);

/* Sends what is queued until the socket is full, or enough for one turn. */
void conn_flush(struct conn *conn);

/* Gives every queued payload back and empties the queue. */
void conn_drop_queue(struct conn *conn);

#endif
