/* Tells another worker that its copy of a journal is of no use any more. */
#ifndef WORKER_JOURNAL_DROP_H
#define WORKER_JOURNAL_DROP_H

#include <stdbool.h>
#include <stdint.h>

struct member; /* meta/members.h */
struct worker;

/* Of the queue of that name, as the controller of that term knows; or only what that has
 * written, which was an attempt and came to nothing. Tried once: who does not
 * hear of it drops it when it has been no member for a while, or when it is told again. */
void journal_drop_at(struct worker *worker, const struct member *member,
                     const char *queue, uint64_t term, bool is_attempt);

#endif
