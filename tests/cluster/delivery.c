/* Where there are faults: what has arrived at an end waits there for its turn, while the
 * network is cut, the connection or the process stands still, or a payload comes slowly. */
#include "network.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"

#include <stdlib.h>
#include <string.h>

enum {
    REST_NS = 60000000,    /* The rest of a payload comes within so long. */
    AGAIN_NS = 5000000,    /* What cannot go on is looked at again after so long. */
    UNHEARD_NS = 200000000 /* One end may hear so much later that a connection broke. */
};

struct network_faults network_faults;

static void wake_later(struct conn *conn, uint64_t late_ns);

bool
delivery_is_cut(const struct node *one, const struct node *other)
{
    return one != NULL && other != NULL && one->side != other->side;
}

uint64_t
delivery_extra_ns(void)
{
    if (!network_faults.are_on)
        return 0;
    if (virtual_now_ns() < network_faults.slow_until_ns)
        return chance_below(SLOW_NS);
    return chance_below(network_faults.jitter_ns + 1);
}

static bool
is_cut_off(const struct conn *conn)
{
    return conn->other != NULL && delivery_is_cut(conn->node, conn->other->node);
}

/* Whoever would look at what has arrived can: it is there, and gets the processor. */
static bool
may_go_on(const struct conn *conn)
{
    bool is_stalled = conn->node != NULL && conn->node->is_stalled;
    return !is_stalled &&
           (conn->is_reset ||
            (virtual_now_ns() >= conn->stalled_until_ns && !is_cut_off(conn)));
}

/* ---- Receiving ---- */

static struct message *
take_first(struct conn *conn)
{
    struct message *message = CONTAINER_OF(conn->inbox.next, struct message, link);
    DS_ASSERT(!list_is_empty(&conn->inbox));
    list_remove(&message->link);
    return message;
}

/* Of what passes between two nodes, one bit. */
static void
damage_sometimes(struct message *message)
{
    struct ds_slice payload = network_payload(message);
    if (!message->to->is_counted || payload.len == 0 ||
        virtual_now_ns() >= network_faults.damage_until_ns || !chance_of(1, 3))
        return;
    uint64_t bit = chance_below(payload.len * 8);
    uint8_t *bytes = message->data + message->header.body_bytes;
    bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ 1u << bit % 8);
    counts.damaged++;
}

/* The first half of the payload is there. */
static void
begin(struct conn *conn, struct message *message)
{
    struct ds_slice payload = network_payload(message);
    conn->receiving = message;
    conn->payload = network_begin_payload(message);
    if (conn->payload != NULL && !conn->closing)
        memcpy(conn->payload, payload.data, payload.len / 2);
}

static void
finish(struct conn *conn, struct message *message)
{
    struct ds_slice payload = network_payload(message);
    if (conn->payload != NULL && !conn->closing)
        memcpy(conn->payload, payload.data, payload.len);
    conn->payload = NULL;
    network_finish(message);
    message_free(message);
}

static void
receive_rest(void *arg)
{
    struct conn *conn = arg;
    struct message *message = conn->receiving;
    bool is_over = message == NULL || network_is_dead(conn);
    if (!is_over && !may_go_on(conn)) {
        virtual_at(virtual_now_ns() + AGAIN_NS, receive_rest, conn);
        return;
    }
    conn->receiving = NULL;
    if (message != NULL && (is_over || conn->is_reset))
        message_free(message);
    else if (message != NULL)
        finish(conn, message);
    wake_later(conn, 0);
    network_let_go(conn);
}

/* It has broken, in the middle of a message maybe. */
static void
reset(struct conn *conn)
{
    while (!list_is_empty(&conn->inbox)) {
        struct message *message = take_first(conn);
        if (!conn->closing && !message->is_end && chance_of(1, 2))
            begin(conn, message);
        conn->receiving = NULL;
        conn->payload = NULL;
        message_free(message);
        conn_close(conn, "connection reset by peer");
    }
    conn_close(conn, "connection reset by peer");
}

static void
receive(struct conn *conn)
{
    struct message *message = take_first(conn);
    if (network_is_dead(conn)) {
        message_free(message);
    } else if (message->is_end) {
        conn_close(conn, NULL);
        message_free(message);
    } else {
        damage_sometimes(message);
        begin(conn, message);
        if (message->header.payload_bytes > 0 && chance_of(1, 4)) {
            virtual_at(virtual_now_ns() + chance_below(REST_NS), receive_rest,
                       network_hold(conn));
            return;
        }
        conn->receiving = NULL;
        finish(conn, message);
    }
}

static void
wake(void *arg)
{
    struct conn *conn = arg;
    conn->is_waking = false;
    if (conn->receiving == NULL && may_go_on(conn)) {
        if (conn->is_reset && !network_is_dead(conn)) {
            reset(conn);
        } else if (!list_is_empty(&conn->inbox)) {
            receive(conn);
            wake_later(conn, 0);
        }
    }
    network_let_go(conn);
}

/* A process takes its messages one after the other. */
static void
wake_later(struct conn *conn, uint64_t late_ns)
{
    bool has_something = conn->is_reset || !list_is_empty(&conn->inbox);
    if (conn->is_waking || conn->receiving != NULL || !has_something)
        return;
    uint64_t at = virtual_now_ns();
    if (late_ns > 0) {
        at += chance_below(late_ns);
    } else if (conn->node != NULL) {
        at = max_u64(at, conn->node->busy_until_ns);
        conn->node->busy_until_ns = at + MESSAGE_NS;
    }
    conn->is_waking = true;
    virtual_at(at, wake, network_hold(conn));
}

void
delivery_arrive(struct message *message)
{
    struct conn *conn = message->to;
    if (list_is_empty(&conn->all)) { /* It has ended. */
        message_free(message);
        return;
    }
    list_push_back(&conn->inbox, &message->link);
    wake_later(conn, 0);
}

void
delivery_end(struct conn *conn)
{
    while (!list_is_empty(&conn->inbox))
        message_free(take_first(conn));
    if (conn->receiving != NULL)
        message_free(conn->receiving);
    conn->receiving = NULL;
    conn->payload = NULL;
}

/* ---- Faults ---- */

void
network_changed(uint64_t late_ns)
{
    LIST_FOREACH (link, &network_ends) {
        struct conn *conn = CONTAINER_OF(link, struct conn, all);
        if (may_go_on(conn))
            wake_later(conn, late_ns);
    }
}

static bool
is_breakable(const struct conn *conn)
{
    return conn->is_counted && !conn->closing && conn->is_connected &&
           conn->other != NULL && !conn->is_reset;
}

static struct conn *
choose_one(void)
{
    uint64_t count = 0;
    LIST_FOREACH (link, &network_ends)
        count += is_breakable(CONTAINER_OF(link, struct conn, all));
    uint64_t chosen = count == 0 ? 0 : chance_below(count);
    LIST_FOREACH (link, &network_ends) {
        struct conn *conn = CONTAINER_OF(link, struct conn, all);
        if (is_breakable(conn) && chosen-- == 0)
            return conn;
    }
    return NULL;
}

static void
break_one(struct conn *conn)
{
    conn->is_reset = true;
    conn->other->is_reset = true;
    wake_later(conn, chance_of(1, 4) ? UNHEARD_NS : LATENCY_NS);
    wake_later(conn->other, chance_of(1, 4) ? UNHEARD_NS : LATENCY_NS);
}

bool
network_break_one(void)
{
    struct conn *conn = choose_one();
    if (conn != NULL)
        break_one(conn);
    return conn != NULL;
}

static void
wake_stalled(void *arg)
{
    struct conn *conn = arg;
    wake_later(conn, 0);
    network_let_go(conn);
}

bool
network_stall_one(uint64_t until_ns)
{
    struct conn *conn = choose_one();
    if (conn == NULL)
        return false;
    conn->stalled_until_ns = max_u64(conn->stalled_until_ns, until_ns);
    virtual_at(conn->stalled_until_ns, wake_stalled, network_hold(conn));
    return true;
}

void
network_break_cut(bool all)
{
    LIST_FOREACH (link, &network_ends) {
        struct conn *conn = CONTAINER_OF(link, struct conn, all);
        if (is_breakable(conn) && is_cut_off(conn) && (all || chance_of(1, 2)))
            break_one(conn);
    }
}

bool
network_holds_something(void)
{
    LIST_FOREACH (link, &network_ends) {
        const struct conn *conn = CONTAINER_OF(link, const struct conn, all);
        bool is_late = !list_is_empty(&conn->inbox) || conn->receiving != NULL;
        if (is_late && !network_is_dead(conn))
            return true;
    }
    return false;
}
