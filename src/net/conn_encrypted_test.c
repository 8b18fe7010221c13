/* Encrypted connections, and somebody on the path between their ends. */
#include "net/conn_testing.h"

#include "base/log.h"
#include "base/slice.h"

enum { MIB = 1 << 20, LARGE_BYTES = 5 * MIB + 12345, RELAYED_BYTES_MAX = 4096 };

static const char secret_body[] = "a body that nobody on the path shall see";

static struct auth_key key;

static void
begin(void)
{
    auth_key_derive(slice_of_text("the secret that all of us have here"), &key);
    begin_logged();
}

static void
close_both(struct side *made, struct side *accepted)
{
    side_close(made);
    side_close(accepted);
    end_logged();
}

static void
say(struct side *side, uint32_t sequence, const char *text)
{
    struct frame_header header = header_of(MESSAGE_STATS, sequence, strlen(text), 0);
    conn_send(side->conn, &header, slice_of_text(text), NULL, 0, NULL, 0);
}

/* ---- Between two ends ---- */

static void
open_joined(struct side *made, struct side *accepted)
{
    begin();
    sides_open_joined(made, accepted);
    conn_expect_proof(accepted->conn, &key, AUTH_ENCRYPTED, false);
    conn_prove(made->conn, &key, AUTH_ENCRYPTED);
}

TEST(frames_pass_in_their_order)
{
    struct side made, accepted;
    open_joined(&made, &accepted);
    accepted.echo = true;
    say(&made, 1, "first"); /* Held until both ends have proven the key. */
    for (uint32_t i = 2; i <= 3000; i++)
        say(&made, i, secret_body);
    RUN_UNTIL(made.frames == 3000);
    CHECK(made.conn->encryption != NULL);
    CHECK(accepted.conn->encryption != NULL);
    CHECK_INT(made.last.sequence, 3000);
    CHECK(memcmp(made.last_body, secret_body, sizeof secret_body - 1) == 0);
    CHECK_TEXT(last_line, "");
    close_both(&made, &accepted);
}

static void
note_sent(void *arg)
{
    (void)arg;
    payloads_sent++;
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

static void
send_large(struct side *side, const uint8_t *block)
{
    struct frame_header header = header_of(MESSAGE_FILL, 9, 0, 0);
    struct conn_payload parts[] = {
        {block, 100, note_sent, NULL},
        {block + 100, 0, note_sent, NULL},
        {block + 100, LARGE_BYTES - 100, note_sent, NULL},
    };
    conn_send(side->conn, &header, slice("body", 4), NULL, 0, parts, 3);
}

/* Far beyond what the sockets hold, both ways at once, with small frames between. */
TEST(large_payloads_pass_both_ways)
{
    struct side made, accepted;
    uint8_t *block = large_block();
    uint8_t *there = calloc(1, LARGE_BYTES), *back = calloc(1, LARGE_BYTES);
    CHECK(there != NULL && back != NULL);
    open_joined(&made, &accepted);
    say(&made, 1, "first");
    RUN_UNTIL(accepted.frames == 1);
    accepted.payload_to = there;
    made.payload_to = back;
    send_large(&made, block);
    say(&made, 2, "after it");
    send_large(&accepted, block);
    say(&accepted, 3, "after it");
    RUN_UNTIL(accepted.frames == 3 && made.frames == 2);
    CHECK(memcmp(there, block, LARGE_BYTES) == 0);
    CHECK(memcmp(back, block, LARGE_BYTES) == 0);
    CHECK_INT(accepted.last.sequence, 2);
    CHECK_INT(made.last.sequence, 3);
    CHECK_INT(payloads_sent, 6);
    CHECK(!made.conn->is_polling_writable);
    CHECK_INT(made.conn->queued_bytes, 0);
    close_both(&made, &accepted);
    free(block);
    free(there);
    free(back);
}

TEST(a_payload_that_nobody_wants_is_swallowed)
{
    struct side made, accepted;
    uint8_t *block = large_block();
    open_joined(&made, &accepted);
    send_large(&made, block);
    say(&made, 2, "after it");
    RUN_UNTIL(accepted.frames == 2);
    CHECK(memcmp(accepted.last_body, "after it", 8) == 0);
    close_both(&made, &accepted);
    free(block);
}

TEST(payloads_come_back_when_the_connection_ends)
{
    struct side made, accepted;
    uint8_t *block = large_block();
    open_joined(&made, &accepted);
    say(&made, 1, "first");
    RUN_UNTIL(accepted.frames == 1);
    send_large(&made, block);
    conn_close(made.conn, NULL);
    RUN_UNTIL(made.closed && accepted.closed);
    CHECK_INT(payloads_sent, 3);
    CHECK_TEXT(accepted.reason, "the peer closed in the middle of a message");
    close_both(&made, &accepted);
    free(block);
}

/* ---- Mixed settings ---- */

static void
open_mixed(struct side *made, struct side *accepted, enum auth_encryption ours,
           enum auth_encryption theirs)
{
    begin();
    sides_open_joined(made, accepted);
    conn_expect_proof(accepted->conn, &key, theirs, false);
    conn_prove(made->conn, &key, ours);
    say(made, 1, "first");
    RUN_UNTIL(made->closed && accepted->closed);
    CHECK_INT(accepted->frames, 0);
}

TEST(who_encrypts_refuses_who_does_not)
{
    struct side made, accepted;
    open_mixed(&made, &accepted, AUTH_PLAIN, AUTH_ENCRYPTED);
    CHECK_CONTAINS(made.reason, "we are refused: connections are encrypted here");
    CHECK_CONTAINS(made.reason, "--encrypt_connections");
    CHECK_CONTAINS(last_line, "connection refused peer=? reason=\"connections are enc");
    close_both(&made, &accepted);
}

TEST(who_does_not_encrypt_refuses_who_does)
{
    struct side made, accepted;
    open_mixed(&made, &accepted, AUTH_ENCRYPTED, AUTH_PLAIN);
    CHECK_CONTAINS(made.reason, "we are refused: the other side wants its connections");
    CHECK_CONTAINS(made.reason, "--encrypt_connections");
    CHECK_CONTAINS(last_line,
                   "connection refused peer=? reason=\"the other side wants");
    close_both(&made, &accepted);
}

TEST(who_takes_either_follows)
{
    for (enum auth_encryption theirs = AUTH_PLAIN; theirs <= AUTH_ENCRYPTED; theirs++) {
        struct side made, accepted;
        begin();
        sides_open_joined(&made, &accepted);
        conn_expect_proof(accepted.conn, &key, theirs, false);
        conn_prove(made.conn, &key, AUTH_EITHER);
        say(&made, 1, "first");
        RUN_UNTIL(accepted.frames == 1);
        CHECK_INT(made.conn->encryption != NULL, theirs == AUTH_ENCRYPTED);
        close_both(&made, &accepted);
    }
}

/* ---- Somebody on the path ---- */

/* What one end has sent and the other has not got. */
struct relayed {
    size_t len;
    uint8_t bytes[RELAYED_BYTES_MAX];
};

/* Takes what `from` sends until it sends nothing more for a moment. */
static struct relayed
take_from(struct side *from)
{
    struct relayed relayed = {.len = 0};
    for (int idle = 0;
         idle < 3 && from->closed == 0 && relayed.len < sizeof relayed.bytes;) {
        uv_run(&test_loop, UV_RUN_ONCE);
        ssize_t got = recv(from->peer, relayed.bytes + relayed.len,
                           sizeof relayed.bytes - relayed.len, MSG_DONTWAIT);
        idle = got > 0 ? 0 : idle + 1;
        relayed.len += got > 0 ? (size_t)got : 0;
    }
    return relayed;
}

static void
give(struct side *to, const struct relayed *relayed)
{
    peer_write(to, relayed->bytes, relayed->len);
}

static void
pass(struct side *from, struct side *to)
{
    struct relayed relayed = take_from(from);
    CHECK(relayed.len > 0);
    give(to, &relayed);
}

/* Two ends that have agreed over a relay, and of each the raw other end. */
static void
open_relayed(struct side *made, struct side *accepted)
{
    begin();
    side_open(made);
    side_open(accepted);
    conn_expect_proof(accepted->conn, &key, AUTH_ENCRYPTED, false);
    conn_prove(made->conn, &key, AUTH_EITHER);
    pass(made, accepted); /* The challenge, */
    pass(accepted, made); /* its answer, */
    pass(made, accepted); /* our proof, */
    pass(accepted, made); /* and that it is right. */
    RUN_UNTIL(made->conn->encryption != NULL);
}

TEST(nothing_of_a_frame_is_seen_on_the_path)
{
    struct side made, accepted;
    open_relayed(&made, &accepted);
    say(&made, 1, secret_body);
    struct relayed relayed = take_from(&made);
    CHECK_INT(relayed.len,
              RECORD_OVERHEAD_BYTES + FRAME_HEADER_BYTES + strlen(secret_body));
    CHECK(memmem(relayed.bytes, relayed.len, secret_body, 8) == NULL);
    CHECK(memmem(relayed.bytes, relayed.len, "DSW1", 4) == NULL);
    give(&accepted, &relayed);
    RUN_UNTIL(accepted.frames == 1);
    CHECK(memcmp(accepted.last_body, secret_body, strlen(secret_body)) == 0);
    close_both(&made, &accepted);
}

/* The socket is full, and nothing but a record waits for it. */
TEST(the_last_record_goes_out_when_there_is_room_again)
{
    struct side made, accepted;
    size_t count = 0;
    open_relayed(&made, &accepted);
    while (!conn_has_unsent(made.conn))
        say(&made, (uint32_t)++count, secret_body);
    CHECK(list_is_empty(&made.conn->queue));
    CHECK(made.conn->is_polling_writable);
    for (int turns = 0; accepted.frames < count; turns++) {
        struct relayed relayed = take_from(&made);
        give(&accepted, &relayed);
        CHECK(turns < 1000);
    }
    CHECK_INT(accepted.last.sequence, count);
    CHECK(!conn_has_unsent(made.conn));
    CHECK(!made.conn->is_polling_writable);
    close_both(&made, &accepted);
}

/* A wrong length may ask for more first: it gets it. */
static void
check_damage_noticed(struct side *accepted)
{
    static const uint8_t more[RECORD_BYTES_MAX];
    peer_write(accepted, more, sizeof more);
    RUN_UNTIL(accepted->closed > 0);
    CHECK_TEXT(accepted->reason, "encrypted bytes were damaged, or are not the peer's");
}

TEST(a_changed_byte_anywhere_closes)
{
    size_t at = 0, len;
    do {
        struct side made, accepted;
        open_relayed(&made, &accepted);
        say(&made, 1, "text");
        struct relayed relayed = take_from(&made);
        len = relayed.len;
        relayed.bytes[at] ^= 0x11;
        give(&accepted, &relayed);
        check_damage_noticed(&accepted);
        CHECK_INT(accepted.frames, 0);
        close_both(&made, &accepted);
    } while (++at < len);
}

TEST(a_record_that_comes_twice_closes)
{
    struct side made, accepted;
    open_relayed(&made, &accepted);
    say(&made, 1, "text");
    struct relayed relayed = take_from(&made);
    give(&accepted, &relayed);
    RUN_UNTIL(accepted.frames == 1);
    give(&accepted, &relayed);
    check_damage_noticed(&accepted);
    CHECK_INT(accepted.frames, 1);
    close_both(&made, &accepted);
}

TEST(records_in_another_order_close)
{
    struct side made, accepted;
    open_relayed(&made, &accepted);
    say(&made, 1, "text");
    (void)take_from(&made); /* Kept back. */
    say(&made, 2, "more");
    struct relayed second = take_from(&made);
    give(&accepted, &second);
    check_damage_noticed(&accepted);
    CHECK_INT(accepted.frames, 0);
    close_both(&made, &accepted);
}

TEST(what_is_sent_back_closes)
{
    struct side made, accepted;
    open_relayed(&made, &accepted);
    say(&made, 1, "text");
    struct relayed relayed = take_from(&made);
    give(&made, &relayed);
    RUN_UNTIL(made.closed > 0);
    CHECK_CONTAINS(made.reason, "encrypted bytes were damaged");
    close_both(&made, &accepted);
}

TEST(a_record_that_is_cut_off_is_no_good_order)
{
    struct side made, accepted;
    open_relayed(&made, &accepted);
    say(&made, 1, "text");
    struct relayed relayed = take_from(&made);
    relayed.len--;
    give(&accepted, &relayed);
    hang_up(&accepted);
    CHECK_TEXT(accepted.reason, "the peer closed in the middle of a message");
    CHECK_INT(accepted.frames, 0);
    close_both(&made, &accepted);
}

TEST(plain_bytes_are_no_records)
{
    struct side made, accepted;
    open_relayed(&made, &accepted);
    struct frame_header header = header_of(MESSAGE_HELLO, 1, 4, 0);
    peer_write_frame(&accepted, &header, "text");
    RUN_UNTIL(accepted.closed > 0);
    CHECK_CONTAINS(accepted.reason, "encrypted bytes were damaged");
    CHECK_INT(accepted.frames, 0);
    close_both(&made, &accepted);
}

/* The last byte of an opening says what that end wants. */
enum { ENCRYPTION_AT = FRAME_HEADER_BYTES + AUTH_NONCE_BYTES };

/* Somebody talks one end out of it; the other one wants the same as is said. */
TEST(who_connects_cannot_be_talked_out_of_it)
{
    for (enum auth_encryption ours = AUTH_ENCRYPTED; ours <= AUTH_EITHER; ours++) {
        struct side made, accepted;
        begin();
        side_open(&made);
        side_open(&accepted);
        conn_expect_proof(accepted.conn, &key, AUTH_PLAIN, false);
        conn_prove(made.conn, &key, ours);
        say(&made, 1, secret_body);
        struct relayed relayed = take_from(&made);
        CHECK_INT(relayed.bytes[ENCRYPTION_AT], ours);
        relayed.bytes[ENCRYPTION_AT] = AUTH_PLAIN;
        give(&accepted, &relayed);
        pass(&accepted, &made);
        RUN_UNTIL(made.closed > 0);
        CHECK_TEXT(made.reason, "the key of the other side is not ours");
        close_both(&made, &accepted);
    }
}

TEST(a_client_cannot_be_told_that_the_other_side_does_not_want_it)
{
    struct side made, accepted;
    begin();
    side_open(&made);
    side_open(&accepted);
    conn_expect_proof(accepted.conn, &key, AUTH_ENCRYPTED, false);
    conn_prove(made.conn, &key, AUTH_EITHER);
    say(&made, 1, secret_body);
    pass(&made, &accepted);
    struct relayed relayed = take_from(&accepted);
    CHECK_INT(relayed.bytes[ENCRYPTION_AT], AUTH_ENCRYPTED);
    relayed.bytes[ENCRYPTION_AT] = AUTH_PLAIN;
    give(&made, &relayed);
    RUN_UNTIL(made.closed > 0);
    CHECK_TEXT(made.reason, "the key of the other side is not ours");
    CHECK_INT(accepted.frames, 0);
    close_both(&made, &accepted);
}

TEST(who_accepts_cannot_be_talked_out_of_it)
{
    struct side made, accepted;
    begin();
    side_open(&made);
    side_open(&accepted);
    conn_expect_proof(accepted.conn, &key, AUTH_ENCRYPTED, false);
    conn_prove(made.conn, &key, AUTH_PLAIN);
    struct relayed relayed = take_from(&made);
    relayed.bytes[ENCRYPTION_AT] = AUTH_ENCRYPTED;
    give(&accepted, &relayed);
    pass(&accepted, &made);
    RUN_UNTIL(made.closed > 0);
    CHECK_TEXT(made.reason, "the key of the other side is not ours");
    close_both(&made, &accepted);
}

/* Bytes before their turn would be taken for what they are not. */
TEST(what_comes_before_encryption_begins_closes)
{
    struct side made, accepted;
    begin();
    side_open(&made);
    side_open(&accepted);
    conn_expect_proof(accepted.conn, &key, AUTH_ENCRYPTED, false);
    conn_prove(made.conn, &key, AUTH_ENCRYPTED);
    pass(&made, &accepted);
    pass(&accepted, &made);
    struct relayed relayed = take_from(&made);
    relayed.bytes[relayed.len++] = 0;
    give(&accepted, &relayed);
    RUN_UNTIL(accepted.closed > 0);
    CHECK_CONTAINS(accepted.reason, "went on before its connection was encrypted");
    close_both(&made, &accepted);
}

TEST(descriptors_are_refused)
{
    struct side made, accepted;
    int ends[2];
    open_relayed(&made, &accepted);
    say(&made, 1, "text");
    struct relayed relayed = take_from(&made);
    CHECK_INT(pipe(ends), 0);
    peer_write_with_fds(&accepted, relayed.bytes, relayed.len, &ends[1], 1);
    RUN_UNTIL(accepted.closed > 0);
    CHECK_CONTAINS(accepted.reason, "descriptors");
    CHECK_INT(accepted.frames, 0);
    close(ends[0]);
    close(ends[1]);
    close_both(&made, &accepted);
}

TEST_MAIN(RUN(frames_pass_in_their_order), RUN(large_payloads_pass_both_ways),
          RUN(a_payload_that_nobody_wants_is_swallowed),
          RUN(payloads_come_back_when_the_connection_ends),
          RUN(who_encrypts_refuses_who_does_not),
          RUN(who_does_not_encrypt_refuses_who_does), RUN(who_takes_either_follows),
          RUN(nothing_of_a_frame_is_seen_on_the_path),
          RUN(the_last_record_goes_out_when_there_is_room_again),
          RUN(a_changed_byte_anywhere_closes), RUN(a_record_that_comes_twice_closes),
          RUN(records_in_another_order_close), RUN(what_is_sent_back_closes),
          RUN(a_record_that_is_cut_off_is_no_good_order),
          RUN(plain_bytes_are_no_records), RUN(who_connects_cannot_be_talked_out_of_it),
          RUN(a_client_cannot_be_told_that_the_other_side_does_not_want_it),
          RUN(who_accepts_cannot_be_talked_out_of_it),
          RUN(what_comes_before_encryption_begins_closes), RUN(descriptors_are_refused))
