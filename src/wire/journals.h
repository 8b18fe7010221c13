/* What is said of a queue's journal and of its copies on other nodes, as structs and as
 * bytes. Pure.
 *
 *   type            who to whom                request         reply
 *   QUEUE_SERVE     controller to its worker   queue_serve     queue_served
 *   JOURNAL_SYNC    controller to its worker   journal_sync    journal_synced
 *   JOURNAL_END     controller to its worker   nothing         nothing
 *   JOURNAL_WRITE   worker to worker           journal_write   journal_written
 *   JOURNAL_ASK     worker to worker           journal_ask     journal_known
 *   JOURNAL_DROP    worker to worker           journal_ask     nothing
 *
 * A queue's controllers follow one another in terms: who takes a queue over has a term that
 * is above all before it, and that no other node can have. Whoever has heard of a controller
 * refuses what one of an earlier term says. */
#ifndef WIRE_JOURNALS_H
#define WIRE_JOURNALS_H

#include "wire/message.h"

enum {
    JOURNAL_PATH_MAX = 4095,
    JOURNAL_COPIES_MAX = 2,
    JOURNAL_WRITE_BYTES_MAX = 1 << 20,
};

/* The first controller's is QUEUE_TERM_FIRST. */
static inline uint64_t
journal_term_after(uint64_t highest, uint32_t whose)
{
    return ((highest >> 32) + 1) << 32 | whose;
}

/* A controller and where its journal is. */
struct queue_serve {
    struct queue_place place; /* With a name and an address. */
    uint8_t copies_max;       /* That are wanted, up to JOURNAL_COPIES_MAX; 0: none. */
    /* Others may have heard something that it said, to this worker or to one before it. */
    bool has_answered;
    struct ds_slice journal_path; /* Absolute, for copies. */
};
void encode_queue_serve(struct writer *writer, const struct queue_serve *message);
bool decode_queue_serve(struct ds_slice body, struct queue_serve *out);

/* Whether what it says must be in copies first: it is to ask by JOURNAL_SYNC. */
void encode_queue_served(struct writer *writer, bool is_copied);
bool decode_queue_served(struct ds_slice body, bool *out_is_copied);

/* The journal's file, up to its last whole record. Answered when the copies have as much.
 * One that follows takes the place of one that waits, which is not answered then. */
struct journal_sync {
    uint64_t number;   /* Of the request. */
    uint64_t id;       /* Of the journal: another one when it was written anew. */
    uint64_t inode;    /* Of its file. */
    uint64_t bytes;    /* Its length, */
    uint64_t sequence; /* and the number of the record that would come next. */
};
void encode_journal_sync(struct writer *writer, const struct journal_sync *message);
bool decode_journal_sync(struct ds_slice body, struct journal_sync *out);

/* Until then nobody else serves the queue: tenths of a second of CLOCK_BOOTTIME; 0: that
 * was so when it was asked, and more is not known. */
struct journal_synced {
    uint64_t number;
    uint64_t lease_until;
};
void encode_journal_synced(struct writer *writer, const struct journal_synced *message);
bool decode_journal_synced(struct ds_slice body, struct journal_synced *out);

/* A piece of a journal for who keeps a copy. At offset 0 the copy begins anew, beside the
 * one before, which stays until it is whole. */
struct journal_write {
    struct ds_slice name; /* Of the queue. */
    uint64_t term;
    uint32_t node; /* That the controller is on. */
    uint32_t incarnation;
    uint64_t id;
    uint64_t offset;
    uint64_t sequence; /* Not 0: with this piece the copy has all before that record. */
    /* The controller's node was no member for a while, or has no lease, or has not answered it
     * since it connected: others may have gone on with the queue. */
    bool is_unsure;
    struct ds_slice bytes;
};
void encode_journal_write(struct writer *writer, const struct journal_write *message);
bool decode_journal_write(struct ds_slice body, struct journal_write *out);

/* How many bytes the copy of that id has now: with another offset than that, nothing was
 * written. */
void encode_journal_written(struct writer *writer, uint64_t bytes);
bool decode_journal_written(struct ds_slice body, uint64_t *out_bytes);

/* What is known of the queue? A node that would go on with it asks twice: first whether
 * somebody has more, which changes nothing, then for a promise. JOURNAL_DROP: the controller of
 * this term has ended the queue, or has its copies elsewhere; as ASK_WITHDRAWN: what it has
 * written itself was an attempt that came to nothing. */
enum ask_intent {
    ASK_TO_KNOW,
    ASK_FOR_PROMISE, /* What is of earlier terms is refused from now on, */
    ASK_WITHDRAWN,   /* until it withdraws, or a while. */
    ASK_INTENT_COUNT
};
struct journal_ask {
    struct ds_slice name;
    uint64_t term;
    uint32_t node; /* Who asks. */
    enum ask_intent intent;
};
void encode_journal_ask(struct writer *writer, const struct journal_ask *message);
bool decode_journal_ask(struct ds_slice body, struct journal_ask *out);

struct journal_known {
    bool has_copy;     /* Which could be gone on with; or the controller itself. */
    bool has_failed;   /* It could not lately. */
    uint64_t promised; /* The term that was promised to somebody else; 0: none. */
    uint64_t heard; /* The highest that anybody has asked for, or a controller had. */
    uint64_t dead; /* Those up to this one that came after who wrote here last, or after
                       the controller, came to nothing. */
    uint64_t copy_term; /* Of the controller whose copy it is, */
    uint64_t sequence;  /* and how far it goes. */
};
void encode_journal_known(struct writer *writer, const struct journal_known *message);
bool decode_journal_known(struct ds_slice body, struct journal_known *out);

#endif
