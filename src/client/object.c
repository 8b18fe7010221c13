/* Objects under users' keys: making, publishing and forgetting them. */
#include "client/buffer.h"
#include "client/client.h"
#include "client/verify.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "client/janitor.h"
#include "os/checksum.h"
#include "os/memfile.h"

#include <stdlib.h>

enum {
    /* A value up to this goes along with the request: one round trip instead of two. */
    PUT_INLINE_BYTES_MAX = 16 << 10,
    /* Of keys in one request, where a batch may need more than one. */
    KEYS_BYTES_MAX = 4 << 20,
    /* Where writing faults pages of its own in. */
    PREFAULT_BYTES_MIN = 8 << 10,
};

static enum ds_status
check_value(uint64_t size, struct ds_error *err)
{
    if (size > 0)
        return DS_OK;
    return ds_fail(err, DS_INVALID, "The dataSize value should be bigger than zero.");
}

static struct ds_set_options
options_or_default(const struct ds_set_options *options)
{
    return options == NULL ? (struct ds_set_options){0} : *options;
}

/* ---- Creating ---- */

/* Over TCP the bytes wait here until they are sealed. */
static enum ds_status
open_created_remote(struct mapping *mapping, struct wire_ref ref, uint64_t size,
                    struct ds_buffer **out, struct ds_error *err)
{
    *out = buffer_allocate_unsealed(mapping, ref, size);
    if (*out != NULL)
        return DS_OK;
    return ds_fail(err, DS_NO_MEMORY, "out of memory for a value of %ju bytes",
                   (uintmax_t)size);
}

static struct extent
writing_extent(struct mapping *mapping, const struct wire_extent *extent, uint64_t size)
{
    return (struct extent){
        .mapping = mapping,
        .slot = extent->ref.slot,
        .commit = commit_word(extent->ref.generation, SLOT_WRITING),
        .offset = extent->offset,
        .size = size,
    };
}

static enum ds_status
open_created_shared(struct mapping *mapping, const struct wire_extent *extent,
                    uint64_t size, struct ds_buffer **out, struct ds_error *err)
{
    struct extent place = writing_extent(mapping, extent, size);
    bool stale = false;
    enum ds_status status = buffer_open(&place, BUFFER_UNSEALED, out, &stale, err);
    if (status == DS_OK && stale)
        return ds_fail(err, DS_IO, "the worker dropped what it had reserved");
    return status;
}

static enum ds_status
open_created(const struct creation *creation, struct mapping *mapping,
             struct ds_block_id block, const struct wire_extent *extent, uint64_t size,
             struct ds_buffer **out, struct ds_error *err)
{
    enum ds_status status =
        mapping_is_remote(mapping)
            ? open_created_remote(mapping, extent->ref, size, out, err)
            : open_created_shared(mapping, extent, size, out, err);
    if (status != DS_OK)
        return status;
    DS_ASSERT(*out != NULL);
    (*out)->options = creation->options;
    (*out)->is_block_part = creation->is_block;
    (*out)->block = block;
    return DS_OK;
}

/* What is to be written next. Small values share their pages with others. */
static void
prefault(struct ds_buffer *const *buffers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct ds_buffer *buffer = buffers[i];
        DS_ASSERT(buffer != NULL);
        if (!buffer->owns_data && buffer->size >= PREFAULT_BYTES_MIN)
            memfile_prefault(buffer->data, buffer->size);
    }
}

/* Lock held. Opens what it can into `made`; the rest of a failed batch is given up. */
static enum ds_status
open_all_created(const struct creation *creation, const struct reply *reply,
                 struct created *list, struct ds_buffer **made, struct ds_error *err)
{
    struct mapping *mapping = reply->mapping;
    struct wire_extent extent;
    enum ds_status status = DS_OK;
    if (reply->channel->epoch != mapping->epoch)
        status = ds_fail(err, DS_IO, "the reply is older than our last greeting");
    struct ds_block_id block = list->block;
    size_t end = creation->blocks == NULL ? 0 : creation->blocks[0].count;
    for (size_t i = 0, at = 0; next_extent(list, &extent); i++) {
        if (creation->blocks != NULL && i == end) {
            end += creation->blocks[++at].count;
            block = wire_block_id_after(list->block, at);
        }
        if (status == DS_OK)
            status = open_created(creation, mapping, block, &extent, creation->sizes[i],
                                  &made[i], err);
        if (made[i] == NULL)
            mapping_abort_later(mapping, extent.ref);
    }
    return status;
}

enum ds_status
creation_on_reply(void *arg, const struct reply *reply, struct ds_error *err)
{
    struct creation *creation = arg;
    struct created list;
    if (reply->mapping == NULL || !decode_created(reply->body, &list) ||
        list.count != creation->count)
        return ds_fail(err, DS_CORRUPT, "the worker sent a malformed reply");
    struct ds_buffer **made = calloc(creation->count, sizeof(struct ds_buffer *));
    if (made == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for %zu buffers",
                       creation->count);
    library_lock();
    enum ds_status status = open_all_created(creation, reply, &list, made, err);
    library_unlock();
    if (status == DS_OK) {
        prefault(made, creation->count);
        memcpy(creation->out, made, creation->count * sizeof(struct ds_buffer *));
    } else {
        buffers_release(made, creation->count);
    }
    free(made);
    return status;
}

enum ds_status
create_by_request(struct ds_client *client, const struct ds_slice *keys,
                  const uint64_t *sizes, size_t count,
                  const struct ds_set_options *options, struct ds_buffer **out,
                  struct ds_error *err)
{
    struct creation creation = {
        .sizes = sizes, .count = count, .options = *options, .out = out};
    AUTO_WRITER(body);
    encode_create(&body, 0, (uint8_t)options->write_mode, keys, sizes, count);
    struct request request = {.type = MESSAGE_CREATE,
                              .body = &body,
                              .wait_until_ms =
                                  client_room_until_ms(client->room_wait_ms),
                              .on_reply = creation_on_reply,
                              .arg = &creation};
    struct wait wait = client_room_wait(client, client->room_wait_ms);
    return client_call(client, &request, &wait, err);
}

/* Over what was lent to us, if any of it fits and is still there; else *out is left
 * alone. Lock held. */
static enum ds_status
open_lent(struct ds_client *client, uint64_t size, struct lease *out_lease,
          struct ds_buffer **out, struct ds_error *err)
{
    struct mapping *mapping = client->mapping;
    bool stale = true;
    enum ds_status status = DS_OK;
    if (mapping == NULL || mapping->inherited || !pool_is_alive(&client->pool, mapping))
        return DS_OK;
    while (status == DS_OK && stale && leases_take(&mapping->leases, size, out_lease)) {
        struct extent place = writing_extent(mapping, &out_lease->extent, size);
        status = buffer_open(&place, BUFFER_UNSEALED, out, &stale, err);
        if (status != DS_OK)
            mapping_abort_later(mapping, out_lease->extent.ref);
    }
    if (leases_are_outdated(&mapping->leases))
        mapping_give_up_leases(mapping);
    return status;
}

bool
is_lendable(const struct ds_client *client, uint64_t size)
{
    return client->shares_memory && size <= LEASE_BYTES_MAX;
}

/* Room that was lent to us, or none: then *out is left alone. */
static enum ds_status
take_lent(struct ds_client *client, uint64_t size, struct lease *out_lease,
          struct ds_buffer **out, struct ds_error *err)
{
    struct ds_buffer *buffer = NULL;
    library_lock();
    enum ds_status status = open_lent(client, size, out_lease, &buffer, err);
    library_unlock();
    if (buffer == NULL)
        return status;
    buffer->is_lent = true;
    prefault(&buffer, 1);
    *out = buffer;
    return DS_OK;
}

static enum ds_status
set_key(struct ds_slice key, struct ds_buffer **buffer, struct ds_error *err)
{
    if (buffer_set_key(*buffer, key))
        return DS_OK;
    ds_buffer_release(*buffer);
    *buffer = NULL;
    return ds_fail(err, DS_NO_MEMORY, "out of memory for a key");
}

enum ds_status
create_lent_block(struct ds_client *client, uint64_t size, struct ds_buffer **out,
                  struct ds_error *err)
{
    struct lease lease;
    struct ds_buffer *buffer = NULL;
    enum ds_status status = take_lent(client, size, &lease, &buffer, err);
    if (buffer == NULL)
        return status;
    uint8_t key[BLOCK_KEY_BYTES];
    buffer->is_block_part = true;
    buffer->block = lease.block;
    wire_block_key(lease.block, 0, key);
    status = set_key(slice(key, sizeof key), &buffer, err);
    *out = buffer;
    return status;
}

static enum ds_status
create_lent(struct ds_client *client, struct ds_slice key, uint64_t size,
            const struct ds_set_options *options, struct ds_buffer **out,
            struct ds_error *err)
{
    struct lease lease;
    struct ds_buffer *buffer = NULL;
    enum ds_status status = take_lent(client, size, &lease, &buffer, err);
    if (buffer == NULL)
        return status;
    buffer->options = *options;
    status = set_key(key, &buffer, err);
    *out = buffer;
    return status;
}

static enum ds_status
create_one(struct ds_client *client, struct ds_slice key, uint64_t size,
           const struct ds_set_options *options, struct ds_buffer **out,
           struct ds_error *err)
{
    bool lendable =
        is_lendable(client, size) && options->write_mode == DS_NONE_L2_CACHE;
    struct ds_buffer *buffer = NULL;
    enum ds_status status = DS_OK;
    if (lendable)
        status = create_lent(client, key, size, options, &buffer, err);
    if (status == DS_OK && buffer == NULL) {
        status = create_by_request(client, &key, &size, 1, options, &buffer, err);
        if (status == DS_OK && lendable)
            (void)buffer_set_key(buffer, key); /* Without: sealed like one of many. */
    }
    if (status == DS_OK)
        *out = buffer;
    return status;
}

static enum ds_status
create(struct ds_client *client, const struct ds_slice *keys, const uint64_t *sizes,
       size_t count, const struct ds_set_options *options, struct ds_buffer **out,
       struct ds_error *err)
{
    if (count == 1)
        return create_one(client, keys[0], sizes[0], options, out, err);
    return create_by_request(client, keys, sizes, count, options, out, err);
}

enum ds_status
ds_create(struct ds_client *client, const struct ds_slice *keys, const uint64_t *sizes,
          size_t count, const struct ds_set_options *options, struct ds_buffer **out,
          struct ds_error *err)
{
    if (sizes == NULL || out == NULL)
        return ds_fail(err, DS_INVALID, "no sizes, or no place for the buffers");
    enum ds_status status = check_client(client, err);
    if (status == DS_OK)
        status = check_new_keys(keys, count, err);
    if (status == DS_OK)
        status = check_set_options(options, err);
    for (size_t i = 0; i < count && status == DS_OK; i++)
        status = check_value(sizes[i], err);
    if (status != DS_OK)
        return status;
    struct ds_set_options used = options_or_default(options);
    return create(client, keys, sizes, count, &used, out, err);
}

/* ---- Putting ---- */

static enum ds_status
put_through_socket(struct ds_client *client, struct ds_slice key, struct ds_slice value,
                   const struct ds_set_options *options, struct ds_error *err)
{
    struct put put = {.ttl_seconds = options->ttl_seconds,
                      .only_if_absent = options->only_if_absent,
                      .write_mode = (uint8_t)options->write_mode,
                      .checksum = {true, checksum_of(value.data, value.len)},
                      .key = key};
    AUTO_WRITER(body);
    encode_put(&body, &put);
    struct request request = {.type = MESSAGE_PUT, .body = &body, .payload = value};
    struct wait wait = client_wait(client, client->request_timeout_ms);
    return client_call(client, &request, &wait, err);
}

static enum ds_status
put_through_memory(struct ds_client *client, struct ds_slice key, struct ds_slice value,
                   const struct ds_set_options *options, struct ds_error *err)
{
    struct ds_buffer *buffer = NULL;
    uint64_t size = value.len;
    enum ds_status status = create(client, &key, &size, 1, options, &buffer, err);
    if (status != DS_OK)
        return status;
    buffer_write(buffer, value.data, value.len);
    status = seal_all(client, &buffer, 1, err);
    ds_buffer_release(buffer);
    return status;
}

enum ds_status
ds_put(struct ds_client *client, struct ds_slice key, struct ds_slice value,
       const struct ds_set_options *options, struct ds_error *err)
{
    enum ds_status status = check_client(client, err);
    if (status == DS_OK)
        status = ds_key_check(key, err);
    if (status == DS_OK)
        status = check_value(value.data == NULL ? 0 : value.len, err);
    if (status == DS_OK)
        status = check_set_options(options, err);
    if (status != DS_OK)
        return status;
    struct ds_set_options used = options_or_default(options);
    if (client->shares_memory && value.len > PUT_INLINE_BYTES_MAX)
        return put_through_memory(client, key, value, &used, err);
    return put_through_socket(client, key, value, &used, err);
}

/* ---- Forgetting and asking: one flag per key ---- */

struct flags {
    size_t count;
    bool *out; /* NULL: of no interest. */
};

static enum ds_status
take_flags(void *arg, const struct reply *reply, struct ds_error *err)
{
    const struct flags *flags = arg;
    uint32_t count;
    const uint8_t *bytes;
    if (!decode_flags(reply->body, &count, &bytes) || count != flags->count)
        return ds_fail(err, DS_CORRUPT, "the worker sent a malformed reply");
    for (size_t i = 0; i < count && flags->out != NULL; i++)
        flags->out[i] = bytes[i] != 0;
    return DS_OK;
}

static enum ds_status
call_for_flags(struct ds_client *client, enum message_type type, struct writer *body,
               size_t count, bool *out, struct ds_error *err)
{
    struct flags flags = {.count = count, .out = out};
    struct request request = {
        .type = type, .body = body, .on_reply = take_flags, .arg = &flags};
    struct wait wait = client_wait(client, client->request_timeout_ms);
    return client_call(client, &request, &wait, err);
}

enum ds_status
ds_delete(struct ds_client *client, const struct ds_slice *keys, size_t count,
          struct ds_error *err)
{
    enum ds_status status = check_client(client, err);
    if (status == DS_OK)
        status = check_known_keys(keys, count, DS_BATCH_KEYS_MAX, err);
    if (status != DS_OK)
        return status;
    janitor_settle(); /* When this returns, what was dropped is room for anybody. */
    AUTO_WRITER(body);
    encode_keys(&body, keys, count);
    return call_for_flags(client, MESSAGE_DELETE, &body, count, NULL, err);
}

/* As many keys as fit into one request. */
static size_t
keys_per_request(const struct ds_slice *keys, size_t count)
{
    size_t bytes = 0;
    size_t n = 0;
    while (n < count && bytes < KEYS_BYTES_MAX)
        bytes += keys[n++].len + sizeof(uint16_t);
    return n;
}

enum ds_status
ds_exist(struct ds_client *client, const struct ds_slice *keys, size_t count, bool *out,
         struct ds_error *err)
{
    if (out == NULL)
        return ds_fail(err, DS_INVALID, "no place for the answers");
    enum ds_status status = check_client(client, err);
    if (status == DS_OK)
        status = check_known_keys(keys, count, DS_EXIST_KEYS_MAX, err);
    for (size_t i = 0; i < count && status == DS_OK;) {
        size_t n = keys_per_request(keys + i, count - i);
        AUTO_WRITER(body);
        encode_keys(&body, keys + i, n);
        status = call_for_flags(client, MESSAGE_EXIST, &body, n, out + i, err);
        i += n;
    }
    return status;
}

enum ds_status
ds_expire(struct ds_client *client, const struct ds_slice *keys, size_t count,
          uint32_t ttl_seconds, bool *out_found, struct ds_error *err)
{
    if (out_found == NULL)
        return ds_fail(err, DS_INVALID, "no place for the answers");
    enum ds_status status = check_client(client, err);
    if (status == DS_OK)
        status = check_known_keys(keys, count, DS_BATCH_KEYS_MAX, err);
    if (status != DS_OK)
        return status;
    AUTO_WRITER(body);
    encode_expire(&body, ttl_seconds, keys, count);
    status = call_for_flags(client, MESSAGE_EXPIRE, &body, count, out_found, err);
    for (size_t i = 0; i < count && status == DS_OK; i++)
        if (out_found[i])
            return DS_OK;
    return status == DS_OK ? ds_fail(err, DS_NOT_FOUND, "Key not found") : status;
}
