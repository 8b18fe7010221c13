/* Opening objects for reading: pinned in shared memory, or fetched through the socket.
 */
#include "client/buffer.h"
#include "client/client.h"
#include "client/verify.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"

#include <stdlib.h>

static enum ds_status
fail_none(struct ds_error *err)
{
    return ds_fail(err, DS_NOT_FOUND, "Cannot get objects from worker");
}

static enum ds_status
fail_malformed(struct ds_error *err)
{
    return ds_fail(err, DS_CORRUPT, "the worker sent a malformed reply");
}

/* ---- Through shared memory ---- */

/* The keys still to be opened. `wanted` and `keys` run in parallel: the position in
 * `out` of each key asked for. An object may be overwritten between the worker's answer
 * and our pin; such keys stay and are asked for again. */
struct lookup_batch {
    struct ds_slice *keys;
    uint32_t *wanted;
    size_t count;
    struct ds_buffer **out;
};

/* A batch of one lives here: three allocations would cost it as much as the rest. */
struct one_key {
    struct ds_slice key;
    uint32_t wanted;
    struct ds_buffer *out;
};

static void
batch_close(struct lookup_batch *batch, struct one_key *room)
{
    if (batch->keys == &room->key)
        return;
    free(batch->keys);
    free(batch->wanted);
    free(batch->out);
}

static bool
batch_open(struct lookup_batch *batch, const struct ds_slice *keys, size_t count,
           struct one_key *room)
{
    *batch = (struct lookup_batch){
        .keys = &room->key, .wanted = &room->wanted, .count = count, .out = &room->out};
    if (count > 1) {
        batch->keys = calloc(count, sizeof *batch->keys);
        batch->wanted = calloc(count, sizeof *batch->wanted);
        batch->out = calloc(count, sizeof(struct ds_buffer *));
        if (batch->keys == NULL || batch->wanted == NULL || batch->out == NULL) {
            batch_close(batch, room);
            return false;
        }
    }
    memcpy(batch->keys, keys, count * sizeof *keys);
    for (size_t i = 0; i < count; i++)
        batch->wanted[i] = (uint32_t)i;
    return true;
}

static enum ds_status
open_found(struct mapping *mapping, const struct wire_object *object,
           struct ds_buffer **out, bool *out_stale, struct ds_error *err)
{
    struct extent extent = {
        .mapping = mapping,
        .slot = object->slot,
        .commit = object->commit,
        .offset = object->offset,
        .size = object->size,
    };
    if (commit_state(extent.commit) != SLOT_SEALED)
        return ds_fail(err, DS_CORRUPT, "the worker named bytes outside its arena");
    return buffer_open(&extent, BUFFER_SEALED, out, out_stale, err);
}

/* In the table, without the worker. *out_missing: it was not seen there, changed while it
 * was looked at, or may have been changed elsewhere. Lock held. */
static enum ds_status
open_present(struct mapping *mapping, struct ds_slice key, bool is_block,
             uint64_t now_ds, struct ds_buffer **out, bool *out_missing,
             struct ds_error *err)
{
    struct table_hit hit;
    *out_missing = true;
    if (!table_reader_find(&mapping->reader, key, is_block, now_ds, &hit))
        return DS_OK;
    struct extent extent = {
        .mapping = mapping,
        .slot = hit.slot,
        .commit = hit.commit,
        .offset = hit.offset,
        .size = hit.size,
    };
    enum ds_status status = buffer_open(&extent, BUFFER_SEALED, out, out_missing, err);
    if (status != DS_OK || *out_missing ||
        (table_reader_confirms(&mapping->reader, &hit) &&
         (is_block || table_reader_is_current(&mapping->reader, clock_boot_ds()))))
        return status;
    buffer_release_locked(*out);
    *out = NULL;
    *out_missing = true;
    return DS_OK;
}

/* Lock held. What is stale moves to the front of the batch. */
static enum ds_status
open_all_found(struct lookup_batch *batch, struct mapping *mapping, struct found *list,
               struct ds_error *err)
{
    struct wire_object object;
    size_t stale_count = 0;
    for (size_t i = 0; next_object(list, &object); i++) {
        bool stale = false;
        enum ds_status status = DS_OK;
        if (object.found)
            status = open_found(mapping, &object, &batch->out[batch->wanted[i]], &stale,
                                err);
        if (status != DS_OK)
            return status;
        if (stale) {
            batch->keys[stale_count] = batch->keys[i];
            batch->wanted[stale_count++] = batch->wanted[i];
        }
    }
    batch->count = stale_count;
    return DS_OK;
}

static enum ds_status
lookup_on_reply(void *arg, const struct reply *reply, struct ds_error *err)
{
    struct lookup_batch *batch = arg;
    struct found list;
    if (reply->mapping == NULL || !decode_found(reply->body, &list) ||
        list.count != batch->count)
        return fail_malformed(err);
    library_lock();
    enum ds_status status = open_all_found(batch, reply->mapping, &list, err);
    library_unlock();
    return status;
}

static enum ds_status
lookup_batch(struct ds_client *client, struct lookup_batch *batch, uint32_t flags,
             uint32_t wait_ms, struct ds_error *err)
{
    struct wait wait =
        client_wait(client, (uint64_t)client->request_timeout_ms + wait_ms);
    uint64_t wait_until_ms = wait_ms == 0 ? 0 : clock_monotonic_ms() + wait_ms;
    while (batch->count > 0) {
        struct lookup lookup = {.flags = flags};
        AUTO_WRITER(body);
        encode_lookup(&body, &lookup, batch->keys, batch->count);
        struct request request = {.type = MESSAGE_LOOKUP,
                                  .body = &body,
                                  .wait_until_ms = wait_until_ms,
                                  .on_reply = lookup_on_reply,
                                  .arg = batch};
        enum ds_status status = client_call(client, &request, &wait, err);
        if (status != DS_OK)
            return status;
    }
    return DS_OK;
}

/* Opens what can be had without the worker; the rest moves to the front of the batch.
 * The worker must be there, though: with its memory gone for good, what we have mapped
 * is of the past. */
static enum ds_status
open_all_present(struct ds_client *client, struct lookup_batch *batch, bool is_block,
                 struct ds_error *err)
{
    enum ds_status status = DS_OK;
    uint64_t now_ds = clock_boot_ds();
    size_t missing_count = 0;
    library_lock();
    struct mapping *mapping = client->mapping;
    bool readable =
        mapping != NULL && !mapping->inherited && pool_is_alive(&client->pool, mapping);
    for (size_t i = 0; readable && status == DS_OK && i < batch->count; i++) {
        bool missing = false;
        status = open_present(mapping, batch->keys[i], is_block, now_ds,
                              &batch->out[batch->wanted[i]], &missing, err);
        if (missing) {
            batch->keys[missing_count] = batch->keys[i];
            batch->wanted[missing_count++] = batch->wanted[i];
        }
    }
    library_unlock();
    if (readable)
        batch->count = missing_count;
    return status;
}

static bool
any_found(struct ds_buffer *const *buffers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (buffers[i] != NULL)
            return true;
    return false;
}

/* Everything that was opened in shared memory. No lock is held: this reads all bytes. */
static enum ds_status
verify_all(const struct ds_slice *keys, struct ds_buffer *const *buffers, size_t count,
           struct ds_error *err)
{
    enum ds_status status = DS_OK;
    for (size_t i = 0; i < count && status == DS_OK; i++)
        if (buffers[i] != NULL)
            status = verify_pinned(keys[i], buffers[i], err);
    return status;
}

/* Copies `found` out, which holds what was opened, if the lookup went well. */
static enum ds_status
finish(enum ds_status status, struct ds_buffer **found, size_t count,
       struct ds_buffer **out, struct ds_error *err)
{
    if (status == DS_OK && !any_found(found, count))
        status = fail_none(err);
    if (status == DS_OK || status == DS_NOT_FOUND)
        memcpy(out, found, count * sizeof(struct ds_buffer *));
    else
        buffers_release(found, count);
    return status;
}

static enum ds_status
lookup_shared(struct ds_client *client, const struct ds_slice *keys, size_t count,
              uint32_t flags, uint32_t wait_ms, struct ds_buffer **out,
              struct ds_error *err)
{
    struct one_key room = {0};
    struct lookup_batch batch;
    enum ds_status status = DS_OK;
    if (!batch_open(&batch, keys, count, &room))
        return ds_fail(err, DS_NO_MEMORY, "out of memory for %zu keys", count);
    status = open_all_present(client, &batch, flags & LOOKUP_BLOCKS, err);
    if (status == DS_OK)
        status = lookup_batch(client, &batch, flags, wait_ms, err);
    if (status == DS_OK && client->verify)
        status = verify_all(keys, batch.out, count, err);
    status = finish(status, batch.out, count, out, err);
    batch_close(&batch, &room);
    return status;
}

/* ---- Through the socket ---- */

struct fetch {
    const struct ds_slice *keys;
    size_t count;
    struct ds_buffer **out;
};

static enum ds_status
fetch_one(const struct reply *reply, struct ds_slice key,
          const struct wire_value *value, struct ds_buffer **out, struct ds_error *err)
{
    uint64_t size = value->size;
    if (size == 0 || size > channel_payload_left(reply->channel))
        return fail_malformed(err);
    struct ds_buffer *buffer = buffer_allocate(size);
    if (buffer == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a value of %ju bytes",
                       (uintmax_t)size);
    enum ds_status status =
        channel_receive_payload(reply->channel, buffer->data, size, reply->wait, err);
    if (status == DS_OK)
        status = verify_bytes(key, slice(buffer->data, size), value->checksum, err);
    if (status == DS_OK)
        *out = buffer;
    else
        ds_buffer_release(buffer);
    return status;
}

static enum ds_status
fetch_on_reply(void *arg, const struct reply *reply, struct ds_error *err)
{
    struct fetch *fetch = arg;
    struct fetched list;
    if (!decode_fetched(reply->body, &list) || list.count != fetch->count)
        return fail_malformed(err);
    struct wire_value value;
    enum ds_status status = DS_OK;
    for (size_t i = 0; status == DS_OK && next_value(&list, &value); i++)
        if (value.found)
            status = fetch_one(reply, fetch->keys[i], &value, &fetch->out[i], err);
    if (status == DS_OK)
        return DS_OK;
    buffers_release(fetch->out, fetch->count);
    memset(fetch->out, 0, fetch->count * sizeof(struct ds_buffer *));
    return status;
}

static enum ds_status
fetch(struct ds_client *client, const struct ds_slice *keys, size_t count,
      struct lookup *lookup, struct ds_buffer **out, struct ds_error *err)
{
    struct ds_buffer **found = calloc(count, sizeof(struct ds_buffer *));
    if (found == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for %zu keys", count);
    struct fetch fetch = {.keys = keys, .count = count, .out = found};
    AUTO_WRITER(body);
    encode_lookup(&body, lookup, keys, count);
    struct request request = {
        .type = MESSAGE_FETCH,
        .body = &body,
        .wait_until_ms =
            lookup->wait_ms == 0 ? 0 : clock_monotonic_ms() + lookup->wait_ms,
        .on_reply = fetch_on_reply,
        .arg = &fetch,
    };
    struct wait wait =
        client_wait(client, (uint64_t)client->request_timeout_ms + lookup->wait_ms);
    enum ds_status status = client_call(client, &request, &wait, err);
    status = finish(status, found, count, out, err);
    free(found);
    return status;
}

/* ---- Either way ---- */

enum ds_status
lookup_keys(struct ds_client *client, const struct ds_slice *keys, size_t count,
            uint32_t flags, uint32_t wait_ms, struct ds_buffer **out,
            struct ds_error *err)
{
    if (client->shares_memory)
        return lookup_shared(client, keys, count, flags, wait_ms, out, err);
    struct lookup lookup = {.flags = flags, .wait_ms = wait_ms};
    return fetch(client, keys, count, &lookup, out, err);
}

/* ---- Public ---- */

enum ds_status
ds_get(struct ds_client *client, const struct ds_slice *keys, size_t count,
       uint32_t wait_ms, struct ds_buffer **out, struct ds_error *err)
{
    if (out == NULL)
        return ds_fail(err, DS_INVALID, "no place for the buffers");
    enum ds_status status = check_client(client, err);
    if (status == DS_OK)
        status = check_known_keys(keys, count, DS_BATCH_KEYS_MAX, err);
    if (status != DS_OK)
        return status;
    return lookup_keys(client, keys, count, 0, wait_ms, out, err);
}

static enum ds_status
get_range_shared(struct ds_client *client, struct ds_slice key, uint64_t offset,
                 uint64_t size, uint32_t wait_ms, struct ds_buffer **out,
                 struct ds_error *err)
{
    struct ds_buffer *buffer = NULL;
    enum ds_status status = lookup_shared(client, &key, 1, 0, wait_ms, &buffer, err);
    if (status != DS_OK)
        return status;
    status = buffer_cut(buffer, offset, size, err);
    if (status == DS_OK)
        *out = buffer;
    else
        ds_buffer_release(buffer);
    return status;
}

enum ds_status
ds_get_range(struct ds_client *client, struct ds_slice key, uint64_t offset,
             uint64_t size, uint32_t wait_ms, struct ds_buffer **out,
             struct ds_error *err)
{
    if (out == NULL)
        return ds_fail(err, DS_INVALID, "no place for the buffer");
    enum ds_status status = check_client(client, err);
    if (status == DS_OK)
        status = check_known_keys(&key, 1, 1, err);
    if (status != DS_OK)
        return status;
    if (client->shares_memory)
        return get_range_shared(client, key, offset, size, wait_ms, out, err);
    struct lookup lookup = {
        .wait_ms = wait_ms, .range_offset = offset, .range_bytes = size};
    struct ds_buffer *buffer = NULL;
    status = fetch(client, &key, 1, &lookup, &buffer, err);
    if (status == DS_OK)
        *out = buffer;
    return status;
}
