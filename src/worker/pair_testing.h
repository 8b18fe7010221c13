/* A worker and another one, which is scripted, in one cluster: each owns some users' keys, and
 * both know that. Included once by each test file. */
#ifndef WORKER_PAIR_TESTING_H
#define WORKER_PAIR_TESTING_H

#include "worker/peers_testing.h"

#include "worker/owners.h"

#include <stdio.h>

enum { KEY_BYTES = 16 };

/* An object that the other one has. */
static inline struct object_name
object_of(uint32_t generation)
{
    return (struct object_name){NODE, INCARNATION, 5, generation};
}

struct pair {
    struct fake_peer other;
    struct caller member; /* Keeps the other one a member. */
    struct caller as_other;
    struct caller client;
    char ours[KEY_BYTES];   /* A key that we own, */
    char theirs[KEY_BYTES]; /* and one that the other owns. */
};

static inline bool
is_owned_by(const struct fixture *f, const char *key, uint32_t node)
{
    return owners_find(&f->worker, slice_of_text(key)).node == node;
}

static inline void
find_key(const struct fixture *f, uint32_t node, char out[KEY_BYTES])
{
    int i = 0;
    do
        snprintf(out, KEY_BYTES, "key%d", i++);
    while (!is_owned_by(f, out, node));
}

static inline void
pair_open(struct pair *pair, struct fixture *f, fake_handler_fn handler)
{
    uint32_t own = store_header(f->worker.store)->node;
    fake_peer_start_tcp(&pair->other, handler);
    join(f, &pair->member, &pair->other);
    caller_open_tcp(&pair->as_other, f, f->address);
    say_hello_as_member(&pair->as_other);
    caller_open(&pair->client, f);
    say_hello(&pair->client);
    CHECK(!is_owned_by(f, "a", own) && !is_owned_by(f, "b", own)); /* Not known yet. */
    report_of(f, &pair->as_other, owners_epoch(f->worker.owners), NULL);
    RUN_UNTIL(f, owners_is_current(&f->worker));
    find_key(f, own, pair->ours);
    find_key(f, NODE, pair->theirs);
}

static inline void
pair_close(struct pair *pair)
{
    caller_close(&pair->client);
    caller_close(&pair->as_other);
    caller_close(&pair->member);
    fake_peer_stop(&pair->other);
}

/* The other one orders something about one key. What is answered is borrowed from there. */
static inline struct wire_answer
order_one(struct pair *pair, struct key_orders orders, struct wire_binding binding)
{
    struct answer_list list;
    struct wire_answer answer = {.answer = KEY_MOVED};
    AUTO_WRITER(body);
    encode_key_orders_begin(&body, &orders);
    encode_binding(&body, &binding);
    CHECK_OK(caller_call(&pair->as_other, MESSAGE_KEY_ORDERS, bytes_of(&body)));
    CHECK(decode_answers(body_of(&pair->as_other), &list));
    CHECK(next_answer(&list, &answer));
    return answer;
}

static inline uint64_t
epoch_of(const struct pair *pair)
{
    return owners_epoch(pair->as_other.fixture->worker.owners);
}

static inline struct wire_answer
order(struct pair *pair, enum key_order order, const char *key,
      struct object_name object, uint32_t from)
{
    struct key_orders orders = {.order = order,
                                .from = from == 0 ? NODE : from,
                                .epoch = epoch_of(pair),
                                .bindings.count = 1};
    return order_one(
        pair, orders,
        (struct wire_binding){.object = object, .key = slice_of_text(key)});
}

#endif
