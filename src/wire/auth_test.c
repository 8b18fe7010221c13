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

static struct auth_nonces
nonces_of(uint8_t connected, uint8_t accepted)
{
    struct auth_nonces nonces;
    memset(nonces.of[AUTH_CONNECTED], connected, AUTH_NONCE_BYTES);
    memset(nonces.of[AUTH_ACCEPTED], accepted, AUTH_NONCE_BYTES);
    return nonces;
}

static void
check_hex(const uint8_t *bytes, const char *expected)
{
    char hex[2 * AUTH_PROOF_BYTES + 1];
    for (size_t i = 0; i < AUTH_PROOF_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    CHECK_TEXT(hex, expected);
}

/* Expected values: hashlib.blake2b(label + C + A, key=key, digest_size=32) of Python,
 * key = hashlib.blake2b(label + secret, digest_size=32), labels with their final 0. */
TEST(proofs_are_those_of_another_implementation_of_blake2b)
{
    struct auth_key key = key_from(0);
    struct auth_nonces nonces = nonces_of(1, 2);
    uint8_t proof[AUTH_PROOF_BYTES];
    check_hex(key.bytes,
              "bb4e1a3caf5dd8e44d350047ec44b805af13fab8505afdaf4512bef3293a0b79");
    auth_prove(&key, &nonces, AUTH_CONNECTED, proof);
    check_hex(proof,
              "b4551f2a9f6797da495b3523177beaf8dc638a708719365e0087b1baceca380d");
    auth_prove(&key, &nonces, AUTH_ACCEPTED, proof);
    check_hex(proof,
              "56d578ba9f86851977c951d747eb8446673f8bce8cd29bfdc0436730f0f1cd47");
}

TEST(a_proof_is_right_for_its_key_end_and_nonces_alone)
{
    struct auth_key key = key_from(0), other = key_from(1);
    struct auth_nonces nonces = nonces_of(1, 2);
    struct auth_nonces swapped = nonces_of(2, 1), fresh = nonces_of(1, 3);
    for (enum auth_end end = 0; end < AUTH_END_COUNT; end++) {
        uint8_t proof[AUTH_PROOF_BYTES];
        auth_prove(&key, &nonces, end, proof);
        CHECK(auth_check(&key, &nonces, end, proof));
        CHECK(!auth_check(&other, &nonces, end, proof));
        CHECK(!auth_check(&key, &nonces, (enum auth_end) !end, proof)); /* Reflected. */
        CHECK(!auth_check(&key, &swapped, end, proof));
        CHECK(!auth_check(&key, &fresh, end, proof)); /* Replayed. */
        for (size_t i = 0; i < sizeof proof; i++) {
            proof[i] ^= 0x80;
            CHECK(!auth_check(&key, &nonces, end, proof));
            proof[i] ^= 0x80;
        }
    }
}

TEST(a_wiped_key_is_gone)
{
    static const struct auth_key none;
    struct auth_key key = key_from(7);
    auth_key_wipe(&key);
    CHECK(memcmp(&key, &none, sizeof key) == 0);
}

TEST_MAIN(RUN(proofs_are_those_of_another_implementation_of_blake2b),
          RUN(a_proof_is_right_for_its_key_end_and_nonces_alone),
          RUN(a_wiped_key_is_gone))
