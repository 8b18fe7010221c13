/* Whether what was done to a key, and seen of it, can have happened in some order.
 *
 * A key is a register: it holds the number of a value, or 0 for none. Every operation takes
 * effect at one moment between its begin and its end; one whose outcome is unknown at one
 * moment after its begin, or never. */
#ifndef TESTS_SUPPORT_HISTORY_H
#define TESTS_SUPPORT_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

enum operation {
    OPERATION_PUT,        /* value */
    OPERATION_PUT_ABSENT, /* value, if there is none */
    OPERATION_CLEAR,      /* 0 */
    OPERATION_READ,       /* saw the value */
    OPERATION_EXIST,      /* saw whether there is one */
    OPERATION_LOSE,       /* 0, if it is this value */
};

enum outcome {
    OUTCOME_DONE,
    OUTCOME_NOTHING,
    OUTCOME_UNKNOWN, /* Whenever, also after its end. */
    OUTCOME_MAYBE,   /* Until its end. */
};

/* Owner: who has them all. */
struct history_event {
    uint32_t key;
    uint32_t value; /* Of a read: what was seen. */
    uint32_t by;    /* For whoever reads the story. */
    enum operation operation;
    enum outcome outcome;
    bool may_repeat;  /* It may take effect again. */
    bool may_be_lost; /* There may be no value in place of this one. */
    bool may_clear;   /* The key may lose its value before this takes effect. */
    uint32_t begin;   /* Moments; each is the begin or the end of one. */
    uint32_t end;     /* 0: not yet. */
    uint64_t begin_ns;
    uint64_t end_ns;
};

/* Borrowed. */
struct history {
    struct history_event *events;
    uint32_t count;
    uint32_t moment; /* The last one. */
    int repeats_max; /* Of one that may repeat, that the check reckons with. */
    /* The operation may find nothing although there is this value; or the read may see what
     * it saw, whatever there is. NULL: none may. */
    bool (*may_miss)(const struct history_event *event, uint32_t value);
    bool (*may_see)(const struct history_event *read);
};

enum { HISTORY_EVENTS_MAX = 1 << 16 };

/* False: `*out` cannot have ended so, or the check gave up there, for this reason. */
struct history_problem {
    const struct history_event *event;
    const char *gave_up; /* NULL: it did not. */
};
bool history_check_key(const struct history *history, uint32_t key,
                       struct history_problem *out);

const char *history_operation_name(enum operation operation);
const char *history_outcome_name(enum outcome outcome);

#endif
