#include "worker/peers.h"

#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "meta/members.h"
#include "net/conn.h"
#include "os/checksum.h"
#include "os/clock.h"
#include "os/sockets.h"
#include "wire/message.h"
#include "worker/creates.h"
#include "worker/membership.h"
#include "worker/objects.h"
#include "worker/populate.h"
#include "worker/waiters.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { FETCH_TRIES_MAX = 2 };

struct peers {
    struct worker *worker;
    struct list all;     /* Of struct peer_link. */
    struct hmap fetches; /* By key. */
    bool stopping;
};

/* A connection. HELLO and requests are sent one behind the other, answered in their order.
 * Owner: the loop, until it is closed. */
struct peer_link {
    struct list link;
    struct peers *peers;
    uint32_t node;
    uint32_t incarnation;
    struct conn *conn;
    struct list fetches; /* In the order in which they were asked. */
};

/* A part on its way. Owner: its peer. */
struct fetch {
    struct list link;
    struct hmap_node by_key;
    uint8_t key[BLOCK_KEY_BYTES];
    int tries;
    bool is_arriving; /* In `view`, which is reserved, and held. */
    struct object_view view;
};

/* ---- Fetches ---- */

static uint64_t
hash_of(const uint8_t key[BLOCK_KEY_BYTES])
{
    return XXH3_64bits(key, BLOCK_KEY_BYTES);
}

static bool
is_asked(const struct peers *peers, const uint8_t key[BLOCK_KEY_BYTES])
{
    struct hmap_node *node = hmap_chain(&peers->fetches, hash_of(key));
    for (; node != NULL; node = node->next) {
        if (memcmp(CONTAINER_OF(node, struct fetch, by_key)->key, key,
                   BLOCK_KEY_BYTES) == 0)
            return true;
    }
    return false;
}

/* The last byte has arrived, or none will. */
static void
stop_arriving(struct peers *peers, struct fetch *fetch)
{
    if (!fetch->is_arriving)
        return;
    fetch->is_arriving = false;
    store_unhold(peers->worker->store, fetch->view.offset);
}

/* Whoever waits looks again: at what is there now, or at nothing. */
static void
fetch_end(struct peers *peers, struct fetch *fetch)
{
    if (fetch->is_arriving)
        store_abort(peers->worker->store, fetch->view.ref);
    stop_arriving(peers, fetch);
    hmap_remove(&peers->fetches, &fetch->by_key);
    list_remove(&fetch->link);
    waiters_key_appeared(peers->worker, slice(fetch->key, BLOCK_KEY_BYTES));
    free(fetch);
}

static void
ask(struct peer_link *peer, struct fetch *fetch)
{
    struct lookup lookup = {.flags = LOOKUP_BLOCKS};
    struct ds_slice key = slice(fetch->key, BLOCK_KEY_BYTES);
    AUTO_WRITER(body);
    encode_lookup(&body, &lookup, &key, 1);
    fetch->tries++;
    list_push_back(&peer->fetches, &fetch->link);
    if (body.failed) {
        conn_close(peer->conn, "out of memory for a request to another worker");
        return;
    }
    struct frame_header header = {.type = MESSAGE_FETCH,
                                  .body_bytes = (uint32_t)body.len};
    conn_send(peer->conn, &header, slice(body.data, body.len), NULL, 0, NULL, 0);
}

/* ---- What arrives ---- */

static struct fetch *
first_of(const struct peer_link *peer)
{
    return list_is_empty(&peer->fetches)
               ? NULL
               : CONTAINER_OF(peer->fetches.next, struct fetch, link);
}

/* False: it is not there, or the answer is malformed. */
static bool
read_answer(const struct frame_header *header, struct ds_slice body,
            struct wire_value *out)
{
    struct fetched list;
    return header->type == MESSAGE_FETCH && header->status == DS_OK &&
           decode_fetched(body, &list) && list.count == 1 && next_value(&list, out) &&
           out->found && out->size == header->payload_bytes;
}

static enum ds_status
reserve(struct worker *worker, struct fetch *fetch, uint64_t bytes,
        struct ds_error *err)
{
    struct create_request request = {.key = slice(fetch->key, BLOCK_KEY_BYTES),
                                     .size = bytes,
                                     .flags = SLOT_FLAG_BLOCK | SLOT_FLAG_COPY};
    enum ds_status status =
        store_create(worker->store, &request, clock_boot_ds(), &fetch->view, err);
    while (status == DS_FULL && creates_could_fit(worker, bytes) &&
           populate_step_now(worker->populate))
        status =
            store_create(worker->store, &request, clock_boot_ds(), &fetch->view, err);
    worker->counters.out_of_memory += status == DS_FULL;
    return status;
}

static void *
on_payload_begin(struct conn *conn, const struct frame_header *header,
                 struct ds_slice body)
{
    struct peer_link *peer = conn_user(conn);
    struct worker *worker = peer->peers->worker;
    struct fetch *fetch = first_of(peer);
    struct wire_value value;
    struct ds_error err = {0};
    if (fetch == NULL || fetch->is_arriving || !read_answer(header, body, &value))
        return NULL;
    if (reserve(worker, fetch, value.size, &err) != DS_OK) {
        log_warn("worker cannot copy a block's part bytes=%ju reason=\"%s\"",
                 (uintmax_t)value.size, err.message);
        return NULL;
    }
    fetch->is_arriving = true;
    store_hold(worker->store, &fetch->view);
    return worker->arena + fetch->view.offset;
}

/* Seals the copy if it is what was sent. */
static void
take_part(struct peers *peers, struct fetch *fetch, uint64_t checksum)
{
    struct worker *worker = peers->worker;
    const struct object_view *view = &fetch->view;
    uint64_t found = checksum_of(worker->arena + view->offset, view->size);
    struct objects_seal seal = {.ref = view->ref, .checksum = {true, found}};
    struct ds_error err = {0};
    if (found != checksum) {
        worker->counters.damaged++;
        log_error("worker received a damaged block's part bytes=%ju",
                  (uintmax_t)view->size);
        return;
    }
    if (objects_seal(worker, &seal, &err) == DS_OK)
        stop_arriving(peers, fetch);
    else
        log_warn("worker cannot keep a block's part reason=\"%s\"", err.message);
}

static void
on_frame(struct conn *conn, const struct frame_header *header, struct ds_slice body,
         const int *fds, size_t fd_count)
{
    struct peer_link *peer = conn_user(conn);
    struct fetch *fetch = first_of(peer);
    struct wire_value value;
    (void)fds;
    (void)fd_count;
    if (header->type == MESSAGE_HELLO && header->status == DS_OK) {
        conn_accept_peer(conn);
        return;
    }
    if (header->type != MESSAGE_FETCH || fetch == NULL) {
        conn_close(conn, "another worker sent a message out of turn");
        return;
    }
    if (fetch->is_arriving && read_answer(header, body, &value))
        take_part(peer->peers, fetch, value.checksum);
    fetch_end(peer->peers, fetch);
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

static struct peer_link *peer_for(struct peers *peers, const struct member *member);

/* What was asked is asked again over another connection, once. */
static void
on_closed(struct conn *conn, const char *reason)
{
    struct peer_link *peer = conn_user(conn);
    struct peers *peers = peer->peers;
    const struct member *member = member_of(peers, peer->node, peer->incarnation);
    if (reason != NULL)
        log_info("worker connection to node %u ended reason=\"%s\"", peer->node,
                 reason);
    list_remove(&peer->link);
    LIST_FOREACH (link, &peer->fetches) {
        struct fetch *fetch = CONTAINER_OF(link, struct fetch, link);
        bool again = !peers->stopping && member != NULL &&
                     fetch->tries < FETCH_TRIES_MAX && !fetch->is_arriving;
        struct peer_link *next = again ? peer_for(peers, member) : NULL;
        if (next == NULL) {
            fetch_end(peers, fetch);
            continue;
        }
        list_remove(&fetch->link);
        ask(next, fetch);
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
    list_init(&peer->fetches);
    if (connect_to(peer, member->address, &err) != DS_OK) {
        log_warn("worker cannot connect to %s reason=\"%s\"", member->address,
                 err.message);
        free(peer);
        return NULL;
    }
    list_push_back(&peers->all, &peer->link);
    say_hello(peer);
    return peer;
}

static struct peer_link *
peer_for(struct peers *peers, const struct member *member)
{
    LIST_FOREACH (link, &peers->all) {
        struct peer_link *peer = CONTAINER_OF(link, struct peer_link, link);
        if (peer->node == member->node && peer->incarnation == member->incarnation)
            return peer;
    }
    return peer_new(peers, member);
}

/* ---- Asking ---- */

bool
peers_fetch(struct peers *peers, struct ds_slice key)
{
    struct reader reader = reader_of(key.data, key.len);
    uint32_t node = read_u32(&reader), incarnation = read_u32(&reader);
    if (peers->stopping || key.len != BLOCK_KEY_BYTES ||
        node == store_header(peers->worker->store)->node)
        return false;
    if (is_asked(peers, key.data))
        return true;
    const struct member *member = member_of(peers, node, incarnation);
    struct peer_link *peer = member == NULL ? NULL : peer_for(peers, member);
    struct fetch *fetch = peer == NULL ? NULL : calloc(1, sizeof *fetch);
    if (fetch == NULL)
        return false;
    memcpy(fetch->key, key.data, BLOCK_KEY_BYTES);
    if (!hmap_insert(&peers->fetches, &fetch->by_key, hash_of(fetch->key))) {
        free(fetch);
        return false;
    }
    ask(peer, fetch);
    return true;
}

void
peers_members_changed(struct peers *peers)
{
    LIST_FOREACH (link, &peers->all) {
        struct peer_link *peer = CONTAINER_OF(link, struct peer_link, link);
        if (member_of(peers, peer->node, peer->incarnation) == NULL)
            conn_close(peer->conn, "that node is no member any more");
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
    list_init(&peers->all);
    hmap_init(&peers->fetches);
    *out = peers;
    return DS_OK;
}

void
peers_stop(struct peers *peers)
{
    peers->stopping = true;
    LIST_FOREACH (link, &peers->all)
        conn_close(CONTAINER_OF(link, struct peer_link, link)->conn, NULL);
}

void
peers_close(struct peers *peers)
{
    if (peers == NULL)
        return;
    DS_ASSERT(list_is_empty(&peers->all));
    DS_ASSERT(peers->fetches.count == 0);
    hmap_fini(&peers->fetches);
    free(peers);
}
