/* What the files of owners share: owners.c, who owns what; owners_away.c, what becomes of keys
 * when a node was away. Only these include it. */
#ifndef WORKER_OWNERS_INTERNAL_H
#define WORKER_OWNERS_INTERNAL_H

#include "base/status.h"
#include "meta/members.h"
#include "meta/ring.h"
#include "worker/lost_owners.h"
#include "worker/membership.h"
#include "worker/owners.h"

/* A member, and the epoch of its last whole report to us. */
struct known_member {
    struct key_owner who;
    uint64_t reported;
    uint64_t is_back; /* The last that it wanted to report for after it was away. */
};

/* Invariants: `members` and `ring` are those of `epoch`; `ready_ring` is that of the last
 * epoch which all members have reported for, and NULL before the first. */
struct owners {
    struct ring *ring; /* Owned, as the next; they may be the same. */
    struct ring *ready_ring;
    struct known_member *members; /* Owned; in the order of their nodes. */
    uint32_t count;
    uint64_t epoch;
    uint64_t epoch_before;
    uint64_t ready_epoch; /* Of the ready ring, or of one before; 0: we know of none. */
    uint64_t lapse_ms;   /* Until then somebody that is no member any more may serve, */
    uint64_t away_ms;    /* and may come back with what it had. */
    uint64_t lease_ds;   /* As granted; it is in the table unless was_away. */
    bool was_away;       /* And not all has been told, by us and to us, since. */
    uint64_t back_since; /* The epoch of our return for which we began anew. */
    /* Without us, before that: somebody was a member all the time. */
    bool others_went_on;
    struct lost_owners lost; /* While somebody may come back. */
};

/* ---- owners.c ---- */

/* We know what all our keys are. */
bool owners_is_complete(const struct owners *owners);

/* ---- owners_away.c ---- */

/* Who is gone by these members takes along what it remembered. False when out of memory. */
DS_MUST_USE bool
owners_note_lost(const struct worker *worker, const struct next_members *next);

/* The epoch of our return, if the others went on without us after the last that we had part
 * in; else 0. */
uint64_t
owners_find_return(const struct worker *worker, const struct next_members *next);

/* Those that owned our keys while we were away, and are other processes by now, or gone, before
 * they told us what they knew. None where nobody was a member all the time: then nobody owned
 * anything. False when out of memory. */
DS_MUST_USE bool
owners_find_forgetful(const struct worker *worker, const struct next_members *next,
                      uint64_t back_since, struct lost_owners *out);

/* What is ours by the ring, and was theirs meanwhile, goes. */
void owners_forget_theirs(struct worker *worker, struct lost_owners *forgetful);

/* We have no lease, and know nothing of our keys, before all have reported. */
void owners_begin_anew(struct worker *worker);

#endif
