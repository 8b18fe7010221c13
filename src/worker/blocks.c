#include "worker/blocks.h"

#include "base/check.h"
#include "base/log.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "worker/arenas.h"
#include "worker/leaving.h"
#include "worker/membership.h"
#include "worker/peers.h"

#include <stdlib.h>
#include <string.h>

/* ---- On this node ---- */

bool
blocks_find_part(struct worker *worker, struct ds_block_id id, uint32_t part,
                 struct object_view *out)
{
    if (part >= DS_BLOCK_PARTS_MAX)
        return false;
    uint8_t key[BLOCK_KEY_BYTES];
    wire_block_key(id, part, key);
    return store_find(worker->store, slice(key, sizeof key), clock_boot_ds(), out);
}

/* Parts of a block are numbered from 0 without a gap, and go from the last to the
 * first, so that a crash in between leaves no gap either. */
static uint32_t
part_count(struct worker *worker, struct ds_block_id id)
{
    struct object_view view;
    uint32_t count = 0;
    while (blocks_find_part(worker, id, count, &view))
        count++;
    return count;
}

static bool
delete_here(struct worker *worker, struct ds_block_id id)
{
    uint64_t now = clock_boot_ds();
    uint32_t count = part_count(worker, id);
    for (uint32_t i = count; i > 0; i--) {
        uint8_t key[BLOCK_KEY_BYTES];
        wire_block_key(id, i - 1, key);
        store_delete(worker->store, slice(key, sizeof key), now);
        worker->counters.deletes++;
    }
    return count > 0;
}

/* From the last to the first, too: a block counts as adopted once part 0 is. */
static bool
adopt_here(struct worker *worker, struct ds_block_id id)
{
    uint64_t now = clock_boot_ds();
    uint32_t count = part_count(worker, id);
    for (uint32_t i = count; i > 0; i--) {
        uint8_t key[BLOCK_KEY_BYTES];
        wire_block_key(id, i - 1, key);
        bool adopted = store_adopt(worker->store, slice(key, sizeof key), now);
        DS_ASSERT(adopted);
    }
    return count > 0;
}

/* One of the two; true: it was there. */
static bool
obey_here(struct worker *worker, enum message_type type, struct ds_block_id id)
{
    struct object_view view;
    bool is_adopt = type == MESSAGE_BLOCK_ADOPT;
    if (leaving_is_active(worker) && blocks_find_part(worker, id, 0, &view) &&
        (!is_adopt || (view.flags & SLOT_FLAG_PROVISIONAL) != 0))
        leaving_note_order(worker, type, id);
    return is_adopt ? adopt_here(worker, id) : delete_here(worker, id);
}

/* ---- Passing on ---- */

/* A request whose reply waits for other nodes. Owner: itself, until the last has
 * answered. */
struct orders {
    struct list link;        /* In session->block_orders. */
    struct session *session; /* NULL: nobody waits for the reply. */
    struct frame_header header;
    uint32_t open_count;     /* Nodes that have not answered. */
    struct ds_error refusal; /* Not all was done: whoever asked has to ask again. */
    uint32_t count;
    uint8_t was_there[]; /* One for each block of the request. */
};

/* What one node is to do. Owner: the peers. */
struct order {
    struct peer_request request;
    struct orders *orders;
    uint32_t count;
    struct writer ids;       /* Owned; one behind the other, */
    struct writer positions; /* and where they are in the request. */
};

static const struct ds_block_id *
ids_of(const struct order *order)
{
    return (const struct ds_block_id *)order->ids.data;
}

static const uint32_t *
positions_of(const struct order *order)
{
    return (const uint32_t *)(const void *)order->positions.data;
}

static void
order_free(struct order *order)
{
    writer_fini(&order->ids);
    writer_fini(&order->positions);
    free(order);
}

static struct arena_id
place_of(const struct worker *worker, struct ds_block_id id)
{
    struct block_birth birth = wire_block_birth(&id);
    return arenas_find(worker, (struct arena_id){birth.node, birth.incarnation});
}

static size_t
orders_bytes(const struct orders *orders)
{
    return sizeof *orders + orders->count;
}

static void
reply(const struct orders *orders)
{
    struct session *session = orders->session;
    AUTO_WRITER(body);
    if (orders->refusal.status != DS_OK) {
        conn_reply_error(session->conn, &orders->header, &orders->refusal);
        return;
    }
    if (orders->header.type == MESSAGE_BLOCK_ADOPT) {
        encode_flags_begin(&body, orders->count);
        write_bytes(&body, slice(orders->was_there, orders->count));
    }
    session_reply(session, &orders->header, &body);
}

/* It is among the session's, and counted as parked, while it waits. */
static void
stop_waiting(struct orders *orders)
{
    if (list_is_empty(&orders->link))
        return;
    list_remove(&orders->link);
    session_unpark(orders->session, orders_bytes(orders));
}

static void
finish_if_done(struct orders *orders)
{
    if (orders->open_count > 0)
        return;
    if (orders->session != NULL) {
        stop_waiting(orders);
        reply(orders);
    }
    free(orders);
}

static void
encode(const struct peer_request *request, struct writer *body)
{
    const struct order *order = CONTAINER_OF(request, const struct order, request);
    encode_block_ids(body, ids_of(order), order->count);
}

static void end(struct worker *worker, struct peer_request *request,
                const struct peer_answer *answer);

static const struct peer_request_ops delete_ops = {
    .type = MESSAGE_BLOCK_DELETE, .encode = encode, .end = end};
static const struct peer_request_ops adopt_ops = {
    .type = MESSAGE_BLOCK_ADOPT, .encode = encode, .end = end};

/* Of no block yet. NULL when out of memory. */
static struct order *
order_new(struct orders *orders, struct arena_id at)
{
    struct order *order = calloc(1, sizeof *order);
    if (order == NULL)
        return NULL;
    bool is_adopt = orders->header.type == MESSAGE_BLOCK_ADOPT;
    order->request = (struct peer_request){.ops = is_adopt ? &adopt_ops : &delete_ops,
                                           .node = at.node,
                                           .incarnation = at.incarnation};
    order->orders = orders;
    list_init(&order->request.link);
    return order;
}

static struct order *
find_order(const struct list *all, struct arena_id at)
{
    LIST_FOREACH (link, all) {
        struct order *order = CONTAINER_OF(link, struct order, request.link);
        struct arena_id other = {order->request.node, order->request.incarnation};
        if (arena_id_equal(other, at))
            return order;
    }
    return NULL;
}

/* Adds the block to what its node is to do. */
static void
add_order(struct orders *orders, struct arena_id at, struct ds_block_id id,
          uint32_t position, struct list *all)
{
    struct order *order = find_order(all, at);
    if (order == NULL && (order = order_new(orders, at)) != NULL)
        list_push_back(all, &order->request.link);
    if (order != NULL) {
        write_bytes(&order->ids, slice(id.bytes, sizeof id.bytes));
        write_bytes(&order->positions, slice(&position, sizeof position));
        order->count++;
    }
    if (order == NULL || order->ids.failed || order->positions.failed)
        (void)ds_fail(&orders->refusal, DS_NO_MEMORY,
                      "worker is out of memory for orders");
}

/* Does what is to be done here, and adds the rest to what other nodes are to do. Of what is
 * another's we may have a copy, or be just given it; of an arena that nobody has the blocks
 * are gone, if it is known who belongs. */
static void
sort(struct worker *worker, struct orders *orders, struct ds_block_id id,
     uint32_t position, struct list *all)
{
    struct arena_id at = place_of(worker, id);
    bool was_there = obey_here(worker, orders->header.type, id);
    if (arena_id_equal(at, arenas_own(worker)))
        orders->was_there[position] = was_there;
    else if (at.node != 0 && !PLANTED(UNTOLD_ORDER))
        add_order(orders, at, id, position, all);
    else if (!membership_knows(worker->membership))
        (void)ds_fail(&orders->refusal, DS_NOT_READY,
                      "this worker was started again and does not know yet which nodes "
                      "there are; try again");
}

/* Unless whoever asked will have to ask again anyway. */
static void
pass_on(struct worker *worker, struct orders *orders, const struct list *all)
{
    LIST_FOREACH (link, all) {
        struct order *order = CONTAINER_OF(link, struct order, request.link);
        list_remove(&order->request.link);
        if (orders->refusal.status != DS_OK ||
            !peers_ask_now_or_later(worker->peers, &order->request))
            order_free(order);
        else
            orders->open_count++;
    }
}

/* ---- Answers ---- */

/* False: it is malformed. */
static bool
take_flags(struct order *order, struct ds_slice body)
{
    uint32_t count;
    const uint8_t *flags;
    if (!decode_flags(body, &count, &flags) || count != order->count)
        return false;
    for (uint32_t i = 0; i < count; i++)
        order->orders->was_there[positions_of(order)[i]] = flags[i] != 0;
    return true;
}

static void
take_answer(struct order *order, const struct peer_answer *answer)
{
    const struct frame_header *header = answer->header;
    bool is_done = header->status == DS_OK && (header->type != MESSAGE_BLOCK_ADOPT ||
                                               take_flags(order, answer->body));
    if (is_done)
        return;
    uint32_t node = order->request.node;
    log_warn("worker node %u refused an order for %u blocks status=%s", node,
             order->count, ds_status_name(header->status));
    (void)ds_fail(&order->orders->refusal, DS_NOT_READY,
                  "node %u did not do what it was told about %u blocks; try again",
                  node, order->count);
}

/* Its node is gone. Who took its blocks over is asked, which may be several, or this worker:
 * then it is done. */
static void
ask_again(struct worker *worker, struct order *order)
{
    struct list all = {.next = &all, .prev = &all};
    for (uint32_t i = 0; i < order->count && !worker->stopping; i++)
        sort(worker, order->orders, ids_of(order)[i], positions_of(order)[i], &all);
    pass_on(worker, order->orders, &all);
}

static void
end(struct worker *worker, struct peer_request *request,
    const struct peer_answer *answer)
{
    struct order *order = CONTAINER_OF(request, struct order, request);
    struct orders *orders = order->orders;
    if (answer->header == NULL)
        ask_again(worker, order);
    else
        take_answer(order, answer);
    orders->open_count--;
    finish_if_done(orders);
    order_free(order);
}

/* ---- Requests ---- */

/* The reply will wait for others, if there are any to wait for. */
static void
begin_waiting(struct orders *orders, const struct list *all)
{
    struct session *session = orders->session;
    if (orders->refusal.status == DS_OK && !list_is_empty(all) &&
        session_park(session, orders_bytes(orders), &orders->refusal) == DS_OK)
        list_push_back(&session->block_orders, &orders->link);
}

static void
handle(struct session *session, const struct frame_header *header,
       const struct block_id_list *ids)
{
    struct worker *worker = session->worker;
    struct list all = {.next = &all, .prev = &all};
    struct orders *orders = calloc(1, sizeof *orders + ids->count);
    if (orders == NULL) {
        struct ds_error err = {0};
        (void)ds_fail(&err, DS_NO_MEMORY, "worker is out of memory for orders");
        conn_reply_error(session->conn, header, &err);
        return;
    }
    orders->session = session;
    orders->header = *header;
    orders->count = ids->count;
    list_init(&orders->link);
    struct block_id_list list = *ids;
    struct ds_block_id id;
    for (uint32_t i = 0; next_block_id(&list, &id); i++)
        sort(worker, orders, id, i, &all);
    begin_waiting(orders, &all);
    if (orders->refusal.status != DS_OK)
        log_warn("worker cannot pass on orders for blocks reason=\"%s\"",
                 orders->refusal.message);
    pass_on(worker, orders, &all);
    store_tick(worker->store, clock_boot_ds());
    finish_if_done(orders);
}

void
handle_block_delete(struct session *session, const struct frame_header *header,
                    struct ds_slice body)
{
    struct block_id_list ids;
    if (decode_block_ids(body, &ids))
        handle(session, header, &ids);
    else
        session_reject(session, "malformed BLOCK_DELETE");
}

void
handle_block_adopt(struct session *session, const struct frame_header *header,
                   struct ds_slice body)
{
    struct block_id_list ids;
    if (decode_block_ids(body, &ids))
        handle(session, header, &ids);
    else
        session_reject(session, "malformed BLOCK_ADOPT");
}

void
blocks_drop(struct session *session)
{
    LIST_FOREACH (link, &session->block_orders) {
        struct orders *orders = CONTAINER_OF(link, struct orders, link);
        stop_waiting(orders);
        orders->session = NULL;
    }
}
