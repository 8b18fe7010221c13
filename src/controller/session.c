#include "controller/session.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/sockets.h"
#include "os/tcp_peer.h"
#include "wire/message.h"

#include <stdlib.h>
#include <unistd.h>

enum { CONFIG_WAIT_MS_MAX = 3600 * 1000 };

/* Invariant: linked in controller->sessions until the connection is closed; freed when
 * the timer is closed as well. */
struct session {
    struct list link;
    struct list
        stranger_link; /* In controller->strangers while it is counted for one. */
    struct controller *controller;
    struct conn *conn;
    bool proven;             /* Said HELLO. */
    uint8_t *payload;        /* Of the request that is arriving; owned. */
    uint64_t payload_bytes;  /* Counted in controller->payload_bytes. */
    struct ds_error refusal; /* Why the payload is swallowed; DS_OK: it is not. */
    uint64_t reply_bytes;    /* Sent and not read yet. */
    bool waits_for_config;   /* A config_get is parked, */
    struct frame_header config_request;
    uv_timer_t config_timer;
    bool waits_for_end; /* and so is a shutdown. */
    struct frame_header end_request;
};

/* ---- Replies ---- */

/* A reply on its way, or held until the journal has what it depends on. Owns its bytes,
 * which are the error's text unless `status` is DS_OK. */
struct reply {
    struct list link;        /* In controller->held. */
    struct session *session; /* Lives as long as its connection has anything to send. */
    struct frame_header request;
    enum ds_status status;
    struct writer bytes;
    uint64_t ticket; /* With which it is held: copied.h. */
    bool is_goodbye;
};

static void
reply_free(struct reply *reply)
{
    struct session *session = reply->session;
    DS_ASSERT(session->reply_bytes >= reply->bytes.len);
    session->reply_bytes -= reply->bytes.len;
    writer_fini(&reply->bytes);
    free(reply);
}

static void
on_sent(void *arg)
{
    struct reply *reply = arg;
    struct controller *controller = reply->session->controller;
    bool is_goodbye = reply->is_goodbye;
    reply_free(reply);
    if (is_goodbye)
        controller_goodbye_done(controller);
}

static void
send_error(struct session *session, const struct frame_header *request,
           enum ds_status status, const char *text)
{
    struct ds_error err = {0};
    (void)ds_fail(&err, status, "%s", text);
    conn_reply_error(session->conn, request, &err);
}

/* Takes `reply`. */
static void
send_now(struct reply *reply)
{
    struct conn *conn = reply->session->conn;
    if (reply->status != DS_OK) {
        send_error(reply->session, &reply->request, reply->status,
                   (const char *)reply->bytes.data);
        reply_free(reply);
        return;
    }
    struct frame_header header = {
        .type = MESSAGE_QUEUE_CALL,
        .sequence = reply->request.sequence,
        .payload_bytes = reply->bytes.len,
    };
    struct conn_payload payload = {
        .data = reply->bytes.data,
        .bytes = reply->bytes.len,
        .on_sent = on_sent,
        .arg = reply,
    };
    conn_send(conn, &header, (struct ds_slice){0}, NULL, 0, &payload, 1);
}

/* Takes what is in `bytes`. NULL and a closing connection when out of memory. */
static struct reply *
reply_create(struct session *session, const struct frame_header *request,
             struct writer *bytes)
{
    struct reply *reply = bytes->failed ? NULL : malloc(sizeof *reply);
    if (reply == NULL) {
        /* What was asked for is done; a client that asks again gets the same answer. */
        log_error("controller reply reason=\"out of memory\"");
        conn_close(session->conn, "out of memory for a reply");
        return NULL;
    }
    *reply = (struct reply){.session = session, .request = *request, .bytes = *bytes};
    list_init(&reply->link);
    writer_init(bytes);
    session->reply_bytes += reply->bytes.len;
    return reply;
}

/* Now, or with those that are held: replies keep their order. */
static void
send_or_hold(struct reply *reply)
{
    struct controller *controller = reply->session->controller;
    if (!controller_must_hold(controller)) {
        send_now(reply);
        return;
    }
    reply->ticket = controller_take_ticket(controller);
    list_push_back(&controller->held, &reply->link);
}

/* Takes what is in `bytes`. */
static void
send_reply(struct session *session, const struct frame_header *request,
           struct writer *bytes)
{
    DS_ASSERT(bytes->len > 0);
    struct reply *reply = reply_create(session, request, bytes);
    if (reply != NULL)
        send_or_hold(reply);
}

static void
send_refusal(struct session *session, const struct frame_header *request,
             const struct ds_error *err)
{
    AUTO_WRITER(text);
    write_bytes(&text, slice(err->message, strlen(err->message) + 1));
    struct reply *reply = reply_create(session, request, &text);
    if (reply == NULL)
        return;
    reply->status = err->status;
    send_or_hold(reply);
}

void
sessions_send_held(struct controller *controller)
{
    LIST_FOREACH (link, &controller->held) {
        struct reply *reply = CONTAINER_OF(link, struct reply, link);
        if (!copied_covers(&controller->copied, reply->ticket))
            return;
        list_remove(link);
        send_now(reply);
    }
}

static void
drop_held(struct session *session)
{
    LIST_FOREACH (link, &session->controller->held) {
        struct reply *reply = CONTAINER_OF(link, struct reply, link);
        if (reply->session != session)
            continue;
        list_remove(link);
        reply_free(reply);
    }
}

/* ---- Waiting for the configuration ---- */

static void
answer_config(struct session *session)
{
    struct queue_request request = {.operation = QUEUE_CONFIG_GET};
    struct ds_error err = {0};
    AUTO_WRITER(reply);
    session->waits_for_config = false;
    (void)uv_timer_stop(&session->config_timer);
    if (controller_ask(session->controller, &request, &reply, &err) == DS_OK)
        send_reply(session, &session->config_request, &reply);
    else
        send_refusal(session, &session->config_request, &err);
}

static void
on_config_timeout(uv_timer_t *timer)
{
    answer_config(timer->data);
}

static void
park_config_get(struct session *session, const struct frame_header *header,
                uint64_t wait_ms)
{
    if (session->waits_for_config) {
        send_error(session, header, DS_INVALID,
                   "config_get: this connection waits for it already");
        return;
    }
    session->waits_for_config = true;
    session->config_request = *header;
    int result = uv_timer_start(&session->config_timer, on_config_timeout,
                                min_u64(wait_ms, CONFIG_WAIT_MS_MAX), 0);
    DS_ASSERT(result == 0);
}

void
sessions_announce_config(struct controller *controller)
{
    LIST_FOREACH (link, &controller->sessions) {
        struct session *session = CONTAINER_OF(link, struct session, link);
        if (session->waits_for_config)
            answer_config(session);
    }
}

/* ---- Requests ---- */

static void
begin_shutdown(struct session *session, const struct frame_header *header)
{
    session->waits_for_end = true;
    session->end_request = *header;
    controller_stop(session->controller, "shutdown was requested");
}

void
sessions_say_goodbye(struct controller *controller)
{
    LIST_FOREACH (link, &controller->sessions) {
        struct session *session = CONTAINER_OF(link, struct session, link);
        AUTO_WRITER(nil);
        write_u8(&nil, 0xc0);
        if (!session->waits_for_end || nil.failed)
            continue;
        session->waits_for_end = false;
        struct reply *reply = reply_create(session, &session->end_request, &nil);
        if (reply == NULL)
            continue;
        reply->is_goodbye = true;
        controller->goodbyes++;
        send_now(reply);
    }
}

static bool
must_wait(const struct session *session, const struct queue_request *request)
{
    struct ds_slice config;
    return request->operation == QUEUE_CONFIG_GET && request->wait_ms > 0 &&
           !queue_config(session->controller->queue, &config);
}

static void
apply(struct session *session, const struct frame_header *header,
      const struct call *call)
{
    enum queue_operation operation = call->request->operation;
    struct ds_error err = {0};
    AUTO_WRITER(reply);
    if (controller_call(session->controller, call, &reply, &err) != DS_OK) {
        log_debug("controller refused operation=%s status=%s reason=\"%s\"",
                  queue_operation_name(operation), ds_status_name(err.status),
                  err.message);
        send_refusal(session, header, &err);
        return;
    }
    send_reply(session, header, &reply);
    if (operation == QUEUE_CONFIG_SET)
        sessions_announce_config(session->controller);
}

static void
handle_request(struct session *session, const struct frame_header *header,
               struct request_id id, struct ds_slice bytes)
{
    struct ds_error err = {0};
    AUTO_QUEUE_REQUEST(request);
    struct call call = {.id = id, .request = &request, .bytes = bytes};
    if (queue_request_decode(bytes, &request, &err) != DS_OK)
        send_refusal(session, header, &err);
    else if (request.operation == QUEUE_SHUTDOWN)
        begin_shutdown(session, header);
    else if (session->controller->stopping)
        send_error(session, header, DS_IO, "the controller of the queue is ending");
    else if (must_wait(session, &request))
        park_config_get(session, header, request.wait_ms);
    else
        apply(session, header, &call);
}

static void
free_payload(struct session *session)
{
    DS_ASSERT(session->controller->payload_bytes >= session->payload_bytes);
    session->controller->payload_bytes -= session->payload_bytes;
    session->payload_bytes = 0;
    free(session->payload);
    session->payload = NULL;
    session->refusal = (struct ds_error){0};
}

static void
handle_queue_call(struct session *session, const struct frame_header *header,
                  struct ds_slice body)
{
    struct queue_call who = {0};
    if (body.len > 0) {
        bool whole = decode_queue_call(body, &who);
        DS_ASSERT(whole); /* is_call() knows its length. */
    }
    if (session->reply_bytes > CONTROLLER_REPLY_BYTES_MAX)
        conn_close(session->conn, "the peer does not read its replies");
    else if (session->refusal.status != DS_OK)
        conn_reply_error(session->conn, header, &session->refusal);
    else
        handle_request(session, header, (struct request_id){who.client, who.number},
                       slice(session->payload, session->payload_bytes));
    free_payload(session);
}

static void
uncount(struct session *session)
{
    if (!list_is_empty(&session->stranger_link))
        session->controller->unproven_count--;
    list_remove(&session->stranger_link);
}

static void
handle_hello(struct session *session, const struct frame_header *header,
             struct ds_slice body)
{
    struct hello hello;
    struct ds_error err = {0};
    if (session->proven || !decode_hello(body, &hello)) {
        conn_close(session->conn, "the peer's HELLO is malformed or out of turn");
        return;
    }
    if (hello.protocol_version != PROTOCOL_VERSION || hello.flags != 0) {
        (void)ds_fail(&err, DS_MISMATCH,
                      "client speaks protocol %u with flags %u; this controller (%s) "
                      "speaks protocol %u. Install the same version on both sides",
                      hello.protocol_version, hello.flags, DS_VERSION,
                      PROTOCOL_VERSION);
        conn_reply_error(session->conn, header, &err);
        return;
    }
    if (session->controller->is_mute) {
        (void)ds_fail(
            &err, DS_NOT_READY,
            "this controller can answer nothing now: its worker, or those with "
            "copies of its journal, do not answer");
        conn_reply_error(session->conn, header, &err);
        return;
    }
    session->proven = true;
    uncount(session);
    conn_accept_peer(session->conn);
    AUTO_WRITER(writer);
    encode_queue_place(&writer, &session->controller->serve.place);
    if (writer.failed) {
        conn_close(session->conn, "out of memory for a reply");
        return;
    }
    conn_reply(session->conn, header, slice(writer.data, writer.len));
}

/* ---- The connection ---- */

static bool
is_call(const struct session *session, const struct frame_header *header)
{
    return session->proven && header->type == MESSAGE_QUEUE_CALL &&
           (header->body_bytes == 0 || header->body_bytes == QUEUE_CALL_BYTES) &&
           header->payload_bytes > 0;
}

static void
on_frame(struct conn *conn, const struct frame_header *header, struct ds_slice body,
         const int *fds, size_t fd_count)
{
    struct session *session = conn_user(conn);
    (void)fds;
    if (header->type != MESSAGE_QUEUE_CALL)
        controller_flush(
            session->controller); /* Replies keep their order, but for copies. */
    if (header->status != DS_OK || fd_count > 0)
        conn_close(conn, "the peer sent something that is no request");
    else if (header->type == MESSAGE_HELLO && header->payload_bytes == 0)
        handle_hello(session, header, body);
    else if (is_call(session, header))
        handle_queue_call(session, header, body);
    else if (session->proven && header->type == MESSAGE_PING && body.len == 0)
        conn_reply(conn, header, (struct ds_slice){0});
    else
        conn_close(conn, "the peer sent a message out of turn");
}

static void
refuse_payload(struct session *session, enum ds_status status, const char *why,
               uint64_t bytes)
{
    (void)ds_fail(&session->refusal, status, "a request of %ju bytes: %s",
                  (uintmax_t)bytes, why);
}

static void *
on_payload_begin(struct conn *conn, const struct frame_header *header,
                 struct ds_slice body)
{
    struct session *session = conn_user(conn);
    struct controller *controller = session->controller;
    (void)body;
    DS_ASSERT(session->payload == NULL);
    if (!is_call(session, header) ||
        header->payload_bytes > CONTROLLER_REQUEST_BYTES_MAX) {
        conn_close(conn, "the peer announced a payload out of turn or over 256 MiB");
        return NULL;
    }
    uint64_t bytes = header->payload_bytes;
    if (controller->payload_bytes + bytes > CONTROLLER_PAYLOAD_BYTES_MAX) {
        refuse_payload(session, DS_FULL, "too many large requests at once; try again",
                       bytes);
        return NULL;
    }
    session->payload = malloc(bytes);
    if (session->payload == NULL) {
        refuse_payload(session, DS_NO_MEMORY, "the controller is out of memory", bytes);
        return NULL;
    }
    session->payload_bytes = bytes;
    controller->payload_bytes += bytes;
    return session->payload;
}

static void
on_timer_closed(uv_handle_t *timer)
{
    free(timer->data);
}

static void
on_closed(struct conn *conn, const char *reason)
{
    struct session *session = conn_user(conn);
    if (reason != NULL)
        log_info("controller connection closed reason=\"%s\"", reason);
    free_payload(session);
    drop_held(session);
    uncount(session);
    DS_ASSERT(session->reply_bytes == 0);
    list_remove(&session->link);
    uv_close((uv_handle_t *)&session->config_timer, on_timer_closed);
}

static const struct conn_ops session_ops = {
    .on_frame = on_frame,
    .on_payload_begin = on_payload_begin,
    .on_closed = on_closed,
};

static enum ds_status
check_peer(int fd, bool is_tcp, struct ds_error *err)
{
    if (is_tcp)
        return tcp_peer_check_user(fd, err);
    uid_t user = 0;
    enum ds_status status = socket_peer_user(fd, &user, err);
    if (status != DS_OK || user == geteuid())
        return status;
    return ds_fail(err, DS_INVALID, "peer has uid %u, this queue is of uid %u", user,
                   geteuid());
}

/* Who does say HELLO shall get in. */
static void
drop_oldest_stranger(struct controller *controller)
{
    struct session *oldest =
        CONTAINER_OF(controller->strangers.next, struct session, stranger_link);
    DS_ASSERT(!list_is_empty(&controller->strangers));
    uncount(oldest);
    conn_close(oldest->conn, "too many connections have not said HELLO");
}

static enum ds_status
create(struct controller *controller, int fd, bool is_tcp, struct ds_error *err)
{
    struct session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        socket_close(fd);
        return ds_fail(err, DS_NO_MEMORY, "out of memory");
    }
    session->controller = controller;
    enum ds_status status =
        conn_create(&controller->loop, fd, &session_ops, session, &session->conn, err);
    if (status != DS_OK) {
        free(session);
        return status;
    }
    if (is_tcp)
        conn_expect_proof_over_tcp(session->conn, controller->options->key,
                                   controller->options->encrypts ? AUTH_ENCRYPTED
                                                                 : AUTH_PLAIN);
    int result = uv_timer_init(&controller->loop, &session->config_timer);
    DS_ASSERT(result == 0);
    session->config_timer.data = session;
    if (controller->unproven_count >= CONTROLLER_UNPROVEN_MAX)
        drop_oldest_stranger(controller);
    list_push_back(&controller->strangers, &session->stranger_link);
    controller->unproven_count++;
    list_push_back(&controller->sessions, &session->link);
    return DS_OK;
}

void
session_open(struct controller *controller, int fd, bool is_tcp)
{
    struct ds_error err = {0};
    enum ds_status status = check_peer(fd, is_tcp, &err);
    if (status != DS_OK)
        socket_close(fd);
    else
        status = create(controller, fd, is_tcp, &err);
    if (status != DS_OK &&
        status != DS_IO) /* Gone already, as a probe of the port is. */
        log_warn("controller connection refused reason=\"%s\"", err.message);
}

void
sessions_close(struct controller *controller)
{
    LIST_FOREACH (link, &controller->sessions)
        conn_close(CONTAINER_OF(link, struct session, link)->conn, NULL);
}
