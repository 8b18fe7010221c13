/* Tells other workers that their copies of a journal are of no use any more. */
#ifndef WORKER_JOURNAL_DROP_H
#define WORKER_JOURNAL_DROP_H

#include <stddef.h>
#include <stdint.h>

struct worker;

enum journal_drop_what {
    JOURNAL_WHOLE,   /* The copy, whoever wrote it up to that controller. */
    JOURNAL_ATTEMPT, /* What that controller wrote itself, and it came to nothing. */
};

/* Of the queue of that name, as the controller of that term knows: all other members, but
 * those that are spared. Each is told once: who does not hear of it drops it when it has been
 * no member for a while, or, where it was no attempt, when it is told again. */
void
journal_drop(struct worker *worker, const char *queue, uint64_t term,
             enum journal_drop_what what, const uint32_t *spared, size_t spared_count);

#endif
