#include "controller/copied.h"

bool
copied_must_wait(const struct copied *copied, uint64_t now_ds)
{
    if (copied->state == COPIED_OFF)
        return false;
    return copied->state == COPIED_UNKNOWN || copied->is_behind ||
           copied->asked != copied->answered || now_ds >= copied->lease_until;
}

uint64_t
copied_take_ticket(struct copied *copied)
{
    if (copied->state == COPIED_OFF)
        return 0;
    copied->is_wanted = true;
    return copied->asked + 1;
}

bool
copied_covers(const struct copied *copied, uint64_t ticket)
{
    return copied->state == COPIED_OFF || ticket <= copied->answered;
}

void
copied_note_written(struct copied *copied)
{
    copied->is_behind = copied->state != COPIED_OFF;
}

/* A journal that was written anew takes the place of the one that was asked about, which is
 * not there any more. */
bool
copied_begin_request(struct copied *copied, uint64_t journal_id)
{
    bool is_free = copied->asked == copied->answered || journal_id != copied->asked_id;
    if (copied->state != COPIED_ON || !is_free ||
        !(copied->is_behind || copied->is_wanted))
        return false;
    copied->asked++;
    copied->asked_id = journal_id;
    copied->is_behind = false;
    copied->is_wanted = false;
    return true;
}

bool
copied_end_request(struct copied *copied, uint64_t number, uint64_t lease_until)
{
    if (copied->state != COPIED_ON || number != copied->asked ||
        copied->answered == copied->asked)
        return false;
    copied->answered = number;
    copied->lease_until = lease_until;
    return true;
}

void
copied_lose_lease(struct copied *copied)
{
    copied->lease_until = 0;
}

bool
copied_is_waiting(const struct copied *copied)
{
    return copied->state == COPIED_ON &&
           (copied->is_wanted || copied->asked != copied->answered);
}

/* What was under way is asked again, with a number of its own. */
void
copied_set(struct copied *copied, bool is_copied)
{
    copied->state = is_copied ? COPIED_ON : COPIED_OFF;
    copied->asked_id = 0;
    copied->is_behind = is_copied;
}
