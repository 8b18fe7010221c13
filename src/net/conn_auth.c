/* Proving a key: who has connected asks first, so that a peer without one can be told. */
#include "net/conn_internal.h"

#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/random.h"
#include "os/sockets.h"
#include "os/tcp_peer.h"

#include <stdio.h>
#include <string.h>

enum { BODY_BYTES_MAX = 4096 }; /* A refusal, and HELLO of one that shall be told. */

static bool
is_message(const struct frame_header *header, struct ds_slice body,
           enum message_type type, size_t bytes)
{
    return header->type == type && header->status == DS_OK && body.len == bytes;
}

static bool
is_of_proof(enum message_type type)
{
    return type == MESSAGE_AUTH_CHALLENGE || type == MESSAGE_AUTH_PROVE;
}

/* ---- Of a connection that we have accepted ---- */

static void
refuse(struct conn *conn, const struct frame_header *header, const char *why)
{
    char peer[SOCKET_ADDRESS_TEXT_BYTES];
    struct ds_error err = {0};
    socket_peer_text(conn->fd, peer);
    log_warn("connection refused peer=%s reason=\"%s\"", peer, why);
    (void)ds_fail(&err, DS_NOT_AUTHORIZED, "%s", why);
    conn->auth.step = CONN_AUTH_REFUSED;
    conn_reply_error(conn, header, &err);
}

static const char *
disagreement(const struct conn_auth *auth)
{
    if (auth->opening.encryption[AUTH_ACCEPTED] == AUTH_ENCRYPTED)
        return "connections are encrypted here, and the other side does not do it: "
               "start "
               "it with --encrypt_connections as well";
    return "the other side wants its connections encrypted, and this one does not do "
           "it: "
           "start this side with --encrypt_connections as well, or the other one "
           "without";
}

static void
answer_challenge(struct conn *conn, const struct frame_header *header,
                 struct ds_slice body)
{
    struct conn_auth *auth = &conn->auth;
    uint8_t answer[AUTH_ANSWER_BYTES];
    if (auth->key == NULL) {
        refuse(conn, header,
               "a key was offered, and there is none here: start this side with "
               "--auth_key_file, or the other one without");
        return;
    }
    auth_read_opening(&auth->opening, AUTH_CONNECTED, body.data);
    if (!auth_agree(&auth->opening, &auth->is_encrypted)) {
        refuse(conn, header, disagreement(auth));
        return;
    }
    random_bytes(auth->opening.nonce[AUTH_ACCEPTED], AUTH_NONCE_BYTES);
    auth_write_opening(&auth->opening, AUTH_ACCEPTED, answer);
    auth_prove(auth->key, &auth->opening, AUTH_ACCEPTED, answer + AUTH_OPENING_BYTES);
    auth->step = CONN_AUTH_ANSWERED;
    conn_reply(conn, header, slice(answer, sizeof answer));
}

static void
check_proof(struct conn *conn, const struct frame_header *header, struct ds_slice body)
{
    struct conn_auth *auth = &conn->auth;
    if (!auth_check(auth->key, &auth->opening, AUTH_CONNECTED, body.data)) {
        refuse(conn, header, "the key is another one than here");
        return;
    }
    auth->step = CONN_AUTH_OVER;
    conn_reply(conn, header, (struct ds_slice){0});
    if (auth->is_encrypted)
        conn_encrypt(conn, AUTH_ACCEPTED);
}

static bool
take_of_peer(struct conn *conn, const struct frame_header *header, struct ds_slice body)
{
    struct conn_auth *auth = &conn->auth;
    bool is_expected = auth->step == CONN_AUTH_EXPECTED;
    if (is_expected && auth->is_trusted && !is_of_proof(header->type)) {
        auth->step = CONN_AUTH_OVER;
        return false;
    }
    if (is_expected &&
        is_message(header, body, MESSAGE_AUTH_CHALLENGE, AUTH_OPENING_BYTES))
        answer_challenge(conn, header, body);
    else if (is_expected &&
             is_message(header, body, MESSAGE_AUTH_CHALLENGE, AUTH_NONCE_BYTES))
        refuse(
            conn, header,
            "the key is proven as in protocol 15 and before: install the same version "
            "on both sides");
    else if (auth->step == CONN_AUTH_ANSWERED &&
             is_message(header, body, MESSAGE_AUTH_PROVE, AUTH_PROOF_BYTES))
        check_proof(conn, header, body);
    else if (is_expected && !is_of_proof(header->type))
        refuse(conn, header,
               "no key was proven, and one is asked for here: name the file of the "
               "cluster's key (--auth_key_file, or DATASYSTEM_AUTH_KEY_FILE)");
    else
        conn_close(conn, "the peer's proof of its key is malformed or out of turn");
    return true;
}

void
conn_expect_proof(struct conn *conn, const struct auth_key *key,
                  enum auth_encryption encryption, bool is_trusted)
{
    DS_ASSERT(key != NULL || is_trusted);
    DS_ASSERT(encryption != AUTH_EITHER);
    DS_ASSERT(encryption == AUTH_PLAIN || key != NULL);
    conn->auth = (struct conn_auth){
        .step = CONN_AUTH_EXPECTED,
        .is_trusted = is_trusted,
        .key = key,
        .opening.encryption[AUTH_ACCEPTED] = (uint8_t)encryption,
    };
}

void
conn_expect_proof_over_tcp(struct conn *conn, const struct auth_key *key,
                           enum auth_encryption encryption)
{
    bool is_trusted = key == NULL || tcp_peer_is_ours(conn->fd);
    conn_expect_proof(conn, key, encryption, is_trusted);
}

/* ---- Of a connection that we have made ---- */

static void
send_proof(struct conn *conn, enum message_type type, const uint8_t *bytes,
           size_t count)
{
    struct frame_header header = {.type = type, .body_bytes = (uint32_t)count};
    conn_send(conn, &header, slice(bytes, count), NULL, 0, NULL, 0);
}

void
conn_prove(struct conn *conn, const struct auth_key *key,
           enum auth_encryption encryption)
{
    struct conn_auth *auth = &conn->auth;
    uint8_t opening[AUTH_OPENING_BYTES];
    if (key == NULL)
        return;
    *auth = (struct conn_auth){
        .step = CONN_AUTH_ASKED,
        .key = key,
        .opening.encryption[AUTH_CONNECTED] = (uint8_t)encryption,
    };
    random_bytes(auth->opening.nonce[AUTH_CONNECTED], AUTH_NONCE_BYTES);
    auth_write_opening(&auth->opening, AUTH_CONNECTED, opening);
    send_proof(conn, MESSAGE_AUTH_CHALLENGE, opening, sizeof opening);
}

static void
take_answer(struct conn *conn, struct ds_slice body)
{
    struct conn_auth *auth = &conn->auth;
    uint8_t proof[AUTH_PROOF_BYTES];
    if (!auth_answer(auth->key, &auth->opening, body.data, proof)) {
        conn_close(conn, "the key of the other side is not ours");
        return;
    }
    if (!auth_agree(&auth->opening, &auth->is_encrypted)) {
        conn_close(conn, "the other side has another --encrypt_connections than we");
        return;
    }
    auth->step = CONN_AUTH_PROVING;
    send_proof(conn, MESSAGE_AUTH_PROVE, proof, sizeof proof);
}

static void
take_of_server(struct conn *conn, const struct frame_header *header,
               struct ds_slice body)
{
    struct conn_auth *auth = &conn->auth;
    if (auth->step == CONN_AUTH_ASKED &&
        is_message(header, body, MESSAGE_AUTH_CHALLENGE, AUTH_ANSWER_BYTES)) {
        take_answer(conn, body);
    } else if (auth->step == CONN_AUTH_PROVING &&
               is_message(header, body, MESSAGE_AUTH_PROVE, 0)) {
        auth->step = CONN_AUTH_OVER;
        if (auth->is_encrypted)
            conn_encrypt(conn, AUTH_CONNECTED);
        conn_send_held(conn);
    } else if (is_of_proof(header->type) && header->status != DS_OK) {
        char reason[CONN_REASON_BYTES];
        snprintf(reason, sizeof reason, "we are refused: %.*s", (int)body.len,
                 body.len == 0 ? "" : (const char *)body.data);
        conn_close(conn, reason);
    } else {
        conn_close(conn, "the other side answers no challenge");
    }
}

/* ---- What conn.c asks ---- */

static bool
have_connected(const struct conn_auth *auth)
{
    return auth->step == CONN_AUTH_ASKED || auth->step == CONN_AUTH_PROVING;
}

bool
conn_auth_holds(const struct conn *conn, const struct frame_header *header)
{
    return have_connected(&conn->auth) && !is_of_proof(header->type);
}

bool
conn_auth_admits(struct conn *conn, const struct frame_header *header)
{
    const struct conn_auth *auth = &conn->auth;
    bool is_open = auth->step == CONN_AUTH_OVER ||
                   (auth->step == CONN_AUTH_EXPECTED && auth->is_trusted &&
                    !is_of_proof(header->type));
    if (is_open)
        return true;
    if (auth->step == CONN_AUTH_REFUSED)
        conn_close(conn, "the peer goes on after it was refused");
    else if (header->body_bytes > BODY_BYTES_MAX || header->payload_bytes > 0)
        conn_close(conn, "the peer sends much before it has proven its key");
    return !conn->closing;
}

bool
conn_auth_takes(struct conn *conn, const struct frame_header *header,
                struct ds_slice body)
{
    if (conn->auth.step == CONN_AUTH_OVER)
        return false;
    if (!have_connected(&conn->auth))
        return take_of_peer(conn, header, body);
    take_of_server(conn, header, body);
    return true;
}
