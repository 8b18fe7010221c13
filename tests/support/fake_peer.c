#include "fake_peer.h"

#include "base/slice.h"
#include "os/sockets.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
    struct fake_peer *peer;
    size_t index;
    int fd;
};

static bool
read_all(int fd, void *data, size_t bytes)
{
    return bytes == 0 || recv(fd, data, bytes, MSG_WAITALL) == (ssize_t)bytes;
}

static bool
send_all(int fd, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t done = send(fd, at, bytes, MSG_NOSIGNAL);
        if (done <= 0)
            return false;
        at += done;
        bytes -= (size_t)done;
    }
    return true;
}

bool
fake_reply(int fd, const struct frame_header *request, enum ds_status status,
           struct ds_slice body, struct ds_slice payload)
{
    struct frame_header header = {.type = request->type,
                                  .status = status,
                                  .sequence = request->sequence,
                                  .body_bytes = (uint32_t)body.len,
                                  .payload_bytes = payload.len};
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_encode(&header, bytes);
    return send_all(fd, bytes, sizeof bytes) && send_all(fd, body.data, body.len) &&
           send_all(fd, payload.data, payload.len);
}

static bool
serve_one(struct fake_peer *peer, int fd)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header header;
    if (!read_all(fd, bytes, sizeof bytes) || !frame_decode(bytes, &header))
        return false;
    char *data = malloc(header.body_bytes + header.payload_bytes + 1);
    bool goes_on = read_all(fd, data, header.body_bytes) &&
                   read_all(fd, data + header.body_bytes, header.payload_bytes) &&
                   peer->handle(peer, fd, &header, slice(data, header.body_bytes),
                                slice(data + header.body_bytes, header.payload_bytes));
    free(data);
    return goes_on;
}

static void *
serve(void *arg)
{
    struct connection *connection = arg;
    struct fake_peer *peer = connection->peer;
    while (serve_one(peer, connection->fd)) {
    }
    pthread_mutex_lock(&peer->lock);
    close(connection->fd);
    peer->fds[connection->index] = -1;
    pthread_mutex_unlock(&peer->lock);
    free(connection);
    return NULL;
}

static void *
accept_all(void *arg)
{
    struct fake_peer *peer = arg;
    for (;;) {
        int fd = accept4(peer->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return NULL;
        struct connection *connection = calloc(1, sizeof *connection);
        pthread_mutex_lock(&peer->lock);
        size_t index = peer->accepted++;
        *connection = (struct connection){.peer = peer, .index = index, .fd = fd};
        peer->fds[index] = fd;
        pthread_create(&peer->threads[index], NULL, serve, connection);
        bool full = peer->accepted == FAKE_PEER_CONNECTIONS;
        pthread_mutex_unlock(&peer->lock);
        if (full)
            return NULL;
    }
}

static void
start(struct fake_peer *peer, fake_handler_fn handle)
{
    pthread_mutex_init(&peer->lock, NULL);
    peer->handle = handle;
    for (size_t i = 0; i < FAKE_PEER_CONNECTIONS; i++)
        peer->fds[i] = -1;
    CHECK(pthread_create(&peer->acceptor, NULL, accept_all, peer) == 0);
}

/* The sockets of src/os do not block; these have to. */
static void
make_blocking(int fd)
{
    CHECK(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) == 0);
}

void
fake_peer_start_tcp(struct fake_peer *peer, fake_handler_fn handle)
{
    *peer = (struct fake_peer){0};
    CHECK_OK(socket_listen_tcp("127.0.0.1", 0, 8, &peer->listener, &peer->port, NULL));
    make_blocking(peer->listener);
    start(peer, handle);
}

void
fake_peer_start_unix(struct fake_peer *peer, fake_handler_fn handle)
{
    *peer = (struct fake_peer){0};
    test_make_folder(peer->folder);
    snprintf(peer->address, sizeof peer->address, "unix:%s/socket", peer->folder);
    CHECK_OK(socket_listen_unix(peer->address + 5, 8, &peer->listener, NULL));
    make_blocking(peer->listener);
    start(peer, handle);
}

void
fake_peer_drop_connections(struct fake_peer *peer)
{
    pthread_mutex_lock(&peer->lock);
    for (size_t i = 0; i < peer->accepted; i++)
        if (peer->fds[i] >= 0)
            shutdown(peer->fds[i], SHUT_RDWR);
    pthread_mutex_unlock(&peer->lock);
}

size_t
fake_peer_accepted(struct fake_peer *peer)
{
    pthread_mutex_lock(&peer->lock);
    size_t accepted = peer->accepted;
    pthread_mutex_unlock(&peer->lock);
    return accepted;
}

void
fake_peer_stop(struct fake_peer *peer)
{
    shutdown(peer->listener, SHUT_RDWR);
    pthread_join(peer->acceptor, NULL);
    close(peer->listener);
    fake_peer_drop_connections(peer);
    for (size_t i = 0; i < peer->accepted; i++)
        pthread_join(peer->threads[i], NULL);
    pthread_mutex_destroy(&peer->lock);
    if (peer->folder[0] != '\0')
        test_remove_folder(peer->folder);
}
