#include "wire/auth.h"

#include "base/slice.h"
#include "test.h"

#include <stdio.h>
#include <string.h>

enum { SECRET_BYTES = 40 };

/* A key from bytes that count up from `first`. */
static struct auth_key
key_from(uint8_t first)
{
    uint8_t secret[SECRET_BYTES];
    struct auth_key key;
    for (uint8_t i = 0; i < SECRET_BYTES; i++)
        secret[i] = (uint8_t)(first + i);
    auth_key_derive(slice(secret, sizeof secret), &key);
    return key;
}

static struct auth_opening
opening_of(uint8_t connected, uint8_t accepted)
{
    struct auth_opening opening = {
        .encryption =
            {[AUTH_CONNECTED] = AUTH_EITHER, [AUTH_ACCEPTED] = AUTH_ENCRYPTED},
    };
    memset(opening.nonce[AUTH_CONNECTED], connected, AUTH_NONCE_BYTES);
    memset(opening.nonce[AUTH_ACCEPTED], accepted, AUTH_NONCE_BYTES);
    return opening;
}

static void
check_hex(const uint8_t *bytes, const char *expected)
{
    char hex[2 * AUTH_PROOF_BYTES + 1];
    for (size_t i = 0; i < AUTH_PROOF_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    CHECK_TEXT(hex, expected);
}

/* Expected values: hashlib.blake2b(label + C + A, key=key, digest_size=32) of Python, C and
 * A the openings, key = hashlib.blake2b(label + secret, digest_size=32), labels with their
 * final 0. */
TEST(proofs_and_keys_are_those_of_another_implementation_of_blake2b)
{
    struct auth_key key = key_from(0), stream;
    struct auth_opening opening = opening_of(1, 2);
    uint8_t proof[AUTH_PROOF_BYTES];
    check_hex(key.bytes,
              "bb4e1a3caf5dd8e44d350047ec44b805af13fab8505afdaf4512bef3293a0b79");
    auth_prove(&key, &opening, AUTH_CONNECTED, proof);
    check_hex(proof,
              "280e0e765fe8d4a91488993a7c4b3b88470769a31fa45021a565b0fd4b713350");
    auth_prove(&key, &opening, AUTH_ACCEPTED, proof);
    check_hex(proof,
              "571c8b21ac1635d125252df0970cdd719f7073afde67dd28f2efbfe210a69165");
    auth_stream_key(&key, &opening, AUTH_CONNECTED, &stream);
    check_hex(stream.bytes,
              "338bd656fac380c1d5a23c64c96e8940c51dc83074ffb5ad7f9928d4039136cd");
    auth_stream_key(&key, &opening, AUTH_ACCEPTED, &stream);
    check_hex(stream.bytes,
              "7249fa03d91bcf3c7aeb13e16e86b6dddd49c09f6a70cd1edcb47e68897d5fd0");
}

TEST(a_proof_is_right_for_its_key_end_and_openings_alone)
{
    struct auth_key key = key_from(0), other = key_from(1);
    struct auth_opening opening = opening_of(1, 2);
    struct auth_opening swapped = opening_of(2, 1), fresh = opening_of(1, 3);
    for (enum auth_end end = 0; end < AUTH_END_COUNT; end++) {
        uint8_t proof[AUTH_PROOF_BYTES];
        auth_prove(&key, &opening, end, proof);
        CHECK(auth_check(&key, &opening, end, proof));
        CHECK(!auth_check(&other, &opening, end, proof));
        CHECK(
            !auth_check(&key, &opening, (enum auth_end) !end, proof)); /* Reflected. */
        CHECK(!auth_check(&key, &swapped, end, proof));
        CHECK(!auth_check(&key, &fresh, end, proof)); /* Replayed. */
        for (size_t i = 0; i < sizeof proof; i++) {
            proof[i] ^= 0x80;
            CHECK(!auth_check(&key, &opening, end, proof));
            proof[i] ^= 0x80;
        }
    }
}

/* Somebody in between says that an end wants something else. */
TEST(a_proof_is_of_what_both_ends_want_encrypted)
{
    struct auth_key key = key_from(0);
    struct auth_opening said = opening_of(1, 2);
    for (enum auth_end end = 0; end < AUTH_END_COUNT; end++) {
        uint8_t proof[AUTH_PROOF_BYTES];
        auth_prove(&key, &said, end, proof);
        for (enum auth_end at = 0; at < AUTH_END_COUNT; at++) {
            struct auth_opening heard = said;
            heard.encryption[at] = AUTH_PLAIN;
            CHECK(!auth_check(&key, &heard, end, proof));
        }
    }
}

TEST(ends_agree_on_what_who_has_accepted_wants)
{
    enum { NO = 2 };
    static const uint8_t expected[4][4] = {
        /* Accepted:        PLAIN ENCRYPTED EITHER unknown */
        [AUTH_PLAIN] = {0, NO, NO, NO},
        [AUTH_ENCRYPTED] = {NO, 1, NO, NO},
        [AUTH_EITHER] = {0, 1, NO, NO},
        [AUTH_EITHER + 1] = {NO, NO, NO, NO},
    };
    for (uint8_t connected = 0; connected < 4; connected++) {
        for (uint8_t accepted = 0; accepted < 4; accepted++) {
            struct auth_opening opening = {.encryption = {connected, accepted}};
            bool is_encrypted = false;
            bool agreed = auth_agree(&opening, &is_encrypted);
            CHECK_INT(agreed ? is_encrypted : NO, expected[connected][accepted]);
        }
    }
}

TEST(an_opening_is_read_as_it_was_written)
{
    struct auth_opening opening = opening_of(1, 2), read = {0};
    for (enum auth_end end = 0; end < AUTH_END_COUNT; end++) {
        uint8_t bytes[AUTH_OPENING_BYTES];
        auth_write_opening(&opening, end, bytes);
        auth_read_opening(&read, end, bytes);
    }
    CHECK(memcmp(&opening, &read, sizeof read) == 0);
}

TEST(a_wiped_key_is_gone)
{
    static const struct auth_key none;
    struct auth_key key = key_from(7);
    auth_key_wipe(&key);
    CHECK(memcmp(&key, &none, sizeof key) == 0);
}

TEST_MAIN(RUN(proofs_and_keys_are_those_of_another_implementation_of_blake2b),
          RUN(a_proof_is_right_for_its_key_end_and_openings_alone),
          RUN(a_proof_is_of_what_both_ends_want_encrypted),
          RUN(ends_agree_on_what_who_has_accepted_wants),
          RUN(an_opening_is_read_as_it_was_written), RUN(a_wiped_key_is_gone))
