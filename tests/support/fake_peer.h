/* The other side of a framed connection, scripted by a test: for what a real worker or
 * controller does not do on demand, such as speaking another version or falling silent.
 */
#ifndef TESTS_SUPPORT_FAKE_PEER_H
#define TESTS_SUPPORT_FAKE_PEER_H

#include "test.h"

#include "wire/message.h"

#include <pthread.h>

enum { FAKE_PEER_CONNECTIONS = 8 };

struct fake_peer;

/* One request with all its bytes; runs in the connection's own thread. False closes the
 * connection. */
typedef bool (*fake_handler_fn)(struct fake_peer *peer, int fd,
                                const struct frame_header *header, struct ds_slice body,
                                struct ds_slice payload);

struct fake_peer {
    fake_handler_fn handle;
    int listener;
    uint16_t port;
    char folder[TEST_FOLDER_BYTES]; /* Of a Unix socket. */
    char address[TEST_FOLDER_BYTES + 16];
    pthread_t acceptor;
    pthread_mutex_t lock;
    pthread_t
        threads[FAKE_PEER_CONNECTIONS]; /* Guarded by `lock`, with what follows. */
    int fds[FAKE_PEER_CONNECTIONS];     /* -1: closed. */
    size_t accepted;
};

void fake_peer_start_tcp(struct fake_peer *peer, fake_handler_fn handle);
void fake_peer_start_unix(struct fake_peer *peer, fake_handler_fn handle);
void fake_peer_stop(struct fake_peer *peer);

/* Ends every connection, but goes on listening. */
void fake_peer_drop_connections(struct fake_peer *peer);

/* Connections that were ever accepted. */
size_t fake_peer_accepted(struct fake_peer *peer);

/* Answers a request. */
bool fake_reply(int fd, const struct frame_header *request, enum ds_status status,
                struct ds_slice body, struct ds_slice payload);

#endif
