/* For tests only: a journal in memory, and a queue made again from it. */
#ifndef QUEUE_TEST_JOURNAL_H
#define QUEUE_TEST_JOURNAL_H

#include "queue/test_text.h"

/* Owner: the test. */
struct test_journal {
    struct writer file;
    uint64_t next_sequence;
    uint64_t last_request; /* The last one that was written down; 0: none. */
    struct writer last_reply;
};
struct test_journal test_journal_begin(void);
void test_journal_end(struct test_journal *journal);

/* Writes down the request that was just answered. */
void test_journal_append(struct test_journal *journal, const struct talk *talk);

/* Begins anew with a snapshot of the queue. */
void test_journal_compact(struct test_journal *journal, const struct queue *queue);

/* Applies all records to `queue`; aborts if one is refused, or if the last request would
 * not get the answer that it got. `half_bytes` of one more record, which was not written
 * to its end, stand behind them. */
void test_journal_replay(struct test_journal *journal, struct queue *queue,
                         size_t half_bytes);

#endif
