/* Which node owns each user's key, and whether it knows what its keys are.
 *
 *      another epoch ──► the ring is another ──► some keys are ours now
 *           ──► all members report what they have of them (reports.h)
 *           ──► and nobody who is gone can serve them any more ──► we know what they are
 *
 * Keys that stay ours are served meanwhile; the others are to be asked for again.
 *
 * A node believes its table, and an owner its bindings, only while the lease of its
 * membership lasts, which stands in the table's header for the clients. Who was no member
 * for a while starts like a new one: its lease begins when all have reported to it and it to
 * all, and what others report goes before what it has. Who was away for longer than deletions
 * are remembered forgets its keys.
 * Owner: loop thread. */
#ifndef WORKER_OWNERS_H
#define WORKER_OWNERS_H

#include <datasystem/datasystem.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct member; /* meta/members.h */
struct owners;
struct ring; /* meta/ring.h */
struct worker;
struct writer; /* wire/cursor.h */

/* DS_NO_MEMORY */
DS_MUST_USE enum ds_status owners_open(struct owners **out, struct ds_error *err);
void owners_close(struct owners *owners); /* Accepts NULL. */

/* ---- Who owns a key ---- */

/* An owner as it was when it was asked: with its process, and with its membership, what it
 * knows of its keys goes. */
struct key_owner {
    uint32_t node; /* 0: it is not known, or does not know yet what its keys are. */
    uint32_t incarnation;
    uint32_t restarts;
    uint64_t since; /* The epoch from which on it has been a member without a gap. */
};
bool key_owner_equal(const struct key_owner *one, const struct key_owner *two);

/* Ourselves where there is no cluster. */
struct key_owner owners_find(const struct worker *worker, struct ds_slice key);
bool owners_is_self(const struct worker *worker, const struct key_owner *owner);

/* As the members know us, if they know this process. */
struct key_owner owners_self(const struct worker *worker);

/* The ring says so; whether we know yet what the key is, is another question. */
bool owners_is_our_share(const struct worker *worker, struct ds_slice key);

/* It is ours, and was before the members changed last: we knew what it is. */
bool owners_knew(const struct worker *worker, struct ds_slice key);

/* What is in our own table may be believed: nobody changed it elsewhere. */
bool owners_is_current(const struct worker *worker);

/* Somebody that is no member any more may still serve what it had. */
bool owners_may_be_served(const struct worker *worker);

/* Somebody may come back with what it had: what is deleted meanwhile is remembered. */
bool owners_may_come_back(const struct worker *worker);

/* What others report goes before what is in our own table. */
bool owners_was_away(const struct worker *worker);

/* Whatever was deleted of this key while that member was away is remembered, by us or by an
 * owner before us that told us so. */
bool owners_remember(const struct worker *worker, const struct key_owner *member,
                     struct ds_slice key);

/* ---- Epochs ---- */

/* Other members, or other processes of theirs. Borrowed. */
struct next_members {
    uint64_t epoch;
    uint64_t lapse_ms; /* From now: then nobody serves any more who is no member, */
    uint64_t away_ms;  /* and nobody comes back with what it had. */
    const struct member *members; /* In the order of their nodes. */
    uint32_t count;
};

/* False when out of memory, with the members as they were. */
DS_MUST_USE bool owners_changed(struct worker *worker, const struct next_members *next);

/* When peers.h knows of it as well: reports, and looks for what is waited for. */
void owners_look_again(struct worker *worker);

/* We are a member, until then at least (tenths of a second of CLOCK_BOOTTIME). */
void owners_set_lease(struct worker *worker, uint64_t until_ds);

/* Some things come true by time alone. */
void owners_tick(struct worker *worker);

/* The member has reported all it has, as of that epoch. */
void
owners_reported(struct worker *worker, const struct key_owner *member, uint64_t epoch);

/* Who has just come hears of whoever has been here the longest whom that one has seen go
 * (KEY_REPORT); others write and take nothing. owners_hear_lost(): false when out of memory. */
void owners_tell_lost(const struct worker *worker, struct writer *out);
DS_MUST_USE bool owners_hear_lost(struct worker *worker, struct ds_slice lost);

/* What it reports for that epoch comes too late: it has reported for a later one, or we were no
 * member in between. */
bool owners_knows_later(const struct worker *worker, const struct key_owner *member,
                        uint64_t epoch);

/* A member that was away is about to report. False: others may know better, and have not
 * reported yet. */
bool
owners_listen(struct worker *worker, const struct key_owner *member, uint64_t epoch);

uint64_t owners_epoch(const struct owners *owners); /* 0: none yet. */

/* That this node is a member, and has been without a gap since it became one. */
bool owners_all_know_us(const struct worker *worker);

/* The one that we knew before it. */
uint64_t owners_epoch_before(const struct owners *owners);
const struct ring *owners_ring(const struct owners *owners);

/* That process of the node is a member, and it and we have been since that epoch, without a
 * gap. */
bool owners_stayed_since(const struct worker *worker, uint32_t node, uint32_t restarts,
                         uint64_t epoch);
bool owners_has_member(const struct owners *owners, const struct key_owner *member);

#endif
