/* For tests only: MessagePack as text, so that a test shows requests and replies.
 *
 *      ['kv_put', 'p', ['a'], [[@1], 'y', ['x'], [8],[]], [{'t': 1}]]
 *
 * Single quotes make str, <...> bin, @7 the 16-byte block id with counter 7; numbers
 * are not negative; nil, arrays and maps as usual. Rendering writes no spaces. */
#ifndef QUEUE_TEST_TEXT_H
#define QUEUE_TEST_TEXT_H

#include "queue/queue.h"

/* Aborts on a text that is none. */
void text_to_msgpack(const char *text, struct writer *out);

/* `out` becomes terminated text. */
void msgpack_to_text(struct ds_slice bytes, struct writer *out);

struct ds_block_id test_block_id(uint64_t counter);

/* A queue to talk to in text. Owner: the test. */
struct talk {
    struct queue *queue;
    struct writer request;
    struct writer reply;
    struct writer text; /* Of the last reply. */
    struct ds_error err;
};
struct talk talk_begin(const struct queue_options *options); /* NULL: reports dead. */
void talk_end(struct talk *talk);

/* Decodes and applies; the reply's text is in talk->text afterwards. */
enum ds_status talk_call(struct talk *talk, const char *request);

#define TALK(name) \
    __attribute__((cleanup(talk_end))) struct talk name = talk_begin(NULL)

/* The call succeeds with exactly this reply. */
#define CHECK_REPLY(talk, request, expected)                   \
    do {                                                       \
        CHECK_OK(talk_call(talk, request));                    \
        CHECK_TEXT((const char *)(talk)->text.data, expected); \
    } while (0)

/* The call fails, with a text that contains `part`. */
#define CHECK_REFUSED(talk, request, status, part)      \
    do {                                                \
        CHECK_STATUS(talk_call(talk, request), status); \
        CHECK_CONTAINS((talk)->err.message, part);      \
    } while (0)

#endif
