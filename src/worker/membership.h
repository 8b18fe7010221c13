/* This worker as a member of a cluster: its connection to the metastore.
 *
 *      [away] ── connect, HELLO ──► [asking] ── MEMBER_RENEW, its reply ──► [member] ──┐
 *        ▲  back-off 50 ms to 2 s       ▲                    └── renews again ────◄────┘
 *        └── the connection ends ───────┘
 *
 * Where the metastore is says --metastore_address, or etcd (election.h), which may have
 * this worker open it. A renewal waits at the metastore until somebody comes or goes, a second at most, so all
 * members know of a change at once and nobody polls. A metastore that is away changes
 * nothing about blocks: the members that were known last are those that count. Users' keys
 * are served for 4 s after the last renewal that was answered (directory.h).
 * Owner: loop thread. */
#ifndef WORKER_MEMBERSHIP_H
#define WORKER_MEMBERSHIP_H

#include <datasystem/datasystem.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct member;       /* meta/members.h */
struct members_past; /* meta/members.h */
struct queue_place;  /* wire/message.h */
struct membership;
struct worker;

/* Joins in the background. `on_joined` is called once, when it has.
 *   DS_INVALID     --metastore_address is none
 *   DS_NO_MEMORY */
DS_MUST_USE enum ds_status
membership_open(struct worker *worker, void (*on_joined)(struct worker *worker),
                struct membership **out, struct ds_error *err);

/* Ends in the loop, where it is freed. Accepts NULL. */
void membership_close(struct membership *membership);

/* Tells the metastore that we go, waits for its word, 500 ms at most, and calls `on_left`
 * then; at once if it is away. */
void
membership_leave(struct membership *membership, void (*on_left)(struct worker *worker));

/* Another queue has its controller here, or one has it no more, or we took over the blocks
 * of another arena: all members hear of it. */
void membership_queues_changed(struct membership *membership); /* Accepts NULL. */

/* The queue of this name, whose controller is at some other member and can be reached from
 * others; of several the one with the highest term. False: there is none, or there are no
 * members (NULL). Borrowed until the members change. */
bool membership_find_queue(const struct membership *membership, struct ds_slice name,
                           struct queue_place *out);

/* Another member than this one that has the controller of a queue with this tag, or, for
 * 0, of any queue. As membership_find(), and accepts NULL. */
const struct member *
membership_find_tag(const struct membership *membership, uint16_t tag);

/* NULL: no member has this node id. Borrowed until the members change. */
const struct member *
membership_find(const struct membership *membership, uint32_t node);

/* Another member than this one that took over the blocks of that arena, or is just being
 * given them; NULL: there is none. Borrowed as above; accepts NULL. */
const struct member *
membership_find_taker(const struct membership *membership, uint32_t node,
                      uint32_t incarnation, bool *out_is_whole);

/* All but `node`, which may be no member itself, one after the other: in the order of the
 * nodes from that one on, behind the last the first. `previous` NULL: the first of them.
 * NULL: there is none, or no more. Borrowed as above; accepts NULL. */
const struct member *membership_next(const struct membership *membership, uint32_t node,
                                     const struct member *previous);

/* What this worker was told last of who belongs. */
struct members_past membership_past(const struct membership *membership);

/* As if it had joined: it has the metastore, and that waits for others. */
void membership_be_ready(struct membership *membership);

/* When the latest renewal that was answered had been sent: so late the metastore still held us
 * for a member. Tenths of a second of CLOCK_BOOTTIME; 0: never. */
uint64_t membership_confirmed_ds(const struct membership *membership);

/* It is known who belongs, or nobody else does (NULL): not so while a process that was just
 * started has not heard from the metastore. */
bool membership_knows(const struct membership *membership);

/* This worker as well; 0 for NULL. */
uint32_t membership_count(const struct membership *membership);

/* In the order of their nodes; borrowed as above. */
const struct member *membership_at(const struct membership *membership, uint32_t index);

/* Some member has blocks that were born in another arena. */
bool membership_has_arenas(const struct membership *membership);

/* Of this worker. */
uint32_t membership_own_node(const struct membership *membership);

#endif
