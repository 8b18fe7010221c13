/* Between network.c, delivery.c, loop.c and nodes.c. */
#ifndef TESTS_CLUSTER_NETWORK_H
#define TESTS_CLUSTER_NETWORK_H

#include "cluster.h"

#include "net/conn.h"

/* One end. Owner: its loop, until on_closed; then what is under way to it. */
struct conn {
    struct list link;   /* In the loop's closing_conns. */
    struct list all;    /* In network_ends, until on_closed. */
    struct node *node;  /* NULL: outside. */
    struct conn *other; /* NULL: not accepted yet. Counted. */
    const struct conn_ops *ops;
    void *user;
    char *reason;     /* Owned. */
    struct list held; /* Messages that wait until it is connected. */
    uint32_t references;
    uint32_t target;     /* Index of the node that was connected to, */
    enum port port;      /* and its port. */
    uint64_t arrival_ns; /* At the other end, of what was sent last. */
    bool is_accepted;
    bool is_connected;
    bool is_counted; /* Both ends are nodes. */
    bool is_known;   /* conn_accept_peer() */
    bool closing;

    /* delivery.c: */
    struct list inbox; /* Messages that have arrived. */
    struct message *receiving;
    void *payload;             /* Of that, where it goes. */
    uint64_t stalled_until_ns; /* Nothing is received before. */
    bool is_waking;
    bool is_reset; /* It has broken, which this end hears as its next. */
};

/* Owner: the clock, or an end that it waits at. */
struct message {
    struct list link; /* In `held` of its sender, or in `inbox` of its receiver. */
    struct conn *to;
    bool is_end; /* The other end has closed. */
    struct frame_header header;
    uint8_t data[]; /* Body and payload. */
};

/* Those that are open. */
extern struct list network_ends;

struct conn *network_hold(struct conn *conn);
void network_let_go(struct conn *conn);

/* Nobody hears anything at this end. */
bool network_is_dead(const struct conn *conn);

/* Those of a loop whose conn_close() was called end. */
void network_end_closing(struct list *conns);

/* A message at its receiver, which is not dead: its payload begins, and all of it is
 * there. */
void *network_begin_payload(const struct message *message);
void network_finish(const struct message *message);
struct ds_slice network_payload(struct message *message);
void message_free(struct message *message);

/* In place of being handed over at once, where there are faults. */
void delivery_arrive(struct message *message);
void delivery_end(struct conn *conn); /* What waits at this end is dropped. */
bool delivery_is_cut(const struct node *one, const struct node *other);
uint64_t delivery_extra_ns(void);

/* Something of this loop is closing: it ends at once, but not from where it was called. */
void loop_need_turn(uv_loop_t *loop);

/* What was due while its process stood still. */
void loop_go_on(uv_loop_t *loop);

#endif
