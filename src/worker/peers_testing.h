/* A worker and another one of its cluster, which is scripted. Included once by each test
 * file. */
#ifndef WORKER_PEERS_TESTING_H
#define WORKER_PEERS_TESTING_H

#include "worker/peers.h"

#include "fake_peer.h"
#include "meta/members.h"
#include "wire/bindings.h"
#include "worker/fixture.h"
#include "worker/membership.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { NODE = 7, INCARNATION = 9 }; /* Of the other one. */

/* How often it still hangs up before it answers. */
static __attribute__((unused)) atomic_int hang_ups_left;

static inline bool
is_hello(const struct frame_header *header)
{
    return header->type == MESSAGE_HELLO;
}

static inline bool
welcome(int fd, const struct frame_header *header)
{
    AUTO_WRITER(body);
    encode_welcome(&body, &(struct welcome){.node = NODE, .incarnation = INCARNATION});
    return fake_reply(fd, header, DS_OK, slice(body.data, body.len),
                      (struct ds_slice){0});
}

#define HANDLER(name)                                                      \
    static __attribute__((unused)) bool name(                              \
        struct fake_peer *peer, int fd, const struct frame_header *header, \
        struct ds_slice body, struct ds_slice payload)

/* It knows nothing of users' keys. */
static inline bool
take_report(int fd, const struct frame_header *header)
{
    AUTO_WRITER(body);
    encode_report_reply_begin(&body, false, 0);
    return fake_reply(fd, header, DS_OK, slice(body.data, body.len),
                      (struct ds_slice){0});
}

static inline bool
is_report(const struct frame_header *header)
{
    return header->type == MESSAGE_KEY_REPORT;
}

/* One that answers HELLO and reports of keys as it should, and anything else by what
 * follows. */
#define WELCOMING(name)                                                       \
    static bool name##_after_hello(int fd, const struct frame_header *header, \
                                   struct ds_slice body);                     \
    HANDLER(name)                                                             \
    {                                                                         \
        (void)peer;                                                           \
        (void)payload;                                                        \
        return is_hello(header)    ? welcome(fd, header)                      \
               : is_report(header) ? take_report(fd, header)                  \
                                   : name##_after_hello(fd, header, body);    \
    }                                                                         \
    static bool name##_after_hello(int fd, const struct frame_header *header, \
                                   struct ds_slice body)

HANDLER(says_nothing)
{
    (void)peer;
    (void)body;
    (void)payload;
    return !is_hello(header) || welcome(fd, header);
}

/* ---- The cluster ---- */

static inline void
run_for_ms(struct fixture *fixture, uint64_t ms)
{
    uint64_t end = clock_monotonic_ms() + ms;
    while (clock_monotonic_ms() < end)
        turn(fixture);
}

/* `other` belongs to the cluster of the worker, which is a member itself, and knows it. It
 * says that it has the controller of a queue. */
static inline void
join_as(struct fixture *fixture, struct caller *member, const struct fake_peer *other,
        uint32_t node, const char *queue)
{
    struct queue_place place = {.name = slice_of_text(queue),
                                .tcp_address = slice_of_text("10.0.0.7:31600")};
    AUTO_WRITER(queues);
    encode_queue_place(&queues, &place);
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", other->port);
    struct member_renew renewal = {.who = {.node = node,
                                           .incarnation = INCARNATION,
                                           .address = slice_of_text(address),
                                           .queues = slice(queues.data, queues.len)}};
    AUTO_WRITER(body);
    encode_member_renew(&body, &renewal);
    caller_open_metastore(member, fixture);
    CHECK_OK(caller_call(member, MESSAGE_MEMBER_RENEW, bytes_of(&body)));
    RUN_UNTIL(fixture, membership_find(fixture->worker.membership, node) != NULL);
}

/* As the only other one, node NODE. */
static inline void
join_with(struct fixture *fixture, struct caller *member, const struct fake_peer *other,
          const char *queue)
{
    fixture_join_cluster(fixture);
    join_as(fixture, member, other, NODE, queue);
}

static inline void
join(struct fixture *fixture, struct caller *member, const struct fake_peer *other)
{
    join_with(fixture, member, other, "train");
}

/* The other one reports for that epoch what it has: this object, or nothing. */
static inline void
report_of(struct fixture *f, struct caller *as_other, uint64_t epoch,
          const struct wire_binding *binding)
{
    const struct member *other = membership_find(f->worker.membership, NODE);
    struct key_report report = {.node = NODE,
                                .incarnation = INCARNATION,
                                .member_since = other->since,
                                .epoch = epoch,
                                .is_last = true,
                                .bindings.count = binding != NULL};
    AUTO_WRITER(body);
    encode_key_report_begin(&body, &report);
    if (binding != NULL)
        encode_binding(&body, binding);
    CHECK_OK(caller_call(as_other, MESSAGE_KEY_REPORT, bytes_of(&body)));
}

#endif
