/* Both ends of a connection prove that they know the same key, and do not show it.
 *
 *      who has connected                          who has accepted
 *          AUTH_CHALLENGE  its opening     ──►
 *                          ◄──     its opening and proof
 *          AUTH_PROVE      its proof       ──►
 *                          ◄──                 (empty)
 *
 * An opening is a nonce, and whether that end wants what follows encrypted:
 *
 *      nonce, 32 bytes | encryption u8
 *
 * This is three-pass mutual authentication as in ISO/IEC 9798-4, with keyed BLAKE2b (RFC
 * 7693) as its cryptographic check function. A proof is of both openings and of which end
 * gives it, so that none fits a second time or the other way, and nobody on the path can
 * talk two ends out of encryption. What follows is encrypted (wire/encryption.h) with keys
 * from both nonces, or else who sits on the path can read and change it. Pure. */
#ifndef WIRE_AUTH_H
#define WIRE_AUTH_H

#include <datasystem/datasystem.h>

#include <stdbool.h>
#include <stdint.h>

enum {
    AUTH_SECRET_BYTES_MIN = 32,
    AUTH_NONCE_BYTES = 32,
    AUTH_PROOF_BYTES = 32,
    AUTH_OPENING_BYTES = AUTH_NONCE_BYTES + 1,
    AUTH_ANSWER_BYTES = AUTH_OPENING_BYTES + AUTH_PROOF_BYTES,
};

/* Derived from what the user's file says. Whoever holds it wipes it with auth_key_wipe().
 */
struct auth_key {
    uint8_t bytes[32];
};

enum auth_end { AUTH_CONNECTED, AUTH_ACCEPTED, AUTH_END_COUNT };

/* What an end wants of what follows. */
enum auth_encryption {
    AUTH_PLAIN,
    AUTH_ENCRYPTED,
    AUTH_EITHER, /* Only of who has connected: as who has accepted wants it. */
};

/* What both ends have said. `encryption` is as it arrived, so it may be any number. */
struct auth_opening {
    uint8_t nonce[AUTH_END_COUNT][AUTH_NONCE_BYTES]; /* Random, each from its end. */
    uint8_t encryption[AUTH_END_COUNT];              /* enum auth_encryption */
};

/* `secret` has at least AUTH_SECRET_BYTES_MIN bytes. */
void auth_key_derive(struct ds_slice secret, struct auth_key *out);
void auth_key_wipe(struct auth_key *key);

void auth_write_opening(const struct auth_opening *opening, enum auth_end end,
                        uint8_t out[AUTH_OPENING_BYTES]);
void auth_read_opening(struct auth_opening *opening, enum auth_end end,
                       const uint8_t bytes[AUTH_OPENING_BYTES]);

/* Whether both ends can have what they want; then *out_encrypted is what that is. */
bool auth_agree(const struct auth_opening *opening, bool *out_encrypted);

/* What `end` proves with. */
void auth_prove(const struct auth_key *key, const struct auth_opening *opening,
                enum auth_end end, uint8_t out[AUTH_PROOF_BYTES]);

/* Whether `proof` is the one of `end`; takes the same time whatever is wrong in it. */
bool auth_check(const struct auth_key *key, const struct auth_opening *opening,
                enum auth_end end, const uint8_t proof[AUTH_PROOF_BYTES]);

/* Of who has connected: the answer to its challenge brings the other opening and proof.
 * True if that proof is right; then *out_proof is what to prove with. */
bool auth_answer(const struct auth_key *key, struct auth_opening *opening,
                 const uint8_t answer[AUTH_ANSWER_BYTES],
                 uint8_t out_proof[AUTH_PROOF_BYTES]);

/* After the proofs: the key of what `sender` sends on this connection, and no other. */
void auth_stream_key(const struct auth_key *key, const struct auth_opening *opening,
                     enum auth_end sender, struct auth_key *out);

#endif
