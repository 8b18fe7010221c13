/* Sending: what the socket does not take at once waits in a queue. */
#include "net/conn_internal.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "os/sockets.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

enum { SEND_TURN_BYTES_MAX = 4 << 20 }; /* Before other connections have their turn. */

/* A frame that is not wholly sent. Owner: the connection's queue; one allocation with
 * payloads and head in it. Invariant: sent < head_bytes + the payloads' bytes, but for
 * a moment in conn_flush(). */
struct outgoing {
    struct list link;
    size_t memory_bytes;
    size_t head_bytes; /* Frame header and body. */
    uint64_t sent;     /* Bytes that the socket has taken. */
    uint64_t total;
    uint8_t *head;
    size_t fd_count; /* Owned; closed when the first byte is sent. */
    int fds[CONN_FDS_MAX];
    size_t payload_count;
    struct conn_payload payloads[];
};

/* Collects the parts of one sendmsg(). */
struct gather {
    struct iovec parts[CONN_PARTS_MAX];
    int count;
    uint64_t bytes;
};

/* Adds a part less its first *skip bytes; *skip shrinks by what was skipped. False when
 * there is no room. */
static bool
gather_part(struct gather *gather, const void *data, uint64_t bytes, uint64_t *skip)
{
    if (*skip >= bytes) {
        *skip -= bytes;
        return true;
    }
    if (gather->count == CONN_PARTS_MAX)
        return false;
    gather->parts[gather->count++] = (struct iovec){
        /* Never written to; struct iovec lacks the const. */
        .iov_base = (uint8_t *)(uintptr_t)data + *skip,
        .iov_len = bytes - *skip,
    };
    gather->bytes += bytes - *skip;
    *skip = 0;
    return true;
}

static bool
gather_payloads(struct gather *gather, const struct conn_payload *payloads,
                size_t count, uint64_t *skip)
{
    for (size_t i = 0; i < count; i++) {
        if (!gather_part(gather, payloads[i].data, payloads[i].bytes, skip))
            return false;
    }
    return true;
}

static void
give_back(const struct conn_payload *payloads, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (payloads[i].on_sent != NULL)
            payloads[i].on_sent(payloads[i].arg);
    }
}

/* ---- Queue ---- */

static struct outgoing *
first_of(struct conn *conn)
{
    /* What was finished is unlinked; the analyzer loses that on the way.
     * NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
    return CONTAINER_OF(conn->queue.next, struct outgoing, link);
}

static void
close_fds(struct outgoing *outgoing)
{
    for (size_t i = 0; i < outgoing->fd_count; i++)
        socket_close(outgoing->fds[i]);
    outgoing->fd_count = 0;
}

static void
outgoing_finish(struct conn *conn, struct outgoing *outgoing)
{
    list_remove(&outgoing->link);
    DS_ASSERT(conn->queued_bytes >= outgoing->memory_bytes);
    conn->queued_bytes -= outgoing->memory_bytes;
    close_fds(outgoing);
    give_back(outgoing->payloads, outgoing->payload_count);
    free(outgoing);
}

static void
drop_all(struct conn *conn, struct list *list)
{
    LIST_FOREACH (link, list)
        outgoing_finish(conn, CONTAINER_OF(link, struct outgoing, link));
}

void
conn_drop_queue(struct conn *conn)
{
    drop_all(conn, &conn->held);
    drop_all(conn, &conn->queue);
    DS_ASSERT(list_is_empty(&conn->queue)); /* Nothing is queued on a closing one. */
}

/* A frame with descriptors starts a message of its own, and none follows it there: the
 * receiver can tell only by that whose they are. */
static void
gather_queue(struct conn *conn, struct gather *gather)
{
    LIST_FOREACH (link, &conn->queue) {
        struct outgoing *outgoing = CONTAINER_OF(link, struct outgoing, link);
        if (outgoing->fd_count > 0 && gather->count > 0)
            return;
        uint64_t skip = outgoing->sent;
        if (!gather_part(gather, outgoing->head, outgoing->head_bytes, &skip) ||
            !gather_payloads(gather, outgoing->payloads, outgoing->payload_count,
                             &skip))
            return;
        if (outgoing->fd_count > 0)
            return;
    }
}

/* The socket took `bytes` from the front of the queue. */
static void
advance_queue(struct conn *conn, uint64_t bytes)
{
    while (bytes > 0) {
        DS_ASSERT(!list_is_empty(&conn->queue));
        struct outgoing *outgoing = first_of(conn);
        uint64_t step = min_u64(bytes, outgoing->total - outgoing->sent);
        outgoing->sent += step;
        bytes -= step;
        close_fds(outgoing);
        if (outgoing->sent == outgoing->total)
            outgoing_finish(conn, outgoing);
    }
}

static void
poll_writable(struct conn *conn)
{
    bool wanted = !list_is_empty(&conn->queue) || conn_has_unsent(conn);
    if (conn->closing || conn->is_polling_writable == wanted)
        return;
    conn->is_polling_writable = wanted;
    conn_poll(conn);
}

/* Nothing but encrypted bytes wait. False: the connection is closing. */
static bool
flush_unsent(struct conn *conn)
{
    struct ds_error err = {0};
    if (conn_write(conn, NULL, 0, NULL, 0, &err) == 0)
        return true;
    conn_close(conn, err.message);
    return false;
}

void
conn_flush(struct conn *conn)
{
    uint64_t turn_left = SEND_TURN_BYTES_MAX;
    if (list_is_empty(&conn->queue) && conn_has_unsent(conn) && !flush_unsent(conn))
        return;
    while (!conn->closing && !list_is_empty(&conn->queue) && turn_left > 0) {
        struct outgoing *first = first_of(conn);
        struct gather gather;
        gather.count = 0;
        gather.bytes = 0;
        gather_queue(conn, &gather);
        struct ds_error err = {0};
        ssize_t done = conn_write(conn, gather.parts, gather.count, first->fds,
                                  first->fd_count, &err);
        if (done < 0) {
            conn_close(conn, err.message);
            return;
        }
        advance_queue(conn, (uint64_t)done);
        if ((uint64_t)done < gather.bytes)
            break; /* The socket is full. */
        turn_left -= min_u64(turn_left, gather.bytes);
    }
    poll_writable(conn);
}

/* ---- Frames ---- */

/* What the caller of conn_send() wants sent. */
struct request {
    uint8_t header[FRAME_HEADER_BYTES];
    struct ds_slice body;
    const int *fds;
    size_t fd_count;
    const struct conn_payload *payloads;
    size_t payload_count;
    uint64_t total;
};

/* Appends what is left of a frame after its first `sent` bytes. NULL: out of memory. */
static struct outgoing *
enqueue(struct conn *conn, struct list *list, const struct request *request,
        uint64_t sent)
{
    size_t payloads_bytes = request->payload_count * sizeof *request->payloads;
    size_t head_bytes = FRAME_HEADER_BYTES + request->body.len;
    size_t memory_bytes = sizeof(struct outgoing) + payloads_bytes + head_bytes;
    struct outgoing *outgoing = malloc(memory_bytes);
    if (outgoing == NULL)
        return NULL;
    *outgoing = (struct outgoing){
        .memory_bytes = memory_bytes,
        .head_bytes = head_bytes,
        .sent = sent,
        .total = request->total,
        .head = (uint8_t *)(outgoing + 1) + payloads_bytes,
        .payload_count = request->payload_count,
    };
    if (payloads_bytes > 0)
        memcpy(outgoing->payloads, request->payloads, payloads_bytes);
    memcpy(outgoing->head, request->header, FRAME_HEADER_BYTES);
    if (request->body.len > 0)
        memcpy(outgoing->head + FRAME_HEADER_BYTES, request->body.data,
               request->body.len);
    list_push_back(list, &outgoing->link);
    conn->queued_bytes += memory_bytes;
    return outgoing;
}

static bool
dup_fds(struct outgoing *outgoing, const struct request *request)
{
    for (size_t i = 0; i < request->fd_count; i++) {
        int fd = fcntl(request->fds[i], F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            return false;
        outgoing->fds[outgoing->fd_count++] = fd;
    }
    return true;
}

/* The rest of a frame waits in `list`. */
static void
send_later(struct conn *conn, struct list *list, const struct request *request,
           uint64_t sent)
{
    struct outgoing *outgoing = enqueue(conn, list, request, sent);
    if (outgoing == NULL) {
        conn_close(conn, "out of memory for a message to the peer");
        give_back(request->payloads, request->payload_count);
        return;
    }
    if (sent == 0 && !dup_fds(outgoing, request)) {
        conn_close(conn, "out of descriptors for a message to the peer");
        return;
    }
    if (conn->queued_bytes > CONN_SEND_BYTES_MAX) {
        conn_close(conn, "the peer does not read what is sent to it");
        return;
    }
    poll_writable(conn);
}

void
conn_send_held(struct conn *conn)
{
    LIST_FOREACH (link, &conn->held) {
        list_remove(link);
        list_push_back(&conn->queue, link);
    }
    conn_flush(conn);
}

/* Offers the frame to the socket without a copy. Bytes taken, or negative when the
 * connection is closing now. */
static ssize_t
send_now(struct conn *conn, const struct request *request)
{
    struct gather gather;
    uint64_t skip = 0;
    gather.count = 0;
    gather.bytes = 0;
    (void)gather_part(&gather, request->header, FRAME_HEADER_BYTES, &skip);
    (void)gather_part(&gather, request->body.data, request->body.len, &skip);
    (void)gather_payloads(&gather, request->payloads, request->payload_count, &skip);
    struct ds_error err = {0};
    ssize_t done = conn_write(conn, gather.parts, gather.count, request->fds,
                              request->fd_count, &err);
    if (done < 0)
        conn_close(conn, err.message);
    return done;
}

static struct request
request_of(const struct frame_header *header, struct ds_slice body)
{
    struct request request = {.body = body};
    struct frame_header filled = *header;
    filled.body_bytes = (uint32_t)body.len;
    frame_encode(&filled, request.header);
    request.total = FRAME_HEADER_BYTES + body.len;
    return request;
}

void
conn_send(struct conn *conn, const struct frame_header *header, struct ds_slice body,
          const int *fds, size_t fd_count, const struct conn_payload *payloads,
          size_t payload_count)
{
    DS_ASSERT(body.len <= FRAME_BODY_BYTES_MAX);
    DS_ASSERT(fd_count <= CONN_FDS_MAX);
    if (conn->closing) {
        give_back(payloads, payload_count);
        return;
    }
    struct frame_header filled = *header;
    filled.payload_bytes = 0;
    for (size_t i = 0; i < payload_count; i++)
        filled.payload_bytes += payloads[i].bytes;
    struct request request = request_of(&filled, body);
    request.fds = fds;
    request.fd_count = fd_count;
    request.payloads = payloads;
    request.payload_count = payload_count;
    request.total += filled.payload_bytes;

    ssize_t done = 0;
    bool holds = conn_auth_holds(conn, header);
    if (!holds && list_is_empty(&conn->queue))
        done = send_now(conn, &request);
    if (done >= 0 && (uint64_t)done < request.total) {
        send_later(conn, holds ? &conn->held : &conn->queue, &request, (uint64_t)done);
        return;
    }
    poll_writable(conn);
    give_back(payloads, payload_count);
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
    DS_ASSERT(err->status != DS_OK);
    struct frame_header reply = *request;
    reply.status = err->status;
    conn_send(conn, &reply, slice_of_text(err->message), NULL, 0, NULL, 0);
}
