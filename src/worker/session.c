#include "worker/session.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/boot_id.h"
#include "os/sockets.h"
#include "os/tcp_peer.h"
#include "worker/blocks.h"
#include "worker/client.h"
#include "worker/creates.h"
#include "worker/keys.h"
#include "worker/leaving.h"
#include "worker/membership.h"
#include "worker/metastore.h"
#include "worker/objects.h"
#include "worker/queues.h"
#include "worker/waiters.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    PARKED_COUNT_MAX = 1024,      /* Requests of one session that wait. */
    PARKED_BYTES_MAX = 128 << 20, /* More than the largest lookup takes. */
    OWNER_BYTES_MAX = 1024,       /* As told; the flag has no limit. */
};

void
session_reject(struct session *session, const char *what)
{
    char reason[128];
    session->worker->counters.protocol_errors++;
    session->rejected = true;
    snprintf(reason, sizeof reason, "the peer broke the protocol: %s", what);
    conn_close(session->conn, reason);
}

void
session_reply(struct session *session, const struct frame_header *header,
              const struct writer *writer)
{
    struct ds_error err = {0};
    if (!writer->failed) {
        conn_reply(session->conn, header, slice(writer->data, writer->len));
        return;
    }
    (void)ds_fail(&err, DS_NO_MEMORY, "worker is out of memory for a reply");
    conn_reply_error(session->conn, header, &err);
}

enum ds_status
session_park(struct session *session, size_t bytes, struct ds_error *err)
{
    if (session->parked_count >= PARKED_COUNT_MAX ||
        bytes > PARKED_BYTES_MAX - session->parked_bytes)
        return ds_fail(err, DS_FULL,
                       "%u requests of this connection with %zu bytes are waiting "
                       "already; use more connections, or ask for fewer keys",
                       session->parked_count, session->parked_bytes);
    session->parked_count++;
    session->parked_bytes += bytes;
    return DS_OK;
}

void
session_unpark(struct session *session, size_t bytes)
{
    DS_ASSERT(session->parked_count > 0);
    DS_ASSERT(session->parked_bytes >= bytes);
    session->parked_count--;
    session->parked_bytes -= bytes;
}

static void
reply_ok(struct session *session, const struct frame_header *header)
{
    conn_reply(session->conn, header, (struct ds_slice){0});
}

/* ---- DISCOVER ---- */

static void
handle_discover(struct session *session, const struct frame_header *header,
                struct ds_slice body)
{
    if (body.len != 0) {
        session_reject(session, "malformed DISCOVER");
        return;
    }
    const struct resources *resources = session->worker->resources;
    bool shares_memory = session->worker->flags->ipc_through_shared_memory;
    char boot_id[BOOT_ID_BYTES];
    (void)boot_id_get(boot_id); /* Empty: nobody is on the same machine as we. */
    const char *owner = session->worker->flags->owner;
    struct discovered message = {
        .layout_version = LAYOUT_VERSION,
        .protocol_version = PROTOCOL_VERSION,
        .uid = geteuid(),
        .pid = (uint32_t)getppid(),
        .boot_id = slice_of_text(boot_id),
        .socket_path = slice_of_text(shares_memory ? resources->socket_path : ""),
        .version = slice_of_text(DS_VERSION),
        .owner = slice(owner, strnlen(owner, OWNER_BYTES_MAX)),
    };
    AUTO_WRITER(writer);
    encode_discovered(&writer, &message);
    session_reply(session, header, &writer);
}

/* ---- HELLO ---- */

static enum ds_status
check_versions(const struct hello *hello, struct ds_error *err)
{
    if (hello->layout_version == LAYOUT_VERSION &&
        hello->protocol_version == PROTOCOL_VERSION)
        return DS_OK;
    return ds_fail(
        err, DS_MISMATCH,
        "client speaks layout %u, protocol %u; this worker (%s) speaks layout "
        "%u, protocol %u. Install the same version on both sides",
        hello->layout_version, hello->protocol_version, DS_VERSION, LAYOUT_VERSION,
        PROTOCOL_VERSION);
}

static void
attach(struct session *session, struct client *client)
{
    session->client = client;
    session->creator = client->region + 1;
    client->session_count++;
    client->silent_since = 0;
}

/* One more connection of a known client, or the first after a restart. */
static enum ds_status
rejoin(struct session *session, const struct hello *hello, struct ds_error *err)
{
    struct client *client =
        client_find(session->worker, hello->client - 1, hello->token);
    if (client == NULL)
        return ds_fail(err, DS_NOT_FOUND, "this worker does not know client %u",
                       hello->client);
    client->has_spoken = true; /* It has the token from our welcome. */
    if (hello->flags & HELLO_RESUME) {
        /* Two of its threads may have found out at once that we were away: the one that
         * is late does not know what was reserved since. */
        bool is_late = hello->epoch < client->epoch;
        enum ds_status status =
            is_late ? DS_OK : objects_resume(session, client, hello, err);
        if (status != DS_OK)
            return status;
        client->epoch = max_u64(client->epoch, hello->epoch);
        client->must_resume = false;
    } else if (client->must_resume) {
        return ds_fail(err, DS_NOT_READY,
                       "the worker restarted: say first what client %u still holds",
                       hello->client);
    }
    attach(session, client);
    return DS_OK;
}

static enum ds_status
join(struct session *session, const struct hello *hello, struct ds_error *err)
{
    uint32_t incarnation = store_header(session->worker->store)->incarnation;
    if (hello->client != 0 && hello->incarnation == incarnation)
        return rejoin(session, hello, err);

    struct peer peer = {.pidfd = -1}; /* Over TCP no process is visible. */
    enum ds_status status = DS_OK;
    if (session->kind == SESSION_UNIX)
        status = socket_peer(conn_fd(session->conn), &peer, err);
    if (status != DS_OK)
        return status;
    struct client *client;
    bool maps_memory = (hello->flags & HELLO_SHARED_MEMORY) != 0;
    status = client_add(session->worker, &peer, maps_memory, &client, err);
    if (status == DS_OK)
        attach(session, client);
    return status;
}

/* Said on a connection of its own, by a client that has closed its others. */
static void
leave(struct session *session, const struct frame_header *header,
      const struct hello *hello)
{
    struct worker *worker = session->worker;
    struct ds_error err = {0};
    struct client *client = NULL;
    if (hello->client != 0 &&
        hello->incarnation == store_header(worker->store)->incarnation)
        client = client_find(worker, hello->client - 1, hello->token);
    if (client != NULL) {
        client_leave(client, "closed");
        reply_ok(session, header);
        return;
    }
    (void)ds_fail(&err, DS_NOT_FOUND, "this worker does not know client %u",
                  hello->client);
    conn_reply_error(session->conn, header, &err);
}

/* `mark` is the client's, or -1. */
static void
welcome(struct session *session, const struct frame_header *header, bool wants_memory,
        int mark)
{
    struct worker *worker = session->worker;
    const struct table_header *table = store_header(worker->store);
    struct welcome message = {
        .node = table->node,
        .incarnation = table->incarnation,
        .arena_bytes = table->arena_bytes,
        .table_bytes = worker->memory.table_bytes,
        .huge_page_bytes = table->huge_page_bytes,
    };
    int fds[WELCOME_FDS_MAX] = {worker->resources->arena_fd,
                                worker->resources->table_fd, worker->resources->pins_fd,
                                mark};
    size_t fd_count = 0;
    if (session->client != NULL) {
        const struct pins_header *pins = worker->memory.pins;
        message.client = session->creator;
        message.token = session->client->identity.token;
        message.pins_offset =
            PINS_HEADER_BYTES + session->client->region * pins->region_bytes;
        message.pins_bytes = pins->region_bytes;
        if (wants_memory)
            fd_count = mark < 0 ? WELCOME_FDS_MIN : WELCOME_FDS_MAX;
    }
    AUTO_WRITER(writer);
    encode_welcome(&writer, &message);
    if (writer.failed) {
        session_reply(session, header, &writer);
        return;
    }
    struct frame_header reply = {.type = header->type,
                                 .sequence = header->sequence,
                                 .body_bytes = (uint32_t)writer.len};
    conn_send(session->conn, &reply, slice(writer.data, writer.len), fds, fd_count,
              NULL, 0);
}

/* It is no longer among those that are counted for not having said HELLO. */
static void
uncount(struct session *session)
{
    if (list_is_empty(&session->stranger_link))
        return;
    list_remove(&session->stranger_link);
    DS_ASSERT(session->worker->unproven_count > 0);
    session->worker->unproven_count--;
}

static void
prove(struct session *session)
{
    session->proven = true;
    uncount(session);
    conn_accept_peer(session->conn);
}

static void
handle_hello(struct session *session, const struct frame_header *header,
             struct ds_slice body)
{
    struct hello hello;
    if (session->proven || !decode_hello(body, &hello)) {
        session_reject(session, session->proven ? "a second HELLO" : "malformed HELLO");
        return;
    }
    struct ds_error err = {0};
    int mark = -1;
    enum ds_status status = check_versions(&hello, &err);
    bool wants_memory = (hello.flags & HELLO_SHARED_MEMORY) != 0;
    if (status == DS_OK && wants_memory && session->kind != SESSION_UNIX)
        status = ds_fail(&err, DS_UNSUPPORTED,
                         "shared memory is handed out on the Unix socket only");
    bool is_client = wants_memory || (hello.flags & HELLO_MEMBER) != 0;
    if (status == DS_OK && is_client && (hello.flags & HELLO_LEAVE) != 0) {
        leave(session, header, &hello);
        return;
    }
    session->queue = hello.queue;
    if (status == DS_OK && is_client)
        status = join(session, &hello, &err);
    if (status == DS_OK && wants_memory)
        status = client_mark(session->client, &mark, &err);
    if (status != DS_OK) {
        conn_reply_error(session->conn, header, &err);
        return;
    }
    prove(session);
    welcome(session, header, wants_memory, mark);
    socket_close(mark);
}

/* ---- PING, FORK_CLAIM ---- */

static void
handle_ping(struct session *session, const struct frame_header *header,
            struct ds_slice body)
{
    if (body.len != 0)
        session_reject(session, "malformed PING");
    else
        reply_ok(session, header);
}

static enum ds_status
fork_claim(struct worker *worker, const struct hello *hello, int *out_mark,
           struct ds_error *err)
{
    enum ds_status status = check_versions(hello, err);
    if (status != DS_OK)
        return status;
    struct client *parent = client_find(worker, hello->client - 1, hello->token);
    if (parent == NULL)
        return ds_fail(err, DS_NOT_FOUND, "this worker does not know client %u",
                       hello->client);
    return client_add_fork_claim(parent, out_mark, err);
}

/* In place of HELLO: after a restart the client may not have said yet what it holds, and
 * a fork is no time to do so. Its pins are in its region all the same. */
static void
handle_fork_claim(struct session *session, const struct frame_header *header,
                  struct ds_slice body)
{
    struct hello hello;
    if (session->kind != SESSION_UNIX || !decode_hello(body, &hello)) {
        session_reject(session, "malformed FORK_CLAIM");
        return;
    }
    struct ds_error err = {0};
    int mark = -1;
    if (fork_claim(session->worker, &hello, &mark, &err) != DS_OK) {
        log_warn("worker fork not covered client=%u reason=\"%s\"", hello.client,
                 err.message);
        conn_reply_error(session->conn, header, &err);
        return;
    }
    struct frame_header reply = {.type = header->type, .sequence = header->sequence};
    conn_send(session->conn, &reply, (struct ds_slice){0}, &mark, 1, NULL, 0);
    socket_close(mark);
}

/* ---- Dispatch ---- */

static const struct {
    session_handler_fn handle;
    bool before_hello;
    bool on_metastore;
} handlers[MESSAGE_TYPE_COUNT] = {
    [MESSAGE_DISCOVER] = {handle_discover, true, true},
    [MESSAGE_HELLO] = {handle_hello, true, true},
    [MESSAGE_PING] = {handle_ping, false, false},
    [MESSAGE_CREATE] = {handle_create, false, false},
    [MESSAGE_SEAL] = {handle_seal, false, false},
    [MESSAGE_ABORT] = {handle_abort, false, false},
    [MESSAGE_LOOKUP] = {handle_lookup, false, false},
    [MESSAGE_EXIST] = {handle_exist, false, false},
    [MESSAGE_DELETE] = {handle_delete, false, false},
    [MESSAGE_EXPIRE] = {handle_expire, false, false},
    [MESSAGE_STATS] = {handle_stats, false, true},
    [MESSAGE_PUT] = {handle_put, false, false},
    [MESSAGE_FETCH] = {handle_lookup, false, false},
    [MESSAGE_BLOCK_CREATE] = {handle_block_create, false, false},
    [MESSAGE_BLOCK_DELETE] = {handle_block_delete, false, false},
    [MESSAGE_BLOCK_ADOPT] = {handle_block_adopt, false, false},
    [MESSAGE_ORPHANS] = {handle_orphans, false, false},
    [MESSAGE_ORPHANS_FOUND] = {handle_orphans_found, false, false},
    [MESSAGE_FORK_CLAIM] = {handle_fork_claim, true, false},
    [MESSAGE_FILL] = {handle_fill, false, false},
    [MESSAGE_PUBLISH] = {handle_publish, false, false},
    [MESSAGE_HOLDERS] = {handle_holders, false, true},
    [MESSAGE_QUEUE_SERVE] = {handle_queue_serve, false, false},
    [MESSAGE_QUEUE_FIND] = {handle_queue_find, false, false},
    [MESSAGE_MEMBER_RENEW] = {handle_member_renew, false, true},
    [MESSAGE_MEMBERS] = {handle_members, false, true},
    [MESSAGE_KEY_ORDERS] = {handle_key_orders, false, false},
    [MESSAGE_KEY_REPORT] = {handle_key_report, false, false},
    [MESSAGE_JOURNAL_SYNC] = {handle_journal_sync, false, false},
    [MESSAGE_JOURNAL_END] = {handle_journal_end, false, false},
    [MESSAGE_JOURNAL_WRITE] = {handle_journal_write, false, false},
    [MESSAGE_JOURNAL_ASK] = {handle_journal_ask, false, false},
    [MESSAGE_JOURNAL_DROP] = {handle_journal_drop, false, false},
    [MESSAGE_LEAVE] = {handle_leave, false, false},
    [MESSAGE_TAKE_ROOM] = {handle_take_room, false, false},
    [MESSAGE_TAKE] = {handle_take, false, false},
    [MESSAGE_TAKE_KEYS] = {handle_take_keys, false, false},
    [MESSAGE_TAKE_END] = {handle_take_end, false, false},
};

static bool
is_allowed(const struct session *session, const struct frame_header *header)
{
    if (header->status != DS_OK)
        return false;
    bool takes_payload = header->type == MESSAGE_PUT || header->type == MESSAGE_FILL;
    if (header->payload_bytes != 0 && !takes_payload)
        return false;
    if (session->kind == SESSION_METASTORE && !handlers[header->type].on_metastore)
        return false;
    return session->proven || handlers[header->type].before_hello;
}

static void
note_request(const struct session *session)
{
    session->worker->counters.requests++;
    if (session->client != NULL)
        session->client->has_spoken = true;
}

/* What arrived of it has no use. */
static void
refuse_while_leaving(struct session *session, const struct frame_header *header)
{
    session->put_is_refused = false;
    put_abandon(session);
    leaving_refuse(session, header);
}

static void
on_frame(struct conn *conn, const struct frame_header *header, struct ds_slice body,
         const int *fds, size_t fd_count)
{
    struct session *session = conn_user(conn);
    (void)fds;
    note_request(session);
    if (!is_allowed(session, header))
        session_reject(session, "a request out of turn");
    else if (fd_count > 0)
        session_reject(session, "descriptors with a request that has none");
    else if (handlers[header->type].handle == NULL)
        session_reject(session, "a request that is not for a worker");
    else if (session->put_is_refused || leaving_refuses(session->worker, header->type))
        refuse_while_leaving(session, header);
    else
        handlers[header->type].handle(session, header, body);
}

static void *
on_payload_begin(struct conn *conn, const struct frame_header *header,
                 struct ds_slice body)
{
    struct session *session = conn_user(conn);
    if (!is_allowed(session, header)) {
        session_reject(session, "a payload out of turn");
        return NULL;
    }
    if (leaving_refuses(session->worker, header->type)) {
        session->put_is_refused = true; /* Also if it stays meanwhile. */
        return NULL;
    }
    if (header->type == MESSAGE_FILL)
        return fill_payload_begin(session, header, body);
    return put_payload_begin(session, header, body);
}

static void
leave_client(struct session *session)
{
    struct client *client = session->client;
    if (client == NULL)
        return;
    DS_ASSERT(client->session_count > 0);
    client->session_count--;
    session->client = NULL;
    if (client->session_count > 0)
        return;
    client->silent_since = uv_now(&session->worker->loop) + 1;
    if (!client->has_spoken &&
        !store_client_has_mapped(session->worker->store, client->region))
        client_leave(client, "gone before it asked for anything");
}

static void
on_closed(struct conn *conn, const char *reason)
{
    struct session *session = conn_user(conn);
    struct worker *worker = session->worker;
    if (reason != NULL)
        log_write(session->rejected ? LOG_WARN : LOG_INFO,
                  "worker connection closed reason=\"%s\"", reason);
    put_abandon(session);
    waiters_drop(session);
    creates_drop(session);
    blocks_drop(session);
    keys_drop(session);
    list_remove(&session->orphan_link);
    queues_drop(session);
    metastore_drop(session);
    leave_client(session);
    uncount(session);
    DS_ASSERT(session->parked_count == 0);
    DS_ASSERT(worker->session_count > 0);
    worker->session_count--;
    list_remove(&session->link);
    free(session);
}

static const struct conn_ops session_ops = {
    .on_frame = on_frame,
    .on_payload_begin = on_payload_begin,
    .on_closed = on_closed,
};

/* Another user of this machine is none of our clients. */
static enum ds_status
check_peer(int fd, enum session_kind kind, struct ds_error *err)
{
    if (kind != SESSION_UNIX)
        return tcp_peer_check_user(fd, err);
    uid_t user = 0;
    enum ds_status status = socket_peer_user(fd, &user, err);
    if (status != DS_OK || user == geteuid())
        return status;
    return ds_fail(err, DS_INVALID, "peer has uid %u, this worker serves uid %u", user,
                   geteuid());
}

/* Too many have not said HELLO: the one that had the most time to makes room, so that
 * who does say it gets in. */
static void
drop_oldest_stranger(struct worker *worker)
{
    struct session *oldest =
        CONTAINER_OF(worker->strangers.next, struct session, stranger_link);
    DS_ASSERT(!list_is_empty(&worker->strangers));
    uncount(oldest);
    conn_close(oldest->conn, "too many connections have not said HELLO");
}

void
session_open(struct worker *worker, int fd, enum session_kind kind)
{
    struct ds_error err = {0};
    enum ds_status status = check_peer(fd, kind, &err);
    struct session *session = NULL;
    if (status == DS_OK && (session = calloc(1, sizeof *session)) == NULL)
        status = ds_fail(&err, DS_NO_MEMORY, "out of memory");
    if (status != DS_OK) {
        if (status != DS_IO) /* Gone already, as a probe of the port is: no news. */
            log_warn("worker connection refused reason=\"%s\"", err.message);
        close(fd);
        return;
    }
    DS_ASSERT(session != NULL);
    session->worker = worker;
    session->kind = kind;
    list_init(&session->stranger_link);
    list_init(&session->waiters);
    list_init(&session->parked_creates);
    list_init(&session->block_orders);
    list_init(&session->key_requests);
    list_init(&session->orphan_link);
    status =
        conn_create(&worker->loop, fd, &session_ops, session, &session->conn, &err);
    if (status != DS_OK) {
        log_warn("worker connection refused reason=\"%s\"", err.message);
        free(session);
        return;
    }
    if (kind != SESSION_UNIX)
        conn_expect_proof_over_tcp(session->conn, resources_key(worker->resources),
                                   resources_encryption(worker->resources));
    if (worker->unproven_count >=
        WORKER_UNPROVEN_MAX + membership_count(worker->membership))
        drop_oldest_stranger(worker);
    list_push_back(&worker->strangers, &session->stranger_link);
    worker->unproven_count++;
    worker->session_count++;
    list_push_back(&worker->sessions, &session->link);
}
