/* What arguments must look like, with the texts that users know. */
#include "client/client.h"

#include "base/slice.h"
#include "base/status.h"

#define KEY_PATTERN "^[a-zA-Z0-9\\.\\-_!@#%\\^\\*\\(\\)\\+\\=\\:;]*$"

enum { KEY_BYTES_SHOWN = 256 };

enum ds_status
check_client(const struct ds_client *client, struct ds_error *err)
{
    if (client != NULL)
        return DS_OK;
    return ds_fail(err, DS_NOT_READY, "The client has not been initialized yet");
}

static enum ds_status
check_length(struct ds_slice key, struct ds_error *err)
{
    if (key.len == 0 || key.data == NULL)
        return ds_fail(err, DS_INVALID, "The objectKey should not be empty.");
    return DS_OK;
}

static enum ds_status
fail_illegal(struct ds_slice key, struct ds_error *err)
{
    size_t shown = key.len < KEY_BYTES_SHOWN ? key.len : KEY_BYTES_SHOWN;
    return ds_fail(err, DS_INVALID,
                   "The key contains illegal char(s), allowed regex format: %s or the "
                   "length of key must be no more than %d. Current key: %.*s%s, "
                   "length: %zu.",
                   KEY_PATTERN, DS_KEY_BYTES_MAX, (int)shown, (const char *)key.data,
                   shown < key.len ? "..." : "", key.len);
}

enum ds_status
ds_key_check(struct ds_slice key, struct ds_error *err)
{
    enum ds_status status = check_length(key, err);
    if (status != DS_OK || wire_user_key_is_legal(key))
        return status;
    return fail_illegal(key, err);
}

static enum ds_status
check_count(const struct ds_slice *keys, size_t count, size_t count_max,
            struct ds_error *err)
{
    if (keys == NULL || count == 0)
        return ds_fail(err, DS_INVALID, "The keys are empty");
    if (count > count_max)
        return ds_fail(err, DS_INVALID, "The objectKeys size exceed %zu.", count_max);
    return DS_OK;
}

enum ds_status
check_new_keys(const struct ds_slice *keys, size_t count, struct ds_error *err)
{
    enum ds_status status = check_count(keys, count, DS_BATCH_KEYS_MAX, err);
    for (size_t i = 0; i < count && status == DS_OK; i++)
        status = ds_key_check(keys[i], err);
    return status;
}

enum ds_status
check_known_keys(const struct ds_slice *keys, size_t count, size_t count_max,
                 struct ds_error *err)
{
    enum ds_status status = check_count(keys, count, count_max, err);
    for (size_t i = 0; i < count && status == DS_OK; i++) {
        status = check_length(keys[i], err);
        if (status == DS_OK && keys[i].len > DS_KEY_BYTES_MAX)
            status = fail_illegal(keys[i], err);
    }
    return status;
}

enum ds_status
check_set_options(const struct ds_set_options *options, struct ds_error *err)
{
    if (options == NULL)
        return DS_OK;
    switch (options->write_mode) {
    case DS_NONE_L2_CACHE:
    case DS_NONE_L2_CACHE_EVICT:
        return DS_OK;
    case DS_WRITE_THROUGH_L2_CACHE:
    case DS_WRITE_BACK_L2_CACHE:
    case DS_WRITE_BACK_L2_CACHE_EVICT:
        return ds_fail(
            err, DS_INVALID,
            "The key is set to WRITE_THROUGH_L2_CACHE, WRITE_BACK_L2_CACHE or "
            "WRITE_BACK_L2_CACHE_EVICT, but L2_cache_type is set to none.");
    }
    return ds_fail(err, DS_INVALID, "there is no write mode %d",
                   (int)options->write_mode);
}
