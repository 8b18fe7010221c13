/* The metastore: who belongs to the cluster, kept in the worker of the head node.
 *
 *      worker ── MEMBER_RENEW ──► [parked] ── another epoch, or wait_ms over ──► member_list
 *                                    │            └── the worker renews again ──┐
 *                                    └──◄──────────────────────────────────────┘
 *
 * Changes within a tick (100 ms) are told together. A worker whose connection ends is
 * suspect: unless it renews within 2 s, as it does when only the connection broke, it is
 * gone. What is needed after a restart, the last epoch and how many others belonged, is in
 * a file in the home folder, or in etcd where that decides who has the metastore
 * (election.h). Owner: loop thread. */
#ifndef WORKER_METASTORE_H
#define WORKER_METASTORE_H

#include "meta/members.h"
#include "worker/session.h"

struct metastore;

/* What was before, for who was elected. */
struct metastore_past {
    struct members_past past;
    uint32_t holder; /* Node of whoever had the metastore; 0: not known. */
};

/* `past` is NULL for a head: its file says it, and one that cannot be read counts as absent.
 *   DS_NO_MEMORY */
DS_MUST_USE enum ds_status
metastore_open(struct worker *worker, const struct metastore_past *past,
               struct metastore **out, struct ds_error *err);

/* Hangs up on members that are still there. Accepts NULL. */
void metastore_close(struct metastore *metastore);

/* It was started again, and waits for those that belonged before. */
bool metastore_is_settling(const struct metastore *metastore);

/* Each member has heard of the last change, and waits for the next. One that has not would say
 * to the metastore after this one that it knew other members, and begin anew there. */
bool metastore_has_told_all(const struct metastore *metastore);

void metastore_tick(struct metastore *metastore, uint64_t now_ms);

/* The session is closing. */
void metastore_drop(struct session *session);

#endif
