/* Sending. */
#include "net/conn_testing.h"

#include "base/slice.h"

#include <fcntl.h>

enum { MIB = 1 << 20 };

static void
note_sent(void *arg)
{
    (void)arg;
    payloads_sent++;
}

static void
send_body(struct side *side, uint32_t sequence, struct ds_slice body)
{
    struct frame_header header = header_of(MESSAGE_STATS, sequence, 0, 0);
    conn_send(side->conn, &header, body, NULL, 0, NULL, 0);
}

static void
send_payload(struct side *side, const void *data, uint64_t bytes)
{
    struct frame_header header = header_of(MESSAGE_FETCH, 1, 0, 0);
    struct conn_payload payload = {data, bytes, note_sent, NULL};
    conn_send(side->conn, &header, (struct ds_slice){0}, NULL, 0, &payload, 1);
}

/* Larger than any socket buffer; its bytes differ from place to place. */
static uint8_t *
large_block(size_t bytes)
{
    uint8_t *data = malloc(bytes);
    CHECK(data != NULL);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    return data;
}

static void
check_read(struct side *side, const uint8_t *expected, size_t bytes)
{
    uint8_t *got = malloc(bytes);
    CHECK(got != NULL);
    peer_read(side, got, bytes);
    CHECK(memcmp(got, expected, bytes) == 0);
    free(got);
}

/* The loop does not turn in this test: what is read was written inside the call. */
TEST(reply_is_written_at_once)
{
    struct side side;
    uint8_t bytes[64];
    struct frame_header request = header_of(MESSAGE_LOOKUP, 42, 9, 0), reply = {0};
    loop_begin();
    side_open(&side);
    conn_reply(side.conn, &request, slice("abc", 3));
    CHECK_INT(recv(side.peer, bytes, sizeof bytes, MSG_DONTWAIT), 27);
    CHECK(frame_decode(bytes, &reply));
    CHECK_INT(reply.type, MESSAGE_LOOKUP);
    CHECK_INT(reply.sequence, 42);
    CHECK_INT(reply.status, DS_OK);
    CHECK_INT(reply.body_bytes, 3);
    CHECK_INT(reply.payload_bytes, 0);
    CHECK(memcmp(bytes + FRAME_HEADER_BYTES, "abc", 3) == 0);
    CHECK(!side.conn->is_polling_writable);
    side_close(&side);
    loop_end();
}

TEST(error_reply_carries_status_and_text)
{
    struct side side;
    char text[64] = {0};
    struct ds_error err = {.status = DS_NOT_FOUND, .message = "no such key"};
    struct frame_header request = header_of(MESSAGE_LOOKUP, 43, 0, 0);
    loop_begin();
    side_open(&side);
    conn_reply_error(side.conn, &request, &err);
    struct frame_header reply = peer_read_header(&side);
    CHECK_INT(reply.status, DS_NOT_FOUND);
    CHECK_INT(reply.sequence, 43);
    peer_read(&side, text, reply.body_bytes);
    CHECK_TEXT(text, "no such key");
    side_close(&side);
    loop_end();
}

/* Bodies and payloads beyond the socket's buffer: all arrive, in order, and writability
 * is polled only while something waits. */
TEST(what_does_not_fit_is_sent_later_in_order)
{
    struct side side;
    uint8_t *block = large_block(4 * MIB);
    loop_begin();
    side_open(&side);
    send_body(&side, 1, slice(block, 3 * MIB));
    send_payload(&side, block, 4 * MIB);
    send_body(&side, 3, slice("end", 3));
    CHECK(side.conn->is_polling_writable);
    CHECK_INT(payloads_sent, 0);

    CHECK_INT(peer_read_header(&side).sequence, 1);
    check_read(&side, block, 3 * MIB);
    CHECK_INT(peer_read_header(&side).payload_bytes, 4 * MIB);
    check_read(&side, block, 4 * MIB);
    CHECK_INT(peer_read_header(&side).sequence, 3);
    check_read(&side, (const uint8_t *)"end", 3);
    RUN_UNTIL(!side.conn->is_polling_writable);
    CHECK_INT(payloads_sent, 1);
    CHECK_INT(side.conn->queued_bytes, 0);
    side_close(&side);
    loop_end();
    free(block);
}

/* More parts than one sendmsg() takes, some of them empty. */
TEST(payload_of_many_parts_arrives_in_order)
{
    enum { PARTS = 1000 };
    struct side side;
    static struct conn_payload parts[PARTS];
    uint8_t *block = large_block(PARTS * 100);
    size_t bytes = 0;
    for (size_t i = 0; i < PARTS; i++) {
        parts[i] = (struct conn_payload){block + bytes, i % 100, note_sent, NULL};
        bytes += i % 100;
    }
    loop_begin();
    side_open(&side);
    struct frame_header header = header_of(MESSAGE_FETCH, 1, 0, 0);
    conn_send(side.conn, &header, slice("body", 4), NULL, 0, parts, PARTS);
    struct frame_header got = peer_read_header(&side);
    CHECK_INT(got.body_bytes, 4);
    CHECK_INT(got.payload_bytes, bytes);
    check_read(&side, (const uint8_t *)"body", 4);
    check_read(&side, block, bytes);
    RUN_UNTIL(payloads_sent == PARTS);
    turn();
    CHECK_INT(payloads_sent, PARTS);
    side_close(&side);
    loop_end();
    free(block);
}

TEST(payloads_are_given_back_once_before_closing_is_told)
{
    struct side side;
    uint8_t *block = large_block(4 * MIB);
    loop_begin();
    side_open(&side);
    send_payload(&side, block, 4 * MIB);
    send_payload(&side, block, 10);
    CHECK_INT(payloads_sent, 0);
    conn_close(side.conn, NULL);
    send_payload(&side, block, 10); /* On a closing connection: given back at once. */
    CHECK_INT(payloads_sent, 1);
    RUN_UNTIL(side.closed == 1);
    CHECK_INT(side.sent_before_closed, 3);
    CHECK_INT(payloads_sent, 3);
    side_close(&side);
    loop_end();
    free(block);
}

TEST(payload_is_given_back_when_the_peer_is_gone)
{
    struct side side;
    loop_begin();
    side_open(&side);
    socket_close(side.peer);
    side.peer = -1;
    send_payload(&side, "x", 1);
    CHECK_INT(payloads_sent, 1);
    RUN_UNTIL(side.closed == 1);
    CHECK(side.has_reason);
    side_close(&side);
    loop_end();
}

TEST(peer_that_does_not_read_is_closed_at_the_limit)
{
    struct side side;
    uint8_t *block = large_block(MIB);
    size_t frames = 0;
    loop_begin();
    side_open(&side);
    while (!side.conn->closing) {
        send_body(&side, 1, slice(block, MIB));
        frames++;
        CHECK(frames < 70);
    }
    CHECK(frames >= 64);
    RUN_UNTIL(side.closed == 1);
    CHECK_CONTAINS(side.reason, "does not read");
    side_close(&side);
    loop_end();
    free(block);
}

/* A handler that answers each sent payload with another one. */
static struct side *chained;
static size_t chain_left;

static void
send_next(void *arg)
{
    payloads_sent++;
    if (chain_left == 0)
        return;
    chain_left--;
    struct frame_header header = header_of(MESSAGE_FETCH, (uint32_t)chain_left, 0, 0);
    struct conn_payload payload = {arg, MIB, send_next, arg};
    conn_send(chained->conn, &header, (struct ds_slice){0}, NULL, 0, &payload, 1);
}

TEST(sending_from_on_sent_keeps_the_stream_whole)
{
    struct side side;
    uint8_t *block = large_block(MIB);
    loop_begin();
    side_open(&side);
    chained = &side;
    chain_left = 6;
    send_next(block);
    send_next(block);
    for (int i = 0; i < 6; i++) {
        CHECK_INT(peer_read_header(&side).payload_bytes, MIB);
        check_read(&side, block, MIB);
    }
    RUN_UNTIL(payloads_sent == 8);
    side_close(&side);
    loop_end();
    free(block);
}

/* ---- Two connections ---- */

/* Makes `other` a connection on the far end of `side`. */
static void
join(struct side *side, struct side *other)
{
    struct ds_error err = {0};
    *other = (struct side){.peer = -1};
    int fd = side->peer;
    side->peer = -1;
    CHECK_OK(conn_create(&test_loop, fd, &noting, other, &other->conn, &err));
}

TEST(requests_and_replies_go_round)
{
    struct side client, server;
    loop_begin();
    side_open(&client);
    join(&client, &server);
    server.echo = true;
    for (uint32_t i = 1; i <= 2000; i++) {
        send_body(&client, i, slice(&i, sizeof i));
        RUN_UNTIL(client.frames == i);
        CHECK_INT(client.last.sequence, i);
        CHECK(memcmp(client.last_body, &i, sizeof i) == 0);
    }
    side_close(&client);
    side_close(&server);
    loop_end();
}

/* The socket is full, so the frames wait in the queue and would fit into one sendmsg();
 * the originals are closed meanwhile. Each pipe must get "!" from its own frame. */
TEST(queued_descriptors_stay_with_their_frame)
{
    struct side sender, receiver;
    uint8_t *block = large_block(MIB);
    int first[2], second[2];
    char text[8];
    CHECK(pipe2(first, O_CLOEXEC | O_NONBLOCK) == 0);
    CHECK(pipe2(second, O_CLOEXEC | O_NONBLOCK) == 0);
    loop_begin();
    side_open(&sender);
    struct frame_header claim = header_of(MESSAGE_FORK_CLAIM, 0, 0, 0);
    send_body(&sender, 1, slice(block, MIB));
    send_body(&sender, 2, slice("a", 1));
    conn_send(sender.conn, &claim, slice("b", 1), &first[1], 1, NULL, 0);
    send_body(&sender, 4, slice("c", 1));
    conn_send(sender.conn, &claim, slice("d", 1), &second[1], 1, NULL, 0);
    conn_send(sender.conn, &claim, slice("e", 1), NULL, 0, NULL, 0);
    close(first[1]);
    close(second[1]);
    join(&sender, &receiver);
    RUN_UNTIL(receiver.frames >= 3);
    if (receiver.frames == 3)
        CHECK_INT(receiver.fds_of_frame, 1);
    RUN_UNTIL(receiver.frames == 6);
    CHECK_INT(receiver.frame_with_fds, 5);
    CHECK_INT(receiver.fds_of_frame, 0);
    CHECK_INT(read(first[0], text, sizeof text), 1);
    CHECK_INT(read(second[0], text, sizeof text), 1);
    CHECK_INT(read(second[0], text, sizeof text), 0); /* No copy is left open. */
    close(first[0]);
    close(second[0]);
    side_close(&sender);
    side_close(&receiver);
    loop_end();
    free(block);
}

TEST_MAIN(RUN(reply_is_written_at_once), RUN(error_reply_carries_status_and_text),
          RUN(what_does_not_fit_is_sent_later_in_order),
          RUN(payload_of_many_parts_arrives_in_order),
          RUN(payloads_are_given_back_once_before_closing_is_told),
          RUN(payload_is_given_back_when_the_peer_is_gone),
          RUN(peer_that_does_not_read_is_closed_at_the_limit),
          RUN(sending_from_on_sent_keeps_the_stream_whole),
          RUN(requests_and_replies_go_round),
          RUN(queued_descriptors_stay_with_their_frame))
