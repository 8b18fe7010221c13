/* What the tests of connections share: a loop, a connection on one end of a socket pair
 * that notes what happens to it, and a raw peer at the other end. Included once by each
 * test file. */
#ifndef NET_CONN_TESTING_H
#define NET_CONN_TESTING_H

#include "net/conn.h"
#include "net/conn_internal.h"

#include "base/log.h"
#include "os/clock.h"
#include "os/sockets.h"

#include "test.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { LAST_BODY_BYTES = 256, WAIT_MS = 20000 };

/* One connection under test. */
struct side {
    struct conn *conn;
    int peer; /* The raw end; -1 once the test has closed it. */

    size_t frames;
    struct frame_header last;
    uint8_t last_body[LAST_BODY_BYTES]; /* Its beginning. */
    uint64_t body_sum;                  /* Over all bytes of all bodies. */
    size_t fds_of_frame;                /* How many came with the last frame, */
    size_t frame_with_fds;              /* and the number of the last that had some. */

    uint8_t *payload_to; /* What on_payload_begin answers. */
    size_t payloads;

    bool close_on_frame; /* The handler closes the connection. */
    bool echo;           /* The handler replies with the body. */

    int closed;
    bool has_reason;
    char reason[256];
    size_t sent_before_closed;
};

static uv_loop_t test_loop;
static uv_timer_t test_tick;
static size_t payloads_sent;

static inline uint64_t
sum_of(const void *data, size_t bytes)
{
    const uint8_t *at = data;
    uint64_t sum = 0;
    for (size_t i = 0; i < bytes; i++)
        sum += at[i] * (i % 251 + 1);
    return sum;
}

static void
note_frame(struct conn *conn, const struct frame_header *header, struct ds_slice body,
           const int *fds, size_t fd_count)
{
    struct side *side = conn_user(conn);
    side->frames++;
    side->last = *header;
    CHECK_INT(body.len, header->body_bytes);
    if (body.len > 0)
        memcpy(side->last_body, body.data,
               body.len < LAST_BODY_BYTES ? body.len : LAST_BODY_BYTES);
    side->body_sum += sum_of(body.data, body.len);
    side->fds_of_frame = fd_count;
    if (fd_count > 0)
        side->frame_with_fds = side->frames;
    for (size_t i = 0; i < fd_count; i++)
        CHECK_INT(write(fds[i], "!", 1), 1);
    if (side->echo)
        conn_reply(conn, header, body);
    if (side->close_on_frame) {
        conn_close(conn, "asked to");
        CHECK_INT(side->closed, 0); /* From the loop, not from in here. */
    }
}

static void *
note_payload(struct conn *conn, const struct frame_header *header, struct ds_slice body)
{
    struct side *side = conn_user(conn);
    CHECK_INT(body.len, header->body_bytes);
    side->payloads++;
    return side->payload_to;
}

static void
note_closed(struct conn *conn, const char *reason)
{
    struct side *side = conn_user(conn);
    side->closed++;
    side->has_reason = reason != NULL;
    side->sent_before_closed = payloads_sent;
    if (reason != NULL)
        snprintf(side->reason, sizeof side->reason, "%s", reason);
}

static const struct conn_ops noting = {note_frame, note_payload, note_closed};

/* libuv opens two descriptors with the first loop and keeps them: not the test's leak.
 */
__attribute__((constructor)) static void
warm_up(void)
{
    uv_loop_t loop;
    if (uv_loop_init(&loop) != 0 || uv_loop_close(&loop) != 0)
        abort();
}

static inline void
on_tick(uv_timer_t *timer)
{
    (void)timer;
}

/* The tick keeps uv_run() from waiting for ever. */
static inline void
loop_begin(void)
{
    payloads_sent = 0;
    CHECK_INT(uv_loop_init(&test_loop), 0);
    CHECK_INT(uv_timer_init(&test_loop, &test_tick), 0);
    CHECK_INT(uv_timer_start(&test_tick, on_tick, 2, 2), 0);
}

static inline void
loop_end(void)
{
    uv_close((uv_handle_t *)&test_tick, NULL);
    CHECK_INT(uv_run(&test_loop, UV_RUN_DEFAULT), 0);
    CHECK_INT(uv_loop_close(&test_loop), 0);
}

/* The same, with the last warning in `last_line`; nothing else may be said. */
static char last_line[1024];

static inline void
note_line(enum log_level level, const char *line, void *arg)
{
    (void)arg;
    CHECK_INT(level, LOG_WARN);
    snprintf(last_line, sizeof last_line, "%s", line);
}

static inline void
begin_logged(void)
{
    last_line[0] = '\0';
    log_set_sink(note_line, NULL, LOG_WARN);
    loop_begin();
}

static inline void
end_logged(void)
{
    loop_end();
    log_set_sink(NULL, NULL, LOG_NONE);
}

static inline void
turn(void)
{
    uv_run(&test_loop, UV_RUN_NOWAIT);
}

/* Turns the loop until `condition` holds. */
#define RUN_UNTIL(condition)                                    \
    do {                                                        \
        uint64_t deadline_ms_ = clock_monotonic_ms() + WAIT_MS; \
        while (!(condition)) {                                  \
            CHECK(clock_monotonic_ms() < deadline_ms_);         \
            uv_run(&test_loop, UV_RUN_ONCE);                    \
        }                                                       \
    } while (0)

/* Two connections with each other; neither has a raw end. */
static inline void
sides_open_joined(struct side *one, struct side *other)
{
    struct ds_error err = {0};
    int ends[2];
    *one = *other = (struct side){.peer = -1};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) ==
          0);
    CHECK_OK(conn_create(&test_loop, ends[0], &noting, one, &one->conn, &err));
    CHECK_OK(conn_create(&test_loop, ends[1], &noting, other, &other->conn, &err));
}

static inline void
side_open(struct side *side)
{
    struct ds_error err = {0};
    int ends[2];
    *side = (struct side){0};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) ==
          0);
    side->peer = ends[1];
    CHECK_OK(conn_create(&test_loop, ends[0], &noting, side, &side->conn, &err));
}

/* Ends a connection that is still open, or only waits for what ends it. */
static inline void
side_close(struct side *side)
{
    if (side->closed == 0)
        conn_close(side->conn, "end of test");
    RUN_UNTIL(side->closed > 0);
    socket_close(side->peer);
    CHECK_INT(side->closed, 1);
}

static inline void
hang_up(struct side *side)
{
    socket_close(side->peer);
    side->peer = -1;
    RUN_UNTIL(side->closed > 0);
}

static inline struct frame_header
header_of(enum message_type type, uint32_t sequence, size_t body_bytes,
          uint64_t payload_bytes)
{
    return (struct frame_header){.type = type,
                                 .sequence = sequence,
                                 .body_bytes = (uint32_t)body_bytes,
                                 .payload_bytes = payload_bytes};
}

/* ---- The raw peer ---- */

/* Writes all of it, turning the loop while the socket is full or the connection does
 * not read; stops early only if the connection closed. */
static inline void
peer_write(struct side *side, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    while (bytes > 0 && side->closed == 0) {
        ssize_t done = send(side->peer, at, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done > 0) {
            at += done;
            bytes -= (size_t)done;
        } else {
            uv_run(&test_loop, UV_RUN_ONCE);
        }
    }
}

static inline void
peer_write_frame(struct side *side, const struct frame_header *header, const void *body)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_encode(header, bytes);
    peer_write(side, bytes, sizeof bytes);
    peer_write(side, body, header->body_bytes);
}

/* One sendmsg() with descriptors. */
static inline void
peer_write_with_fds(struct side *side, const void *data, size_t bytes, const int *fds,
                    size_t fd_count)
{
    struct ds_error err = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};
    CHECK_INT(socket_send(side->peer, &part, 1, fds, fd_count, &err), bytes);
}

/* Reads exactly so many bytes, turning the loop while there are none. */
static inline void
peer_read(struct side *side, void *out, size_t bytes)
{
    uint8_t *at = out;
    uint64_t deadline_ms = clock_monotonic_ms() + WAIT_MS;
    while (bytes > 0) {
        ssize_t got = recv(side->peer, at, bytes, MSG_DONTWAIT);
        CHECK(got != 0);
        CHECK(clock_monotonic_ms() < deadline_ms);
        if (got > 0) {
            at += got;
            bytes -= (size_t)got;
        } else {
            uv_run(&test_loop, UV_RUN_ONCE);
        }
    }
}

static inline struct frame_header
peer_read_header(struct side *side)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header header = {0};
    peer_read(side, bytes, sizeof bytes);
    CHECK(frame_decode(bytes, &header));
    return header;
}

#endif
