#include "wire/auth.h"

#include "base/check.h"

#include <sodium/core.h>
#include <sodium/crypto_generichash.h>
#include <sodium/utils.h>
#include <string.h>

/* Each use of a secret or key hashes another one of these first. */
static const char derivation_label[] = "datasystem key 1";
static const char *const proof_labels[AUTH_END_COUNT] = {
    [AUTH_CONNECTED] = "datasystem proof 2 of who has connected",
    [AUTH_ACCEPTED] = "datasystem proof 2 of who has accepted",
};
static const char *const stream_labels[AUTH_END_COUNT] = {
    [AUTH_CONNECTED] = "datasystem stream 1 of who has connected",
    [AUTH_ACCEPTED] = "datasystem stream 1 of who has accepted",
};

static_assert(sizeof(struct auth_key) >= crypto_generichash_KEYBYTES_MIN &&
                  sizeof(struct auth_key) <= crypto_generichash_KEYBYTES_MAX,
              "BLAKE2b takes such a key");

static void
add(crypto_generichash_state *state, const void *data, size_t bytes)
{
    int result = crypto_generichash_update(state, data, bytes);
    DS_ASSERT(result == 0);
}

static void
begin(crypto_generichash_state *state, const struct auth_key *key, size_t out_bytes,
      const char *label)
{
    int result =
        crypto_generichash_init(state, key == NULL ? NULL : key->bytes,
                                key == NULL ? 0 : sizeof key->bytes, out_bytes);
    DS_ASSERT(result == 0);
    add(state, label, strlen(label) + 1);
}

static void
finish(crypto_generichash_state *state, uint8_t *out, size_t out_bytes)
{
    int result = crypto_generichash_final(state, out, out_bytes);
    DS_ASSERT(result == 0);
    sodium_memzero(state, sizeof *state);
}

void
auth_key_derive(struct ds_slice secret, struct auth_key *out)
{
    crypto_generichash_state state;
    DS_ASSERT(secret.len >= AUTH_SECRET_BYTES_MIN);
    int result = sodium_init(); /* Wanted before any other call; again does no harm. */
    DS_ASSERT(result >= 0);
    begin(&state, NULL, sizeof out->bytes, derivation_label);
    add(&state, secret.data, secret.len);
    finish(&state, out->bytes, sizeof out->bytes);
}

void
auth_key_wipe(struct auth_key *key)
{
    sodium_memzero(key, sizeof *key);
}

void
auth_write_opening(const struct auth_opening *opening, enum auth_end end,
                   uint8_t out[AUTH_OPENING_BYTES])
{
    memcpy(out, opening->nonce[end], AUTH_NONCE_BYTES);
    out[AUTH_NONCE_BYTES] = opening->encryption[end];
}

void
auth_read_opening(struct auth_opening *opening, enum auth_end end,
                  const uint8_t bytes[AUTH_OPENING_BYTES])
{
    memcpy(opening->nonce[end], bytes, AUTH_NONCE_BYTES);
    opening->encryption[end] = bytes[AUTH_NONCE_BYTES];
}

bool
auth_agree(const struct auth_opening *opening, bool *out_encrypted)
{
    uint8_t connected = opening->encryption[AUTH_CONNECTED];
    uint8_t accepted = opening->encryption[AUTH_ACCEPTED];
    if (accepted != AUTH_PLAIN && accepted != AUTH_ENCRYPTED)
        return false;
    if (connected != accepted && connected != AUTH_EITHER)
        return false;
    *out_encrypted = accepted == AUTH_ENCRYPTED;
    return true;
}

/* A hash with the key of both openings, under a label of its own for each use. */
static void
hash_opening(const struct auth_key *key, const struct auth_opening *opening,
             const char *label, uint8_t *out, size_t out_bytes)
{
    crypto_generichash_state state;
    begin(&state, key, out_bytes, label);
    for (enum auth_end end = 0; end < AUTH_END_COUNT; end++) {
        uint8_t bytes[AUTH_OPENING_BYTES];
        auth_write_opening(opening, end, bytes);
        add(&state, bytes, sizeof bytes);
    }
    finish(&state, out, out_bytes);
}

void
auth_prove(const struct auth_key *key, const struct auth_opening *opening,
           enum auth_end end, uint8_t out[AUTH_PROOF_BYTES])
{
    hash_opening(key, opening, proof_labels[end], out, AUTH_PROOF_BYTES);
}

bool
auth_check(const struct auth_key *key, const struct auth_opening *opening,
           enum auth_end end, const uint8_t proof[AUTH_PROOF_BYTES])
{
    uint8_t expected[AUTH_PROOF_BYTES];
    auth_prove(key, opening, end, expected);
    bool is_right = sodium_memcmp(expected, proof, sizeof expected) == 0;
    sodium_memzero(expected, sizeof expected);
    return is_right;
}

bool
auth_answer(const struct auth_key *key, struct auth_opening *opening,
            const uint8_t answer[AUTH_ANSWER_BYTES],
            uint8_t out_proof[AUTH_PROOF_BYTES])
{
    auth_read_opening(opening, AUTH_ACCEPTED, answer);
    if (!auth_check(key, opening, AUTH_ACCEPTED, answer + AUTH_OPENING_BYTES))
        return false;
    auth_prove(key, opening, AUTH_CONNECTED, out_proof);
    return true;
}

void
auth_stream_key(const struct auth_key *key, const struct auth_opening *opening,
                enum auth_end sender, struct auth_key *out)
{
    hash_opening(key, opening, stream_labels[sender], out->bytes, sizeof out->bytes);
}
