/* Between a connection and its socket: nothing, or encryption. */
#include "net/conn_internal.h"

#include "base/check.h"
#include "base/slice.h"
#include "os/sockets.h"

#include <string.h>

enum {
    TURN_BYTES_MAX = 1 << 20
}; /* Encrypted before other connections have their turn. */

/* The peer waits for this turn: nothing of either end may be under way, or it would be
 * taken for what it is not. */
void
conn_encrypt(struct conn *conn, enum auth_end us)
{
    DS_ASSERT(conn->encryption == NULL);
    DS_ASSERT(conn->auth.key != NULL);
    if (conn->closing)
        return;
    if (conn->input.end > conn->input.start || !list_is_empty(&conn->queue)) {
        conn_close(conn, "the peer went on before its connection was encrypted");
        return;
    }
    conn->encryption = encryption_create(conn->auth.key, &conn->auth.opening, us);
    if (conn->encryption == NULL)
        conn_close(conn, "out of memory to encrypt a connection");
}

/* ---- Sending ---- */

/* False: the socket is broken. */
static bool
send_record(struct conn *conn, struct ds_error *err)
{
    struct encryptor *encryptor = &conn->encryption->out;
    struct ds_slice unsent = encryptor_unsent(encryptor);
    struct iovec part = {.iov_base = (void *)(uintptr_t)unsent.data,
                         .iov_len = unsent.len};
    if (unsent.len == 0)
        return true;
    ssize_t done = socket_send(conn->fd, &part, 1, NULL, 0, err);
    if (done > 0)
        encryptor_sent(encryptor, (size_t)done);
    return done >= 0;
}

static ssize_t
write_encrypted(struct conn *conn, const struct iovec *parts, int part_count,
                struct ds_error *err)
{
    struct ds_slice slices[CONN_PARTS_MAX];
    DS_ASSERT(part_count <= CONN_PARTS_MAX);
    for (int i = 0; i < part_count; i++)
        slices[i] = slice(parts[i].iov_base, parts[i].iov_len);
    size_t taken = 0, step;
    do {
        if (!send_record(conn, err))
            return -1;
        if (conn_has_unsent(conn))
            break;
        step =
            encryptor_fill(&conn->encryption->out, slices, (size_t)part_count, taken);
        taken += step;
    } while (step > 0 && taken < TURN_BYTES_MAX);
    return (ssize_t)taken;
}

ssize_t
conn_write(struct conn *conn, const struct iovec *parts, int part_count, const int *fds,
           size_t fd_count, struct ds_error *err)
{
    if (conn->encryption == NULL)
        return socket_send(conn->fd, parts, part_count, fds, fd_count, err);
    DS_ASSERT(fd_count == 0);
    return write_encrypted(conn, parts, part_count, err);
}

bool
conn_has_unsent(const struct conn *conn)
{
    return conn->encryption != NULL && encryptor_unsent(&conn->encryption->out).len > 0;
}

/* ---- Receiving ---- */

static bool
is_between_messages(const struct conn *conn)
{
    return conn->input.end == conn->input.start &&
           (conn->encryption == NULL || decryptor_is_empty(&conn->encryption->in));
}

/* They belong to the frame that begins in this receive; there is none in a payload, and
 * encrypted bytes have no descriptors. */
static bool
keep_fds(struct conn *conn, const int *fds, size_t count)
{
    struct conn_input *input = &conn->input;
    bool wanted =
        input->fd_count == 0 && !input->in_payload && conn->encryption == NULL;
    for (size_t i = 0; i < input->fd_count; i++)
        socket_close(input->fds[i]);
    memcpy(input->fds, fds, count * sizeof *fds);
    input->fd_count = count;
    if (!wanted)
        conn_close(conn, "the peer sent descriptors in the middle of a message");
    return wanted;
}

/* One recvmsg(); as conn_read(). */
static size_t
receive(struct conn *conn, void *at, size_t bytes)
{
    struct ds_error err = {0};
    bool eof;
    int fds[CONN_FDS_MAX];
    size_t fd_count;
    ssize_t got =
        socket_receive(conn->fd, at, bytes, &eof, fds, CONN_FDS_MAX, &fd_count, &err);
    if (got < 0) {
        conn_close(conn, err.message);
        return 0;
    }
    if (eof) {
        bool in_order = is_between_messages(conn);
        conn_close(conn,
                   in_order ? NULL : "the peer closed in the middle of a message");
        return 0;
    }
    if (fd_count > 0 && !keep_fds(conn, fds, fd_count))
        return 0;
    return (size_t)got;
}

static size_t
read_encrypted(struct conn *conn, void *at, size_t bytes)
{
    struct decryptor *decryptor = &conn->encryption->in;
    for (;;) {
        size_t got, room_bytes;
        if (!decryptor_read(decryptor, at, bytes, &got)) {
            conn_close(conn, "encrypted bytes were damaged, or are not the peer's");
            return 0;
        }
        if (got > 0)
            return got;
        void *room = decryptor_room(decryptor, &room_bytes);
        got = receive(conn, room, room_bytes);
        if (got == 0)
            return 0;
        decryptor_received(decryptor, got);
    }
}

size_t
conn_read(struct conn *conn, void *at, size_t bytes)
{
    return conn->encryption == NULL ? receive(conn, at, bytes)
                                    : read_encrypted(conn, at, bytes);
}

bool
conn_has_received(const struct conn *conn)
{
    return conn->encryption != NULL && decryptor_has_record(&conn->encryption->in);
}
