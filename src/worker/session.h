/* One connection to the worker. */
#ifndef WORKER_SESSION_H
#define WORKER_SESSION_H

#include "wire/message.h"
#include "worker/worker.h"

struct client;
struct served_queue;
struct renewal;

enum session_kind { SESSION_UNIX, SESSION_TCP, SESSION_METASTORE };

struct session {
    struct list link;          /* In worker->sessions. */
    struct list stranger_link; /* In worker->strangers while it is counted for one. */
    struct worker *worker;
    struct conn *conn;
    enum session_kind kind;
    bool proven;           /* Said HELLO. */
    bool rejected;         /* It broke the protocol. */
    struct client *client; /* NULL: reserves nothing. */
    uint32_t creator;      /* Of objects made here: region + 1, or 0. */
    uint16_t queue;        /* Tag of the queue that blocks made here are of. */

    struct list waiters; /* Its parked lookups. */
    const struct ds_error
        *refusal; /* While one of them is answered: why a key did not come;
                                       NULL: nobody says. */
    struct list parked_creates; /* Its parked creates. */
    uint32_t parked_count;      /* Both together, and the memory they take. */
    size_t parked_bytes;
    struct list block_orders; /* Its requests that other nodes work on: blocks.c */
    struct list key_requests; /* The same: keys.c */
    struct list orphan_link;  /* In worker->orphan_readers while parked. */
    struct frame_header orphan_request;

    struct served_queue *serves; /* NULL: it is no controller of a queue with a name. */

    struct renewal *renewal; /* NULL: it is no member's, at the metastore. */

    struct object_view put; /* The object that a payload is arriving in. */
    bool put_open;          /* `put` is reserved, and held. */
    bool put_is_fill; /* By an earlier request, which decides what becomes of it. */
    struct ds_error put_err; /* Why it could not be. */
    bool put_is_refused;     /* This worker was leaving when it began to arrive. */
};

/* Takes `fd`. A failure is logged. */
void session_open(struct worker *worker, int fd, enum session_kind kind);

/* Handlers: one per message type, each replies now or parks the request. */
typedef void (*session_handler_fn)(struct session *session,
                                   const struct frame_header *header,
                                   struct ds_slice body);

/* The peer broke the protocol: counts it and closes, which logs one line. */
void session_reject(struct session *session, const char *what);

/* Replies with what was written, or that memory ran out while it was. */
void session_reply(struct session *session, const struct frame_header *header,
                   const struct writer *writer);

/* A request that is to wait takes so much memory. False, with the reason, when the
 * requests of this session that wait already take too much. */
DS_MUST_USE enum ds_status
session_park(struct session *session, size_t bytes, struct ds_error *err);
void session_unpark(struct session *session, size_t bytes);

/* creates.c */
void handle_create(struct session *, const struct frame_header *, struct ds_slice);
void
handle_block_create(struct session *, const struct frame_header *, struct ds_slice);

/* seal.c */
void handle_seal(struct session *, const struct frame_header *, struct ds_slice);

/* objects.c */
void handle_publish(struct session *, const struct frame_header *, struct ds_slice);
void handle_abort(struct session *, const struct frame_header *, struct ds_slice);
void handle_exist(struct session *, const struct frame_header *, struct ds_slice);
void handle_delete(struct session *, const struct frame_header *, struct ds_slice);
void handle_expire(struct session *, const struct frame_header *, struct ds_slice);

/* lookup.c */
void handle_lookup(struct session *, const struct frame_header *, struct ds_slice);

/* transfer.c */
void handle_put(struct session *, const struct frame_header *, struct ds_slice);
void handle_fill(struct session *, const struct frame_header *, struct ds_slice);
void *put_payload_begin(struct session *, const struct frame_header *, struct ds_slice);
void *
fill_payload_begin(struct session *, const struct frame_header *, struct ds_slice);
void put_abandon(struct session *);

/* blocks.c */
void
handle_block_delete(struct session *, const struct frame_header *, struct ds_slice);
void handle_block_adopt(struct session *, const struct frame_header *, struct ds_slice);

/* key_orders.c, reports.c */
void handle_key_orders(struct session *, const struct frame_header *, struct ds_slice);
void handle_key_report(struct session *, const struct frame_header *, struct ds_slice);

/* orphans.c */
void handle_orphans(struct session *, const struct frame_header *, struct ds_slice);
void
handle_orphans_found(struct session *, const struct frame_header *, struct ds_slice);

/* queues.c */
void handle_queue_serve(struct session *, const struct frame_header *, struct ds_slice);
void handle_queue_find(struct session *, const struct frame_header *, struct ds_slice);
void
handle_journal_sync(struct session *, const struct frame_header *, struct ds_slice);
void handle_journal_end(struct session *, const struct frame_header *, struct ds_slice);

/* kept_journals.c */
void
handle_journal_write(struct session *, const struct frame_header *, struct ds_slice);
void handle_journal_ask(struct session *, const struct frame_header *, struct ds_slice);
void
handle_journal_drop(struct session *, const struct frame_header *, struct ds_slice);

/* leaving.c */
void handle_leave(struct session *, const struct frame_header *, struct ds_slice);

/* taking.c */
void handle_take_room(struct session *, const struct frame_header *, struct ds_slice);
void handle_take(struct session *, const struct frame_header *, struct ds_slice);
void handle_take_keys(struct session *, const struct frame_header *, struct ds_slice);
void handle_take_end(struct session *, const struct frame_header *, struct ds_slice);

/* metastore.c */
void
handle_member_renew(struct session *, const struct frame_header *, struct ds_slice);
void handle_members(struct session *, const struct frame_header *, struct ds_slice);

/* stats.c */
void handle_stats(struct session *, const struct frame_header *, struct ds_slice);
void handle_holders(struct session *, const struct frame_header *, struct ds_slice);

#endif
