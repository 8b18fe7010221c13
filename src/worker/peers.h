/* Requests to the workers of other nodes.
 *
 *      peers_ask ──► [asked] ── its answer ──────────────────────────► end
 *                     │   ▲          no answer, its node is no member ──┘
 *                     ▼   └── the next tick, as long as it is to be tried again
 *                  [waiting] ◄── the connection ended
 *
 * A connection to a node is made when it is needed; what may come in any order has up to
 * 4. On each, requests go out one behind the other; an answer may come before that of an
 * earlier request, which waits there for something.
 * Owner: loop thread. */
#ifndef WORKER_PEERS_H
#define WORKER_PEERS_H

#include "base/list.h"
#include "wire/message.h"

struct peers;
struct peer_request;
struct worker;

/* The answer of a request; `header` NULL: there is none. */
struct peer_answer {
    const struct frame_header *header;
    struct ds_slice body;
};

struct peer_request_ops {
    enum message_type type;
    int tries_max;     /* 0: as long as its node is a member. */
    bool in_any_order; /* Over whichever connection has least to do. */

    void (*encode)(const struct peer_request *request, struct writer *body);

    /* Where the payload of the answer goes, or NULL: nowhere. NULL: there is none. */
    void *(*on_payload_begin)(struct worker *worker, struct peer_request *request,
                              const struct peer_answer *answer);

    /* Called once; the request is the callee's again. */
    void (*end)(struct worker *worker, struct peer_request *request,
                const struct peer_answer *answer);
};

/* Part of what asks. Owner: the peers, from peers_ask() to `end`. */
struct peer_request {
    const struct peer_request_ops *ops;
    uint32_t node;
    uint32_t incarnation;
    struct list link;
    uint32_t sequence; /* On the connection that it went out on. */
    int tries;
};

/* DS_NO_MEMORY */
DS_MUST_USE enum ds_status
peers_open(struct worker *worker, struct peers **out, struct ds_error *err);

/* Ends every connection, in the loop, and every request without an answer. */
void peers_stop(struct peers *peers);

/* After the loop has run. Accepts NULL. */
void peers_close(struct peers *peers);

/* `ops`, `node` and `incarnation` are set. False: no member has that arena, or it cannot be
 * reached just now, and nothing was taken over. `end` is not called before this returns. */
bool peers_ask(struct peers *peers, struct peer_request *request);

/* As above; who cannot be reached just now is asked at the next tick. False: no member has
 * that arena. */
bool peers_ask_now_or_later(struct peers *peers, struct peer_request *request);

/* Whether a member has that arena now. */
bool peers_know(const struct peers *peers, uint32_t node, uint32_t incarnation);

void peers_tick(struct peers *peers);

/* Other members are known now: what is asked of those that are gone ends. */
void peers_members_changed(struct peers *peers);

#endif
