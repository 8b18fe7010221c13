/* Publishing what was created. */
#include "client/buffer.h"
#include "client/client.h"
#include "client/verify.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/checksum.h"
#include "os/copy.h"

#include <stdlib.h>

enum {
    /* Over TCP the bytes of an object go in pieces, each in the time of one request. */
    FILL_BYTES_MAX = 16 << 20,
};

enum ds_status
check_sealable(struct ds_buffer *const *buffers, size_t count, bool is_block,
               struct ds_error *err)
{
    if (buffers == NULL || count == 0)
        return ds_fail(err, DS_INVALID, "The buffer list must not be empty.");
    if (count > DS_BATCH_KEYS_MAX)
        return ds_fail(err, DS_INVALID, "The objectKeys size exceed %d.",
                       DS_BATCH_KEYS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (buffers[i] == NULL || buffers[i]->state == BUFFER_SEALED)
            return ds_fail(err, DS_INVALID, "Client object is already sealed");
        if (buffers[i]->state == BUFFER_ABANDONED)
            return ds_fail(err, DS_INVALID,
                           "the client that created this buffer was closed");
        if (buffers[i]->is_block_part != is_block)
            return ds_fail(err, DS_INVALID,
                           "parts of a block are sealed by ds_block_seal(), objects by "
                           "ds_seal()");
    }
    return DS_OK;
}

/* How many from `buffers` on can share one request. */
static size_t
run_length(struct ds_buffer *const *buffers, size_t count)
{
    size_t n = 1;
    while (n < count && !buffers[0]->is_lent && !buffers[n]->is_lent &&
           buffers[n]->mapping == buffers[0]->mapping &&
           buffers[n]->options.ttl_seconds == buffers[0]->options.ttl_seconds &&
           buffers[n]->options.only_if_absent == buffers[0]->options.only_if_absent)
        n++;
    return n;
}

/* Over TCP: what the worker does not have yet. */
static enum ds_status
send_bytes(struct ds_client *client, const struct ds_buffer *buffer,
           struct ds_error *err)
{
    enum ds_status status = DS_OK;
    for (uint64_t at = 0; at < buffer->size && status == DS_OK; at += FILL_BYTES_MAX) {
        size_t bytes = min_u64(buffer->size - at, FILL_BYTES_MAX);
        struct fill fill = {.ref = buffer->ref,
                            .offset = at,
                            .checksum = checksum_of(buffer->data + at, bytes)};
        AUTO_WRITER(body);
        encode_fill(&body, &fill);
        struct request request = {.type = MESSAGE_FILL,
                                  .body = &body,
                                  .payload = slice(buffer->data + at, bytes),
                                  .mapping = buffer->mapping};
        struct wait wait = client_wait(client, client->request_timeout_ms);
        status = client_call(client, &request, &wait, err);
    }
    return status;
}

static enum ds_status
publish(struct ds_client *client, struct ds_buffer *const *buffers, size_t count,
        struct ds_error *err)
{
    DS_ASSERT(count > 0);
    struct wire_filled *objects = calloc(count, sizeof *objects);
    if (objects == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for SEAL");
    for (size_t i = 0; i < count; i++)
        objects[i] = (struct wire_filled){.ref = buffers[i]->ref,
                                          .checksum = buffers[i]->checksum};
    const struct ds_set_options *options = &buffers[0]->options;
    AUTO_WRITER(body);
    encode_seal(&body, options->ttl_seconds, options->only_if_absent, objects, count);
    free(objects);
    struct request request = {
        .type = MESSAGE_SEAL, .body = &body, .mapping = buffers[0]->mapping};
    struct wait wait = client_wait(client, client->request_timeout_ms);
    return client_call(client, &request, &wait, err);
}

/* ---- One message for one object ---- */

/* Lock held. A lease of before our last greeting is void. */
static void
keep_lease(const struct reply *reply, const struct lease *lease)
{
    struct mapping *mapping = reply->mapping;
    if (reply->channel->epoch == mapping->epoch && !leases_add(&mapping->leases, lease))
        mapping_abort_later(mapping, lease->extent.ref);
}

static enum ds_status
publish_on_reply(void *arg, const struct reply *reply, struct ds_error *err)
{
    const struct publish *message = arg;
    struct created list;
    struct lease lease = {.size = message->lend_bytes};
    if (reply->mapping == NULL || !decode_created(reply->body, &list) || list.count > 1)
        return ds_fail(err, DS_CORRUPT, "the worker sent a malformed reply");
    if (!next_extent(&list, &lease.extent))
        return DS_OK;
    lease.block = list.block;
    library_lock();
    keep_lease(reply, &lease);
    library_unlock();
    return DS_OK;
}

static bool
wants_lease(const struct mapping *mapping)
{
    library_lock();
    bool wants = !leases_are_full(&mapping->leases);
    library_unlock();
    return wants;
}

static enum ds_status
publish_once(struct ds_client *client, const struct ds_buffer *buffer,
             struct ds_error *err)
{
    struct publish message = {
        .ttl_seconds = buffer->options.ttl_seconds,
        .only_if_absent = buffer->options.only_if_absent,
        .ref = buffer->ref,
        .size = buffer->size,
        .lend_bytes = wants_lease(buffer->mapping) ? buffer->size : 0,
        .checksum = buffer->checksum,
        .key = slice(buffer->key, buffer->key_len),
    };
    AUTO_WRITER(body);
    encode_publish(&body, &message);
    struct request request = {.type = MESSAGE_PUBLISH,
                              .body = &body,
                              .mapping = buffer->mapping,
                              .on_reply = publish_on_reply,
                              .arg = &message};
    struct wait wait = client_wait(client, client->request_timeout_ms);
    return client_call(client, &request, &wait, err);
}

static enum ds_status
create_again(struct ds_client *client, const struct ds_buffer *buffer,
             struct ds_buffer **out, struct ds_error *err)
{
    if (buffer->is_block_part)
        return block_create_by_request(client, &buffer->size, 1, out, err);
    struct ds_slice key = slice(buffer->key, buffer->key_len);
    return create_by_request(client, &key, &buffer->size, 1, &buffer->options, out,
                             err);
}

/* The worker has other memory by now, or took the lease back before we pinned it: the
 * bytes are still ours, and go where it keeps them. */
static enum ds_status
publish_copy(struct ds_client *client, struct ds_buffer *buffer, struct ds_error *err)
{
    struct ds_buffer *fresh = NULL;
    enum ds_status status = create_again(client, buffer, &fresh, err);
    if (status != DS_OK)
        return status;
    copy_bytes(fresh->data, buffer->data, buffer->size);
    fresh->checksum = buffer->checksum;
    status = seal_all(client, &fresh, 1, err);
    buffer->block = fresh->block;
    ds_buffer_release(fresh);
    return status;
}

static bool
is_current(struct ds_client *client, const struct ds_buffer *buffer)
{
    library_lock();
    bool current = client->mapping == buffer->mapping;
    library_unlock();
    return current;
}

static enum ds_status
publish_one(struct ds_client *client, struct ds_buffer *buffer, struct ds_error *err)
{
    enum ds_status status = publish_once(client, buffer, err);
    bool lease_ended =
        status == DS_INVALID || (status == DS_IO && !is_current(client, buffer));
    if (buffer->is_lent && lease_ended)
        return publish_copy(client, buffer, err);
    return status;
}

/* ---- Any number ---- */

static enum ds_status
seal_run(struct ds_client *client, struct ds_buffer *const *buffers, size_t count,
         struct ds_error *err)
{
    enum ds_status status = DS_OK;
    for (size_t i = 0; i < count; i++)
        buffer_settle_checksum(buffers[i]);
    for (size_t i = 0; i < count && status == DS_OK; i++)
        if (buffers[i]->owns_data)
            status = send_bytes(client, buffers[i], err);
    if (status == DS_OK && count == 1 && buffers[0]->key != NULL)
        status = publish_one(client, buffers[0], err);
    else if (status == DS_OK)
        status = publish(client, buffers, count, err);
    for (size_t i = 0; i < count && status == DS_OK; i++)
        buffer_mark_sealed(buffers[i]);
    return status;
}

enum ds_status
seal_all(struct ds_client *client, struct ds_buffer *const *buffers, size_t count,
         struct ds_error *err)
{
    enum ds_status status = DS_OK;
    for (size_t i = 0; i < count && status == DS_OK;) {
        size_t n = run_length(buffers + i, count - i);
        status = seal_run(client, buffers + i, n, err);
        i += n;
    }
    return status;
}

enum ds_status
ds_seal(struct ds_client *client, struct ds_buffer *const *buffers, size_t count,
        struct ds_error *err)
{
    enum ds_status status = check_client(client, err);
    if (status == DS_OK)
        status = check_sealable(buffers, count, false, err);
    return status == DS_OK ? seal_all(client, buffers, count, err) : status;
}
