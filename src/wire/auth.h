/* Both ends of a connection prove that they know the same key, and do not show it.
 *
 *      who has connected                          who has accepted
 *          AUTH_CHALLENGE  its nonce       ──►
 *                          ◄──     its nonce and proof
 *          AUTH_PROVE      its proof       ──►
 *                          ◄──                 (empty)
 *
 * This is three-pass mutual authentication as in ISO/IEC 9798-4, with keyed BLAKE2b (RFC
 * 7693) as its cryptographic check function. A proof is of both nonces and of which end
 * gives it, so that none fits a second time or the other way. What follows is not
 * encrypted: who sits on the path can read and change it. Pure. */
#ifndef WIRE_AUTH_H
#define WIRE_AUTH_H

#include <datasystem/datasystem.h>

#include <stdbool.h>
#include <stdint.h>

enum {
    AUTH_SECRET_BYTES_MIN = 32,
    AUTH_NONCE_BYTES = 32,
    AUTH_PROOF_BYTES = 32,
    AUTH_ANSWER_BYTES = AUTH_NONCE_BYTES + AUTH_PROOF_BYTES,
};

/* Derived from what the user's file says. Whoever holds it wipes it with auth_key_wipe().
 */
struct auth_key {
    uint8_t bytes[32];
};

enum auth_end { AUTH_CONNECTED, AUTH_ACCEPTED, AUTH_END_COUNT };

/* Random, each from its end. */
struct auth_nonces {
    uint8_t of[AUTH_END_COUNT][AUTH_NONCE_BYTES];
};

/* `secret` has at least AUTH_SECRET_BYTES_MIN bytes. */
void auth_key_derive(struct ds_slice secret, struct auth_key *out);
void auth_key_wipe(struct auth_key *key);

/* What `end` proves with. */
void auth_prove(const struct auth_key *key, const struct auth_nonces *nonces,
                enum auth_end end, uint8_t out[AUTH_PROOF_BYTES]);

/* Whether `proof` is the one of `end`; takes the same time whatever is wrong in it. */
bool auth_check(const struct auth_key *key, const struct auth_nonces *nonces,
                enum auth_end end, const uint8_t proof[AUTH_PROOF_BYTES]);

/* Of who has connected: the answer to its challenge brings the other nonce and proof. True
 * if that proof is right; then *out_proof is what to prove with. */
bool auth_answer(const struct auth_key *key, struct auth_nonces *nonces,
                 const uint8_t answer[AUTH_ANSWER_BYTES],
                 uint8_t out_proof[AUTH_PROOF_BYTES]);

#endif
