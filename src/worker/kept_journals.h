/* Copies of journals of queues whose controllers are on other nodes (journal_copies.h): this
 * worker keeps them in files, and goes on with a queue that nobody serves any more
 * (takeover.h).
 *
 *      JOURNAL_WRITE at 0 ──► [fresh] ── pieces ── the last ──► [whole] ── pieces ──► ...
 *                                                                  └── another at 0: both,
 *                                                                      until that is whole
 *
 * A process that is started again has none: what was kept by the one before is removed, and
 * sent again by the controller's worker. Owner: loop thread. */
#ifndef WORKER_KEPT_JOURNALS_H
#define WORKER_KEPT_JOURNALS_H

#include "wire/journals.h"
#include "worker/session.h"

struct append_file; /* os/append_file.h */
struct candidacy;   /* takeover.c */
struct member;      /* meta/members.h */

/* A file of the journal with that id; file NULL: none. */
struct kept_file {
    struct append_file *file;
    uint64_t id;
    uint64_t bytes;
    uint64_t term; /* Of the controller that wrote to it last. */
};

/* Without a file it only remembers terms. */
struct kept_journal {
    struct list link; /* In worker->kept_journals. */
    char name[QUEUE_PLACE_NAME_MAX + 1];
    /* Of the controller that has the queue, as far as this node knows: it wrote here, or is
     * listed. */
    uint64_t term;
    uint64_t heard; /* The highest that anybody had, or asked for. */
    uint64_t dead;  /* Whoever asked for terms up to this one, and has not written yet,
                         came to nothing: an earlier one has written since. */
    uint64_t used_ms; /* When somebody wrote, asked or was listed last. */
    uint32_t node;    /* That the controller was on. */
    uint32_t incarnation;
    struct kept_file whole;
    struct kept_file fresh; /* Not whole yet. */
    uint64_t sequence;      /* `whole` has all records before this one. */

    /* Who would go on with the queue: what is of earlier terms waits. */
    struct kept_promise {
        uint64_t term; /* 0: nobody. */
        uint32_t node;
        uint32_t incarnation;
        uint64_t since; /* As a member. */
        uint64_t until_ms;
    } promise;

    /* takeover.c */
    struct candidacy *candidacy; /* We are asking who goes on with the queue. */
    uint64_t unserved_ms;        /* Since then nobody serves it; 0: somebody does. */
    uint64_t rests_until_ms;     /* Until then nobody is asked again. */
    /* Our controller has the file, with this term; 0: it has not. */
    uint64_t started_term;
    uint64_t started_ms;      /* Since then. */
    uint64_t renewed_ms;      /* The promise to it. */
    uint64_t failed_until_ms; /* Until then we cannot start one. */
};

/* What an earlier process kept is removed. */
void kept_journals_open(struct worker *worker);

/* After the loop has run. Removes the files. */
void kept_journals_close(struct worker *worker);

/* Those that are whole. */
uint32_t kept_journals_count(const struct worker *worker);

/* NULL: nothing of this queue is kept. */
struct kept_journal *
kept_journals_find(const struct worker *worker, struct ds_slice name);

/* Those who were no member for a while do not know what became of the queues: their copies
 * are of no use any more. */
void kept_journals_drop_all(struct worker *worker);

/* The term that somebody was promised who may still go on; 0: none. */
uint64_t
kept_journal_promise(const struct worker *worker, const struct kept_journal *journal);

/* A controller of that term comes too late: an earlier one has gone on past it. */
bool kept_journal_is_dead(const struct kept_journal *journal, uint64_t term);

/* From now on, if nobody has a later one, and for a while. */
void kept_journal_promise_to(struct kept_journal *journal, const struct member *member,
                             uint64_t term);
void kept_journal_withdraw(struct kept_journal *journal, uint64_t term);

/* Where the whole file is when no controller has it. False: too long a path. */
bool kept_journal_path(const struct worker *worker, const struct kept_journal *journal,
                       char *out, size_t out_bytes);

/* Somebody serves the queue, here or elsewhere: who had an earlier term does not any more,
 * also when that one is gone again. */
void kept_journal_note_served(struct kept_journal *journal, uint64_t term);

/* The controller here, of that term, has said something: whoever was promised a later one,
 * or has written here, has come to nothing. */
void kept_journals_note_past(struct worker *worker, const char *queue, uint64_t term);

/* The copy is of no use any more, unless a controller that we started has it; also then,
 * or it has its journal for good; and nothing is remembered. */
void kept_journal_drop_files(struct kept_journal *journal);
void kept_journal_let_go(struct kept_journal *journal);
void kept_journal_drop(struct kept_journal *journal);

/* Stands for the queue's name in the names of files. */
uint64_t kept_journal_hash(const char *queue);

#endif
