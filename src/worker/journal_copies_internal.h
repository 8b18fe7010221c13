/* What the files of a queue's copied journal share: journal_copies.c chooses the keepers and
 * says when the copies have all, journal_pieces.c sends them the bytes. */
#ifndef WORKER_JOURNAL_COPIES_INTERNAL_H
#define WORKER_JOURNAL_COPIES_INTERNAL_H

#include "worker/journal_copies.h"

/* Who keeps a copy. node 0: nobody. */
struct keeper {
    uint32_t node;
    uint32_t incarnation;
    uint64_t since;      /* A member without a gap since that epoch. */
    struct piece *piece; /* Under way; NULL: none. */
    uint64_t id;         /* Of the journal that it has `bytes` of, */
    uint64_t bytes;
    uint64_t sequence; /* and, as far as it is whole, all before this record. */
    uint64_t number;   /* Of the latest request that it has answered something for, with
                        the members that are known now; 0: of none. */
    uint64_t heard_ms; /* When it took the last piece. */
    uint64_t late_ds;  /* Late since then (CLOCK_BOOTTIME); 0: it is not. */
    /* Since the members are these, and knows of no successor of ours. */
    bool has_spoken;
    bool is_promised; /* To somebody who may go on with the queue: so it refuses. */
    bool rests;       /* Until the next tick: it could not write. */
};

/* Owner: the queue that is served (queues.c). */
struct journal_copies {
    struct worker *worker;
    struct session *session;
    char *path; /* Owned. */
    struct append_file *file;
    uint64_t file_id;
    uint64_t epoch; /* Of the members that the keepers were chosen from; 0: not yet. */
    uint64_t since; /* We are a member without a gap since that epoch. */
    uint64_t dropped_epoch; /* In which the others were told to drop their copies. */
    struct journal_sync sync;
    uint64_t asked_ms;          /* Since then a request waits, */
    struct frame_header header; /* this one, */
    bool is_asked;              /* if one does. */
    bool has_sync;
    bool is_unreadable; /* For now: no copies can be made. */
    bool was_away;      /* No member for a while: somebody may have our place. */
    bool is_superseded;
    /* That we are a member, to all: so who would go on with the queue asks us, too, or was
     * promised it by keepers who say so. */
    bool is_known;
    /* With a lease something was answered, so all is in the copies of these keepers, and
     * nobody goes on from another one. */
    bool is_settled;
    bool has_answered; /* On this connection. */
    bool is_attempt;   /* Nothing that the controller said has ever been answered. */
    uint64_t term;
    uint32_t keepers_max;
    struct keeper keepers[JOURNAL_COPIES_MAX];
    char name[QUEUE_PLACE_NAME_MAX + 1];
};

/* It has all that the controller asked for. */
static inline bool
journal_keeper_has_all(const struct journal_copies *copies, const struct keeper *keeper)
{
    return keeper->id == copies->sync.id && keeper->sequence >= copies->sync.sequence;
}

/* Nobody else can be the queue's controller while this worker's lease lasts. */
bool journal_copies_have_lease(const struct journal_copies *copies);

/* Others may have gone on with the queue. */
bool journal_copies_is_unsure(const struct journal_copies *copies);

/* Sends all keepers what they lack, and answers if that is nothing. */
void journal_copies_step(struct journal_copies *copies);

/* ---- journal_pieces.c ---- */

/* The next bytes for a keeper, unless some are under way or it has all. */
void journal_keeper_step(struct journal_copies *copies, struct keeper *keeper);

/* What is under way is nobody's any more. */
void journal_keeper_let_go(struct keeper *keeper);

#endif
