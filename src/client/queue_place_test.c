/* A queue whose controller goes on at another address, which the worker knows. */
#include "client/testing_each.h"

#include "client/channel.h"
#include "fake_peer.h"
#include "os/clock.h"
#include "store/layout.h"
#include "wire/journals.h"

enum { TIMEOUT_MS = 5000 };

/* ---- Controllers ---- */

static bool
answer(struct fake_peer *peer, int fd, const struct frame_header *header,
       struct ds_slice body, struct ds_slice payload, const char *name)
{
    AUTO_WRITER(writer);
    struct queue_place place = {.name = slice_of_text(name),
                                .address = slice_of_text(peer->address)};
    if (header->type == MESSAGE_HELLO) {
        encode_queue_place(&writer, &place);
        body = slice(writer.data, writer.len);
        return fake_reply(fd, header, DS_OK, body, (struct ds_slice){0});
    }
    return header->type == MESSAGE_QUEUE_CALL &&
           fake_reply(fd, header, DS_OK, body, payload);
}

static bool
train(struct fake_peer *peer, int fd, const struct frame_header *header,
      struct ds_slice body, struct ds_slice payload)
{
    return answer(peer, fd, header, body, payload, "train");
}

static bool
eval(struct fake_peer *peer, int fd, const struct frame_header *header,
     struct ds_slice body, struct ds_slice payload)
{
    return answer(peer, fd, header, body, payload, "eval");
}

static void
exchange(struct channel *channel, enum message_type type, const struct writer *body)
{
    struct wait wait = {.deadline_ms = clock_monotonic_ms() + TIMEOUT_MS};
    struct outgoing message = {.type = type, .body = slice(body->data, body->len)};
    CHECK_OK(channel_call(channel, &message, &wait, NULL));
    CHECK_OK(channel->reply.status);
}

/* The controller's connection to the worker; `tcp_address` may be "". */
static struct channel *
tell_worker(const char *name, const char *address, const char *tcp_address)
{
    struct wait wait = {.deadline_ms = clock_monotonic_ms() + TIMEOUT_MS};
    struct channel *channel = NULL;
    struct hello hello = {.layout_version = LAYOUT_VERSION,
                          .protocol_version = PROTOCOL_VERSION};
    struct queue_serve serve = {.place = {.name = slice_of_text(name),
                                          .address = slice_of_text(address),
                                          .tcp_address = slice_of_text(tcp_address)}};
    AUTO_WRITER(greeting);
    AUTO_WRITER(where);
    encode_hello(&greeting, &hello, NULL, 0);
    encode_queue_serve(&where, &serve);
    CHECK_OK(channel_connect_tcp("127.0.0.1", worker.port, &wait, &channel, NULL));
    exchange(channel, MESSAGE_HELLO, &greeting);
    exchange(channel, MESSAGE_QUEUE_SERVE, &where);
    return channel;
}

/* ---- Clients ---- */

static struct ds_queue *
open_queue(const struct fake_peer *peer, const char *worker_host)
{
    struct ds_queue_options options = {.struct_bytes = sizeof options,
                                       .address = peer->address,
                                       .worker_host = worker_host,
                                       .worker_port = worker.port};
    struct ds_queue *queue = NULL;
    CHECK_OK(ds_queue_open(&options, &queue, NULL));
    return queue;
}

static enum ds_status
call(struct ds_queue *queue, struct ds_error *err)
{
    void *reply = NULL;
    size_t bytes = 0;
    enum ds_status status =
        ds_queue_call(queue, slice_of_text("one"), TIMEOUT_MS, &reply, &bytes, err);
    free(reply);
    return status;
}

TEST(a_queue_that_moved_is_followed)
{
    struct fake_peer first, second;
    fake_peer_start_unix(&first, train);
    fake_peer_start_unix(&second, train);
    struct channel *link = tell_worker("train", second.address, "");
    struct ds_queue *queue = open_queue(&first, "127.0.0.1");
    CHECK_OK(call(queue, NULL));
    fake_peer_stop(&first);
    CHECK_OK(call(queue, NULL));
    CHECK_INT(fake_peer_accepted(&second), 1);
    CHECK_OK(call(queue, NULL));
    CHECK_INT(fake_peer_accepted(&second), 1);
    ds_queue_close(queue);
    channel_destroy(link);
    fake_peer_stop(&second);
}

static void
check_follows_to(struct fake_peer *second, const char *address, const char *tcp_address)
{
    struct fake_peer first;
    fake_peer_start_unix(&first, train);
    struct channel *link = tell_worker("train", address, tcp_address);
    struct ds_queue *queue = open_queue(&first, "127.0.0.1");
    fake_peer_stop(&first);
    CHECK_OK(call(queue, NULL));
    CHECK_INT(fake_peer_accepted(second), 1);
    ds_queue_close(queue);
    channel_destroy(link);
}

/* The path is another node's, or not visible to us. */
TEST(a_queue_whose_socket_is_not_here_is_reached_by_tcp)
{
    struct fake_peer second;
    char address[32];
    fake_peer_start_tcp(&second, train);
    snprintf(address, sizeof address, "127.0.0.1:%u", second.port);
    check_follows_to(&second, "unix:/nowhere/at/all", address);
    fake_peer_stop(&second);
}

TEST(a_queue_whose_socket_is_here_is_reached_by_it)
{
    struct fake_peer second;
    fake_peer_start_unix(&second, train);
    check_follows_to(&second, second.address, "127.0.0.1:1");
    fake_peer_stop(&second);
}

static void
check_is_gone(struct ds_queue *queue, const struct fake_peer *peer, const char *why)
{
    struct ds_error err = {0};
    CHECK_STATUS(call(queue, &err), DS_IO);
    CHECK_CONTAINS(err.message, peer->address);
    CHECK_CONTAINS(err.message, why);
}

TEST(a_queue_that_the_worker_does_not_know_is_gone)
{
    struct fake_peer first, second;
    fake_peer_start_unix(&first, train);
    fake_peer_start_unix(&second, eval);
    struct channel *link = tell_worker("eval", second.address, "");
    struct ds_queue *asks = open_queue(&first, "127.0.0.1");
    struct ds_queue *asks_nobody = open_queue(&first, NULL);
    fake_peer_stop(&first);
    check_is_gone(asks, &first, "is gone");
    check_is_gone(asks_nobody, &first, "is gone");
    CHECK_INT(fake_peer_accepted(&second), 0);
    ds_queue_close(asks);
    ds_queue_close(asks_nobody);
    channel_destroy(link);
    fake_peer_stop(&second);
}

/* What was asked of the old queue must not be done to the new one. */
TEST(another_queue_at_the_address_is_not_taken_for_ours)
{
    struct fake_peer peer;
    fake_peer_start_unix(&peer, train);
    struct ds_queue *queue = open_queue(&peer, "127.0.0.1");
    CHECK_OK(call(queue, NULL));
    peer.handle = eval;
    fake_peer_drop_connections(&peer);
    check_is_gone(queue, &peer, "another queue is there");
    ds_queue_close(queue);
    fake_peer_stop(&peer);
}

TEST_MAIN(EACH(a_queue_that_moved_is_followed),
          EACH(a_queue_whose_socket_is_not_here_is_reached_by_tcp),
          EACH(a_queue_whose_socket_is_here_is_reached_by_it),
          EACH(a_queue_that_the_worker_does_not_know_is_gone),
          EACH(another_queue_at_the_address_is_not_taken_for_ours))
