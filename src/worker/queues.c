#include "worker/queues.h"

#include "base/slice.h"
#include "base/status.h"
#include "worker/membership.h"

#include <stdlib.h>
#include <string.h>

/* Owner: the session that serves it. */
struct served_queue {
    struct list link; /* In worker->queues, the newest first. */
    size_t name_bytes;
    size_t address_bytes;
    size_t tcp_address_bytes;
    char texts[]; /* The name, then the addresses. */
};

static struct queue_place
place_of(const struct served_queue *queue)
{
    const char *address = queue->texts + queue->name_bytes;
    const char *tcp_address = address + queue->address_bytes;
    return (struct queue_place){.name = slice(queue->texts, queue->name_bytes),
                                .address = slice(address, queue->address_bytes),
                                .tcp_address =
                                    slice(tcp_address, queue->tcp_address_bytes)};
}

void
handle_queue_serve(struct session *session, const struct frame_header *header,
                   struct ds_slice body)
{
    struct queue_place place;
    if (!decode_queue_place(body, &place) || place.name.len == 0 ||
        place.address.len == 0 || session->serves != NULL) {
        session_reject(session, "malformed QUEUE_SERVE");
        return;
    }
    struct served_queue *queue = calloc(
        1, sizeof *queue + place.name.len + place.address.len + place.tcp_address.len);
    if (queue == NULL) {
        struct ds_error err = {0};
        (void)ds_fail(&err, DS_NO_MEMORY, "worker is out of memory for a queue");
        conn_reply_error(session->conn, header, &err);
        return;
    }
    queue->name_bytes = place.name.len;
    queue->address_bytes = place.address.len;
    queue->tcp_address_bytes = place.tcp_address.len;
    char *address = queue->texts + place.name.len;
    memcpy(queue->texts, place.name.data, place.name.len);
    memcpy(address, place.address.data, place.address.len);
    memcpy(address + place.address.len, place.tcp_address.data, place.tcp_address.len);
    session->serves = queue;
    list_push_front(&session->worker->queues, &queue->link);
    membership_queues_changed(session->worker->membership);
    conn_reply(session->conn, header, (struct ds_slice){0});
}

uint16_t
queues_tag_of(const struct session *session)
{
    return session->serves == NULL ? 0 : wire_queue_tag(place_of(session->serves).name);
}

bool
queues_have_tag(const struct worker *worker, uint16_t tag)
{
    LIST_FOREACH (link, &worker->queues) {
        const struct served_queue *queue =
            CONTAINER_OF(link, struct served_queue, link);
        if (wire_queue_tag(place_of(queue).name) == tag)
            return true;
    }
    return false;
}

/* The socket's path is of no use elsewhere. */
void
queues_encode(const struct worker *worker, struct writer *out, size_t bytes_max)
{
    LIST_FOREACH (link, &worker->queues) {
        struct queue_place place =
            place_of(CONTAINER_OF(link, struct served_queue, link));
        place.address = (struct ds_slice){0};
        AUTO_WRITER(one);
        encode_queue_place(&one, &place);
        if (out->len + one.len <= bytes_max)
            write_bytes(out, slice(one.data, one.len));
        out->failed |= one.failed;
    }
}

static bool
find(const struct worker *worker, struct ds_slice name, struct queue_place *out)
{
    LIST_FOREACH (link, &worker->queues) {
        *out = place_of(CONTAINER_OF(link, struct served_queue, link));
        if (slice_equal(out->name, name))
            return true;
    }
    return false;
}

void
handle_queue_find(struct session *session, const struct frame_header *header,
                  struct ds_slice body)
{
    struct queue_place wanted, place;
    if (!decode_queue_place(body, &wanted) || wanted.name.len == 0 ||
        wanted.address.len > 0 || wanted.tcp_address.len > 0) {
        session_reject(session, "malformed QUEUE_FIND");
        return;
    }
    if (!find(session->worker, wanted.name, &place) &&
        !membership_find_queue(session->worker->membership, wanted.name, &place)) {
        struct ds_error err = {0};
        (void)ds_fail(&err, DS_NOT_FOUND,
                      "no controller that a worker of this cluster knows serves queue "
                      "%.*s",
                      (int)wanted.name.len, (const char *)wanted.name.data);
        conn_reply_error(session->conn, header, &err);
        return;
    }
    AUTO_WRITER(writer);
    encode_queue_place(&writer, &place);
    session_reply(session, header, &writer);
}

void
queues_drop(struct session *session)
{
    if (session->serves == NULL)
        return;
    list_remove(&session->serves->link);
    free(session->serves);
    session->serves = NULL;
    membership_queues_changed(session->worker->membership);
}
