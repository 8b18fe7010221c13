#include "client/channel.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/sockets.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    INPUT_BYTES_MIN = 4096,
    INPUT_BYTES_KEPT = 256 << 10, /* More than this is given back after use. */
    SWALLOW_BYTES = 64 << 10,
    PARTS_MAX = 3, /* Header, body, payload. */
};

void
channel_close_fds(struct channel *channel)
{
    for (size_t i = 0; i < channel->fd_count; i++)
        socket_close(channel->fds[i]);
    channel->fd_count = 0;
}

enum ds_status
channel_create(int fd, struct channel **out, struct ds_error *err)
{
    struct channel *channel = calloc(1, sizeof *channel);
    if (channel == NULL) {
        socket_close(fd);
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a connection");
    }
    list_init(&channel->link);
    channel->fd = fd;
    *out = channel;
    return DS_OK;
}

void
channel_destroy(struct channel *channel)
{
    if (channel == NULL)
        return;
    DS_ASSERT(channel->mapping == NULL);
    channel_close_fds(channel);
    socket_close(channel->fd);
    encryption_destroy(channel->encryption);
    free(channel->input);
    free(channel);
}

enum ds_status
channel_connect_tcp(const char *host, uint16_t port, const struct wait *wait,
                    struct channel **out, struct ds_error *err)
{
    int fd;
    enum ds_status status = socket_connect_tcp(host, port, &fd, err);
    if (status != DS_OK)
        return status;
    status = wait_socket(wait, fd, POLLOUT);
    struct ds_error reason = {0};
    if (status == DS_OK && socket_connect_result(fd, &reason) != DS_OK)
        status = ds_fail(err, DS_IO, "%s", reason.message);
    if (status != DS_OK) {
        socket_close(fd);
        return status;
    }
    return channel_create(fd, out, err);
}

enum ds_status
channel_connect_unix(const char *path, struct channel **out, struct ds_error *err)
{
    int fd;
    enum ds_status status = socket_connect_unix(path, &fd, err);
    return status == DS_OK ? channel_create(fd, out, err) : status;
}

enum ds_status
channel_encrypt(struct channel *channel, const struct auth_key *key,
                const struct auth_opening *opening, struct ds_error *err)
{
    DS_ASSERT(channel->encryption == NULL);
    DS_ASSERT(!channel->owed);
    channel->encryption = encryption_create(key, opening, AUTH_CONNECTED);
    if (channel->encryption == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory to encrypt a connection");
    channel->encrypts_in = getpid();
    return DS_OK;
}

/* ---- Sending ---- */

static void
reset_for(struct channel *channel, const struct outgoing *message)
{
    DS_ASSERT(!channel->owed);
    channel->request = (struct frame_header){
        .type = message->type,
        .sequence = message->sequence,
        .body_bytes = (uint32_t)message->body.len,
        .payload_bytes = message->payload.len,
    };
    channel->touched = false;
    channel->input_len = 0;
    channel->payload_done = 0;
    channel_close_fds(channel);
    if (channel->input_capacity > INPUT_BYTES_KEPT) {
        free(channel->input);
        channel->input = NULL;
        channel->input_capacity = 0;
    }
}

/* Drops `done` bytes from the front of the parts. */
static void
advance_parts(struct iovec **parts, int *count, size_t done)
{
    while (*count > 0 && done >= (*parts)->iov_len) {
        done -= (*parts)->iov_len;
        (*parts)++;
        (*count)--;
    }
    if (*count == 0)
        return;
    (*parts)->iov_base = (char *)(*parts)->iov_base + done;
    (*parts)->iov_len -= done;
}

/* sendmsg() only reads the bytes; struct iovec lacks the const. */
static struct iovec
part_of(const void *data, size_t len)
{
    return (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = len};
}

static bool
has_unsent(const struct channel *channel)
{
    return channel->encryption != NULL &&
           encryptor_unsent(&channel->encryption->out).len > 0;
}

/* Negative: the connection is broken. */
static ssize_t
send_record(struct channel *channel, struct ds_error *err)
{
    struct encryptor *encryptor = &channel->encryption->out;
    struct ds_slice unsent = encryptor_unsent(encryptor);
    struct iovec part = part_of(unsent.data, unsent.len);
    ssize_t done = socket_send(channel->fd, &part, 1, NULL, 0, err);
    if (done > 0)
        encryptor_sent(encryptor, (size_t)done);
    return done;
}

/* Makes one record of the parts, unless there is one to be sent still, and offers it to the
 * socket. *out_taken: how many of their bytes are in it. */
static ssize_t
send_encrypted(struct channel *channel, const struct iovec *parts, int count,
               size_t *out_taken, struct ds_error *err)
{
    struct ds_slice slices[PARTS_MAX];
    DS_ASSERT(count <= PARTS_MAX);
    if (channel->encrypts_in != getpid()) {
        (void)ds_fail(err, DS_IO, "this connection is the parent process's");
        return -1;
    }
    for (int i = 0; i < count; i++)
        slices[i] = slice(parts[i].iov_base, parts[i].iov_len);
    *out_taken = has_unsent(channel) ? 0
                                     : encryptor_fill(&channel->encryption->out, slices,
                                                      (size_t)count, 0);
    return send_record(channel, err);
}

/* *out_taken: bytes of the parts that need not be offered again. As socket_send(). */
static ssize_t
send_some(struct channel *channel, const struct iovec *parts, int count,
          size_t *out_taken, struct ds_error *err)
{
    if (channel->encryption != NULL)
        return send_encrypted(channel, parts, count, out_taken, err);
    ssize_t done = socket_send(channel->fd, parts, count, NULL, 0, err);
    *out_taken = done > 0 ? (size_t)done : 0;
    return done;
}

enum ds_status
channel_send(struct channel *channel, const struct outgoing *message,
             const struct wait *wait, struct ds_error *err)
{
    DS_ASSERT(message->body.len <= FRAME_BODY_BYTES_MAX);
    reset_for(channel, message);
    uint8_t header[FRAME_HEADER_BYTES];
    frame_encode(&channel->request, header);
    struct iovec all[PARTS_MAX] = {
        part_of(header, sizeof header),
        part_of(message->body.data, message->body.len),
        part_of(message->payload.data, message->payload.len),
    };
    struct iovec *parts = all;
    int count = PARTS_MAX;
    advance_parts(&parts, &count, 0);
    while (count > 0 || has_unsent(channel)) {
        size_t taken;
        ssize_t done = send_some(channel, parts, count, &taken, err);
        if (done < 0)
            return DS_IO;
        if (taken > 0)
            advance_parts(&parts, &count, taken);
        if (done > 0 || taken > 0)
            channel->touched = true;
        if (done > 0)
            continue;
        enum ds_status status = wait_socket(wait, channel->fd, POLLOUT);
        if (status != DS_OK)
            return status;
    }
    channel->owed = true;
    return DS_OK;
}

/* ---- Receiving ---- */

static bool
has_header(const struct channel *channel)
{
    return channel->input_len >= FRAME_HEADER_BYTES;
}

static size_t
message_bytes(const struct channel *channel)
{
    return FRAME_HEADER_BYTES + (size_t)channel->reply.body_bytes;
}

static bool
has_body(const struct channel *channel)
{
    return has_header(channel) && channel->input_len >= message_bytes(channel);
}

static enum ds_status
make_room(struct channel *channel, struct ds_error *err)
{
    size_t wanted = INPUT_BYTES_MIN;
    if (has_header(channel))
        wanted = max_u64(wanted, message_bytes(channel));
    if (channel->input_capacity >= wanted)
        return DS_OK;
    uint8_t *input = realloc(channel->input, wanted);
    if (input == NULL)
        return ds_fail(err, DS_IO, "out of memory for a reply of %zu bytes", wanted);
    channel->input = input;
    channel->input_capacity = wanted;
    return DS_OK;
}

/* One receive. *out_got: bytes, 0 when there are none now. */
static enum ds_status
receive_socket(struct channel *channel, void *data, size_t bytes, size_t *out_got,
               struct ds_error *err)
{
    bool eof = false;
    int fds[CHANNEL_FDS_MAX];
    size_t fd_count = 0;
    ssize_t got = socket_receive(channel->fd, data, bytes, &eof, fds, CHANNEL_FDS_MAX,
                                 &fd_count, err);
    for (size_t i = 0; i < fd_count; i++) {
        if (channel->fd_count < CHANNEL_FDS_MAX)
            channel->fds[channel->fd_count++] = fds[i];
        else
            socket_close(fds[i]);
    }
    if (got < 0)
        return DS_IO;
    if (eof)
        return ds_fail(err, DS_IO, "the other side closed the connection");
    *out_got = (size_t)got;
    return DS_OK;
}

static enum ds_status
receive_encrypted(struct channel *channel, void *data, size_t bytes, size_t *out_got,
                  struct ds_error *err)
{
    struct decryptor *decryptor = &channel->encryption->in;
    for (;;) {
        size_t room_bytes, arrived = 0;
        if (!decryptor_read(decryptor, data, bytes, out_got))
            return ds_fail(err, DS_IO,
                           "encrypted bytes were damaged, or are not the other side's");
        if (*out_got > 0)
            return DS_OK;
        void *room = decryptor_room(decryptor, &room_bytes);
        enum ds_status status =
            receive_socket(channel, room, room_bytes, &arrived, err);
        if (status != DS_OK || arrived == 0)
            return status;
        decryptor_received(decryptor, arrived);
    }
}

/* *out_got: bytes, 0 when there are none now. */
static enum ds_status
receive_into(struct channel *channel, void *data, size_t bytes, size_t *out_got,
             struct ds_error *err)
{
    return channel->encryption == NULL
               ? receive_socket(channel, data, bytes, out_got, err)
               : receive_encrypted(channel, data, bytes, out_got, err);
}

static enum ds_status
check_header(struct channel *channel, struct ds_error *err)
{
    if (!frame_decode(channel->input, &channel->reply))
        return ds_fail(err, DS_IO, "the other side does not speak our protocol");
    if (channel->reply.type != channel->request.type ||
        channel->reply.sequence != channel->request.sequence)
        return ds_fail(err, DS_IO, "a reply to another request arrived");
    return DS_OK;
}

/* One step towards header and body. *out_blocked: nothing there now. */
static enum ds_status
receive_step(struct channel *channel, bool *out_blocked, struct ds_error *err)
{
    enum ds_status status = make_room(channel, err);
    if (status != DS_OK)
        return status;
    bool had_header = has_header(channel);
    size_t got = 0;
    status = receive_into(channel, channel->input + channel->input_len,
                          channel->input_capacity - channel->input_len, &got, err);
    if (status != DS_OK)
        return status;
    *out_blocked = got == 0;
    channel->input_len += got;
    if (!had_header && has_header(channel))
        return check_header(channel, err);
    return DS_OK;
}

static enum ds_status
check_excess(struct channel *channel, struct ds_error *err)
{
    size_t excess = channel->input_len - message_bytes(channel);
    if (excess > channel->reply.payload_bytes)
        return ds_fail(err, DS_IO, "the other side sent more than its reply");
    channel->owed = channel_payload_left(channel) > 0;
    return DS_OK;
}

enum ds_status
channel_receive(struct channel *channel, const struct wait *wait, struct ds_error *err)
{
    DS_ASSERT(channel->owed);
    while (!has_body(channel)) {
        bool blocked;
        enum ds_status status = receive_step(channel, &blocked, err);
        if (status == DS_OK && blocked)
            status = wait_reply(wait, channel->fd, &channel->spin);
        if (status != DS_OK)
            return status;
    }
    return check_excess(channel, err);
}

struct ds_slice
channel_body(const struct channel *channel)
{
    DS_ASSERT(has_body(channel));
    return slice(channel->input + FRAME_HEADER_BYTES, channel->reply.body_bytes);
}

enum ds_status
channel_fail_reply(const struct channel *channel, struct ds_error *err)
{
    struct ds_slice body = channel_body(channel);
    return ds_fail(err, channel->reply.status, "%.*s", (int)body.len,
                   body.len == 0 ? "" : (const char *)body.data);
}

uint64_t
channel_payload_left(const struct channel *channel)
{
    DS_ASSERT(has_body(channel));
    return channel->reply.payload_bytes - channel->payload_done;
}

/* Up to `bytes` of the payload: first what came along with the body. */
static enum ds_status
payload_step(struct channel *channel, void *data, size_t bytes, size_t *out_got,
             struct ds_error *err)
{
    uint64_t ahead = channel->input_len - message_bytes(channel);
    enum ds_status status = DS_OK;
    if (channel->payload_done < ahead) {
        size_t from = message_bytes(channel) + (size_t)channel->payload_done;
        *out_got = min_u64(bytes, ahead - channel->payload_done);
        memcpy(data, channel->input + from, *out_got);
    } else {
        status = receive_into(channel, data, bytes, out_got, err);
    }
    if (status == DS_OK)
        channel->payload_done += *out_got;
    channel->owed = channel_payload_left(channel) > 0;
    return status;
}

enum ds_status
channel_receive_payload(struct channel *channel, void *data, uint64_t bytes,
                        const struct wait *wait, struct ds_error *err)
{
    DS_ASSERT(bytes <= channel_payload_left(channel));
    uint8_t *at = data;
    while (bytes > 0) {
        size_t got = 0;
        enum ds_status status = payload_step(channel, at, bytes, &got, err);
        if (status == DS_OK && got == 0)
            status = wait_reply(wait, channel->fd, &channel->spin);
        if (status != DS_OK)
            return status;
        at += got;
        bytes -= got;
        if (PLANTED(CUT_PAYLOAD) && bytes < 8)
            return DS_OK;
    }
    return DS_OK;
}

enum ds_status
channel_call(struct channel *channel, const struct outgoing *message,
             const struct wait *wait, struct ds_error *err)
{
    enum ds_status status = channel_send(channel, message, wait, err);
    return status == DS_OK ? channel_receive(channel, wait, err) : status;
}

/* ---- Late replies ---- */

static enum ds_status
drain_body(struct channel *channel, bool *out_blocked)
{
    *out_blocked = false;
    while (!has_body(channel) && !*out_blocked) {
        enum ds_status status = receive_step(channel, out_blocked, NULL);
        if (status != DS_OK)
            return status;
    }
    return *out_blocked ? DS_OK : check_excess(channel, NULL);
}

static enum ds_status
drain_payload(struct channel *channel, bool *out_blocked)
{
    uint8_t *waste = malloc(SWALLOW_BYTES);
    if (waste == NULL)
        return DS_IO;
    enum ds_status status = DS_OK;
    while (status == DS_OK && channel_payload_left(channel) > 0 && !*out_blocked) {
        size_t got = 0;
        size_t bytes = min_u64(SWALLOW_BYTES, channel_payload_left(channel));
        status = payload_step(channel, waste, bytes, &got, NULL);
        *out_blocked = got == 0;
    }
    free(waste);
    return status;
}

bool
channel_drain(struct channel *channel, bool *out_broken)
{
    DS_ASSERT(channel->owed);
    bool blocked;
    enum ds_status status = drain_body(channel, &blocked);
    if (status == DS_OK && !blocked && channel_payload_left(channel) > 0)
        status = drain_payload(channel, &blocked);
    *out_broken = status != DS_OK;
    return status == DS_OK && !blocked;
}

bool
channel_is_broken(struct channel *channel)
{
    struct pollfd watched = {.fd = channel->fd, .events = POLLIN};
    if (channel->encryption != NULL && !decryptor_is_empty(&channel->encryption->in))
        return true;
    return poll(&watched, 1, 0) != 0;
}

bool
channel_take_fds(struct channel *channel, size_t count_min, int out[CHANNEL_FDS_MAX])
{
    if (channel->fd_count < count_min)
        return false;
    for (size_t i = 0; i < CHANNEL_FDS_MAX; i++)
        out[i] = i < channel->fd_count ? channel->fds[i] : -1;
    channel->fd_count = 0;
    return true;
}
