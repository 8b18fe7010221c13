/* Life cycle and receiving; sending is in conn_send.c, the socket in conn_encrypted.c. */
#include "net/conn.h"

#include "net/conn_internal.h"
#include "net/run.h"
#include "net/watch.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/sockets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    INPUT_BYTES = 16 << 10,       /* Of the buffer while bodies are small. */
    INPUT_STEP_BYTES = 64 << 10,  /* The least that it grows by for a large one. */
    INPUT_KEEP_BYTES = 256 << 10, /* What it may keep of that once it is empty. */
    SWALLOW_BYTES = 64 << 10,
    RECEIVE_BYTES_MAX = 1 << 20, /* In one call, and */
    TURN_BYTES_MAX = 1 << 20,    /* before the other connections have their turn, */
    FRAME_COST_BYTES = 4 << 10,  /* where a frame counts as much as so many bytes. */
};

static void receive(struct conn *conn);

/* ---- Life cycle ---- */

static void
on_silence(uv_timer_t *timer)
{
    struct conn *conn = timer->data;
    conn_close(conn, "the peer did not introduce itself in time");
}

/* An error of the socket ends polling; what had arrived before is still handled. */
static void
on_poll(uv_poll_t *poll, int status, int events)
{
    struct conn *conn = poll->data;
    DS_ASSERT(!conn->closing);
    if ((events & UV_WRITABLE) != 0)
        conn_flush(conn);
    if (!conn->closing && (status < 0 || (events & UV_READABLE) != 0))
        receive(conn);
    if (!conn->closing && status < 0)
        conn_close(conn, "the connection broke");
}

void
conn_poll(struct conn *conn)
{
    int events = UV_READABLE | (conn->is_polling_writable ? UV_WRITABLE : 0);
    int result = watch_start(&conn->poll, events, on_poll);
    if (result < 0)
        conn_close(conn, uv_strerror(result));
}

enum ds_status
conn_create(uv_loop_t *loop, int fd, const struct conn_ops *ops, void *user,
            struct conn **out, struct ds_error *err)
{
    DS_ASSERT(fd >= 0);
    DS_ASSERT(ops->on_frame != NULL);
    DS_ASSERT(ops->on_closed != NULL);
    struct conn *conn = calloc(1, sizeof *conn);
    uint8_t *data = malloc(INPUT_BYTES);
    int result =
        conn == NULL || data == NULL ? UV_ENOMEM : uv_poll_init(loop, &conn->poll, fd);
    if (result < 0) {
        free(conn);
        free(data);
        socket_close(fd);
        return ds_fail(err, result == UV_ENOMEM ? DS_NO_MEMORY : DS_IO,
                       "cannot watch a connection: %s", uv_strerror(result));
    }
    conn->fd = fd;
    conn->ops = ops;
    conn->user = user;
    conn->input.data = data;
    conn->input.capacity = INPUT_BYTES;
    list_init(&conn->held);
    list_init(&conn->queue);
    result = uv_timer_init(loop, &conn->silence);
    DS_ASSERT(result == 0);
    conn->poll.data = conn;
    conn->silence.data = conn;
    conn->handles_open = 2;
    result = uv_timer_start(&conn->silence, on_silence, CONN_SILENCE_MS, 0);
    DS_ASSERT(result == 0);
    conn_poll(conn);
    *out = conn;
    return DS_OK;
}

void *
conn_user(const struct conn *conn)
{
    return conn->user;
}

void
conn_set_user(struct conn *conn, void *user)
{
    conn->user = user;
}

int
conn_fd(const struct conn *conn)
{
    return conn->fd;
}

void
conn_accept_peer(struct conn *conn)
{
    if (!conn->closing)
        (void)uv_timer_stop(&conn->silence);
}

static void
drop_fds(struct conn_input *input)
{
    for (size_t i = 0; i < input->fd_count; i++)
        socket_close(input->fds[i]);
    input->fd_count = 0;
    input->fds_are_bound = false;
}

static void
on_handle_closed(uv_handle_t *handle)
{
    struct conn *conn = handle->data;
    DS_ASSERT(conn->handles_open > 0);
    conn->handles_open--;
    if (conn->handles_open > 0)
        return;
    conn_drop_queue(conn);
    conn->ops->on_closed(conn, conn->has_reason ? conn->reason : NULL);
    drop_fds(&conn->input);
    socket_close(conn->fd);
    encryption_destroy(conn->encryption);
    free(conn->input.data);
    free(conn);
}

void
conn_close(struct conn *conn, const char *reason)
{
    if (conn->closing)
        return;
    conn->closing = true;
    conn->has_reason = reason != NULL;
    if (reason != NULL)
        snprintf(conn->reason, sizeof conn->reason, "%.255s", reason);
    uv_close((uv_handle_t *)&conn->poll, on_handle_closed);
    uv_close((uv_handle_t *)&conn->silence, on_handle_closed);
}

/* ---- Frames ---- */

static size_t
input_len(const struct conn_input *input)
{
    return input->end - input->start;
}

/* The frame at start is whole: hand it over and step behind it. */
static void
deliver(struct conn *conn)
{
    struct conn_input *input = &conn->input;
    struct frame_header header = input->header;
    const uint8_t *body = input->data + input->start + FRAME_HEADER_BYTES;
    input->in_payload = false;
    input->payload = NULL;
    input->start += FRAME_HEADER_BYTES + header.body_bytes;

    /* Descriptors end a read, so they came with the last frame that began in it. */
    bool with_fds = input->fd_count > 0 && input_len(input) == 0;
    DS_ASSERT(with_fds || !input->fds_are_bound); /* bytes_to_ask_for() saw to it. */
    run_note_frame(conn->poll.loop);
    if (!conn_auth_takes(conn, &header, slice(body, header.body_bytes)))
        conn->ops->on_frame(conn, &header, slice(body, header.body_bytes), input->fds,
                            with_fds ? input->fd_count : 0);
    if (with_fds)
        drop_fds(input);
}

/* Moves what arrived of the payload together with its header to where it belongs.
 * Header and body stay at start, now directly before what follows the payload. */
static void
take_early_payload(struct conn_input *input)
{
    size_t head_bytes = FRAME_HEADER_BYTES + input->header.body_bytes;
    uint8_t *early = input->data + input->start + head_bytes;
    size_t bytes = (size_t)min_u64(input_len(input) - head_bytes, input->payload_left);
    if (bytes == 0)
        return;
    if (input->payload != NULL) {
        memcpy(input->payload, early, bytes);
        input->payload += bytes;
    }
    input->payload_left -= bytes;
    memmove(input->data + input->start + bytes, input->data + input->start, head_bytes);
    input->start += bytes;
}

static void
begin_payload(struct conn *conn)
{
    struct conn_input *input = &conn->input;
    const uint8_t *body = input->data + input->start + FRAME_HEADER_BYTES;
    input->in_payload = true;
    input->payload_left = input->header.payload_bytes;
    input->payload = NULL;
    if (conn->ops->on_payload_begin != NULL)
        input->payload = conn->ops->on_payload_begin(
            conn, &input->header, slice(body, input->header.body_bytes));
    if (!conn->closing)
        take_early_payload(input);
}

/* Takes one step with the frame at start; false when more has to arrive first. */
static bool
step(struct conn *conn)
{
    struct conn_input *input = &conn->input;
    if (input->in_payload) {
        if (input->payload_left > 0)
            return false;
        deliver(conn);
        return true;
    }
    if (input_len(input) < FRAME_HEADER_BYTES)
        return false;
    if (!frame_decode(input->data + input->start, &input->header)) {
        conn_close(conn, "the peer sent bytes that are not a message");
        return false;
    }
    if (!conn_auth_admits(conn, &input->header))
        return false;
    if (input_len(input) - FRAME_HEADER_BYTES < input->header.body_bytes)
        return false;
    if (input->header.payload_bytes > 0)
        begin_payload(conn);
    else
        deliver(conn);
    return true;
}

/* Handles every whole frame in the buffer; returns how many steps that took. */
static size_t
consume(struct conn *conn)
{
    struct conn_input *input = &conn->input;
    size_t steps = 0;
    while (!conn->closing && step(conn))
        steps++;
    if (conn->closing)
        return steps;
    if (input->fd_count > 0) {
        /* Whoever began last is still at start; with nothing there, nobody did. */
        input->fds_are_bound = true;
        if (input_len(input) == 0)
            drop_fds(input);
    }
    return steps;
}

/* ---- Receiving ---- */

/* Gives a large buffer back once it is empty, and moves a rest to the front. */
static void
tidy(struct conn_input *input)
{
    size_t len = input_len(input);
    if (len > 0 && input->start > 0)
        memmove(input->data, input->data + input->start, len);
    input->start = 0;
    input->end = len;
    if (len > 0 || input->capacity <= INPUT_KEEP_BYTES)
        return;
    uint8_t *smaller = realloc(input->data, INPUT_BYTES);
    if (smaller != NULL) {
        input->data = smaller;
        input->capacity = INPUT_BYTES;
    }
}

/* Room behind a full buffer for more of the body at start; false: out of memory. Grows
 * with what has arrived, never with what a header promises. */
static bool
make_room(struct conn_input *input)
{
    DS_ASSERT(input->start == 0);
    if (input->end < input->capacity)
        return true;
    DS_ASSERT(input->capacity < FRAME_HEADER_BYTES + FRAME_BODY_BYTES_MAX);
    size_t wanted = max_u64(2 * input->capacity, input->capacity + INPUT_STEP_BYTES);
    wanted = min_u64(wanted, FRAME_HEADER_BYTES + FRAME_BODY_BYTES_MAX);
    uint8_t *larger = realloc(input->data, wanted);
    if (larger == NULL)
        return false;
    input->data = larger;
    input->capacity = wanted;
    return true;
}

/* How much to ask for: the rest of the frame at start, and what may follow it. Not so
 * when that frame has descriptors: then a later one could not be told apart. */
static size_t
bytes_to_ask_for(const struct conn_input *input)
{
    size_t len = input_len(input);
    size_t missing = FRAME_HEADER_BYTES - min_u64(len, FRAME_HEADER_BYTES);
    if (missing == 0) /* consume() has decoded the header. */
        missing = FRAME_HEADER_BYTES + input->header.body_bytes - len;
    DS_ASSERT(missing > 0);
    size_t wanted = input->fds_are_bound ? missing : max_u64(missing, INPUT_BYTES);
    return min_u64(wanted, input->capacity - input->end);
}

/* Of what was asked for, `got` has come; true if there may be more. Encrypted bytes come by
 * records, so less says nothing. */
static bool
may_have_more(const struct conn *conn, size_t got, size_t bytes)
{
    return got == bytes || conn->encryption != NULL;
}

/* One receive of payload; true if the socket may hold more. */
static bool
receive_payload(struct conn *conn, size_t *turn_left)
{
    struct conn_input *input = &conn->input;
    uint8_t swallowed[SWALLOW_BYTES];
    bool is_wanted = input->payload != NULL;
    size_t bytes = (size_t)min_u64(input->payload_left,
                                   is_wanted ? RECEIVE_BYTES_MAX : SWALLOW_BYTES);
    size_t got = conn_read(conn, is_wanted ? input->payload : swallowed, bytes);
    if (got == 0)
        return false;
    input->payload_left -= got;
    if (is_wanted)
        input->payload += got;
    if (input->payload_left == 0)
        (void)consume(conn);
    *turn_left -= min_u64(*turn_left, got);
    return may_have_more(conn, got, bytes);
}

/* One receive of headers and bodies; true if the socket may hold more. */
static bool
receive_frames(struct conn *conn, size_t *turn_left)
{
    struct conn_input *input = &conn->input;
    tidy(input);
    if (!make_room(input)) {
        conn_close(conn, "out of memory for a message");
        return false;
    }
    size_t bytes = bytes_to_ask_for(input);
    size_t got = conn_read(conn, input->data + input->end, bytes);
    if (got == 0)
        return false;
    input->end += got;
    size_t steps = consume(conn);
    *turn_left -= min_u64(*turn_left, got + steps * FRAME_COST_BYTES);
    return may_have_more(conn, got, bytes);
}

/* Reads until the socket is empty or the turn is over: a read that was not filled says
 * the former without another call, and uv tells about the rest in the next turn. Not of
 * what was received already, which is little. */
static void
receive(struct conn *conn)
{
    size_t turn_left = TURN_BYTES_MAX;
    bool more = true;
    while (more && !conn->closing && (turn_left > 0 || conn_has_received(conn))) {
        if (conn->input.in_payload)
            more = receive_payload(conn, &turn_left);
        else
            more = receive_frames(conn, &turn_left);
    }
}
