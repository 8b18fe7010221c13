/* The key of a client or queue, and proving it to whoever it has connected to. */
#ifndef CLIENT_CREDENTIALS_H
#define CLIENT_CREDENTIALS_H

#include "client/channel.h"
#include "wire/auth.h"

/* Owner: the client or queue, which wipes `key` at its end. Does not change meanwhile. */
struct credentials {
    bool has_key;
    struct auth_key key;
};

/* From `secret`, or, if that is empty, from the file that the environment names.
 *   DS_INVALID   the secret is too short
 *   as secret_file_read() */
DS_MUST_USE enum ds_status
credentials_open(struct ds_slice secret, struct credentials *out, struct ds_error *err);

/* On a new connection over TCP, before anything else; both ends prove the key. Without
 * one nothing is said. What follows is encrypted if the other side wants it, which its
 * proof vouches for.
 *   DS_NOT_AUTHORIZED    the other side has another key, or none
 *   as channel_call() */
DS_MUST_USE enum ds_status
credentials_prove(const struct credentials *credentials, struct channel *channel,
                  const struct wait *wait, struct ds_error *err);

#endif
