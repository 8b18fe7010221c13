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
#include "wire/leaving.h"
#include "wire/message.h"
#include "worker/arenas.h"
#include "worker/election.h"
#include "worker/lookup.h"
#include "worker/owners.h"
#include "worker/peers.h"
#include "worker/queues.h"
#include "worker/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BACKOFF_MS_MIN = 50,
    BACKOFF_MS_MAX = 2000,
    BACKOFF_MS_MAX_ELECTED = 500, /* Who settles waits for us. */
    ANSWER_MS_MAX = 5000,         /* Beyond what a renewal may wait there. */
    HELLO_MS_MAX_ELECTED = 1500,  /* Another may have it meanwhile. */
    RENEW_MS_MAX = 1000, /* Users' keys are served for a few seconds without news. */
    LEAVE_MS = 500,
    MS_PER_DS = 100,
    QUEUES_BYTES_MAX = UINT16_MAX, /* Of what a member can say of its queues. */
};

/* Invariants: conn is NULL while away; `timer` ends the back-off while away, the patience
 * with a request while one is under way, and the farewell. */
struct membership {
    struct worker *worker;
    struct conn *conn;
    uv_timer_t timer;
    uint32_t handles_open; /* The timer, and the connection. */
    uint32_t sequence;     /* Of the latest request, which is under way. */
    uint64_t backoff_ms;
    bool is_asking; /* HELLO was answered. */
    bool closing;
    bool was_reported_away; /* In the log, once until it is there again. */
    void (*on_joined)(struct worker *worker); /* NULL: was called. */
    void (*on_left)(struct worker *worker);   /* NULL: is not leaving. */

    struct member *members; /* Owned, in the order of their nodes. As of `epoch` and
                               `version`. */
    uint32_t count;
    uint8_t *said; /* Owned; what the members say of themselves points there. */
    bool has_arenas;
    uint64_t epoch;
    uint64_t version;
    uint32_t lease_ms;
    uint64_t renewed_ds;   /* When the latest renewal was sent: CLOCK_BOOTTIME; */
    uint64_t confirmed_ds; /* and the latest that was answered. */
};

static void connect_to_metastore(struct membership *membership);

bool
membership_has_arenas(const struct membership *membership)
{
    return membership->has_arenas;
}

uint32_t
membership_own_node(const struct membership *membership)
{
    return store_header(membership->worker->store)->node;
}

/* The first member whose node is not below this one; there may be none. */
static uint32_t
position_of(const struct membership *membership, uint32_t node)
{
    uint32_t low = 0, high = membership->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (membership->members[middle].node < node)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct member *
membership_find(const struct membership *membership, uint32_t node)
{
    uint32_t at = position_of(membership, node);
    bool is_found = at < membership->count && membership->members[at].node == node;
    return is_found ? &membership->members[at] : NULL;
}

static const struct member *
find_after(const struct membership *membership, uint32_t node)
{
    uint32_t at = node == UINT32_MAX ? 0 : position_of(membership, node + 1);
    return &membership->members[at == membership->count ? 0 : at];
}

const struct member *
membership_next(const struct membership *membership, uint32_t node,
                const struct member *previous)
{
    if (membership_count(membership) == 0)
        return NULL;
    const struct member *first = find_after(membership, node);
    const struct member *next =
        previous == NULL ? first : find_after(membership, previous->node);
    bool is_around = previous != NULL && next == first;
    return is_around || next->node == node ? NULL : next;
}

struct members_past
membership_past(const struct membership *membership)
{
    return (struct members_past){membership->epoch, membership->count};
}

uint64_t
membership_confirmed_ds(const struct membership *membership)
{
    return membership->confirmed_ds;
}

const struct member *
membership_at(const struct membership *membership, uint32_t index)
{
    DS_ASSERT(index < membership->count);
    return &membership->members[index];
}

bool
membership_knows(const struct membership *membership)
{
    return membership == NULL || membership->count > 0;
}

uint32_t
membership_count(const struct membership *membership)
{
    return membership == NULL ? 0 : membership->count;
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
             const struct writer *body, uint64_t patience_ms)
{
    if (body->failed) {
        conn_close(membership->conn, "out of memory for a message to the metastore");
        return;
    }
    struct frame_header header = {.type = type,
                                  .sequence = ++membership->sequence,
                                  .body_bytes = (uint32_t)body->len};
    conn_send(membership->conn, &header, slice(body->data, body->len), NULL, 0, NULL,
              0);
    set_timer(membership, on_no_answer, patience_ms);
}

/* How many have to come back to a metastore that knows nobody: the head counts the others, as
 * it lost its own arena; who was elected counts all. */
static uint32_t
count_to_come(const struct membership *membership)
{
    if (membership->worker->election != NULL)
        return membership->count;
    return membership->count > 0 ? membership->count - 1 : 0;
}

static void
renew(struct membership *membership, uint32_t flags)
{
    const struct worker *worker = membership->worker;
    const struct table_header *table = store_header(worker->store);
    uint32_t wait_ms = RENEW_MS_MAX; /* The lease is not known yet. */
    if (membership->lease_ms > 0)
        wait_ms = (uint32_t)min_u64(membership->lease_ms / 3, RENEW_MS_MAX);
    membership->renewed_ds = clock_boot_ds();
    const struct member *self = membership_find(membership, table->node);
    AUTO_WRITER(queues);
    AUTO_WRITER(arenas);
    queues_encode(worker, &queues, QUEUES_BYTES_MAX);
    arenas_encode(worker, &arenas);
    struct member_renew message = {
        .who = {.node = table->node,
                .incarnation = table->incarnation,
                .restarts = (uint32_t)worker->restarts,
                .since = self != NULL ? self->since : 0,
                .address = slice_of_text(worker->flags->worker_address),
                .queues = slice(queues.data, queues.len),
                .arenas = slice(arenas.data, arenas.len)},
        .flags = flags,
        .epoch = membership->epoch,
        .version = membership->version,
        .count = count_to_come(membership),
        .wait_ms = wait_ms,
        .cluster_name = slice_of_text(worker->flags->cluster_name),
    };
    AUTO_WRITER(body);
    encode_member_renew(&body, &message);
    send_message(membership, MESSAGE_MEMBER_RENEW, &body, wait_ms + ANSWER_MS_MAX);
}

static size_t
said_bytes(struct member_list list)
{
    struct wire_member wire;
    size_t bytes = 0;
    while (next_member(&list, &wire))
        bytes += wire.queues.len + wire.arenas.len;
    return bytes;
}

static struct ds_slice
keep(uint8_t **said, struct ds_slice bytes)
{
    struct ds_slice kept = slice(*said, bytes.len);
    memcpy(*said, bytes.data, bytes.len);
    *said += bytes.len;
    return kept;
}

/* False when out of memory, with the members that were known. */
static bool
take_members(struct membership *membership, struct member_list *list)
{
    struct member *members = calloc(list->count + 1, sizeof *members);
    uint8_t *said = malloc(said_bytes(*list) + 1);
    if (members == NULL || said == NULL) {
        free(members);
        free(said);
        return false;
    }
    struct wire_member wire;
    uint32_t count = 0;
    bool has_arenas = false;
    uint8_t *at = said;
    while (next_member(list, &wire)) {
        struct member *member = &members[count++];
        member->node = wire.node;
        member->incarnation = wire.incarnation;
        member->restarts = wire.restarts;
        member->since = wire.since;
        memcpy(member->address, wire.address.data, wire.address.len);
        member->queues = keep(&at, wire.queues);
        member->arenas = keep(&at, wire.arenas);
        has_arenas = has_arenas || wire.arenas.len > 0;
    }
    struct worker *worker = membership->worker;
    bool is_other = membership->epoch != list->epoch;
    struct next_members next = {list->epoch, list->lapse_ms, list->away_ms, members,
                                count};
    if (is_other && !owners_changed(worker, &next)) {
        free(members);
        free(said);
        return false;
    }
    free(membership->members);
    free(membership->said);
    membership->members = members;
    membership->said = said;
    membership->has_arenas = has_arenas;
    membership->count = count;
    membership->version = list->version;
    if (!is_other)
        return true;
    membership->epoch = list->epoch;
    log_info("worker members=%" PRIu32 " epoch=%" PRIu64, count, list->epoch);
    peers_members_changed(worker->peers);
    owners_look_again(worker);
    waiters_look_again(worker, lookup_known_blocks);
    return true;
}

void
membership_be_ready(struct membership *membership)
{
    void (*on_joined)(struct worker * worker) = membership->on_joined;
    membership->on_joined = NULL;
    if (on_joined != NULL)
        on_joined(membership->worker);
}

/* An answer that came after all to a renewal whose place another one took says what it
 * says, but is no reason to renew. */
static void
handle_members_reply(struct membership *membership, const struct frame_header *header,
                     struct ds_slice body)
{
    struct member_list list;
    if (!decode_member_list(body, &list)) {
        conn_close(membership->conn, "the metastore's answer is malformed");
        return;
    }
    membership->lease_ms = list.lease_ms;
    membership->backoff_ms = BACKOFF_MS_MIN;
    membership->was_reported_away = false;
    bool is_news =
        list.epoch != membership->epoch || list.version != membership->version;
    if (is_news && !take_members(membership, &list)) {
        conn_close(membership->conn, "out of memory for the members");
        return;
    }
    if (membership->epoch > 0)
        membership_be_ready(membership);
    if (header->sequence != membership->sequence)
        return;
    membership->confirmed_ds = membership->renewed_ds;
    owners_set_lease(membership->worker,
                     membership->renewed_ds +
                         member_key_lease_ms(list.lease_ms) / MS_PER_DS);
    renew(membership, 0);
}

/* An answer that comes later would be a reason to renew. */
static void
finish_leaving(struct membership *membership)
{
    void (*on_left)(struct worker * worker) = membership->on_left;
    membership->on_left = NULL;
    if (membership->conn != NULL)
        conn_close(membership->conn, NULL);
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
        if (header->sequence == membership->sequence)
            finish_leaving(membership);
        return;
    }
    if (header->sequence == membership->sequence)
        (void)uv_timer_stop(&membership->timer);
    if (header->status != DS_OK) {
        char reason[512];
        snprintf(reason, sizeof reason, "refused: %.*s", (int)min_u64(body.len, 400),
                 (const char *)body.data);
        conn_close(conn, reason);
    } else if (header->type == MESSAGE_HELLO && !membership->is_asking) {
        conn_accept_peer(conn);
        membership->is_asking = true;
        renew(membership, 0);
    } else if (header->type == MESSAGE_MEMBER_RENEW && membership->is_asking) {
        handle_members_reply(membership, header, body);
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
    free(membership->said);
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
    const struct worker_flags *flags = membership->worker->flags;
    const char *address =
        flags->etcd_address[0] != '\0' ? flags->etcd_address : flags->metastore_address;
    if (!membership->was_reported_away)
        log_warn("worker metastore away address=%s reason=\"%s\"", address, reason);
    membership->was_reported_away = true;
    set_timer(membership, on_retry, membership->backoff_ms);
    uint64_t most =
        membership->worker->election != NULL ? BACKOFF_MS_MAX_ELECTED : BACKOFF_MS_MAX;
    membership->backoff_ms = min_u64(2 * membership->backoff_ms, most);
}

static void
on_closed(struct conn *conn, const char *reason)
{
    struct membership *membership = conn_user(conn);
    membership->conn = NULL;
    membership->is_asking = false;
    if (membership->on_left != NULL)
        finish_leaving(membership);
    else if (!membership->closing && !membership->worker->is_leaving)
        retry_later(membership, reason != NULL ? reason : "it closed the connection");
    release(membership);
}

static const struct conn_ops membership_ops = {
    .on_frame = on_frame,
    .on_closed = on_closed,
};

static void
connect_to(struct membership *membership, const char *address)
{
    struct ds_error err = {0};
    char host[MEMBER_ADDRESS_MAX + 1];
    uint16_t port;
    int fd;
    enum ds_status status =
        socket_parse_address(address, host, sizeof host, &port, &err);
    if (status == DS_OK)
        status = socket_connect_tcp(host, port, &fd, &err);
    if (status == DS_OK)
        status = conn_create(&membership->worker->loop, fd, &membership_ops, membership,
                             &membership->conn, &err);
    if (status != DS_OK) {
        retry_later(membership, err.message);
        return;
    }
    membership->handles_open++;
    const struct resources *resources = membership->worker->resources;
    conn_prove(membership->conn, resources_key(resources),
               resources_encryption(resources));
    struct hello hello = {
        .layout_version = LAYOUT_VERSION,
        .protocol_version = PROTOCOL_VERSION,
    };
    AUTO_WRITER(body);
    encode_hello(&body, &hello, NULL, 0);
    send_message(membership, MESSAGE_HELLO, &body,
                 membership->worker->election != NULL ? HELLO_MS_MAX_ELECTED
                                                      : ANSWER_MS_MAX);
}

static void
on_metastore_known(void *arg, const char *address, const char *reason)
{
    struct membership *membership = arg;
    if (address == NULL)
        retry_later(membership, reason);
    else
        connect_to(membership, address);
}

static void
connect_to_metastore(struct membership *membership)
{
    struct worker *worker = membership->worker;
    if (worker->election != NULL)
        election_ask(worker->election, on_metastore_known, membership);
    else
        connect_to(membership, worker->flags->metastore_address);
}

/* ---- Life ---- */

/* Also of a metastore that may not be there yet. */
static enum ds_status
check_address(const struct worker *worker, struct ds_error *err)
{
    char host[MEMBER_ADDRESS_MAX + 1];
    uint16_t port;
    if (worker->election != NULL)
        return DS_OK;
    return socket_parse_address(worker->flags->metastore_address, host, sizeof host,
                                &port, err);
}

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
    enum ds_status status = check_address(worker, err);
    if (status != DS_OK) {
        free(membership);
        return status;
    }
    if (store_header(worker->store)->lease_until == LEASE_NEVER_ENDS)
        store_set_lease(worker->store, 0);
    membership->handles_open = 1;
    int result = uv_timer_init(&worker->loop, &membership->timer);
    DS_ASSERT(result == 0);
    membership->timer.data = membership;
    *out = membership; /* Who is elected asks it. */
    connect_to_metastore(membership);
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

void
membership_queues_changed(struct membership *membership)
{
    if (membership != NULL && membership->is_asking && membership->on_left == NULL &&
        !membership->closing)
        renew(membership, 0);
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
    owners_set_lease(membership->worker, 0); /* Others have our keys now. */
    if (membership->conn == NULL || !membership->is_asking) {
        finish_leaving(membership);
        return;
    }
    renew(membership, MEMBER_LEAVES);
    set_timer(membership, on_farewell_over, LEAVE_MS);
}
