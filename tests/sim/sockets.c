/* Sockets, in place of src/os/sockets.c, and what is ready of all descriptors.
 *
 * A connection is two streams of segments. A segment arrives some time after it was
 * sent, cut where chance says; those of one stream stay in order, those of different
 * ones overtake each other. */
#include "sim.h"

#include "base/check.h"
#include "base/status.h"
#include "os/sockets.h"

#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "objects.h"

enum {
    SEGMENT_FDS_MAX = 4,
    BACKLOG_MAX = 64,
};

struct segment {
    struct list link;
    uint64_t arrival_ns;
    size_t bytes;
    size_t taken;
    struct object *fds[SEGMENT_FDS_MAX];
    size_t fd_count;
    uint8_t data[];
};

static uint64_t refused_until_ns;

/* ---- Objects ---- */

static void
segments_drop(struct object *socket, bool only_under_way)
{
    LIST_FOREACH (link, &socket->segments) {
        struct segment *segment = CONTAINER_OF(link, struct segment, link);
        if (only_under_way && segment->arrival_ns <= sim.now_ns)
            continue;
        list_remove(link);
        socket->bytes -= segment->bytes - segment->taken;
        for (size_t i = 0; i < segment->fd_count; i++)
            object_unref(segment->fds[i]);
        sim_free(segment);
    }
}

void
object_segments_free(struct object *socket)
{
    LIST_FOREACH (link, &socket->segments)
        sim_free(CONTAINER_OF(link, struct segment, link));
}

static uint64_t
delay_ns(void)
{
    if (sim.calm)
        return sim_between(2000, 20000);
    uint64_t delay = sim_between(2000, 60000);
    if (sim_chance(1, 200))
        delay += sim_below(30 * SIM_MS);
    if (sim.lag_until_ns > sim.now_ns)
        delay += sim_below(300 * SIM_MS);
    return delay;
}

/* There is no other end any more. A Unix socket tells that at once, and has all that was
 * sent; over TCP it takes its time. */
static void
set_end(struct object *socket, bool is_reset)
{
    socket->has_eof = true;
    socket->is_reset = is_reset;
    object_note_loss(socket);
    socket->end_ns = sim.now_ns;
    if (socket->is_tcp) {
        socket->end_ns += delay_ns();
        if (socket->end_ns < socket->last_arrival_ns)
            socket->end_ns = socket->last_arrival_ns;
    }
    LIST_FOREACH (link, &socket->segments) {
        struct segment *segment = CONTAINER_OF(link, struct segment, link);
        if (segment->arrival_ns > socket->end_ns)
            segment->arrival_ns = socket->end_ns;
    }
    process_wake_at(socket->watcher, socket->end_ns);
    process_wake(socket->watcher);
}

void
object_socket_end(struct object *socket)
{
    struct object *peer = socket->peer;
    bool unread = !list_is_empty(&socket->segments);
    segments_drop(socket, false);
    if (peer == NULL)
        return;
    socket->peer = NULL;
    peer->peer = NULL;
    set_end(peer, unread);
}

/* ---- Waiting ---- */

static bool
has_arrived(const struct object *socket)
{
    if (list_is_empty(&socket->segments))
        return false;
    const struct list *first = socket->segments.next;
    return CONTAINER_OF(first, struct segment, link)->arrival_ns <= sim.now_ns;
}

static bool
has_ended(const struct object *socket)
{
    return socket->has_eof && list_is_empty(&socket->segments) &&
           socket->end_ns <= sim.now_ns;
}

/* The kernel tells of an error at once, what arrived before it can still be read. */
static bool
has_error(const struct object *socket)
{
    return socket->is_reset && socket->end_ns <= sim.now_ns;
}

static short
socket_ready(const struct object *socket)
{
    bool ended = has_ended(socket);
    bool writable =
        socket->peer == NULL || (socket->connected_ns <= sim.now_ns &&
                                 socket->peer->bytes < sim.stream_bytes_max);
    return (short)((has_arrived(socket) || ended ? POLLIN : 0) |
                   (writable ? POLLOUT : 0) | (has_error(socket) ? POLLERR : 0) |
                   (ended ? POLLHUP : 0));
}

static bool
backlog_ready(const struct object *listener)
{
    if (list_is_empty(&listener->backlog))
        return false;
    const struct list *first = listener->backlog.next;
    return CONTAINER_OF(first, struct object, backlog_link)->connected_ns <= sim.now_ns;
}

short
descriptor_ready(int fd, short events)
{
    const struct object *object = object_of(fd);
    switch (object->kind) {
    case OBJECT_SOCKET:
        return (short)(socket_ready(object) & (events | POLLERR | POLLHUP));
    case OBJECT_LISTENER:
        return backlog_ready(object) ? POLLIN : 0;
    case OBJECT_PROCESS:
        return process_find((uint32_t)object->number) == NULL ? POLLIN : 0;
    case OBJECT_MAILBOX:
        return object->number != 0 ? POLLIN : 0;
    default:
        return 0;
    }
}

/* Who watches already is told of each event when it comes about. */
void
descriptor_watch(int fd)
{
    struct object *object = object_of(fd);
    if (object->watcher == process_current())
        return;
    object->watcher = process_current();
    LIST_FOREACH (link, &object->segments)
        process_wake_at(object->watcher,
                        CONTAINER_OF(link, struct segment, link)->arrival_ns);
    LIST_FOREACH (link, &object->backlog)
        process_wake_at(object->watcher,
                        CONTAINER_OF(link, struct object, backlog_link)->connected_ns);
    if (object->has_eof)
        process_wake_at(object->watcher, object->end_ns);
    if (object->connected_ns > sim.now_ns)
        process_wake_at(object->watcher, object->connected_ns);
    if (object->kind == OBJECT_PROCESS &&
        process_find((uint32_t)object->number) == NULL)
        process_wake(object->watcher);
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int
__wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    DS_ASSERT(count <= 1);
    uint64_t until = sim.now_ns + (uint64_t)timeout_ms * SIM_MS;
    if (timeout_ms > 0)
        sim_yield_rarely();
    else
        sim_yield(); /* Time passes also for who looks without sleeping. */
    for (;;) {
        if (count == 1) {
            fds->revents = descriptor_ready(fds->fd, fds->events);
            if (fds->revents != 0)
                return 1;
        }
        if (sim.now_ns >= until)
            return 0;
        if (count == 1)
            descriptor_watch(fds->fd);
        sim_block(until);
    }
}

/* ---- Connecting ---- */

int
socket_listen_any(const char *name)
{
    LIST_FOREACH (link, objects_all()) {
        struct object *object = CONTAINER_OF(link, struct object, link);
        if (object->kind == OBJECT_LISTENER && strcmp(object->name, name) == 0)
            object->name[0] = '\0'; /* An old socket file is replaced. */
    }
    struct object *listener = object_new(OBJECT_LISTENER);
    snprintf(listener->name, sizeof listener->name, "%s", name);
    return descriptor_open(listener);
}

static struct object *
find_listener(const char *name)
{
    LIST_FOREACH (link, objects_all()) {
        struct object *object = CONTAINER_OF(link, struct object, link);
        if (object->kind == OBJECT_LISTENER && strcmp(object->name, name) == 0)
            return object;
    }
    return NULL;
}

static size_t
backlog_count(const struct object *listener)
{
    size_t count = 0;
    LIST_FOREACH (link, &listener->backlog)
        count++;
    return count;
}

static enum ds_status
connect_to(const char *name, int *out_fd, struct ds_error *err)
{
    struct object *listener = find_listener(name);
    if (listener == NULL || refused_until_ns > sim.now_ns ||
        backlog_count(listener) >= BACKLOG_MAX)
        return ds_fail(err, DS_IO, "connect to %s: Connection refused", name);
    struct object *ours = object_new(OBJECT_SOCKET);
    struct object *theirs = object_new(OBJECT_SOCKET);
    ours->peer = theirs;
    theirs->peer = ours;
    ours->number = process_current()->pid;
    ours->is_visible = process_current()->is_visible;
    theirs->connected_ns = sim.now_ns + delay_ns();
    ours->is_tcp = theirs->is_tcp = name[0] == 't';
    ours->connected_ns = ours->is_tcp ? theirs->connected_ns : sim.now_ns;
    theirs->refs = 1; /* The backlog's, then the descriptor's. */
    list_push_back(&listener->backlog, &theirs->backlog_link);
    process_wake_at(listener->watcher, theirs->connected_ns);
    *out_fd = descriptor_open(ours);
    return DS_OK;
}

enum ds_status
socket_listen_unix(const char *path, int backlog, int *out_fd, struct ds_error *err)
{
    char name[OBJECT_NAME_BYTES];
    (void)backlog;
    (void)err;
    snprintf(name, sizeof name, "unix:%s", path);
    *out_fd = socket_listen_any(name);
    return DS_OK;
}

enum ds_status
socket_connect_unix(const char *path, int *out_fd, struct ds_error *err)
{
    char name[OBJECT_NAME_BYTES];
    snprintf(name, sizeof name, "unix:%s", path);
    return connect_to(name, out_fd, err);
}

enum ds_status
socket_connect_tcp(const char *host, uint16_t port, int *out_fd, struct ds_error *err)
{
    char name[OBJECT_NAME_BYTES];
    (void)host;
    snprintf(name, sizeof name, "tcp:%u", port);
    return connect_to(name, out_fd, err);
}

enum ds_status
socket_connect_result(int fd, struct ds_error *err)
{
    const struct object *socket = object_of(fd);
    if (socket->peer == NULL)
        return ds_fail(err, DS_IO, "connect: Connection reset by peer");
    return DS_OK;
}

void
socket_expect_life(int fd, uint32_t ms)
{
    (void)fd;
    (void)ms;
}

enum ds_status
socket_accept(int listener, int *out_fd, struct ds_error *err)
{
    struct object *object = object_of(listener);
    (void)err;
    *out_fd = -1;
    if (!backlog_ready(object))
        return DS_OK;
    struct object *socket =
        CONTAINER_OF(object->backlog.next, struct object, backlog_link);
    list_remove(&socket->backlog_link);
    *out_fd = descriptor_open(socket);
    socket->refs--; /* The backlog's. */
    return DS_OK;
}

enum ds_status
socket_parse_address(const char *text, char *out_host, size_t out_host_bytes,
                     uint16_t *out_port, struct ds_error *err)
{
    (void)text;
    (void)out_host;
    (void)out_host_bytes;
    (void)out_port;
    return ds_fail(err, DS_UNSUPPORTED, "not simulated");
}

/* ---- Bytes ---- */

/* The first segments that have arrived, up to and with the first that has descriptors. */
static size_t
take(struct object *socket, uint8_t *out, size_t wanted, struct segment **out_last)
{
    size_t got = 0;
    *out_last = NULL;
    while (got < wanted && has_arrived(socket)) {
        struct segment *segment =
            CONTAINER_OF(socket->segments.next, struct segment, link);
        size_t left = segment->bytes - segment->taken;
        size_t step = left < wanted - got ? left : wanted - got;
        memcpy(out + got, segment->data + segment->taken, step);
        segment->taken += step;
        got += step;
        socket->bytes -= step;
        bool has_fds = segment->fd_count > 0;
        if (segment->taken == segment->bytes) {
            list_remove(&segment->link);
            *out_last = segment;
        } else if (has_fds) {
            *out_last = segment;
        }
        if (has_fds)
            break;
        if (*out_last != NULL) {
            sim_free(*out_last);
            *out_last = NULL;
        }
    }
    return got;
}

ssize_t
socket_receive(int fd, void *data, size_t bytes, bool *out_eof, int *out_fds,
               size_t fds_max, size_t *out_fd_count, struct ds_error *err)
{
    struct object *socket = object_of(fd);
    struct segment *segment = NULL;
    *out_eof = false;
    *out_fd_count = 0;
    DS_ASSERT(bytes > 0);
    sim_yield_rarely();
    if (!sim.calm && sim_chance(1, 16))
        bytes = sim_between(1, bytes);
    size_t got = take(socket, data, bytes, &segment);
    for (size_t i = 0; segment != NULL && i < segment->fd_count; i++) {
        if (*out_fd_count < fds_max)
            out_fds[(*out_fd_count)++] = descriptor_open(segment->fds[i]);
        object_unref(segment->fds[i]);
    }
    if (segment != NULL) {
        segment->fd_count = 0;
        if (segment->taken == segment->bytes)
            sim_free(segment);
    }
    if (got > 0) {
        if (socket->peer != NULL)
            process_wake(socket->peer->watcher);
        sim_note(got);
        return (ssize_t)got;
    }
    if (!has_ended(socket))
        return 0;
    if (!socket->is_reset) {
        *out_eof = true;
        return 0;
    }
    (void)ds_fail(err, DS_IO, "receive: Connection reset by peer");
    return -1;
}

static struct segment *
segment_new(const struct iovec *parts, int part_count, size_t bytes)
{
    struct segment *segment = sim_allocate(sizeof *segment + bytes);
    size_t at = 0;
    for (int i = 0; i < part_count && at < bytes; i++) {
        size_t step = parts[i].iov_len < bytes - at ? parts[i].iov_len : bytes - at;
        if (step > 0)
            memcpy(segment->data + at, parts[i].iov_base, step);
        at += step;
    }
    segment->bytes = bytes;
    list_init(&segment->link);
    return segment;
}

ssize_t
socket_send(int fd, const struct iovec *parts, int part_count, const int *fds,
            size_t fd_count, struct ds_error *err)
{
    struct object *socket = object_of(fd);
    sim_yield_rarely();
    struct object *peer = socket->peer;
    if (peer == NULL) {
        (void)ds_fail(err, DS_IO, "send: Broken pipe");
        return -1;
    }
    size_t bytes = 0;
    for (int i = 0; i < part_count; i++)
        bytes += parts[i].iov_len;
    size_t room =
        peer->bytes < sim.stream_bytes_max ? sim.stream_bytes_max - peer->bytes : 0;
    bytes = bytes < room ? bytes : room;
    if (bytes > 1 && !sim.calm && sim_chance(1, 24))
        bytes = sim_between(1, bytes);
    if (bytes == 0)
        return 0;
    struct segment *segment = segment_new(parts, part_count, bytes);
    DS_ASSERT(fd_count <= SEGMENT_FDS_MAX);
    for (size_t i = 0; i < fd_count; i++) {
        segment->fds[i] = object_of(fds[i]);
        segment->fds[i]->refs++;
    }
    segment->fd_count = fd_count;
    segment->arrival_ns = sim.now_ns + delay_ns();
    if (segment->arrival_ns < peer->last_arrival_ns)
        segment->arrival_ns = peer->last_arrival_ns;
    if (segment->arrival_ns < peer->connected_ns)
        segment->arrival_ns = peer->connected_ns;
    peer->last_arrival_ns = segment->arrival_ns;
    peer->bytes += bytes;
    list_push_back(&peer->segments, &segment->link);
    process_wake_at(peer->watcher, segment->arrival_ns);
    sim_note(bytes);
    return (ssize_t)bytes;
}

/* ---- Faults ---- */

bool
sockets_break_one(void)
{
    struct object *chosen = NULL;
    uint32_t count = 0;
    LIST_FOREACH (link, objects_all()) {
        struct object *object = CONTAINER_OF(link, struct object, link);
        if (object->kind == OBJECT_SOCKET && object->peer != NULL &&
            sim_below(++count) == 0)
            chosen = object;
    }
    if (chosen == NULL)
        return false;
    struct object *ends[2] = {chosen, chosen->peer};
    for (int i = 0; i < 2; i++) {
        struct object *end = ends[i];
        segments_drop(end, sim_chance(1, 2));
        end->peer = NULL;
        set_end(end, sim_chance(2, 3));
    }
    return true;
}

void
sockets_refuse_until(uint64_t ns)
{
    refused_until_ns = ns;
}

/* ---- Who is there ---- */

enum ds_status
socket_peer(int fd, struct peer *out, struct ds_error *err)
{
    const struct object *socket = object_of(fd);
    *out = (struct peer){.uid = geteuid(), .pidfd = -1};
    if (socket->peer == NULL)
        return ds_fail(err, DS_IO, "the peer is gone");
    const struct object *peer = socket->peer;
    if (!peer->is_visible)
        return DS_OK;
    out->pid = (pid_t)peer->number;
    out->start_time = peer->number * 10;
    struct object *process = object_new(OBJECT_PROCESS);
    process->number = peer->number;
    out->pidfd = descriptor_open(process);
    return DS_OK;
}

void
socket_peer_text(int fd, char out[SOCKET_ADDRESS_TEXT_BYTES])
{
    snprintf(out, SOCKET_ADDRESS_TEXT_BYTES, "descriptor %d", fd);
}

enum ds_status
socket_peer_user(int fd, uid_t *out, struct ds_error *err)
{
    (void)fd;
    (void)err;
    *out = geteuid();
    return DS_OK;
}
