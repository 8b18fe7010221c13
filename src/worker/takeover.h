/* Going on with a queue whose controller is gone, from the copy of its journal that is kept
 * here (kept_journals.h).
 *
 *      [kept] ── nobody serves it: at once if its node is no member any more, else for 5 s
 *        ▲         ──► [asking] ── JOURNAL_ASK, all members ──► somebody has more ──► [kept]
 *        │                              └── nobody has ──► [asking] for a promise
 *        │                                                     └── all give it ──► [started]
 *        └──────────── its controller has ended without serving the queue ◄─────────┘
 *
 * Who is asked refuses from then on what earlier controllers write, until we withdraw; so all
 * that they had acknowledged is in one of the copies, and that of the latest controller, of
 * these the longest, has it. It is started only while the lease of our membership lasts, and
 * that of everybody who is gone has ended.
 * docs/decisions/0015-takeover.md. Owner: loop thread. */
#ifndef WORKER_TAKEOVER_H
#define WORKER_TAKEOVER_H

struct kept_journal;
struct worker;

void takeover_tick(struct worker *worker);

/* Those that do not serve their queues yet. */
void takeover_end_programs(struct worker *worker);

/* Nobody is asked any more; programs go on. */
void takeover_stop(struct worker *worker);

/* A controller wrote: whoever we would go on from is there. */
void takeover_note_writer(struct kept_journal *journal);

/* Its journal is about to go: nobody is asked any more. */
void takeover_cancel(struct kept_journal *journal);

#endif
