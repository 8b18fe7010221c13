/* Whether the journal is on other nodes as well, before anybody hears of what it says, and
 * whether this is still the queue's controller (worker/journal_copies.h).
 *
 * Whatever is said takes a ticket, and is held until the request with that number, which goes
 * to the worker when none is under way, was answered:
 *
 *      [off] ◄── the worker makes no copies ── [unknown] ── it does ──► [on]
 *
 * The answer says until when nobody else can be the queue's controller. So long, what changes
 * nothing is said at once while all that was changed is in the copies.
 *
 * Owner: the controller; loop thread. Pure. */
#ifndef CONTROLLER_COPIED_H
#define CONTROLLER_COPIED_H

#include <stdbool.h>
#include <stdint.h>

enum copied_state { COPIED_OFF, COPIED_UNKNOWN, COPIED_ON };

struct copied {
    enum copied_state state;
    uint64_t asked;       /* Number of the latest request, */
    uint64_t asked_id;    /* and of the journal that it was about. */
    uint64_t answered;    /* Number of the latest that was answered. */
    bool is_behind;       /* The journal has more than was asked for. */
    bool is_wanted;       /* Somebody has a ticket for the next request. */
    uint64_t lease_until; /* Tenths of a second of CLOCK_BOOTTIME. */
};

/* What is said now must wait. */
bool copied_must_wait(const struct copied *copied, uint64_t now_ds);

/* For what waits; 0: for nothing. */
uint64_t copied_take_ticket(struct copied *copied);
bool copied_covers(const struct copied *copied, uint64_t ticket);

/* Records were written. */
void copied_note_written(struct copied *copied);

/* Whether to ask now, about that journal: the number is copied->asked then. */
bool copied_begin_request(struct copied *copied, uint64_t journal_id);

/* False: it is not the answer to the request that is under way. */
bool copied_end_request(struct copied *copied, uint64_t number, uint64_t lease_until);

/* The worker is away: nobody tells us any more that we are the queue's controller. */
void copied_lose_lease(struct copied *copied);

/* Something is waited for. */
bool copied_is_waiting(const struct copied *copied);

/* The worker says whether it makes copies: what was under way is not any more. */
void copied_set(struct copied *copied, bool is_copied);

#endif
