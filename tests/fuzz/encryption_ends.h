/* The two ends of an encrypted connection, always with the same keys: what seeds.c makes
 * with one of them the target opens with the other. */
#ifndef TESTS_FUZZ_ENCRYPTION_ENDS_H
#define TESTS_FUZZ_ENCRYPTION_ENDS_H

#include "base/check.h"
#include "base/slice.h"
#include "wire/encryption.h"

static inline struct encryption *
encryption_end(enum auth_end us)
{
    static const struct auth_opening opening = {
        .encryption = {AUTH_ENCRYPTED, AUTH_ENCRYPTED}};
    struct auth_key key;
    auth_key_derive(slice_of_text("a secret that everybody may know"), &key);
    struct encryption *encryption = encryption_create(&key, &opening, us);
    DS_ASSERT(encryption != NULL);
    return encryption;
}

#endif
