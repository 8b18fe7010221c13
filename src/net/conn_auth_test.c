/* Proving a key on a connection. */
#include "net/conn_testing.h"

#include "base/log.h"
#include "base/slice.h"

static struct auth_key
key_from(const char *secret)
{
    struct auth_key key;
    CHECK(strlen(secret) >= AUTH_SECRET_BYTES_MIN);
    auth_key_derive(slice_of_text(secret), &key);
    return key;
}

static const char ours[] = "the secret that all of us have here";
static const char theirs[] = "a secret of some other cluster here";

static void
say(struct side *side, enum message_type type, const char *text)
{
    struct frame_header header = header_of(type, 7, strlen(text), 0);
    conn_send(side->conn, &header, slice_of_text(text), NULL, 0, NULL, 0);
}

/* ---- Both ends are ours ---- */

TEST(ends_with_the_same_key_exchange_frames_after_it_in_their_order)
{
    struct side made, accepted;
    struct auth_key key = key_from(ours);
    begin_logged();
    sides_open_joined(&made, &accepted);
    accepted.echo = true;
    conn_expect_proof(accepted.conn, &key, AUTH_PLAIN, false);
    conn_prove(made.conn, &key, AUTH_PLAIN);
    say(&made, MESSAGE_HELLO, "first");
    say(&made, MESSAGE_EXIST, "second");
    RUN_UNTIL(made.frames == 2);
    CHECK_INT(accepted.frames, 2);
    CHECK_INT(accepted.last.type, MESSAGE_EXIST);
    CHECK(memcmp(made.last_body, "second", 6) == 0);
    CHECK_TEXT(last_line, "");
    side_close(&made);
    side_close(&accepted);
    end_logged();
}

TEST(nothing_is_said_to_a_peer_with_another_key)
{
    struct side made, accepted;
    struct auth_key key = key_from(ours), other = key_from(theirs);
    begin_logged();
    sides_open_joined(&made, &accepted);
    conn_expect_proof(accepted.conn, &other, AUTH_PLAIN, true);
    conn_prove(made.conn, &key, AUTH_PLAIN);
    say(&made, MESSAGE_HELLO, "first");
    RUN_UNTIL(made.closed && accepted.closed);
    CHECK_INT(accepted.frames, 0);
    CHECK_TEXT(made.reason, "the key of the other side is not ours");
    side_close(&made);
    side_close(&accepted);
    end_logged();
}

TEST(who_proves_a_key_is_told_where_there_is_none)
{
    struct side made, accepted;
    struct auth_key key = key_from(ours);
    begin_logged();
    sides_open_joined(&made, &accepted);
    conn_expect_proof(accepted.conn, NULL, AUTH_PLAIN, true);
    conn_prove(made.conn, &key, AUTH_PLAIN);
    say(&made, MESSAGE_HELLO, "first");
    RUN_UNTIL(made.closed && accepted.closed);
    CHECK_INT(accepted.frames, 0);
    CHECK_CONTAINS(made.reason, "we are refused: a key was offered, and there is none");
    CHECK_CONTAINS(last_line, "refused peer=? reason=\"a key was offered");
    side_close(&made);
    side_close(&accepted);
    end_logged();
}

TEST(without_a_key_on_either_side_all_is_as_ever)
{
    struct side made, accepted;
    begin_logged();
    sides_open_joined(&made, &accepted);
    conn_expect_proof(accepted.conn, NULL, AUTH_PLAIN, true);
    conn_prove(made.conn, NULL, AUTH_PLAIN);
    say(&made, MESSAGE_HELLO, "first");
    RUN_UNTIL(accepted.frames == 1);
    CHECK_TEXT(last_line, "");
    side_close(&made);
    side_close(&accepted);
    end_logged();
}

static void
count_return(void *arg)
{
    (*(size_t *)arg)++;
}

/* Payloads of frames that are held come back when the proof fails. */
TEST(payload_that_waits_for_the_proof_is_given_back)
{
    struct side made, accepted;
    struct auth_key key = key_from(ours);
    size_t returned = 0;
    begin_logged();
    sides_open_joined(&made, &accepted);
    conn_expect_proof(accepted.conn, NULL, AUTH_PLAIN, true);
    conn_prove(made.conn, &key, AUTH_PLAIN);
    struct frame_header header = header_of(MESSAGE_PUT, 1, 0, 0);
    struct conn_payload payload = {"bytes", 5, count_return, &returned};
    conn_send(made.conn, &header, (struct ds_slice){0}, NULL, 0, &payload, 1);
    CHECK_INT(returned, 0);
    RUN_UNTIL(made.closed && accepted.closed);
    CHECK_INT(returned, 1);
    CHECK_INT(accepted.payloads, 0);
    side_close(&made);
    side_close(&accepted);
    end_logged();
}

/* ---- Raw peers ---- */

TEST(who_proves_nothing_is_told_once_and_then_closed)
{
    struct side side;
    struct auth_key key = key_from(ours);
    char text[1024] = "";
    begin_logged();
    side_open(&side);
    conn_expect_proof(side.conn, &key, AUTH_PLAIN, false);
    struct frame_header hello = header_of(MESSAGE_HELLO, 3, 5, 0);
    peer_write_frame(&side, &hello, "hello");
    struct frame_header reply = peer_read_header(&side);
    CHECK_INT(reply.status, DS_NOT_AUTHORIZED);
    CHECK_INT(reply.sequence, 3);
    peer_read(&side, text, reply.body_bytes);
    CHECK_CONTAINS(text, "no key was proven, and one is asked for here");
    CHECK_CONTAINS(last_line, text);
    CHECK_INT(side.closed, 0);
    peer_write_frame(&side, &hello, "hello");
    RUN_UNTIL(side.closed > 0);
    CHECK_INT(side.frames, 0);
    CHECK_TEXT(side.reason, "the peer goes on after it was refused");
    side_close(&side);
    end_logged();
}

TEST(trusted_peer_needs_no_key)
{
    struct side side;
    struct auth_key key = key_from(ours);
    begin_logged();
    side_open(&side);
    conn_expect_proof(side.conn, &key, AUTH_PLAIN, true);
    struct frame_header hello = header_of(MESSAGE_HELLO, 3, 5, 0);
    peer_write_frame(&side, &hello, "hello");
    RUN_UNTIL(side.frames == 1);
    struct frame_header late =
        header_of(MESSAGE_AUTH_CHALLENGE, 4, AUTH_OPENING_BYTES, 0);
    uint8_t opening[AUTH_OPENING_BYTES] = {0};
    peer_write_frame(&side, &late, opening); /* A frame like others by now. */
    RUN_UNTIL(side.frames == 2);
    side_close(&side);
    end_logged();
}

/* Sends a challenge and reads the answer to it. */
static void
challenge(struct side *side, struct auth_opening *opening)
{
    struct frame_header header =
        header_of(MESSAGE_AUTH_CHALLENGE, 0, AUTH_OPENING_BYTES, 0);
    uint8_t bytes[AUTH_OPENING_BYTES], answer[AUTH_ANSWER_BYTES];
    *opening = (struct auth_opening){.encryption[AUTH_CONNECTED] = AUTH_EITHER};
    memset(opening->nonce[AUTH_CONNECTED], 5, AUTH_NONCE_BYTES);
    auth_write_opening(opening, AUTH_CONNECTED, bytes);
    peer_write_frame(side, &header, bytes);
    CHECK_INT(peer_read_header(side).body_bytes, sizeof answer);
    peer_read(side, answer, sizeof answer);
    auth_read_opening(opening, AUTH_ACCEPTED, answer);
    struct auth_key key = key_from(ours);
    CHECK(auth_check(&key, opening, AUTH_ACCEPTED, answer + AUTH_OPENING_BYTES));
}

TEST(a_wrong_proof_is_refused_also_of_a_trusted_peer)
{
    for (int is_trusted = 0; is_trusted < 2; is_trusted++) {
        struct side side;
        struct auth_key key = key_from(ours), other = key_from(theirs);
        struct auth_opening opening;
        uint8_t proof[AUTH_PROOF_BYTES];
        begin_logged();
        side_open(&side);
        conn_expect_proof(side.conn, &key, AUTH_PLAIN, is_trusted != 0);
        challenge(&side, &opening);
        auth_prove(&other, &opening, AUTH_CONNECTED, proof);
        struct frame_header header = header_of(MESSAGE_AUTH_PROVE, 0, sizeof proof, 0);
        peer_write_frame(&side, &header, proof);
        CHECK_INT(peer_read_header(&side).status, DS_NOT_AUTHORIZED);
        CHECK_CONTAINS(last_line, "the key is another one than here");
        CHECK_INT(side.frames, 0);
        side_close(&side);
        end_logged();
    }
}

TEST(who_proves_as_in_earlier_versions_is_told)
{
    struct side side;
    struct auth_key key = key_from(ours);
    uint8_t nonce[AUTH_NONCE_BYTES] = {0};
    begin_logged();
    side_open(&side);
    conn_expect_proof(side.conn, &key, AUTH_PLAIN, false);
    struct frame_header header = header_of(MESSAGE_AUTH_CHALLENGE, 0, sizeof nonce, 0);
    peer_write_frame(&side, &header, nonce);
    CHECK_INT(peer_read_header(&side).status, DS_NOT_AUTHORIZED);
    CHECK_CONTAINS(last_line, "install the same version on both sides");
    side_close(&side);
    end_logged();
}

TEST(no_answer_comes_twice)
{
    struct auth_opening first, second;
    for (int i = 0; i < 2; i++) {
        struct side side;
        struct auth_key key = key_from(ours);
        begin_logged();
        side_open(&side);
        conn_expect_proof(side.conn, &key, AUTH_PLAIN, false);
        challenge(&side, i == 0 ? &first : &second);
        side_close(&side);
        end_logged();
    }
    CHECK(memcmp(first.nonce[AUTH_ACCEPTED], second.nonce[AUTH_ACCEPTED],
                 AUTH_NONCE_BYTES) != 0);
}

/* What may be said before the proof: any other first frame closes, and no body is kept. */
TEST(what_is_out_of_turn_closes)
{
    static const struct {
        struct frame_header header;
        const char *reason;
    } cases[] = {
        {{MESSAGE_AUTH_PROVE, DS_OK, 0, AUTH_PROOF_BYTES, 0},
         "malformed or out of turn"},
        {{MESSAGE_AUTH_CHALLENGE, DS_OK, 0, AUTH_OPENING_BYTES - 2, 0},
         "malformed or out"},
        {{MESSAGE_AUTH_CHALLENGE, DS_IO, 0, AUTH_OPENING_BYTES, 0},
         "malformed or out of"},
        {{MESSAGE_HELLO, DS_OK, 0, 16 << 20, 0}, "sends much before it has proven"},
        {{MESSAGE_PUT, DS_OK, 0, 8, 1}, "sends much before it has proven"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct side side;
        struct auth_key key = key_from(ours);
        uint8_t bytes[FRAME_HEADER_BYTES + AUTH_OPENING_BYTES] = {0};
        begin_logged();
        side_open(&side);
        conn_expect_proof(side.conn, &key, AUTH_PLAIN, false);
        frame_encode(&cases[i].header, bytes);
        peer_write(&side, bytes, sizeof bytes);
        RUN_UNTIL(side.closed > 0);
        CHECK_CONTAINS(side.reason, cases[i].reason);
        CHECK_INT(side.frames, 0);
        CHECK_INT(side.payloads, 0);
        side_close(&side);
        end_logged();
    }
}

/* The other side gives no proof of its own. */
TEST(an_answer_that_proves_nothing_ends_what_we_have_connected)
{
    static const uint8_t answer[AUTH_ANSWER_BYTES];
    static const struct {
        enum message_type type;
        size_t bytes;
        const char *reason;
    } cases[] = {
        {MESSAGE_AUTH_CHALLENGE, AUTH_ANSWER_BYTES, "the key of the other side"},
        {MESSAGE_AUTH_CHALLENGE, AUTH_NONCE_BYTES, "answers no challenge"},
        {MESSAGE_AUTH_PROVE, 0, "answers no challenge"},
        {MESSAGE_HELLO, 0, "answers no challenge"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct side side;
        struct auth_key key = key_from(ours);
        uint8_t opening[AUTH_OPENING_BYTES];
        begin_logged();
        side_open(&side);
        conn_prove(side.conn, &key, AUTH_PLAIN);
        say(&side, MESSAGE_HELLO, "first");
        CHECK_INT(peer_read_header(&side).type, MESSAGE_AUTH_CHALLENGE);
        peer_read(&side, opening, sizeof opening);
        struct frame_header header = header_of(cases[i].type, 0, cases[i].bytes, 0);
        peer_write_frame(&side, &header, answer);
        RUN_UNTIL(side.closed > 0);
        CHECK_CONTAINS(side.reason, cases[i].reason);
        CHECK_INT(side.frames, 0);
        CHECK_INT(recv(side.peer, opening, sizeof opening, MSG_DONTWAIT),
                  0); /* No HELLO. */
        side_close(&side);
        end_logged();
    }
}

TEST_MAIN(RUN(ends_with_the_same_key_exchange_frames_after_it_in_their_order),
          RUN(nothing_is_said_to_a_peer_with_another_key),
          RUN(who_proves_a_key_is_told_where_there_is_none),
          RUN(without_a_key_on_either_side_all_is_as_ever),
          RUN(payload_that_waits_for_the_proof_is_given_back),
          RUN(who_proves_nothing_is_told_once_and_then_closed),
          RUN(trusted_peer_needs_no_key),
          RUN(a_wrong_proof_is_refused_also_of_a_trusted_peer),
          RUN(who_proves_as_in_earlier_versions_is_told), RUN(no_answer_comes_twice),
          RUN(what_is_out_of_turn_closes),
          RUN(an_answer_that_proves_nothing_ends_what_we_have_connected))
