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
#define PLANTED_CLUSTER_BUGS(X)                                                        \
    X(UNASKED_HOLDER, "unasked-holder", "who held a key's old value is not told")      \
    X(UNTOLD_DELETE, "untold-delete", "a delete is not passed on to the holder")       \
    X(BLIND_SEAL, "blind-seal", "a set does not wait for the word of the key's owner") \
    X(LEASELESS_OWNER, "leaseless-owner", "an owner answers without its lease")        \
    X(LEASELESS_TABLE, "leaseless-table", "a table is believed without its lease")     \
    X(NO_LAPSE, "no-lapse", "nobody waits until a lost node has stopped to serve")     \
    X(KEPT_TABLE, "kept-table", "who was no member for a while goes on as before")     \
    X(FORGOTTEN_DELETION, "forgotten-deletion", "a deletion is not remembered")        \
    X(STALE_BINDING, "stale-binding", "an owner takes what is reported for newer")     \
    X(LOST_REPORT, "lost-report", "a holder's keys are not told to their new owner")   \
    X(UNHEARD_DROP, "unheard-drop",                                                    \
      "what is just being bound is sealed though dropped")                             \
    X(LATE_ORDER, "late-order", "an owner obeys whenever the order was sent")          \
    X(FORGOTTEN_OWNER, "forgotten-owner", "who of the owners is gone is not noted")    \
    X(UNCOMPARED_COPY, "uncompared-copy", "a copy's checksum is not compared")         \
    X(UNTOLD_WAITER, "untold-waiter", "who waits for a copy is not told of it")        \
    X(EPOCH_BACK, "epoch-back", "a metastore forgets its epoch with its process")      \
    X(KEPT_KEY, "kept-key", "a node that leaves forgets to hand over a key")           \
    X(BLIND_MOVE, "blind-move", "a key is moved though it is another value by now")    \
    X(UNTOLD_ORDER, "untold-order", "an order for a block is not passed on")           \
    X(KEPT_BLOCK, "kept-block", "a block that was deleted while it is moved stays")    \
    X(LOST_ARENA, "lost-arena", "who took an arena over forgets it with its process")  \
    X(UNCOPIED_SYNC, "uncopied-sync", "the copies of a journal are not waited for")    \
    X(LEASELESS_SYNC, "leaseless-sync", "a queue is served without its node's lease")  \
    X(EARLIER_TERM, "earlier-term", "an earlier controller's journal is kept as well") \
    X(UNASKED_RIVAL, "unasked-rival", "who goes on with a queue ignores who has more")

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
