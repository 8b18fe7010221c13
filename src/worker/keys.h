/* Requests about users' keys that other nodes have a say in.
 *
 *      keys_start ──► each key: ours ──► directory.h ─────────────┐
 *                               theirs ──► its owner, by peers.h ─┤
 *                       ▲       nobody knows whose ─┐             ▼
 *                       └──── the next tick ◄───────┴── KEY_MOVED, or said
 *                                                                 └─► all said ──► finish
 *
 * A request goes on when its session closes; only nobody hears of it then.
 * Owner: loop thread. */
#ifndef WORKER_KEYS_H
#define WORKER_KEYS_H

#include "worker/directory.h"
#include "worker/owners.h"
#include "worker/session.h"

struct key_request;

/* One key of a request, and what is said of it. `key` points into the request's body. */
struct key_item {
    struct key_change change; /* key, object and ttl_ds are whoever starts it to set. */
    struct key_request *request;
    struct wire_answer answer;
    struct wire_checksum checksum; /* Of an object that is to be sealed. */
    bool was_here;                 /* We deleted it, as its owner did not know it. */
    uint32_t position;             /* Of whoever started it. */
    bool is_asked;
    bool is_done;
    bool is_dropped; /* Its owner bound it to another object before we heard that it had
                        bound it to ours: ask again. */
};

/* What became of it, to the session that asked; `body` is the request's. */
typedef void (*key_reply_fn)(struct session *session, const struct frame_header *header,
                             struct ds_slice body, const struct ds_error *err);

struct key_request_ops {
    /* What was ordered is done, or refused: item->answer. NULL: nothing to do then. */
    void (*on_item)(struct key_request *request, struct key_item *item);

    /* All is said. Frees the request: keys_free(). */
    void (*finish)(struct key_request *request);
};

/* Owner: the requests, from keys_start() to `finish`. */
struct key_request {
    struct list link;         /* In worker->key_requests. */
    struct list session_link; /* In session->key_requests. */
    const struct key_request_ops *ops;
    struct worker *worker;
    struct session *session; /* NULL: it was closed. */
    struct frame_header header;
    enum key_order order;
    bool wants_values;   /* KEY_FIND: of those that are found; small ones are taken. */
    bool may_pass_on;    /* No: a worker asks, who wants to hear if it is not ours. */
    uint64_t wait_until; /* KEY_FIND waits so long for what is nowhere. */
    uint64_t give_up_at; /* And so long does anything wait for an owner. */
    struct ds_error err; /* The first, of `on_item`. */
    key_reply_fn reply;  /* Of whoever started it, */
    uint32_t detail;     /* as is this. */
    uint8_t *body;       /* Owned; a copy of what the session sent. */
    size_t body_bytes;
    size_t parked_bytes;
    uint32_t open_count; /* Orders under way. */
    bool is_waiting;     /* For the next tick. */
    uint32_t count;
    struct key_item items[];
};

/* With room for so many items. `out->order` and the items are to be set.
 *   DS_NO_MEMORY
 *   DS_FULL        too much of this session waits already */
DS_MUST_USE enum ds_status
keys_new(struct session *session, const struct frame_header *header,
         struct ds_slice body, uint32_t room, const struct key_request_ops *ops,
         struct key_request **out, struct ds_error *err);

/* The next item, for a key in the request's body. */
struct key_item *keys_add(struct key_request *request, struct ds_slice key);

/* The same bytes in the request's copy of `body`. */
struct ds_slice keys_in_body(const struct key_request *request, struct ds_slice body,
                             struct ds_slice key);

/* `wait_ms`: how long KEY_FIND waits for what is nowhere. */
void keys_start(struct key_request *request, uint32_t wait_ms);

/* Once more, for the items that are not done, of those that were. */
void keys_start_again(struct key_request *request);

void keys_free(struct key_request *request);

/* Not all could be said: DS_NOT_READY with the first key that is concerned, or DS_OK. */
enum ds_status keys_check(const struct key_request *request, struct ds_error *err);

/* What waits for an owner asks again. */
void keys_retry(struct worker *worker);

/* Some key is being bound to an object of ours, which whoever asked will be told is there. */
bool keys_are_binding(const struct worker *worker);

/* Its key is being bound to this object, as far as we know. */
bool keys_is_binding(const struct worker *worker, const struct object_name *object);

/* Whatever of ours its owner has bound the key to, it is another object by now: ask again
 * for all that we have not heard of. */
void keys_drop_key(struct worker *worker, struct ds_slice key);

/* The session is closing. */
void keys_drop(struct session *session);

/* After the loop has run. */
void keys_close(struct worker *worker);

/* Answers KEY_FIND, or parks it for `left_ms`. A waiter_answer_fn. */
void key_orders_find(struct session *session, const struct frame_header *header,
                     struct ds_slice body, uint32_t left_ms);

#endif
