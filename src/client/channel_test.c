/* A connection whose other end is in the test's hands. */
#include "client/channel.h"

#include "base/slice.h"
#include "os/clock.h"
#include "test.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int peer;
static struct channel *channel;

static int
before_each(void **state)
{
    int ends[2];
    test_before(state);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return -1;
    peer = ends[1];
    return channel_create(ends[0], &channel, NULL) == DS_OK ? 0 : -1;
}

static int
after_each(void **state)
{
    channel_destroy(channel);
    close(peer);
    return test_after(state);
}

static struct wait
wait_ms(uint64_t ms)
{
    return (struct wait){.deadline_ms = clock_monotonic_ms() + ms};
}

static void
ask(uint32_t sequence)
{
    struct wait wait = wait_ms(1000);
    struct outgoing message = {.type = MESSAGE_STATS, .sequence = sequence};
    CHECK_OK(channel_send(channel, &message, &wait, NULL));
}

/* Bytes of a reply: header, body, payload. */
static size_t
write_reply(uint8_t *out, uint32_t sequence, const char *body, const char *payload)
{
    struct ds_slice parts[] = {slice_of_text(body), slice_of_text(payload)};
    struct frame_header header = {.type = MESSAGE_STATS,
                                  .sequence = sequence,
                                  .body_bytes = (uint32_t)parts[0].len,
                                  .payload_bytes = parts[1].len};
    frame_encode(&header, out);
    size_t len = FRAME_HEADER_BYTES;
    for (int i = 0; i < 2; i++) {
        memcpy(out + len, parts[i].data, parts[i].len);
        len += parts[i].len;
    }
    return len;
}

static void
peer_sends(const void *data, size_t bytes)
{
    CHECK_INT(send(peer, data, bytes, MSG_NOSIGNAL), bytes);
}

TEST(a_reply_that_arrives_byte_by_byte_is_put_together)
{
    uint8_t bytes[256];
    struct wait soon = wait_ms(0);
    ask(7);
    size_t len = write_reply(bytes, 7, "body", "payload");
    for (size_t i = 0; i < len; i++) {
        if (i < FRAME_HEADER_BYTES + 4)
            CHECK_STATUS(channel_receive(channel, &soon, NULL), DS_TIMEOUT);
        peer_sends(bytes + i, 1);
    }
    char payload[7];
    CHECK_OK(channel_receive(channel, &soon, NULL));
    CHECK(slice_equal(channel_body(channel), slice_of_text("body")));
    CHECK_INT(channel_payload_left(channel), 7);
    CHECK_OK(channel_receive_payload(channel, payload, 7, &soon, NULL));
    CHECK(memcmp(payload, "payload", 7) == 0);
    CHECK(!channel->owed);
}

TEST(garbage_is_no_reply)
{
    struct ds_error err = {0};
    struct wait wait = wait_ms(1000);
    ask(1);
    peer_sends("HTTP/1.1 400 Bad Request\r\n\r\n", 28);
    CHECK_STATUS(channel_receive(channel, &wait, &err), DS_IO);
    CHECK_CONTAINS(err.message, "does not speak our protocol");
}

TEST(a_reply_to_another_request_is_refused)
{
    uint8_t bytes[256];
    struct ds_error err = {0};
    struct wait wait = wait_ms(1000);
    ask(1);
    peer_sends(bytes, write_reply(bytes, 2, "", ""));
    CHECK_STATUS(channel_receive(channel, &wait, &err), DS_IO);
    CHECK_CONTAINS(err.message, "another request");
}

TEST(more_than_the_reply_is_refused)
{
    uint8_t bytes[256];
    struct ds_error err = {0};
    struct wait wait = wait_ms(1000);
    ask(1);
    peer_sends(bytes, write_reply(bytes, 1, "body", "") + 1);
    CHECK_STATUS(channel_receive(channel, &wait, &err), DS_IO);
    CHECK_CONTAINS(err.message, "more than its reply");
}

TEST(half_a_reply_and_an_end_is_a_lost_connection)
{
    uint8_t bytes[256];
    struct ds_error err = {0};
    struct wait wait = wait_ms(1000);
    ask(1);
    peer_sends(bytes, write_reply(bytes, 1, "body", "") - 2);
    CHECK(shutdown(peer, SHUT_WR) == 0);
    CHECK_STATUS(channel_receive(channel, &wait, &err), DS_IO);
    CHECK_CONTAINS(err.message, "closed the connection");
    CHECK(channel->owed);
}

TEST(a_late_reply_is_drained_without_waiting)
{
    uint8_t bytes[256];
    bool broken = true;
    struct wait soon = wait_ms(0);
    ask(1);
    CHECK_STATUS(channel_receive(channel, &soon, NULL), DS_TIMEOUT);
    size_t len = write_reply(bytes, 1, "body", "payload");
    peer_sends(bytes, len - 3);
    CHECK(!channel_drain(channel, &broken));
    CHECK(!broken);
    peer_sends(bytes + len - 3, 3);
    CHECK(channel_drain(channel, &broken));
    ask(2);
    peer_sends(bytes, write_reply(bytes, 2, "next", ""));
    CHECK_OK(channel_receive(channel, &soon, NULL));
    CHECK(slice_equal(channel_body(channel), slice_of_text("next")));
}

TEST(descriptors_come_with_a_reply_and_are_closed_if_not_taken)
{
    uint8_t bytes[256];
    struct wait wait = wait_ms(1000);
    ask(1);
    size_t len = write_reply(bytes, 1, "", "");
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = bytes, .iov_len = len};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(3 * sizeof(int));
    memcpy(CMSG_DATA(head), (int[]){0, 1, 2}, 3 * sizeof(int));
    CHECK_INT(sendmsg(peer, &message, 0), len);
    CHECK_OK(channel_receive(channel, &wait, NULL));
    CHECK_INT(channel->fd_count, 3);
    int fds_before = test_open_fds();
    channel_close_fds(channel);
    CHECK_INT(test_open_fds(), fds_before - 3);
}

#define EACH(name) cmocka_unit_test_setup_teardown(name, before_each, after_each)

TEST_MAIN(EACH(a_reply_that_arrives_byte_by_byte_is_put_together),
          EACH(garbage_is_no_reply), EACH(a_reply_to_another_request_is_refused),
          EACH(more_than_the_reply_is_refused),
          EACH(half_a_reply_and_an_end_is_a_lost_connection),
          EACH(a_late_reply_is_drained_without_waiting),
          EACH(descriptors_come_with_a_reply_and_are_closed_if_not_taken))
