#include "worker/peers.h"

#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "meta/members.h"
#include "net/conn.h"
#include "os/sockets.h"
#include "worker/membership.h"
#include "worker/worker.h"

#include <stdlib.h>

enum {
    LINKS_MAX = 4, /* To one node. One alone takes less than two thirds of what the wire
                      can do. */
    NODE_LISTS = 256,
};

/* Invariant: a connection is in the list of its node, links[node % NODE_LISTS], behind
 * those that are older. */
struct peers {
    struct worker *worker;
    struct list links[NODE_LISTS];
    struct list waiting; /* Requests whose connection ended, to be asked again. */
    bool stopping;
};

/* A connection. HELLO and requests are sent one behind the other.
 * Owner: the loop, until it is closed. */
struct peer_link {
    struct list link;
    struct peers *peers;
    uint32_t node;
    uint32_t incarnation;
    struct conn *conn;
    struct list requests; /* In the order in which they were asked. */
    uint32_t request_count;
    uint32_t sequence; /* Of the latest. */
};

static struct list *
links_to(struct peers *peers, uint32_t node)
{
    return &peers->links[node % NODE_LISTS];
}

/* ---- Requests ---- */

static void
end_without_answer(struct peers *peers, struct peer_request *request)
{
    struct peer_answer none = {0};
    list_remove(&request->link);
    request->ops->end(peers->worker, request, &none);
}

static void
send_request(struct peer_link *peer, struct peer_request *request)
{
    AUTO_WRITER(body);
    request->ops->encode(request, &body);
    request->tries++;
    list_push_back(&peer->requests, &request->link);
    peer->request_count++;
    if (body.failed) {
        conn_close(peer->conn, "out of memory for a request to another worker");
        return;
    }
    request->sequence = ++peer->sequence;
    struct frame_header header = {.type = request->ops->type,
                                  .sequence = request->sequence,
                                  .body_bytes = (uint32_t)body.len};
    conn_send(peer->conn, &header, slice(body.data, body.len), NULL, 0, NULL, 0);
}

/* The request that this answers; NULL: none. */
static struct peer_request *
request_of(const struct peer_link *peer, const struct frame_header *header)
{
    LIST_FOREACH (link, &peer->requests) {
        struct peer_request *request = CONTAINER_OF(link, struct peer_request, link);
        if (request->sequence == header->sequence)
            return request->ops->type == header->type ? request : NULL;
    }
    return NULL;
}

static void *
on_payload_begin(struct conn *conn, const struct frame_header *header,
                 struct ds_slice body)
{
    struct peer_link *peer = conn_user(conn);
    struct peer_request *request = request_of(peer, header);
    struct peer_answer answer = {header, body};
    if (request == NULL || request->ops->on_payload_begin == NULL)
        return NULL;
    return request->ops->on_payload_begin(peer->peers->worker, request, &answer);
}

static void
on_frame(struct conn *conn, const struct frame_header *header, struct ds_slice body,
         const int *fds, size_t fd_count)
{
    struct peer_link *peer = conn_user(conn);
    struct peer_request *request = request_of(peer, header);
    struct peer_answer answer = {header, body};
    (void)fds;
    (void)fd_count;
    if (header->type == MESSAGE_HELLO && header->status == DS_OK) {
        conn_accept_peer(conn);
        return;
    }
    if (header->type == MESSAGE_HELLO) {
        conn_close(conn, "another worker refuses us"); /* Its log has the reason. */
        return;
    }
    if (request == NULL) {
        conn_close(conn, "another worker sent a message out of turn");
        return;
    }
    list_remove(&request->link);
    peer->request_count--;
    request->ops->end(peer->peers->worker, request, &answer);
}

/* ---- Connections ---- */

static const struct member *
member_of(const struct peers *peers, uint32_t node, uint32_t incarnation)
{
    const struct membership *membership = peers->worker->membership;
    const struct member *member =
        membership == NULL ? NULL : membership_find(membership, node);
    return member != NULL && member->incarnation == incarnation ? member : NULL;
}

/* The first time is worth another one at once: most often the connection was idle while
 * the other worker was started again. */
static void
on_closed(struct conn *conn, const char *reason)
{
    struct peer_link *peer = conn_user(conn);
    struct peers *peers = peer->peers;
    if (reason != NULL)
        log_info("worker connection to node %u ended reason=\"%s\"", peer->node,
                 reason);
    list_remove(&peer->link);
    LIST_FOREACH (link, &peer->requests) {
        struct peer_request *request = CONTAINER_OF(link, struct peer_request, link);
        int tries_max = request->ops->tries_max;
        if (peers->stopping || (tries_max > 0 && request->tries >= tries_max)) {
            end_without_answer(peers, request);
        } else if (request->tries > 1 || !peers_ask(peers, request)) {
            list_remove(&request->link);
            list_push_back(&peers->waiting, &request->link);
        }
    }
    free(peer);
}

static const struct conn_ops peer_ops = {
    .on_frame = on_frame,
    .on_payload_begin = on_payload_begin,
    .on_closed = on_closed,
};

static enum ds_status
connect_to(struct peer_link *peer, const char *address, struct ds_error *err)
{
    char host[MEMBER_ADDRESS_MAX + 1];
    uint16_t port;
    int fd;
    enum ds_status status =
        socket_parse_address(address, host, sizeof host, &port, err);
    if (status == DS_OK)
        status = socket_connect_tcp(host, port, &fd, err);
    if (status == DS_OK)
        status = conn_create(&peer->peers->worker->loop, fd, &peer_ops, peer,
                             &peer->conn, err);
    return status;
}

static void
say_hello(struct peer_link *peer)
{
    struct hello hello = {.layout_version = LAYOUT_VERSION,
                          .protocol_version = PROTOCOL_VERSION};
    AUTO_WRITER(body);
    encode_hello(&body, &hello, NULL, 0);
    struct frame_header header = {.type = MESSAGE_HELLO,
                                  .body_bytes = (uint32_t)body.len};
    if (body.failed)
        conn_close(peer->conn, "out of memory for HELLO to another worker");
    else
        conn_send(peer->conn, &header, slice(body.data, body.len), NULL, 0, NULL, 0);
}

/* A new connection; NULL, with a line in the log, when it cannot be made. */
static struct peer_link *
peer_new(struct peers *peers, const struct member *member)
{
    struct ds_error err = {0};
    struct peer_link *peer = calloc(1, sizeof *peer);
    if (peer == NULL) {
        log_warn("worker is out of memory for a connection to %s", member->address);
        return NULL;
    }
    peer->peers = peers;
    peer->node = member->node;
    peer->incarnation = member->incarnation;
    list_init(&peer->requests);
    if (connect_to(peer, member->address, &err) != DS_OK) {
        log_warn("worker cannot connect to %s reason=\"%s\"", member->address,
                 err.message);
        free(peer);
        return NULL;
    }
    list_push_back(links_to(peers, member->node), &peer->link);
    const struct resources *resources = peers->worker->resources;
    conn_prove(peer->conn, resources_key(resources), resources_encryption(resources));
    say_hello(peer);
    return peer;
}

/* The connection to that worker with the fewest requests under way; a new one while all
 * are busy and there may be more. NULL: it cannot be made, and there is none. */
static struct peer_link *
peer_for(struct peers *peers, const struct member *member, uint32_t links_max)
{
    struct peer_link *best = NULL;
    uint32_t count = 0;
    LIST_FOREACH (link, links_to(peers, member->node)) {
        struct peer_link *peer = CONTAINER_OF(link, struct peer_link, link);
        if (peer->node != member->node || peer->incarnation != member->incarnation)
            continue;
        count++;
        if (count <= links_max &&
            (best == NULL || peer->request_count < best->request_count))
            best = peer;
    }
    if (best != NULL && (best->request_count == 0 || count >= links_max))
        return best;
    struct peer_link *another = peer_new(peers, member);
    return another != NULL ? another : best;
}

/* ---- Asking ---- */

bool
peers_know(const struct peers *peers, uint32_t node, uint32_t incarnation)
{
    return !peers->stopping && member_of(peers, node, incarnation) != NULL;
}

bool
peers_ask(struct peers *peers, struct peer_request *request)
{
    const struct member *member = member_of(peers, request->node, request->incarnation);
    struct peer_link *peer =
        peers->stopping || member == NULL
            ? NULL
            : peer_for(peers, member, request->ops->in_any_order ? LINKS_MAX : 1);
    if (peer == NULL)
        return false;
    if (request->tries > 0)
        list_remove(&request->link);
    send_request(peer, request);
    return true;
}

/* As if it had been asked, and the connection had ended. */
bool
peers_ask_now_or_later(struct peers *peers, struct peer_request *request)
{
    DS_ASSERT(request->tries == 0);
    if (peers_ask(peers, request))
        return true;
    if (!peers_know(peers, request->node, request->incarnation))
        return false;
    request->tries = 1;
    list_push_back(&peers->waiting, &request->link);
    return true;
}

void
peers_tick(struct peers *peers)
{
    LIST_FOREACH (link, &peers->waiting) {
        struct peer_request *request = CONTAINER_OF(link, struct peer_request, link);
        bool is_member = member_of(peers, request->node, request->incarnation) != NULL;
        if (!peers_ask(peers, request) && !is_member)
            end_without_answer(peers, request);
    }
}

void
peers_members_changed(struct peers *peers)
{
    for (size_t i = 0; i < NODE_LISTS; i++) {
        LIST_FOREACH (link, &peers->links[i]) {
            struct peer_link *peer = CONTAINER_OF(link, struct peer_link, link);
            if (member_of(peers, peer->node, peer->incarnation) == NULL)
                conn_close(peer->conn, "that node is no member any more");
        }
    }
}

/* ---- Life ---- */

enum ds_status
peers_open(struct worker *worker, struct peers **out, struct ds_error *err)
{
    struct peers *peers = calloc(1, sizeof *peers);
    if (peers == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for connections to workers");
    peers->worker = worker;
    for (size_t i = 0; i < NODE_LISTS; i++)
        list_init(&peers->links[i]);
    list_init(&peers->waiting);
    *out = peers;
    return DS_OK;
}

void
peers_stop(struct peers *peers)
{
    peers->stopping = true;
    for (size_t i = 0; i < NODE_LISTS; i++) {
        LIST_FOREACH (link, &peers->links[i])
            conn_close(CONTAINER_OF(link, struct peer_link, link)->conn, NULL);
    }
    LIST_FOREACH (waiting, &peers->waiting)
        end_without_answer(peers, CONTAINER_OF(waiting, struct peer_request, link));
}

void
peers_close(struct peers *peers)
{
    if (peers == NULL)
        return;
    for (size_t i = 0; i < NODE_LISTS; i++)
        DS_ASSERT(list_is_empty(&peers->links[i]));
    DS_ASSERT(list_is_empty(&peers->waiting));
    free(peers);
}
