/* A worker and another one of its cluster, which is scripted; one of them leaves. Included
 * once by each test file. */
#ifndef WORKER_LEAVING_TESTING_H
#define WORKER_LEAVING_TESTING_H

#include "worker/peers_testing.h"

#include "wire/leaving.h"
#include "worker/arenas.h"

enum { PART_BYTES = 1000 };

static __attribute__((unused)) uint8_t part_bytes[PART_BYTES];

struct pair {
    struct fixture *f;
    struct fake_peer other;
    struct caller member; /* Keeps the other one a member. */
    struct caller client;
    struct caller as_other;
};

static inline void
pair_open(struct pair *pair, struct fixture *f, fake_handler_fn handle)
{
    pair->f = f;
    fake_peer_start_tcp(&pair->other, handle);
    join(f, &pair->member, &pair->other);
    caller_open_tcp(&pair->as_other, f, f->address);
    say_hello_as_member(&pair->as_other);
    caller_open(&pair->client, f);
    say_hello(&pair->client);
}

static inline void
pair_close(struct pair *pair)
{
    caller_close(&pair->client);
    caller_close(&pair->as_other);
    caller_close(&pair->member);
    fake_peer_stop(&pair->other);
}

/* The other one says that it has the blocks of that arena. */
static inline void
say_taken(struct pair *pair, struct wire_arena arena)
{
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", pair->other.port);
    AUTO_WRITER(arenas);
    AUTO_WRITER(body);
    encode_arena(&arenas, &arena);
    struct member_renew renewal = {.who = {.node = NODE,
                                           .incarnation = INCARNATION,
                                           .address = slice_of_text(address),
                                           .arenas = slice(arenas.data, arenas.len)}};
    encode_member_renew(&body, &renewal);
    CHECK_OK(caller_call(&pair->member, MESSAGE_MEMBER_RENEW, bytes_of(&body)));
}

static inline struct arena_id
other_arena(void)
{
    return (struct arena_id){NODE, INCARNATION};
}

static inline bool
is_at(const struct fixture *f, struct arena_id born, struct arena_id place)
{
    return arena_id_equal(arenas_find(&f->worker, born), place);
}

#endif
