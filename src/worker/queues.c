#include "worker/queues.h"

#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "os/sockets.h"
#include "wire/journals.h"
#include "worker/journal_copies.h"
#include "worker/kept_journals.h"
#include "worker/membership.h"

#include <stdlib.h>
#include <string.h>

enum {
    LISTENS_MS = 500, /* Between two looks whether a controller will be back. */
    ENDED_MS = 60000, /* For so long it is known that a queue has ended. */
};

/* Owner: worker->queues. */
struct served_queue {
    struct list link;              /* In worker->queues, the newest first. */
    struct session *session;       /* NULL: away, or ended. */
    struct journal_copies *copies; /* Owned; NULL: none are made. */
    uint64_t term;
    uint64_t look_ms; /* When to look whether it still is, while it is away or ended. */
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
                                    slice(tcp_address, queue->tcp_address_bytes),
                                .term = queue->term};
}

static bool
has_ended(const struct served_queue *queue)
{
    return queue->term == QUEUE_TERM_ENDED;
}

static void
forget(struct worker *worker, struct served_queue *queue)
{
    list_remove(&queue->link);
    journal_copies_close(queue->copies);
    free(queue);
    membership_queues_changed(worker->membership);
}

/* ---- Where a queue is ---- */

static bool
find_here(const struct worker *worker, struct ds_slice name, struct queue_place *out)
{
    LIST_FOREACH (link, &worker->queues) {
        *out = place_of(CONTAINER_OF(link, struct served_queue, link));
        if (slice_equal(out->name, name))
            return true;
    }
    return false;
}

uint64_t
queues_term(const struct worker *worker, struct ds_slice name)
{
    struct queue_place place;
    bool is_here = find_here(worker, name, &place) && place.term != QUEUE_TERM_ENDED;
    return is_here ? place.term : 0;
}

bool
queues_find(const struct worker *worker, struct ds_slice name, struct queue_place *out)
{
    struct queue_place other;
    bool is_here = find_here(worker, name, out);
    bool is_there = membership_find_queue(worker->membership, name, &other);
    if (is_there && (!is_here || other.term > out->term))
        *out = other;
    return is_here || is_there;
}

/* Another controller of this queue came later. */
static bool
is_superseded(const struct worker *worker, const struct queue_place *place)
{
    struct queue_place newest;
    return membership_find_queue(worker->membership, place->name, &newest) &&
           newest.term > place->term && newest.term != QUEUE_TERM_ENDED;
}

static enum ds_status
fail_superseded(const struct queue_place *place, struct ds_error *err)
{
    return ds_fail(err, DS_EXISTS, "another controller goes on with queue %.*s",
                   (int)place->name.len, (const char *)place->name.data);
}

/* ---- QUEUE_SERVE ---- */

/* NULL when out of memory. */
static struct served_queue *
add(struct session *session, const struct queue_place *place)
{
    struct served_queue *queue =
        calloc(1, sizeof *queue + place->name.len + place->address.len +
                      place->tcp_address.len);
    if (queue == NULL)
        return NULL;
    queue->session = session;
    queue->term = place->term;
    queue->name_bytes = place->name.len;
    queue->address_bytes = place->address.len;
    queue->tcp_address_bytes = place->tcp_address.len;
    char *address = queue->texts + place->name.len;
    memcpy(queue->texts, place->name.data, place->name.len);
    memcpy(address, place->address.data, place->address.len);
    memcpy(address + place->address.len, place->tcp_address.data,
           place->tcp_address.len);
    return queue;
}

/* It is back, or another took its place. */
static void
forget_away(struct worker *worker, struct ds_slice name)
{
    LIST_FOREACH (link, &worker->queues) {
        struct served_queue *queue = CONTAINER_OF(link, struct served_queue, link);
        if (queue->session == NULL && slice_equal(place_of(queue).name, name))
            forget(worker, queue);
    }
}

/* Of a queue that others may have gone on with, also as this worker alone knows. */
static enum ds_status
check_may_serve(const struct worker *worker, const struct queue_place *place,
                struct ds_error *err)
{
    const struct kept_journal *kept = kept_journals_find(worker, place->name);
    struct queue_place newest;
    bool has_ended =
        queues_find(worker, place->name, &newest) && newest.term == QUEUE_TERM_ENDED;
    bool is_late = kept != NULL && (kept->term > place->term ||
                                    kept_journal_is_dead(kept, place->term));
    if (is_superseded(worker, place) || is_late ||
        (has_ended && place->term > QUEUE_TERM_FIRST))
        return fail_superseded(place, err);
    if (kept != NULL && kept_journal_promise(worker, kept) > place->term)
        return ds_fail(err, DS_NOT_READY,
                       "somebody may be about to go on with queue %.*s",
                       (int)place->name.len, (const char *)place->name.data);
    return DS_OK;
}

/* Only a queue that can be reached from other nodes can be gone on with there. */
static enum ds_status
serve(struct session *session, const struct queue_serve *message, bool *out_is_copied,
      struct ds_error *err)
{
    struct worker *worker = session->worker;
    const struct queue_place *place = &message->place;
    enum ds_status allowed = check_may_serve(worker, place, err);
    if (allowed != DS_OK)
        return allowed;
    struct served_queue *queue = add(session, place);
    if (queue == NULL)
        return ds_fail(err, DS_NO_MEMORY, "worker is out of memory for a queue");
    *out_is_copied = worker->membership != NULL && message->copies_max > 0 &&
                     place->tcp_address.len > 0;
    enum ds_status status = DS_OK;
    if (*out_is_copied)
        status = journal_copies_open(session, message, &queue->copies, err);
    if (status != DS_OK) {
        free(queue);
        return status;
    }
    forget_away(worker, place->name);
    session->serves = queue;
    list_push_front(&worker->queues, &queue->link);
    membership_queues_changed(worker->membership);
    return DS_OK;
}

void
handle_queue_serve(struct session *session, const struct frame_header *header,
                   struct ds_slice body)
{
    struct queue_serve message;
    if (!decode_queue_serve(body, &message) || session->serves != NULL) {
        session_reject(session, "malformed QUEUE_SERVE");
        return;
    }
    struct ds_error err = {0};
    bool is_copied = false;
    if (serve(session, &message, &is_copied, &err) != DS_OK) {
        conn_reply_error(session->conn, header, &err);
        return;
    }
    AUTO_WRITER(reply);
    encode_queue_served(&reply, is_copied);
    session_reply(session, header, &reply);
}

/* ---- Its journal ---- */

void
handle_journal_sync(struct session *session, const struct frame_header *header,
                    struct ds_slice body)
{
    struct journal_sync sync;
    if (session->serves == NULL || session->serves->copies == NULL ||
        !decode_journal_sync(body, &sync)) {
        session_reject(session, "malformed JOURNAL_SYNC, or of no queue");
        return;
    }
    journal_copies_sync(session->serves->copies, header, &sync);
}

void
handle_journal_end(struct session *session, const struct frame_header *header,
                   struct ds_slice body)
{
    struct served_queue *queue = session->serves;
    if (queue == NULL || body.len != 0) {
        session_reject(session, "malformed JOURNAL_END, or of no queue");
        return;
    }
    struct queue_place place = place_of(queue);
    if (is_superseded(session->worker, &place)) {
        struct ds_error err = {0};
        (void)fail_superseded(&place, &err);
        conn_reply_error(session->conn, header, &err);
        return;
    }
    if (queue->copies != NULL)
        journal_copies_end(queue->copies);
    journal_copies_close(queue->copies);
    queue->copies = NULL;
    queue->term = QUEUE_TERM_ENDED;
    membership_queues_changed(session->worker->membership);
    conn_reply(session->conn, header, (struct ds_slice){0});
}

/* ---- QUEUE_FIND ---- */

/* Somebody may be about to go on with it. */
static enum ds_status
fail_to_find(const struct worker *worker, struct ds_slice name, bool has_ended,
             struct ds_error *err)
{
    const char *text = (const char *)name.data;
    if (has_ended)
        return ds_fail(err, DS_NOT_FOUND, "queue %.*s has ended", (int)name.len, text);
    const struct kept_journal *kept = kept_journals_find(worker, name);
    bool may_go_on = kept != NULL && kept->whole.file != NULL; /* Alone, too. */
    if (may_go_on || !membership_knows(worker->membership) ||
        membership_count(worker->membership) > 1)
        return ds_fail(err, DS_NOT_READY,
                       "no worker of this cluster knows of a controller of queue %.*s "
                       "now",
                       (int)name.len, text);
    return ds_fail(
        err, DS_NOT_FOUND,
        "no controller that a worker of this cluster knows serves queue %.*s",
        (int)name.len, text);
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
    bool is_known = queues_find(session->worker, wanted.name, &place);
    bool is_over = is_known && place.term == QUEUE_TERM_ENDED;
    if (!is_known || is_over) {
        struct ds_error err = {0};
        (void)fail_to_find(session->worker, wanted.name, is_over, &err);
        conn_reply_error(session->conn, header, &err);
        return;
    }
    AUTO_WRITER(writer);
    encode_queue_place(&writer, &place);
    session_reply(session, header, &writer);
}

/* ---- What others know of them ---- */

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
        if (!has_ended(queue) && wire_queue_tag(place_of(queue).name) == tag)
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

uint32_t
queues_copies(const struct worker *worker)
{
    uint32_t count = 0;
    LIST_FOREACH (link, &worker->queues) {
        const struct served_queue *queue =
            CONTAINER_OF(link, struct served_queue, link);
        if (queue->copies != NULL)
            count += journal_copies_count(queue->copies);
    }
    return count;
}

/* ---- Away, and ended ---- */

/* A supervisor has its controller's socket as long as it will start it again. */
static bool
is_listening(const struct served_queue *queue)
{
    char path[QUEUE_PLACE_ADDRESS_MAX + 1];
    struct queue_place place = place_of(queue);
    int fd = -1;
    if (place.address.len <= 5 || memcmp(place.address.data, "unix:", 5) != 0)
        return false;
    memcpy(path, (const char *)place.address.data + 5, place.address.len - 5);
    path[place.address.len - 5] = '\0';
    enum ds_status status = socket_connect_unix(path, &fd, NULL);
    socket_close(fd);
    return status == DS_OK || status == DS_TIMEOUT; /* Its backlog is full. */
}

void
queues_tick(struct worker *worker)
{
    uint64_t now = clock_monotonic_ms();
    LIST_FOREACH (link, &worker->queues) {
        struct served_queue *queue = CONTAINER_OF(link, struct served_queue, link);
        struct queue_place place = place_of(queue);
        if (queue->copies != NULL && queue->session != NULL) {
            if (is_superseded(worker, &place))
                journal_copies_supersede(queue->copies);
            journal_copies_tick(queue->copies);
        } else if (queue->session == NULL && now >= queue->look_ms) {
            queue->look_ms = now + LISTENS_MS;
            if (has_ended(queue) || !is_listening(queue))
                forget(worker, queue);
        }
    }
}

void
queues_drop(struct session *session)
{
    struct served_queue *queue = session->serves;
    struct worker *worker = session->worker;
    session->serves = NULL;
    if (queue == NULL)
        return;
    journal_copies_close(queue->copies);
    queue->copies = NULL;
    queue->session = NULL;
    queue->look_ms = clock_monotonic_ms() + (has_ended(queue) ? ENDED_MS : 0);
    if (worker->membership == NULL || worker->stopping)
        forget(worker, queue);
}

void
queues_hang_up(struct worker *worker)
{
    LIST_FOREACH (link, &worker->queues) {
        struct served_queue *queue = CONTAINER_OF(link, struct served_queue, link);
        if (queue->session != NULL && queue->copies != NULL)
            conn_close(queue->session->conn, NULL);
    }
}

void
queues_close(struct worker *worker)
{
    LIST_FOREACH (link, &worker->queues)
        forget(worker, CONTAINER_OF(link, struct served_queue, link));
}
