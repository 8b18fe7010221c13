/* An encrypted connection whose other end is in the test's hands. */
#include "client/channel.h"

#include "base/slice.h"
#include "os/clock.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LARGE_BYTES = 3 << 20, SMALL_BYTES = 300 };

static int peer;
static struct channel *channel;
static struct encryption *theirs; /* Of the peer. */

static int
before_each(void **state)
{
    static const struct auth_opening opening = {
        .encryption = {AUTH_EITHER, AUTH_ENCRYPTED}};
    struct auth_key key;
    int ends[2];
    test_before(state);
    auth_key_derive(slice_of_text("the secret that all of us have here"), &key);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return -1;
    peer = ends[1];
    theirs = encryption_create(&key, &opening, AUTH_ACCEPTED);
    if (theirs == NULL || channel_create(ends[0], &channel, NULL) != DS_OK)
        return -1;
    return channel_encrypt(channel, &key, &opening, NULL) == DS_OK ? 0 : -1;
}

static int
after_each(void **state)
{
    channel_destroy(channel);
    encryption_destroy(theirs);
    close(peer);
    return test_after(state);
}

static struct wait
wait_ms(uint64_t ms)
{
    return (struct wait){.deadline_ms = clock_monotonic_ms() + ms};
}

static enum ds_status
ask(uint64_t ms, uint32_t sequence, struct ds_slice payload)
{
    struct wait wait = wait_ms(ms);
    struct outgoing message = {.type = MESSAGE_STATS,
                               .sequence = sequence,
                               .body = slice_of_text("question"),
                               .payload = payload};
    return channel_send(channel, &message, &wait, NULL);
}

static uint8_t *
large_block(void)
{
    uint8_t *data = malloc(LARGE_BYTES);
    CHECK(data != NULL);
    for (size_t i = 0; i < LARGE_BYTES; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    return data;
}

/* What the peer has to send next; 0: nothing. */
static struct ds_slice
next_record(const struct ds_slice *parts, size_t count, uint64_t *done)
{
    *done += encryptor_fill(&theirs->out, parts, count, *done);
    struct ds_slice unsent = encryptor_unsent(&theirs->out);
    encryptor_sent(&theirs->out, unsent.len);
    return unsent;
}

static void
peer_sends(const void *data, size_t bytes)
{
    CHECK_INT(send(peer, data, bytes, MSG_NOSIGNAL), bytes);
}

/* A reply of one record, as it is on the wire. */
static struct ds_slice
reply(uint32_t sequence, const char *body)
{
    uint64_t done = 0;
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header header = {.type = MESSAGE_STATS,
                                  .sequence = sequence,
                                  .body_bytes = (uint32_t)strlen(body)};
    frame_encode(&header, bytes);
    struct ds_slice parts[] = {slice(bytes, sizeof bytes), slice_of_text(body)};
    return next_record(parts, 2, &done);
}

/* Reads what has arrived. */
static size_t
peer_reads(uint8_t *out, size_t bytes_max)
{
    size_t len = 0;
    for (;;) {
        size_t got, room;
        CHECK(decryptor_read(&theirs->in, out + len, bytes_max - len, &got));
        len += got;
        if (got > 0)
            continue;
        void *at = decryptor_room(&theirs->in, &room);
        ssize_t arrived = recv(peer, at, room, MSG_DONTWAIT);
        if (arrived <= 0)
            return len;
        decryptor_received(&theirs->in, (size_t)arrived);
    }
}

TEST(a_request_is_read_at_the_other_end_and_nowhere_else)
{
    uint8_t bytes[SMALL_BYTES];
    CHECK_OK(ask(1000, 1, slice_of_text("and its payload")));
    ssize_t seen = recv(peer, bytes, sizeof bytes, MSG_PEEK);
    CHECK_INT(seen, RECORD_OVERHEAD_BYTES + FRAME_HEADER_BYTES + 8 + 15);
    CHECK(memmem(bytes, (size_t)seen, "question", 8) == NULL);
    CHECK_INT(peer_reads(bytes, sizeof bytes), FRAME_HEADER_BYTES + 8 + 15);
    CHECK(memcmp(bytes + FRAME_HEADER_BYTES, "questionand its payload", 23) == 0);
}

TEST(a_reply_that_arrives_byte_by_byte_is_put_together)
{
    struct wait soon = wait_ms(0);
    CHECK_OK(ask(1000, 1, slice("", 0)));
    struct ds_slice record = reply(1, "body");
    for (size_t i = 0; i < record.len; i++) {
        CHECK_STATUS(channel_receive(channel, &soon, NULL), DS_TIMEOUT);
        peer_sends((const uint8_t *)record.data + i, 1);
    }
    CHECK_OK(channel_receive(channel, &soon, NULL));
    CHECK(slice_equal(channel_body(channel), slice_of_text("body")));
    CHECK(!channel->owed);
    CHECK(!channel_is_broken(channel));
}

/* Record by record, so that one thread can be both ends. */
TEST(a_large_payload_arrives_where_it_is_wanted)
{
    uint8_t *block = large_block(), *got = malloc(LARGE_BYTES);
    uint8_t bytes[FRAME_HEADER_BYTES];
    uint64_t done = 0, at = 0;
    struct wait soon = wait_ms(0);
    struct frame_header header = {.type = MESSAGE_STATS,
                                  .sequence = 1,
                                  .body_bytes = 4,
                                  .payload_bytes = LARGE_BYTES};
    CHECK(got != NULL);
    frame_encode(&header, bytes);
    struct ds_slice parts[] = {slice(bytes, sizeof bytes), slice("body", 4),
                               slice(block, LARGE_BYTES)};
    CHECK_OK(ask(1000, 1, slice("", 0)));
    struct ds_slice record = next_record(parts, 3, &done);
    peer_sends(record.data, record.len);
    CHECK_OK(channel_receive(channel, &soon, NULL));
    do {
        uint64_t there = done - sizeof bytes - 4 - at;
        CHECK_OK(channel_receive_payload(channel, got + at, there, &soon, NULL));
        at += there;
        record = next_record(parts, 3, &done);
        if (at < LARGE_BYTES)
            peer_sends(record.data, record.len);
    } while (at < LARGE_BYTES);
    CHECK(memcmp(got, block, LARGE_BYTES) == 0);
    CHECK(!channel->owed);
    free(block);
    free(got);
}

TEST(a_damaged_reply_is_a_broken_connection)
{
    uint8_t bytes[SMALL_BYTES];
    struct ds_error err = {0};
    struct wait wait = wait_ms(1000);
    CHECK_OK(ask(1000, 1, slice("", 0)));
    struct ds_slice record = reply(1, "body");
    memcpy(bytes, record.data, record.len);
    bytes[record.len - 1] ^= 1;
    peer_sends(bytes, record.len);
    CHECK_STATUS(channel_receive(channel, &wait, &err), DS_IO);
    CHECK_CONTAINS(err.message, "encrypted bytes were damaged");
}

TEST(a_reply_that_comes_again_is_a_broken_connection)
{
    uint8_t bytes[SMALL_BYTES];
    struct ds_error err = {0};
    struct wait wait = wait_ms(1000);
    CHECK_OK(ask(1000, 1, slice("", 0)));
    struct ds_slice record = reply(1, "body");
    memcpy(bytes, record.data, record.len);
    peer_sends(bytes, record.len);
    CHECK_OK(channel_receive(channel, &wait, NULL));
    CHECK_OK(ask(1000, 1, slice("", 0)));
    peer_sends(bytes, record.len);
    CHECK_STATUS(channel_receive(channel, &wait, &err), DS_IO);
    CHECK_CONTAINS(err.message, "encrypted bytes were damaged");
}

TEST(a_late_reply_is_drained_without_waiting)
{
    bool broken = true;
    struct wait soon = wait_ms(0);
    CHECK_OK(ask(1000, 1, slice("", 0)));
    CHECK_STATUS(channel_receive(channel, &soon, NULL), DS_TIMEOUT);
    struct ds_slice record = reply(1, "body");
    peer_sends(record.data, record.len - 3);
    CHECK(!channel_drain(channel, &broken));
    CHECK(!broken);
    peer_sends((const uint8_t *)record.data + record.len - 3, 3);
    CHECK(channel_drain(channel, &broken));
    CHECK_OK(ask(1000, 2, slice("", 0)));
    record = reply(2, "next");
    peer_sends(record.data, record.len);
    CHECK_OK(channel_receive(channel, &soon, NULL));
    CHECK(slice_equal(channel_body(channel), slice_of_text("next")));
}

/* What nobody asked for may have arrived with the reply already. */
TEST(more_than_was_asked_for_is_noticed_before_the_next_request)
{
    struct wait wait = wait_ms(1000);
    uint8_t bytes[2 * SMALL_BYTES];
    CHECK_OK(ask(1000, 1, slice("", 0)));
    struct ds_slice record = reply(1, "body");
    size_t len = record.len;
    memcpy(bytes, record.data, len);
    record = reply(1, "more");
    memcpy(bytes + len, record.data, record.len);
    peer_sends(bytes, len + record.len);
    CHECK_OK(channel_receive(channel, &wait, NULL));
    CHECK(channel_is_broken(channel));
}

/* Nobody reads: what is half sent must not be taken for a connection that is free. */
TEST(a_request_that_is_half_sent_has_touched_the_connection)
{
    uint8_t *block = large_block(), *got = malloc(LARGE_BYTES + SMALL_BYTES);
    CHECK(got != NULL);
    CHECK_STATUS(ask(0, 1, slice(block, LARGE_BYTES)), DS_TIMEOUT);
    CHECK(channel->touched);
    CHECK(!channel->owed);
    size_t len = peer_reads(got, LARGE_BYTES + SMALL_BYTES);
    CHECK(len > FRAME_HEADER_BYTES + 8);
    CHECK(memcmp(got + FRAME_HEADER_BYTES + 8, block, len - FRAME_HEADER_BYTES - 8) ==
          0);
    free(block);
    free(got);
}

/* The socket is full before the request: none of it is sent, but its record has a number. */
TEST(a_request_that_is_only_encrypted_has_touched_the_connection)
{
    static const uint8_t filling[4096];
    while (send(channel->fd, filling, sizeof filling, MSG_DONTWAIT) > 0)
        continue;
    CHECK_STATUS(ask(0, 1, slice("", 0)), DS_TIMEOUT);
    CHECK(channel->touched);
    CHECK(!channel->owed);
}

#define EACH(name) cmocka_unit_test_setup_teardown(name, before_each, after_each)

TEST_MAIN(EACH(a_request_is_read_at_the_other_end_and_nowhere_else),
          EACH(a_reply_that_arrives_byte_by_byte_is_put_together),
          EACH(a_large_payload_arrives_where_it_is_wanted),
          EACH(a_damaged_reply_is_a_broken_connection),
          EACH(a_reply_that_comes_again_is_a_broken_connection),
          EACH(a_late_reply_is_drained_without_waiting),
          EACH(more_than_was_asked_for_is_noticed_before_the_next_request),
          EACH(a_request_that_is_half_sent_has_touched_the_connection),
          EACH(a_request_that_is_only_encrypted_has_touched_the_connection))
