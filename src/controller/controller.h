/* transfer_queue_controller: one process per queue, one loop thread that owns all of
 * it.
 *
 *   session       one connection of a client; speaks docs/queue_protocol.md
 *   queue         what is known (src/queue), changed by one request at a time
 *   journal       every change, so that the next process knows it too (journal.h)
 *   worker link   the connection to the node's worker: blocks are adopted, and deleted
 *                 when no row refers to them (worker_link.h); only with a worker socket
 *
 * It runs as the child of a supervisor, which has the listening socket (main.c). What a
 * turn of the loop has changed is flushed to the journal at its end, and only then its
 * replies go out, and its orders to the worker.
 *
 *      [serving] ── shutdown, SIGTERM, SIGINT ──► [stopping] ──► [ended]
 *                   or its owner's end           purge, delete the blocks (5 s at most)
 *
 * Everything here is Owner: loop thread. */
#ifndef CONTROLLER_CONTROLLER_H
#define CONTROLLER_CONTROLLER_H

#include "base/list.h"
#include "controller/copied.h"
#include "controller/journal.h"
#include "controller/worker_link.h"
#include "net/conn.h"
#include "queue/queue.h"
#include "wire/journals.h"

#include <uv.h>

enum {
    CONTROLLER_UNPROVEN_MAX = 256, /* Connections that have not said HELLO. */
    CONTROLLER_REQUEST_BYTES_MAX = 256 << 20,
    CONTROLLER_STOP_MS = 5000,                /* For deleting blocks when stopping, */
    CONTROLLER_STOP_WITHOUT_WORKER_MS = 1000, /* while the worker is not there, */
    CONTROLLER_GOODBYE_MS = 1000,             /* and for sending the last replies. */
    CONTROLLER_MUTE_MS = 5000, /* Who can answer nothing for so long sends all away. */
};

/* Of all requests that are arriving, and of the replies one client did not read yet. */
#define CONTROLLER_PAYLOAD_BYTES_MAX (UINT64_C(1) << 30)
#define CONTROLLER_REPLY_BYTES_MAX   (UINT64_C(1) << 28)

/* Texts are borrowed for as long as the controller runs. */
struct controller_options {
    const char *socket_path;
    int listen_fd;              /* Of that socket; borrowed. */
    const char *host;           /* NULL: no TCP; else numeric, without brackets, */
    uint16_t port;              /* the port that was asked for, or taken, */
    int tcp_fd;                 /* and its socket; borrowed; -1: none. */
    const char *auth_key_file;  /* NULL: as secret_file_read(), */
    const struct auth_key *key; /* what it holds; borrowed; NULL: nobody proves one. */
    bool encrypts;              /* What passes over TCP after that proof. */
    const char
        *worker_socket_path; /* NULL: whoever clears rows deletes their blocks. */
    struct journal_options journal; /* Without a path: none is kept. */
    uint8_t copies_max;             /* Of it, on other nodes. */
    uint64_t term; /* Of the queue's controllers. Above the first it was started by a
                      worker, to go on with a queue: with that worker it ends, and the
                      queue goes on elsewhere. */
    const char *log_dir; /* NULL: log to stderr. */
    const char *owner;   /* Who started it, for the log; may be empty. */
    int owner_fd; /* A pidfd: it ends when that process has; -1: only when told to. */
};

struct controller {
    uv_loop_t loop;
    const struct controller_options *options;
    int restarts;
    char address[QUEUE_PLACE_ADDRESS_MAX + 1]; /* "unix:" and the socket's path. */
    char tcp_address[QUEUE_PLACE_ADDRESS_MAX + 1];
    struct queue_serve serve; /* Its place, and its journal's. */
    struct queue *queue;
    struct replies *replies;
    struct journal *journal;    /* NULL if none is kept. */
    struct worker_link *worker; /* NULL without a worker socket. */
    struct listener *listener;
    struct listener *tcp_listener; /* NULL: none. */
    struct list sessions;
    struct copied copied;
    uv_timer_t patience; /* With what is waited for of copies, */
    bool is_patient;     /* while it lasts; */
    bool is_mute;      /* it is over: who comes is sent away, perhaps to a successor. */
    struct list held;  /* Replies that wait for the journal; see session.c. */
    uv_prepare_t turn; /* Active while the journal is to be flushed. */
    struct list strangers; /* Those that have not said HELLO, the oldest first. */
    uint32_t unproven_count;
    uint64_t payload_bytes; /* Of requests that are arriving. */
    uv_signal_t terminate;
    uv_signal_t interrupt;
    uv_poll_t owner_end;
    bool watches_owner;  /* owner_end is open. */
    uv_timer_t deadline; /* Of the step that stopping is in. */
    bool stopping;
    bool has_said_goodbye;
    bool ended;
    uint32_t goodbyes; /* Replies to `shutdown` that are on their way. */
};

/* Runs until it is told to end; prints "ready" to stdout once it listens. Returns the
 * exit code. */
int controller_run(const struct controller_options *options, int restarts);

/* A request as it arrived. */
struct call {
    struct request_id id;
    const struct queue_request *request;
    struct ds_slice bytes; /* What it was decoded from. */
};

/* Applies a request, or finds the answer that it got before; sees to the journal and to
 * blocks that came and went. The reply must wait as controller_must_hold() says, an error
 * too. Errors of queue_apply(), journal_reserve(), and
 *   DS_INVALID   a later request of this client was seen */
DS_MUST_USE enum ds_status
controller_call(struct controller *controller, const struct call *call,
                struct writer *reply, struct ds_error *err);

/* A request that changes nothing and is nobody's. As queue_apply(). */
DS_MUST_USE enum ds_status
controller_ask(struct controller *controller, const struct queue_request *request,
               struct writer *reply, struct ds_error *err);

/* What is said now could depend on changes that the journal, or its copies, do not have
 * yet; or another controller may have taken our place. */
bool controller_must_hold(const struct controller *controller);

/* For what is held: see copied.h. controller_flush() follows in this turn. */
uint64_t controller_take_ticket(struct controller *controller);

/* The worker's answers. */
void controller_served(struct controller *controller, bool is_copied);
void
controller_synced(struct controller *controller, const struct journal_synced *answer);
void controller_worker_away(struct controller *controller);

/* Writes the journal and sends what was held, as far as its copies go. A journal that cannot
 * be written ends the process: what is in memory and what is in the file are no longer known
 * to agree. */
void controller_flush(struct controller *controller);

/* For the journal, which has one and has room: controller_flush() follows in this turn. */
void controller_write_down(struct controller *controller, enum record_type type,
                           struct request_id id, struct ds_slice body);

/* Begin to end; once is enough. */
void controller_stop(struct controller *controller, const char *why);

/* End at once, with the queue as it is, which goes on elsewhere. */
void controller_leave(struct controller *controller, const char *why);

/* One goodbye is sent, or cannot be. */
void controller_goodbye_done(struct controller *controller);

#endif
