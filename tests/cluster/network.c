/* Connections, in place of src/net: a message that is sent arrives whole, in order. */
#include "network.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/sockets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What stands for a descriptor: a node and its port that are to be connected to, or the
 * connection that has just arrived. */
enum { FD_ARRIVED = 1000, FD_CONNECT = 2000 };

enum { BUSY_NS = 5000000 }; /* So often is looked whether a process accepts. */

struct counts counts;
struct list network_ends = {.next = &network_ends, .prev = &network_ends};

static struct conn *arriving; /* While its listener is called. */

/* ---- Life of an end ---- */

struct conn *
network_hold(struct conn *conn)
{
    conn->references++;
    return conn;
}

void
network_let_go(struct conn *conn)
{
    DS_ASSERT(conn->references > 0);
    if (--conn->references > 0)
        return;
    free(conn->reason);
    free(conn);
}

static struct conn *
end_new(struct node *node, const struct conn_ops *ops, void *user)
{
    struct conn *conn = calloc(1, sizeof *conn);
    DS_ASSERT(conn != NULL);
    conn->node = node;
    conn->ops = ops;
    conn->user = user;
    conn->references = 1; /* The loop's. */
    list_init(&conn->link);
    list_init(&conn->held);
    list_init(&conn->inbox);
    list_init(&conn->all);
    list_push_back(&network_ends, &conn->all);
    return conn;
}

bool
network_is_dead(const struct conn *conn)
{
    return conn->closing ||
           (conn->node != NULL && (!conn->node->is_up || conn->node->is_silent));
}

static struct tally *
tally_of(const struct conn *conn)
{
    static struct tally outside;
    if (conn->node == NULL)
        return &outside;
    bool is_metastore = conn->is_accepted && conn->port == PORT_METASTORE;
    return is_metastore ? &conn->node->metastore : &conn->node->tally;
}

static void
end_one(struct conn *conn)
{
    LIST_FOREACH (link, &conn->held)
        message_free(CONTAINER_OF(link, struct message, link));
    delivery_end(conn);
    list_remove(&conn->all);
    counts.connections_ended += conn->is_counted;
    conn->ops->on_closed(conn, conn->reason);
    if (conn->other != NULL)
        network_let_go(conn->other);
    conn->other = NULL;
    network_let_go(conn);
}

void
network_end_closing(struct list *conns)
{
    while (!list_is_empty(conns)) {
        struct conn *conn = CONTAINER_OF(conns->next, struct conn, link);
        list_remove(&conn->link);
        end_one(conn);
    }
}

static void
end_outside(void *arg)
{
    end_one(arg);
}

static void arrive(void *arg);

/* The other end hears of it, behind all that was sent; or before, when what was sent is
 * dropped. */
static void
say_end(struct conn *conn)
{
    struct message *message = calloc(1, sizeof *message);
    uint64_t at = virtual_now_ns() + LATENCY_NS;
    DS_ASSERT(message != NULL);
    list_init(&message->link);
    message->is_end = true;
    message->to = network_hold(conn->other);
    if (!network_faults.are_on || chance_of(1, 2))
        at = max_u64(at, conn->arrival_ns);
    virtual_at(at, arrive, message);
}

void
conn_close(struct conn *conn, const char *reason)
{
    if (conn->closing)
        return;
    conn->closing = true;
    conn->reason = reason == NULL ? NULL : strdup(reason);
    bool is_heard = conn->node == NULL || !conn->node->is_silent;
    if (conn->other != NULL && is_heard)
        say_end(conn);
    if (conn->node == NULL) {
        virtual_at(virtual_now_ns(), end_outside, conn);
        return;
    }
    list_push_back(&conn->node->loop.closing_conns, &conn->link);
    loop_need_turn(&conn->node->worker.loop);
}

/* ---- Messages ---- */

void
message_free(struct message *message)
{
    list_remove(&message->link);
    if (message->to != NULL)
        network_let_go(message->to);
    free(message);
}

struct ds_slice
network_payload(struct message *message)
{
    const struct frame_header *header = &message->header;
    return slice(message->data + header->body_bytes, header->payload_bytes);
}

void *
network_begin_payload(const struct message *message)
{
    struct conn *conn = message->to;
    const struct frame_header *header = &message->header;
    if (header->payload_bytes == 0 || conn->ops->on_payload_begin == NULL)
        return NULL;
    struct node_entry entry = node_enter(conn->node, tally_of(conn));
    if (conn->node != NULL)
        conn->node->now_ns = virtual_now_ns();
    void *place = conn->ops->on_payload_begin(conn, header,
                                              slice(message->data, header->body_bytes));
    node_leave(entry);
    return place;
}

void
network_finish(const struct message *message)
{
    struct conn *conn = message->to;
    const struct frame_header *header = &message->header;
    if (conn->closing)
        return;
    struct node_entry entry = node_enter(conn->node, tally_of(conn));
    if (conn->node != NULL)
        conn->node->now_ns = virtual_now_ns();
    conn->ops->on_frame(conn, header, slice(message->data, header->body_bytes), NULL,
                        0);
    node_leave(entry);
}

static void
hand_over(void *arg)
{
    struct message *message = arg;
    struct conn *conn = message->to;
    if (!network_is_dead(conn) && message->is_end) {
        conn_close(conn, NULL);
    } else if (!network_is_dead(conn)) {
        struct ds_slice payload = network_payload(message);
        void *place = network_begin_payload(message);
        if (place != NULL)
            memcpy(place, payload.data, payload.len);
        network_finish(message);
    }
    message_free(message);
}

/* A node takes its messages one after the other. */
static void
arrive(void *arg)
{
    struct message *message = arg;
    struct node *node = message->to->node;
    uint64_t now = virtual_now_ns();
    if (network_faults.are_on) {
        delivery_arrive(message);
        return;
    }
    if (node == NULL || message->is_end || network_is_dead(message->to)) {
        hand_over(message);
        return;
    }
    uint64_t start = max_u64(now, node->busy_until_ns);
    node->busy_until_ns = start + MESSAGE_NS;
    if (start == now)
        hand_over(message);
    else
        virtual_at(start, hand_over, message);
}

static uint64_t
bytes_of(const struct message *message)
{
    return FRAME_HEADER_BYTES + message->header.body_bytes +
           message->header.payload_bytes;
}

/* When the last byte leaves. */
static uint64_t
departure(struct node *node, uint64_t bytes)
{
    if (node == NULL)
        return virtual_now_ns();
    node->now_ns = max_u64(node->now_ns, virtual_now_ns()) + MESSAGE_NS;
    node->busy_until_ns = max_u64(node->busy_until_ns, node->now_ns);
    node->sends_until_ns =
        max_u64(node->now_ns, node->sends_until_ns) + bytes * 8 / BITS_PER_NS;
    return node->sends_until_ns;
}

static void
transmit(struct conn *conn, struct message *message)
{
    uint64_t arrival = departure(conn->node, bytes_of(message)) + LATENCY_NS;
    if (conn->is_counted)
        arrival += delivery_extra_ns();
    conn->arrival_ns = max_u64(conn->arrival_ns, arrival);
    message->to = network_hold(conn->other);
    virtual_at(conn->arrival_ns, arrive, message);
}

static void
count(const struct conn *conn, const struct message *message)
{
    if (!conn->is_counted)
        return;
    struct tally *tally = tally_of(conn);
    const struct frame_header *header = &message->header;
    tally->messages++;
    tally->bytes += bytes_of(message);
    counts.types[header->type].bytes += bytes_of(message);
    if (!conn->is_accepted)
        counts.types[header->type].requests++;
    else if (header->status == DS_OK)
        counts.types[header->type].accepted++;
    else
        counts.types[header->type].refused++;
}

static struct message *
message_new(const struct frame_header *header, struct ds_slice body,
            const struct conn_payload *payloads, size_t payload_count)
{
    uint64_t payload_bytes = 0;
    for (size_t i = 0; i < payload_count; i++)
        payload_bytes += payloads[i].bytes;
    struct message *message = malloc(sizeof *message + body.len + payload_bytes);
    DS_ASSERT(message != NULL);
    *message = (struct message){.header = *header};
    list_init(&message->link);
    message->header.body_bytes = (uint32_t)body.len;
    message->header.payload_bytes = payload_bytes;
    uint8_t *at = message->data;
    if (body.len > 0)
        memcpy(at, body.data, body.len);
    at += body.len;
    for (size_t i = 0; i < payload_count; i++) {
        memcpy(at, payloads[i].data, payloads[i].bytes);
        at += payloads[i].bytes;
    }
    return message;
}

void
conn_send(struct conn *conn, const struct frame_header *header, struct ds_slice body,
          const int *fds, size_t fd_count, const struct conn_payload *payloads,
          size_t payload_count)
{
    (void)fds;
    (void)fd_count;
    bool is_muted =
        conn->node != NULL && (conn->node->is_muted || conn->node->is_silent);
    cpu_pause();
    if (!conn->closing && !is_muted) {
        struct message *message = message_new(header, body, payloads, payload_count);
        count(conn, message);
        if (conn->is_connected)
            transmit(conn, message);
        else
            list_push_back(&conn->held, &message->link);
    }
    cpu_resume();
    for (size_t i = 0; i < payload_count; i++) {
        if (payloads[i].on_sent != NULL)
            payloads[i].on_sent(payloads[i].arg);
    }
}

void
conn_reply(struct conn *conn, const struct frame_header *request, struct ds_slice body)
{
    struct frame_header reply = *request;
    reply.status = DS_OK;
    conn_send(conn, &reply, body, NULL, 0, NULL, 0);
}

void
conn_reply_error(struct conn *conn, const struct frame_header *request,
                 const struct ds_error *err)
{
    struct frame_header reply = *request;
    reply.status = err->status;
    conn_send(conn, &reply, slice_of_text(err->message), NULL, 0, NULL, 0);
}

/* ---- Connecting ---- */

static void
refuse(void *arg)
{
    struct conn *conn = arg;
    if (!network_is_dead(conn))
        conn_close(conn, "connection refused");
    network_let_go(conn);
}

static void
on_silence(void *arg)
{
    struct conn *conn = arg;
    if (!network_is_dead(conn) && !conn->is_known)
        conn_close(conn, "the peer did not introduce itself in time");
    network_let_go(conn);
}

static void
on_connected(void *arg)
{
    struct conn *conn = arg;
    if (!network_is_dead(conn)) {
        conn->is_connected = true;
        LIST_FOREACH (link, &conn->held) {
            list_remove(link);
            transmit(conn, CONTAINER_OF(link, struct message, link));
        }
    }
    network_let_go(conn);
}

static void
accept_one(void *arg)
{
    struct conn *conn = arg;
    struct node *target = &cluster.nodes[conn->target];
    const struct listener *listener = &target->listeners[conn->port];
    if (network_is_dead(conn) || !target->is_up || listener->on_accept == NULL) {
        virtual_at(virtual_now_ns() + LATENCY_NS, refuse, conn);
        return;
    }
    struct tally *tally =
        conn->port == PORT_METASTORE ? &target->metastore : &target->tally;
    struct node_entry entry = node_enter(target, tally);
    counts.connections += conn->is_counted;
    arriving = conn;
    listener->on_accept(FD_ARRIVED, listener->arg);
    DS_ASSERT(conn->other != NULL);
    node_leave(entry);
    virtual_at(virtual_now_ns() + LATENCY_NS, on_connected, conn);
}

/* The first packet is lost and sent again, or nobody accepts: the supervisor listens. */
static bool
must_wait(const struct conn *conn, const struct node *target, uint64_t *out_ns)
{
    bool is_down = !target->is_up && target->has_supervisor;
    bool is_cut = delivery_is_cut(conn->node, target);
    *out_ns = is_cut ? RETRY_NS : BUSY_NS;
    return !conn->closing && (is_cut || is_down || target->is_stalled);
}

/* It waits in the backlog for its turn, where there is room. */
static void
arrive_to_connect(void *arg)
{
    struct conn *conn = arg;
    struct node *target = &cluster.nodes[conn->target];
    uint64_t now = virtual_now_ns();
    uint64_t start = max_u64(now, target->accepts_until_ns);
    uint64_t later_ns;
    if (must_wait(conn, target, &later_ns)) {
        virtual_at(now + later_ns, arrive_to_connect, conn);
    } else if (target->is_silent) {
        virtual_at(now + CONN_SILENCE_MS * VIRTUAL_MS, on_silence, conn);
    } else if (!target->is_up) {
        virtual_at(now + LATENCY_NS, refuse, conn);
    } else if ((start - now) / CONNECT_NS >= BACKLOG) {
        counts.connections_late += conn->is_counted;
        virtual_at(now + RETRY_NS, arrive_to_connect, conn);
    } else {
        target->accepts_until_ns = start + CONNECT_NS;
        virtual_at(start, accept_one, conn);
    }
}

static void
connect_to(struct conn *conn, uint32_t target, enum port port)
{
    struct node *node = conn->node;
    uint64_t leaves = virtual_now_ns();
    conn->target = target;
    conn->port = port;
    if (node != NULL) {
        node->now_ns = max_u64(node->now_ns, leaves) + CONNECT_NS;
        node->busy_until_ns = max_u64(node->busy_until_ns, node->now_ns);
        leaves = node->now_ns;
    }
    virtual_at(leaves + LATENCY_NS, arrive_to_connect, network_hold(conn));
}

static void
take_arriving(struct conn *conn)
{
    conn->port = arriving->port;
    conn->is_accepted = true;
    conn->is_connected = true;
    conn->is_counted = arriving->is_counted;
    conn->other = network_hold(arriving);
    arriving->other = network_hold(conn);
}

enum ds_status
conn_create(uv_loop_t *loop, int fd, const struct conn_ops *ops, void *user,
            struct conn **out, struct ds_error *err)
{
    (void)err;
    struct conn *conn = end_new(node_of_loop(loop), ops, user);
    if (network_faults.are_on)
        virtual_at(virtual_now_ns() + CONN_SILENCE_MS * VIRTUAL_MS, on_silence,
                   network_hold(conn));
    if (fd == FD_ARRIVED) {
        take_arriving(conn);
    } else {
        int place = fd - FD_CONNECT;
        conn->is_counted = true;
        connect_to(conn, (uint32_t)place / PORT_COUNT, (enum port)(place % PORT_COUNT));
    }
    *out = conn;
    return DS_OK;
}

struct conn *
network_dial(struct node *node, enum port port, const struct conn_ops *ops, void *user)
{
    struct conn *conn = end_new(NULL, ops, user);
    connect_to(conn, node->index, port);
    return conn;
}

/* In place of the one in os/sockets.h. Hosts are called 10.0.HIGH.LOW (cluster.c). */
enum ds_status __wrap_socket_connect_tcp(const char *host, uint16_t port, int *out_fd,
                                         struct ds_error *err);
enum ds_status
__wrap_socket_connect_tcp(const char *host, uint16_t port, int *out_fd,
                          struct ds_error *err)
{
    unsigned high, low;
    (void)err;
    int found = sscanf(host, "10.0.%u.%u", &high, &low);
    DS_ASSERT(found == 2);
    enum port kind = port == 2379 ? PORT_METASTORE : PORT_WORKER;
    *out_fd = FD_CONNECT + (int)((high * 256 + low) * PORT_COUNT + kind);
    return DS_OK;
}

/* ---- What is simple here ---- */

void *
conn_user(const struct conn *conn)
{
    return conn->user;
}

int
conn_fd(const struct conn *conn)
{
    (void)conn;
    return -1;
}

void
conn_accept_peer(struct conn *conn)
{
    conn->is_known = true;
}

void
conn_expect_proof_over_tcp(struct conn *conn, const struct auth_key *key,
                           enum auth_encryption encryption)
{
    (void)conn;
    (void)key;
    (void)encryption;
}

void
conn_prove(struct conn *conn, const struct auth_key *key,
           enum auth_encryption encryption)
{
    (void)conn;
    (void)key;
    (void)encryption;
}

/* `fd` is the port. */
enum ds_status
listener_create(uv_loop_t *loop, int fd, listener_fn on_accept, void *arg,
                struct listener **out, struct ds_error *err)
{
    (void)err;
    *out = &node_of_loop(loop)->listeners[fd];
    **out = (struct listener){on_accept, arg};
    return DS_OK;
}

void
listener_close(struct listener *listener)
{
    *listener = (struct listener){0};
}
