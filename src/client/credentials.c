#include "client/credentials.h"

#include "base/slice.h"
#include "base/status.h"
#include "os/random.h"
#include "os/secret_file.h"

enum ds_status
credentials_open(struct ds_slice secret, struct credentials *out, struct ds_error *err)
{
    struct secret file = {.len = 0};
    enum ds_status status = DS_OK;
    if (secret.len == 0)
        status = secret_file_read(NULL, AUTH_SECRET_BYTES_MIN, &file, err);
    else if (secret.len < AUTH_SECRET_BYTES_MIN)
        status =
            ds_fail(err, DS_INVALID, "auth_secret has %zu bytes, and %d are needed",
                    secret.len, AUTH_SECRET_BYTES_MIN);
    if (status != DS_OK)
        return status;
    if (secret.len == 0)
        secret = slice(file.bytes, file.len);
    out->has_key = secret.len > 0;
    if (out->has_key)
        auth_key_derive(secret, &out->key);
    secret_wipe(&file);
    return DS_OK;
}

/* One step: sends `bytes`; the answer has to be of `answer_bytes`, with nothing behind. */
static enum ds_status
step(struct channel *channel, enum message_type type, struct ds_slice bytes,
     size_t answer_bytes, const struct wait *wait, struct ds_error *err)
{
    struct outgoing message = {.type = type, .body = bytes};
    enum ds_status status = channel_call(channel, &message, wait, err);
    if (status == DS_OK && channel->reply.status != DS_OK)
        return channel_fail_reply(channel, err);
    if (status == DS_OK &&
        (channel_body(channel).len != answer_bytes || channel->reply.payload_bytes > 0))
        return ds_fail(err, DS_NOT_AUTHORIZED, "it answers no challenge");
    return status;
}

enum ds_status
credentials_prove(const struct credentials *credentials, struct channel *channel,
                  const struct wait *wait, struct ds_error *err)
{
    struct auth_opening opening = {.encryption[AUTH_CONNECTED] = AUTH_EITHER};
    uint8_t bytes[AUTH_OPENING_BYTES], proof[AUTH_PROOF_BYTES];
    bool is_encrypted;
    if (!credentials->has_key)
        return DS_OK;
    random_bytes(opening.nonce[AUTH_CONNECTED], AUTH_NONCE_BYTES);
    auth_write_opening(&opening, AUTH_CONNECTED, bytes);
    enum ds_status status =
        step(channel, MESSAGE_AUTH_CHALLENGE, slice(bytes, sizeof bytes),
             AUTH_ANSWER_BYTES, wait, err);
    if (status != DS_OK)
        return status;
    if (!auth_answer(&credentials->key, &opening, channel_body(channel).data, proof))
        return ds_fail(err, DS_NOT_AUTHORIZED, "its key is not ours");
    if (!auth_agree(&opening, &is_encrypted))
        return ds_fail(err, DS_NOT_AUTHORIZED,
                       "it wants another encryption than we know");
    status =
        step(channel, MESSAGE_AUTH_PROVE, slice(proof, sizeof proof), 0, wait, err);
    if (status == DS_OK && is_encrypted)
        status = channel_encrypt(channel, &credentials->key, &opening, err);
    return status;
}
