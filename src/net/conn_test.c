/* Life cycle and receiving. */
#include "net/conn_testing.h"

#include <fcntl.h>

enum { MIB = 1 << 20 };

static uint8_t *
random_body(size_t bytes)
{
    uint64_t seed = bytes;
    uint8_t *data = malloc(bytes);
    CHECK(data != NULL);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)test_random(&seed);
    return data;
}

/* ---- Frames ---- */

TEST(frame_is_handed_over_whole)
{
    struct side side;
    loop_begin();
    side_open(&side);
    struct frame_header header = header_of(MESSAGE_LOOKUP, 77, 5, 0);
    peer_write_frame(&side, &header, "hello");
    RUN_UNTIL(side.frames == 1);
    CHECK_INT(side.last.type, MESSAGE_LOOKUP);
    CHECK_INT(side.last.sequence, 77);
    CHECK_INT(side.last.status, DS_OK);
    CHECK(memcmp(side.last_body, "hello", 5) == 0);
    side_close(&side);
    loop_end();
}

/* Wherever the kernel cuts the stream, the frames are the same. */
TEST(frames_that_arrive_byte_by_byte_are_the_same)
{
    struct side side;
    uint8_t bytes[2 * FRAME_HEADER_BYTES + 3];
    struct frame_header first = header_of(MESSAGE_PING, 1, 0, 0);
    struct frame_header second = header_of(MESSAGE_EXIST, 2, 3, 0);
    frame_encode(&first, bytes);
    frame_encode(&second, bytes + FRAME_HEADER_BYTES);
    memcpy(bytes + 2 * FRAME_HEADER_BYTES, "abc", 3);
    loop_begin();
    side_open(&side);
    for (size_t i = 0; i < sizeof bytes; i++) {
        CHECK_INT(side.frames, i >= FRAME_HEADER_BYTES ? 1 : 0);
        peer_write(&side, bytes + i, 1);
        turn();
    }
    RUN_UNTIL(side.frames == 2);
    CHECK_INT(side.last.type, MESSAGE_EXIST);
    CHECK(memcmp(side.last_body, "abc", 3) == 0);
    side_close(&side);
    loop_end();
}

static void
check_body_of(size_t bytes)
{
    struct side side;
    uint8_t *body = random_body(bytes);
    loop_begin();
    side_open(&side);
    struct frame_header header = header_of(MESSAGE_QUEUE_CALL, 1, bytes, 0);
    peer_write_frame(&side, &header, body);
    RUN_UNTIL(side.frames == 1);
    CHECK(side.body_sum == sum_of(body, bytes));
    struct frame_header ping = header_of(MESSAGE_PING, 2, 0, 0);
    peer_write_frame(&side, &ping, NULL);
    RUN_UNTIL(side.frames == 2);
    CHECK(side.conn->input.capacity <= 256 << 10); /* It does not keep the memory. */
    side_close(&side);
    loop_end();
    free(body);
}

TEST(body_larger_than_the_buffer_arrives_whole)
{
    check_body_of(100000);
}

TEST(largest_body_arrives_whole_and_its_memory_is_given_back)
{
    check_body_of(FRAME_BODY_BYTES_MAX);
}

/* A header alone must not cost memory: the peer has paid nothing yet. */
TEST(promised_body_takes_no_memory_before_it_arrives)
{
    struct side side;
    uint8_t *part = random_body(100 << 10);
    loop_begin();
    side_open(&side);
    struct frame_header header = header_of(MESSAGE_QUEUE_CALL, 1, 0, 0);
    uint8_t bytes[FRAME_HEADER_BYTES];
    header.body_bytes = FRAME_BODY_BYTES_MAX;
    frame_encode(&header, bytes);
    peer_write(&side, bytes, sizeof bytes);
    RUN_UNTIL(side.conn->input.end == sizeof bytes);
    CHECK(side.conn->input.capacity <= 64 << 10);
    peer_write(&side, part, 100 << 10);
    RUN_UNTIL(side.conn->input.end == sizeof bytes + (100 << 10));
    CHECK(side.conn->input.capacity <= 256 << 10);
    CHECK_INT(side.frames, 0);
    hang_up(&side);
    CHECK_CONTAINS(side.reason, "in the middle of a message");
    side_close(&side);
    loop_end();
    free(part);
}

/* One peer that floods is cut off after its turn, so the others have theirs. */
TEST(flooding_peer_gets_one_turn_at_a_time)
{
    enum { FRAMES = 4000 };
    struct side flood, other;
    static uint8_t bytes[FRAMES * FRAME_HEADER_BYTES];
    for (uint32_t i = 0; i < FRAMES; i++) {
        struct frame_header header = header_of(MESSAGE_PING, i, 0, 0);
        frame_encode(&header, bytes + i * FRAME_HEADER_BYTES);
    }
    loop_begin();
    side_open(&flood);
    side_open(&other);
    int large = 1 << 20;
    CHECK(setsockopt(flood.peer, SOL_SOCKET, SO_SNDBUF, &large, sizeof large) == 0);
    CHECK_INT(send(flood.peer, bytes, sizeof bytes, MSG_DONTWAIT), sizeof bytes);
    CHECK_INT(send(other.peer, bytes, FRAME_HEADER_BYTES, MSG_DONTWAIT),
              FRAME_HEADER_BYTES);
    turn();
    turn(); /* The first one may only have registered the sockets. */
    CHECK_INT(other.frames, 1);
    CHECK(flood.frames < FRAMES / 2);
    RUN_UNTIL(flood.frames == FRAMES);
    CHECK_INT(flood.last.sequence, FRAMES - 1);
    side_close(&flood);
    side_close(&other);
    loop_end();
}

/* ---- Payloads ---- */

static void
check_payload(size_t bytes, size_t together_with_header)
{
    struct side side;
    uint8_t *payload = random_body(bytes), *place = calloc(1, bytes);
    uint8_t *start = malloc(FRAME_HEADER_BYTES + 3 + together_with_header);
    struct frame_header header = header_of(MESSAGE_PUT, 9, 3, bytes);
    CHECK(place != NULL && start != NULL);
    frame_encode(&header, start);
    memcpy(start + FRAME_HEADER_BYTES, "key", 3);
    memcpy(start + FRAME_HEADER_BYTES + 3, payload, together_with_header);
    loop_begin();
    side_open(&side);
    side.payload_to = place;
    peer_write(&side, start, FRAME_HEADER_BYTES + 3 + together_with_header);
    RUN_UNTIL(side.payloads == 1);
    peer_write(&side, payload + together_with_header, bytes - together_with_header);
    struct frame_header ping = header_of(MESSAGE_PING, 10, 0, 0);
    peer_write_frame(&side, &ping, NULL);
    RUN_UNTIL(side.frames == 2);
    CHECK(memcmp(place, payload, bytes) == 0);
    CHECK(memcmp(side.last_body, "key", 3) == 0);
    CHECK_INT(side.last.type, MESSAGE_PING);
    side_close(&side);
    loop_end();
    free(start);
    free(payload);
    free(place);
}

TEST(payload_after_its_header_lands_in_place)
{
    check_payload(3 * MIB + 1, 0);
}

TEST(payload_partly_with_its_header_lands_in_place)
{
    check_payload(100000, 777);
}

TEST(payload_wholly_with_its_header_lands_in_place)
{
    check_payload(1000, 1000);
}

/* The connection survives a refusal: what follows is read right. */
TEST(refused_payload_is_swallowed)
{
    struct side side;
    uint8_t *payload = random_body(MIB);
    loop_begin();
    side_open(&side);
    struct frame_header header = header_of(MESSAGE_PUT, 1, 3, MIB);
    peer_write_frame(&side, &header, "key");
    peer_write(&side, payload, MIB);
    struct frame_header next = header_of(MESSAGE_EXIST, 2, 4, 0);
    peer_write_frame(&side, &next, "next");
    RUN_UNTIL(side.frames == 2);
    CHECK_INT(side.payloads, 1);
    CHECK(memcmp(side.last_body, "next", 4) == 0);
    CHECK(side.conn->input.capacity <= 64 << 10);
    side_close(&side);
    loop_end();
    free(payload);
}

/* The most a header can say; what arrives of it is swallowed in bounded memory. */
TEST(payload_of_absurd_length_costs_nothing)
{
    struct side side;
    uint8_t *payload = random_body(MIB);
    loop_begin();
    side_open(&side);
    struct frame_header header = header_of(MESSAGE_PUT, 1, 0, UINT64_MAX);
    peer_write_frame(&side, &header, NULL);
    peer_write(&side, payload, MIB);
    RUN_UNTIL(side.conn->input.payload_left == UINT64_MAX - MIB);
    CHECK(side.conn->input.capacity <= 64 << 10);
    CHECK_INT(side.frames, 0);
    hang_up(&side);
    CHECK_CONTAINS(side.reason, "in the middle of a message");
    side_close(&side);
    loop_end();
    free(payload);
}

/* ---- Garbage ---- */

static void
check_refused(const void *bytes, size_t len)
{
    struct side side;
    loop_begin();
    side_open(&side);
    peer_write(&side, bytes, len);
    RUN_UNTIL(side.closed == 1);
    CHECK_CONTAINS(side.reason, "not a message");
    CHECK_INT(side.frames, 0);
    side_close(&side);
    loop_end();
}

TEST(bytes_that_are_no_frame_close_the_connection)
{
    check_refused("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 35);
}

TEST(unknown_type_closes_the_connection)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header header = header_of(MESSAGE_PING, 1, 0, 0);
    header.type = MESSAGE_TYPE_COUNT;
    frame_encode(&header, bytes);
    check_refused(bytes, sizeof bytes);
}

TEST(body_over_the_limit_closes_the_connection)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header header = header_of(MESSAGE_PING, 1, 0, 0);
    frame_encode(&header, bytes);
    memcpy(bytes + 12, (uint8_t[]){1, 0, 0, 1}, 4); /* 16 MiB and one. */
    check_refused(bytes, sizeof bytes);
}

/* Good frames with flipped bits, cut anywhere: the connection may close, and does so
 * once; nothing else may happen. 300 streams from fixed seeds. */
TEST(damaged_streams_do_no_harm)
{
    static uint8_t place[64 << 10];
    loop_begin();
    for (uint64_t seed = 1; seed <= 300; seed++) {
        uint64_t random = test_seed(seed);
        struct side side;
        uint8_t bytes[600] = {0};
        side_open(&side);
        for (size_t at = 0; at + FRAME_HEADER_BYTES + 20 < sizeof bytes;
             at += FRAME_HEADER_BYTES + 20) {
            struct frame_header header = header_of(MESSAGE_PUT, 1, 12, 8);
            frame_encode(&header, bytes + at);
        }
        for (size_t flips = test_random(&random) % 4; flips > 0; flips--)
            bytes[test_random(&random) % sizeof bytes] ^=
                (uint8_t)(1u << test_random(&random) % 8);
        side.payload_to = seed % 2 == 0 ? NULL : place;
        size_t len = test_random(&random) % sizeof bytes;
        size_t cut = test_random(&random) % (len + 1);
        peer_write(&side, bytes, cut);
        turn();
        peer_write(&side, bytes + cut, len - cut);
        if (side.closed == 0)
            hang_up(&side);
        side_close(&side);
    }
    loop_end();
}

/* ---- Life cycle ---- */

TEST(peer_that_closes_between_frames_left_in_good_order)
{
    struct side side;
    loop_begin();
    side_open(&side);
    struct frame_header header = header_of(MESSAGE_PING, 1, 0, 0);
    peer_write_frame(&side, &header, NULL);
    hang_up(&side);
    CHECK_INT(side.frames, 1); /* What it had said before still counts. */
    CHECK(!side.has_reason);
    side_close(&side);
    loop_end();
}

/* Our reply is lost in its buffer, which the kernel reports as an error; its request
 * was complete and counts. */
TEST(peer_that_leaves_without_reading_is_closed_after_its_frames)
{
    struct side side;
    loop_begin();
    side_open(&side);
    struct frame_header header = header_of(MESSAGE_PING, 1, 0, 0);
    conn_reply(side.conn, &header, (struct ds_slice){0});
    peer_write_frame(&side, &header, NULL);
    hang_up(&side);
    CHECK_INT(side.frames, 1);
    CHECK(side.has_reason);
    side_close(&side);
    loop_end();
}

TEST(closing_in_the_handler_stops_delivery_and_is_told_later)
{
    struct side side;
    uint8_t bytes[3 * FRAME_HEADER_BYTES];
    struct frame_header header = header_of(MESSAGE_PING, 1, 0, 0);
    for (size_t i = 0; i < 3; i++)
        frame_encode(&header, bytes + i * FRAME_HEADER_BYTES);
    loop_begin();
    side_open(&side);
    side.close_on_frame = true;
    peer_write(&side, bytes, sizeof bytes);
    RUN_UNTIL(side.closed == 1);
    CHECK_INT(side.frames, 1);
    CHECK_TEXT(side.reason, "asked to");
    side_close(&side);
    loop_end();
}

TEST(closing_twice_is_told_once_with_the_first_reason)
{
    struct side side;
    loop_begin();
    side_open(&side);
    conn_close(side.conn, "first");
    conn_close(side.conn, "second");
    CHECK_INT(side.closed, 0);
    RUN_UNTIL(side.closed == 1);
    CHECK_TEXT(side.reason, "first");
    side_close(&side);
    loop_end();
}

/* The clock is not waited for: the timer is looked at, then told to be due. */
TEST(silent_stranger_is_closed_after_ten_seconds)
{
    struct side side;
    loop_begin();
    side_open(&side);
    uint64_t due_ms = uv_timer_get_due_in(&side.conn->silence);
    CHECK(due_ms > 9000);
    CHECK(due_ms <= 10000);
    uv_timer_set_repeat(&side.conn->silence, 1);
    CHECK_INT(uv_timer_again(&side.conn->silence), 0);
    RUN_UNTIL(side.closed == 1);
    CHECK_CONTAINS(side.reason, "did not introduce itself");
    side_close(&side);
    loop_end();
}

TEST(accepted_peer_may_be_silent)
{
    struct side side;
    loop_begin();
    side_open(&side);
    conn_accept_peer(side.conn);
    CHECK(!uv_is_active((uv_handle_t *)&side.conn->silence));
    side_close(&side);
    loop_end();
}

/* A regular file cannot be polled; the descriptor is taken all the same. */
TEST(failed_create_closes_the_descriptor)
{
    struct ds_error err = {0};
    struct conn *conn = NULL;
    loop_begin();
    int before = test_open_fds();
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    CHECK_STATUS(conn_create(&test_loop, fd, &noting, NULL, &conn, &err), DS_IO);
    CHECK(conn == NULL);
    CHECK_INT(test_open_fds(), before);
    loop_end();
}

/* ---- Descriptors; the handler writes "!" into each ---- */

struct pipe_ends {
    int read, write;
};

static struct pipe_ends
make_pipe(void)
{
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    return (struct pipe_ends){ends[0], ends[1]};
}

/* How many "!" were written into the pipe. */
static ssize_t
drain(struct pipe_ends ends)
{
    char text[64];
    ssize_t got = read(ends.read, text, sizeof text);
    close(ends.read);
    close(ends.write);
    return got;
}

TEST(descriptors_come_with_their_frame_and_are_closed_after_it)
{
    struct side side;
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header header = header_of(MESSAGE_FORK_CLAIM, 2, 0, 0);
    frame_encode(&header, bytes);
    loop_begin();
    side_open(&side);
    struct pipe_ends ends = make_pipe();
    int before = test_open_fds();
    struct frame_header ping = header_of(MESSAGE_PING, 1, 0, 0);
    peer_write_frame(&side, &ping, NULL);
    peer_write_with_fds(&side, bytes, sizeof bytes, &ends.write, 1);
    peer_write_frame(&side, &ping, NULL);
    RUN_UNTIL(side.frames == 3);
    CHECK_INT(side.frame_with_fds, 2);
    CHECK_INT(side.fds_of_frame, 0);
    CHECK_INT(test_open_fds(), before);
    CHECK_INT(drain(ends), 1);
    side_close(&side);
    loop_end();
}

/* The frame is cut behind the byte that carried them, and another one follows. */
TEST(descriptors_of_a_cut_frame_are_not_given_to_the_next)
{
    struct side side;
    uint8_t bytes[FRAME_HEADER_BYTES + 4] = {0};
    struct frame_header header = header_of(MESSAGE_FORK_CLAIM, 2, 4, 0);
    frame_encode(&header, bytes);
    loop_begin();
    side_open(&side);
    struct pipe_ends first = make_pipe(), second = make_pipe();
    peer_write_with_fds(&side, bytes, 10, &first.write, 1);
    RUN_UNTIL(side.conn->input.end == 10);
    peer_write(&side, bytes + 10, sizeof bytes - 10);
    peer_write_with_fds(&side, bytes, sizeof bytes, &second.write, 1);
    struct frame_header ping = header_of(MESSAGE_PING, 1, 0, 0);
    peer_write_frame(&side, &ping, NULL);
    RUN_UNTIL(side.frames == 3);
    CHECK_INT(side.frame_with_fds, 2);
    CHECK_INT(drain(first), 1);
    CHECK_INT(drain(second), 1);
    side_close(&side);
    loop_end();
}

TEST(descriptors_in_the_middle_of_a_frame_are_refused)
{
    struct side side;
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header header = header_of(MESSAGE_FORK_CLAIM, 2, 0, 0);
    frame_encode(&header, bytes);
    loop_begin();
    side_open(&side);
    struct pipe_ends ends = make_pipe();
    peer_write_with_fds(&side, bytes, 5, &ends.write, 1);
    peer_write_with_fds(&side, bytes + 5, 5, &ends.write, 1);
    RUN_UNTIL(side.closed == 1);
    CHECK_CONTAINS(side.reason, "descriptors");
    CHECK_INT(side.frames, 0);
    CHECK(drain(ends) < 0); /* Nothing was written, and no end is left elsewhere. */
    side_close(&side);
    loop_end();
}

TEST_MAIN(RUN(frame_is_handed_over_whole),
          RUN(frames_that_arrive_byte_by_byte_are_the_same),
          RUN(body_larger_than_the_buffer_arrives_whole),
          RUN(largest_body_arrives_whole_and_its_memory_is_given_back),
          RUN(promised_body_takes_no_memory_before_it_arrives),
          RUN(flooding_peer_gets_one_turn_at_a_time),
          RUN(payload_after_its_header_lands_in_place),
          RUN(payload_partly_with_its_header_lands_in_place),
          RUN(payload_wholly_with_its_header_lands_in_place),
          RUN(refused_payload_is_swallowed),
          RUN(payload_of_absurd_length_costs_nothing),
          RUN(bytes_that_are_no_frame_close_the_connection),
          RUN(unknown_type_closes_the_connection),
          RUN(body_over_the_limit_closes_the_connection),
          RUN(damaged_streams_do_no_harm),
          RUN(peer_that_closes_between_frames_left_in_good_order),
          RUN(peer_that_leaves_without_reading_is_closed_after_its_frames),
          RUN(closing_in_the_handler_stops_delivery_and_is_told_later),
          RUN(closing_twice_is_told_once_with_the_first_reason),
          RUN(silent_stranger_is_closed_after_ten_seconds),
          RUN(accepted_peer_may_be_silent), RUN(failed_create_closes_the_descriptor),
          RUN(descriptors_come_with_their_frame_and_are_closed_after_it),
          RUN(descriptors_of_a_cut_frame_are_not_given_to_the_next),
          RUN(descriptors_in_the_middle_of_a_frame_are_refused))
