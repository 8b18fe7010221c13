/* Bugs on purpose, for the simulations (tests/sim, tests/cluster_sim) to find: a check that
 * never failed says nothing. In the product PLANTED() is false and its branch is not
 * compiled in. */
#ifndef BASE_PLANTED_H
#define BASE_PLANTED_H

#define PLANTED_BUGS(X)                                                                \
    X(LOST_ACK, "lost-ack", "a seal of several is acknowledged after the first")       \
    X(EMPTY_ACK, "empty-ack", "a value sent by socket is dropped, and acknowledged")   \
    X(LOST_DELETE, "lost-delete", "a delete forgets its last key")                     \
    X(RESURRECTED_KEY, "resurrected-key", "what is overwritten stays, and comes back") \
    X(OLDER_WINS, "older-wins", "recovery keeps the older of two objects of a key")    \
    X(LATE_SLOT, "late-slot", "a slot is committed before it is filled")               \
    X(FORGOTTEN_PIN, "forgotten-pin", "room is given back though it is pinned")        \
    X(UNCHECKED_PIN, "unchecked-pin", "a reader does not look again after its pin")    \
    X(DOUBLE_GRANT, "double-grant", "recovery takes what clients fill for free room")  \
    X(STALE_READ, "stale-read", "what an ended worker's memory holds is read on")      \
    X(FORGOTTEN_HOLD, "forgotten-hold", "room is given back while it is being sent")   \
    X(RESUME_DROPS, "resume-drops", "a restarted worker drops what clients fill")      \
    X(LEAKED_WRITING, "leaked-writing", "what a dead client was filling stays")        \
    X(LEAKED_LOSER, "leaked-loser", "a put that lost against another keeps its room")  \
    X(CUT_PAYLOAD, "cut-payload", "the end of a fetched value is not received")        \
    X(EARLY_REPLY, "early-reply", "the controller answers before it has written")      \
    X(SHORT_SNAPSHOT, "short-snapshot", "a snapshot forgets a row")                    \
    X(LOST_DELETION, "lost-deletion",                                                  \
      "a new controller forgets what is to be deleted")                                \
    X(KEPT_ORPHAN, "kept-orphan", "a block whose writer died is kept for ever")

/* For the simulation of several nodes (tests/cluster_sim). */
#define PLANTED_CLUSTER_BUGS(X)

#define PLANTED_NUMBER(number, name, what) PLANTED_##number,
enum planted_bug {
    PLANTED_NONE,
    PLANTED_BUGS(PLANTED_NUMBER) PLANTED_CLUSTER_BUGS(PLANTED_NUMBER) PLANTED_COUNT
};
#undef PLANTED_NUMBER

#ifdef DATASYSTEM_PLANTED
/* The simulation's: the bug of this run. */
extern enum planted_bug planted_bug;
#define PLANTED(number) (planted_bug == PLANTED_##number)
#else
#define PLANTED(number) (PLANTED_##number == PLANTED_NONE)
#endif

#endif
