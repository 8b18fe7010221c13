/* Who belongs to the cluster, as its metastore keeps it. Pure: time is an argument.
 *
 *      renew ──► [member] ── renew before the lease ends ──► [member]
 *                   └── leave, or the lease ends ──► gone
 *
 * A member is a worker: the arena {node, incarnation} at an address, and the process that
 * has it. Each change of who belongs makes a new epoch; epochs never go back, whatever
 * happens to the metastore. What else changes makes a new version.
 *
 * A metastore that was started again knows nobody, and who is missing in its first answer
 * would be taken for lost. So it settles first: renewals keep their leases, and nobody is
 * told of an epoch until as many as there were before have renewed, or a lease has passed.
 * Who knows the last epoch then has belonged to it, and belongs to the next without a gap.
 *
 *      members_create ──► [settling] ──► [settled]
 *
 * Owner: the caller of members_create(); no locking, no call blocks. */
#ifndef META_MEMBERS_H
#define META_MEMBERS_H

#include <datasystem/datasystem.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MEMBER_ADDRESS_MAX = 280 }; /* "host:port". */

struct members;

/* How long a member that has renewed may serve what others may want to change: shorter
 * than its lease, so that they need not wait for long once it is none any more. */
static inline uint64_t
member_key_lease_ms(uint64_t lease_ms)
{
    return lease_ms < 4000 ? lease_ms : 4000;
}

struct member {
    uint32_t node; /* 0 is nobody's. */
    uint32_t incarnation;
    uint32_t restarts; /* Of its process. */
    /* The first epoch of those that it has belonged to without a gap. */
    uint64_t since;
    char address[MEMBER_ADDRESS_MAX + 1];
    struct ds_slice queues; /* What it says of the queues that it has; kept as it is. */
    struct ds_slice arenas; /* And of those whose blocks it took over; likewise. */
};

/* What was known before: an epoch, and how many belonged to it; 0: nobody. */
struct members_past {
    uint64_t epoch;
    uint32_t count;
};

/* Settled at once where nobody belonged before. DS_NO_MEMORY */
DS_MUST_USE enum ds_status
members_create(uint64_t lease_ms, struct members_past past, uint64_t now_ms,
               struct members **out, struct ds_error *err);
void members_destroy(struct members *members); /* Accepts NULL. */

/* `who` belongs for another lease. `past` is what it was told last, as is its `since`, 0 when
 * it was not: of more than we know when it is our memory that was lost. Who comes to a
 * member's address replaces it, since only one can listen there; so does a new arena under
 * the same node id.
 *   DS_INVALID     no node, or no address
 *   DS_EXISTS      the node id belongs to a member at another address: choose another
 *   DS_NO_MEMORY */
DS_MUST_USE enum ds_status
members_renew(struct members *members, const struct member *who,
              struct members_past past, uint64_t now_ms, struct ds_error *err);

/* Gone at once; false if it was none. */
bool members_leave(struct members *members, uint32_t node, uint32_t incarnation);

/* It may be dead: its lease ends at `until_ms` at the latest, unless it renews. */
void members_suspect(struct members *members, uint32_t node, uint32_t incarnation,
                     uint64_t until_ms);

/* Those whose lease has ended are gone; settling ends when its time has come. To be called
 * often: what a pause is longer than half a second is not counted for leases that ran in it,
 * as nobody could renew. */
void members_tick(struct members *members, uint64_t now_ms);

bool members_is_settling(const struct members *members);

/* It settles, and of those that belonged before only this one has not renewed yet. */
bool members_lack_only(const struct members *members, uint32_t node);

/* Settling ends now: who is missing will not come. */
void members_settle(struct members *members);

/* To be called before anything else where another metastore may have told epochs that nobody
 * here has heard of: it settles at least so long, and the epoch after that is beyond any that
 * the other one can have come to. */
void members_come_after_another(struct members *members, uint64_t settled_at_ms);

/* 0 while it settles. */
uint64_t members_epoch(const struct members *members);

/* Another one whenever anything about the members has changed, since members_create(). */
uint64_t members_version(const struct members *members);
uint64_t members_lease_ms(const struct members *members);

/* What to know after a restart. */
struct members_past members_past(const struct members *members);

/* It belongs without a gap, as far as we know, so what it has may be believed. While it
 * settles, that is so for those alone who know the last epoch. */
bool
members_may_serve(const struct members *members, uint32_t node, uint32_t incarnation);

/* Nobody that is no member any more serves anything after so long. */
uint64_t members_lapse_ms(const struct members *members, uint64_t now_ms);

/* For so long somebody may still come back that was lost and has what it had: after
 * MEMBER_AWAY_MS it is to forget that. 0: nobody. */
enum { MEMBER_AWAY_MS = 600000 };
uint64_t members_away_ms(const struct members *members, uint64_t now_ms);

/* In the order of their nodes; borrowed until the next change. */
size_t members_count(const struct members *members);
const struct member *members_at(const struct members *members, size_t index);

#endif
