#include "worker/membership.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "meta/members.h"
#include "net/conn.h"
#include "os/clock.h"
#include "os/sockets.h"
#include "wire/message.h"
#include "worker/peers.h"
#include "worker/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BACKOFF_MS_MIN = 50,
    BACKOFF_MS_MAX = 2000,
    ANSWER_MS_MAX = 5000, /* Beyond what a renewal may wait there. */
    FIRST_WAIT_MS = 1000, /* Before the lease is known. */
    LEAVE_MS = 500,
    SEQUENCE = 1, /* One request is under way at a time. */
};

/* Invariants: conn is NULL while away; `timer` ends the back-off while away, the patience
 * with a request while one is under way, and the farewell. */
struct membership {
    struct worker *worker;
    char host[MEMBER_ADDRESS_MAX + 1]; /* Of the metastore. */
    uint16_t port;
    struct conn *conn;
    uv_timer_t timer;
    uint32_t handles_open; /* The timer, and the connection. */
    uint64_t backoff_ms;
    bool is_asking; /* HELLO was answered. */
    bool closing;
    bool was_reported_away; /* In the log, once until it is there again. */
    void (*on_joined)(struct worker *worker); /* NULL: was called. */
    void (*on_left)(struct worker *worker);   /* NULL: is not leaving. */

    struct member *members; /* Owned. As of `epoch`. */
    uint32_t count;
    uint64_t epoch;
    uint32_t lease_ms;
};

static void connect_to_metastore(struct membership *membership);

const struct member *
membership_find(const struct membership *membership, uint32_t node)
{
    for (uint32_t i = 0; i < membership->count; i++) {
        if (membership->members[i].node == node)
            return &membership->members[i];
    }
    return NULL;
}

/* ---- Messages ---- */

static void
set_timer(struct membership *membership, uv_timer_cb on_time, uint64_t ms)
{
    int result = uv_timer_start(&membership->timer, on_time, ms, 0);
    DS_ASSERT(result == 0);
}

static void
on_no_answer(uv_timer_t *timer)
{
    struct membership *membership = timer->data;
    if (membership->conn != NULL)
        conn_close(membership->conn, "the metastore does not answer");
}

static void
send_message(struct membership *membership, enum message_type type,
             const struct writer *body, uint64_t wait_ms)
{
    if (body->failed) {
        conn_close(membership->conn, "out of memory for a message to the metastore");
        return;
    }
    struct frame_header header = {
        .type = type, .sequence = SEQUENCE, .body_bytes = (uint32_t)body->len};
    conn_send(membership->conn, &header, slice(body->data, body->len), NULL, 0, NULL,
              0);
    set_timer(membership, on_no_answer, wait_ms + ANSWER_MS_MAX);
}

/* How many others we know: the head counts them after a restart. */
static uint32_t
others(const struct membership *membership)
{
    return membership->count > 0 ? membership->count - 1 : 0;
}

static void
renew(struct membership *membership, uint32_t flags)
{
    const struct worker *worker = membership->worker;
    const struct table_header *table = store_header(worker->store);
    uint32_t wait_ms =
        membership->lease_ms > 0 ? membership->lease_ms / 3 : FIRST_WAIT_MS;
    struct member_renew message = {
        .who = {.node = table->node,
                .incarnation = table->incarnation,
                .address = slice_of_text(worker->flags->worker_address)},
        .flags = flags,
        .epoch = membership->epoch,
        .count = others(membership),
        .wait_ms = wait_ms,
        .cluster_name = slice_of_text(worker->flags->cluster_name),
    };
    AUTO_WRITER(body);
    encode_member_renew(&body, &message);
    send_message(membership, MESSAGE_MEMBER_RENEW, &body, wait_ms);
}

/* False when out of memory, with the members that were known. */
static bool
take_members(struct membership *membership, struct member_list *list)
{
    struct member *members = calloc(list->count + 1, sizeof *members);
    if (members == NULL)
        return false;
    struct wire_member wire;
    uint32_t count = 0;
    while (next_member(list, &wire)) {
        struct member *member = &members[count++];
        member->node = wire.node;
        member->incarnation = wire.incarnation;
        memcpy(member->address, wire.address.data, wire.address.len);
    }
    free(membership->members);
    membership->members = members;
    membership->count = count;
    membership->epoch = list->epoch;
    log_info("worker members=%" PRIu32 " epoch=%" PRIu64, count, list->epoch);
    peers_members_changed(membership->worker->peers);
    return true;
}

static void
tell_joined(struct membership *membership)
{
    void (*on_joined)(struct worker * worker) = membership->on_joined;
    membership->on_joined = NULL;
    if (on_joined != NULL)
        on_joined(membership->worker);
}

static void
handle_members_reply(struct membership *membership, struct ds_slice body)
{
    struct member_list list;
    if (!decode_member_list(body, &list)) {
        conn_close(membership->conn, "the metastore's answer is malformed");
        return;
    }
    membership->lease_ms = list.lease_ms;
    membership->was_reported_away = false;
    if (list.epoch != membership->epoch && !take_members(membership, &list)) {
        conn_close(membership->conn, "out of memory for the members");
        return;
    }
    if (membership->epoch > 0)
        tell_joined(membership);
    renew(membership, 0);
}

static void
finish_leaving(struct membership *membership)
{
    void (*on_left)(struct worker * worker) = membership->on_left;
    membership->on_left = NULL;
    if (on_left != NULL)
        on_left(membership->worker);
}

static void
on_frame(struct conn *conn, const struct frame_header *header, struct ds_slice body,
         const int *fds, size_t fd_count)
{
    struct membership *membership = conn_user(conn);
    (void)fds;
    (void)fd_count;
    if (membership->on_left != NULL) {
        finish_leaving(membership);
        return;
    }
    (void)uv_timer_stop(&membership->timer);
    if (header->status != DS_OK) {
        char reason[512];
        snprintf(reason, sizeof reason, "refused: %.*s", (int)min_u64(body.len, 400),
                 (const char *)body.data);
        conn_close(conn, reason);
    } else if (header->type == MESSAGE_HELLO && !membership->is_asking) {
        conn_accept_peer(conn);
        membership->is_asking = true;
        membership->backoff_ms = BACKOFF_MS_MIN;
        renew(membership, 0);
    } else if (header->type == MESSAGE_MEMBER_RENEW && membership->is_asking) {
        handle_members_reply(membership, body);
    } else {
        conn_close(conn, "the metastore sent a message out of turn");
    }
}

/* ---- Connecting ---- */

static void
release(struct membership *membership)
{
    DS_ASSERT(membership->handles_open > 0);
    membership->handles_open--;
    if (membership->handles_open > 0)
        return;
    free(membership->members);
    free(membership);
}

static void
on_timer_closed(uv_handle_t *handle)
{
    release(handle->data);
}

static void
on_retry(uv_timer_t *timer)
{
    connect_to_metastore(timer->data);
}

static void
retry_later(struct membership *membership, const char *reason)
{
    const char *address = membership->worker->flags->metastore_address;
    if (!membership->was_reported_away)
        log_warn("worker metastore away address=%s reason=\"%s\"", address, reason);
    membership->was_reported_away = true;
    set_timer(membership, on_retry, membership->backoff_ms);
    membership->backoff_ms = min_u64(2 * membership->backoff_ms, BACKOFF_MS_MAX);
}

static void
on_closed(struct conn *conn, const char *reason)
{
    struct membership *membership = conn_user(conn);
    membership->conn = NULL;
    membership->is_asking = false;
    if (membership->on_left != NULL)
        finish_leaving(membership);
    else if (!membership->closing)
        retry_later(membership, reason != NULL ? reason : "it closed the connection");
    release(membership);
}

static const struct conn_ops membership_ops = {
    .on_frame = on_frame,
    .on_closed = on_closed,
};

static void
connect_to_metastore(struct membership *membership)
{
    struct ds_error err = {0};
    int fd;
    enum ds_status status =
        socket_connect_tcp(membership->host, membership->port, &fd, &err);
    if (status == DS_OK)
        status = conn_create(&membership->worker->loop, fd, &membership_ops, membership,
                             &membership->conn, &err);
    if (status != DS_OK) {
        retry_later(membership, err.message);
        return;
    }
    membership->handles_open++;
    struct hello hello = {
        .layout_version = LAYOUT_VERSION,
        .protocol_version = PROTOCOL_VERSION,
    };
    AUTO_WRITER(body);
    encode_hello(&body, &hello, NULL, 0);
    send_message(membership, MESSAGE_HELLO, &body, 0);
}

/* ---- Life ---- */

enum ds_status
membership_open(struct worker *worker, void (*on_joined)(struct worker *worker),
                struct membership **out, struct ds_error *err)
{
    struct membership *membership = calloc(1, sizeof *membership);
    if (membership == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for the membership");
    membership->worker = worker;
    membership->on_joined = on_joined;
    membership->backoff_ms = BACKOFF_MS_MIN;
    enum ds_status status =
        socket_parse_address(worker->flags->metastore_address, membership->host,
                             sizeof membership->host, &membership->port, err);
    if (status != DS_OK) {
        free(membership);
        return status;
    }
    membership->handles_open = 1;
    int result = uv_timer_init(&worker->loop, &membership->timer);
    DS_ASSERT(result == 0);
    membership->timer.data = membership;
    connect_to_metastore(membership);
    *out = membership;
    return DS_OK;
}

void
membership_close(struct membership *membership)
{
    if (membership == NULL || membership->closing)
        return;
    membership->closing = true;
    membership->on_left = NULL;
    if (membership->conn != NULL)
        conn_close(membership->conn, NULL);
    uv_close((uv_handle_t *)&membership->timer, on_timer_closed);
}

static void
on_farewell_over(uv_timer_t *timer)
{
    finish_leaving(timer->data);
}

/* A renewal may be waiting there, whose place this one takes. */
void
membership_leave(struct membership *membership, void (*on_left)(struct worker *worker))
{
    DS_ASSERT(membership->on_left == NULL);
    membership->on_left = on_left;
    if (membership->conn == NULL || !membership->is_asking) {
        finish_leaving(membership);
        return;
    }
    renew(membership, MEMBER_LEAVES);
    set_timer(membership, on_farewell_over, LEAVE_MS);
}
