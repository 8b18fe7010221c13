/* Which worker has the metastore, where an etcd decides it (--etcd_address).
 *
 *      [follower] ── range: somebody has it ──► the address of that one
 *          │  ▲
 *          │  └── the lease ends, or etcd says that it is another's ◄──┐
 *          └── nobody has it: grant, claim ──► [has it] ── keepalive, a lease of 5 s
 *
 * In etcd are two keys, below /datasystem/<cluster>/: `metastore` has the address and the
 * node of the worker that has it, bound to that one's lease; `epoch` has the last epoch, how
 * many belonged to it, and the node that wrote it. Whoever has the metastore lets go of it when its lease has ended
 * by its own clock, counted from when it asked, so that no two ever have it.
 * Owner: loop thread. */
#ifndef WORKER_ELECTION_H
#define WORKER_ELECTION_H

#include "meta/members.h"

struct election;
struct worker;

/*   DS_INVALID      --etcd_address is no list of host:port
 *   DS_UNSUPPORTED  libcurl is not installed
 *   DS_NO_MEMORY, DS_IO */
DS_MUST_USE enum ds_status
election_open(struct worker *worker, struct election **out, struct ds_error *err);

/* Nobody is called any more. Accepts NULL. */
void election_close(struct election *election);

/* `address` is that of the worker with the metastore, which may be this one; NULL: nobody
 * knows, because of `reason`. Borrowed. */
typedef void (*election_answer_fn)(void *arg, const char *address, const char *reason);

/* Asks etcd, and stands for election where nobody has the metastore: worker->metastore is
 * open then. `on_answer` is called once, perhaps from here; one question at a time. */
void election_ask(struct election *election, election_answer_fn on_answer, void *arg);

/* This worker has the metastore, and nobody else can. Accepts NULL. */
bool election_holds(const struct election *election);

/* To be kept in etcd, soon. */
void election_save(struct election *election, struct members_past past);

/* Closes the metastore and lets another worker have it at once, if etcd answers within
 * 500 ms; then calls `on_done`, from here or from the tick. */
void election_resign(struct election *election, void (*on_done)(struct worker *worker));

void election_tick(struct election *election); /* Accepts NULL. */

#endif
