/* Blocks: what the queue stores. */
#include "client/buffer.h"
#include "client/client.h"

#include "base/slice.h"
#include "base/status.h"
#include "client/janitor.h"

#include <stdlib.h>
#include <string.h>

static enum ds_status
check_sizes(const uint64_t *sizes, size_t count, struct ds_error *err)
{
    if (sizes == NULL || count == 0 || count > DS_BLOCK_PARTS_MAX)
        return ds_fail(err, DS_INVALID, "a block has 1 to %d parts, not %zu",
                       DS_BLOCK_PARTS_MAX, sizes == NULL ? 0 : count);
    for (size_t i = 0; i < count; i++)
        if (sizes[i] == 0)
            return ds_fail(err, DS_INVALID, "part %zu of the block is empty", i);
    return DS_OK;
}

static enum ds_status
check_blocks(const struct ds_block_sizes *blocks, size_t block_count, size_t *out_parts,
             struct ds_error *err)
{
    size_t parts = 0;
    if (blocks == NULL || block_count == 0 || block_count > DS_BATCH_KEYS_MAX)
        return ds_fail(err, DS_INVALID, "1 to %d blocks at once, not %zu",
                       DS_BATCH_KEYS_MAX, blocks == NULL ? 0 : block_count);
    for (size_t i = 0; i < block_count; i++) {
        enum ds_status status = check_sizes(blocks[i].sizes, blocks[i].count, err);
        if (status != DS_OK)
            return status;
        parts += blocks[i].count;
    }
    if (parts > DS_BATCH_KEYS_MAX)
        return ds_fail(err, DS_INVALID, "at most %d blocks or parts at once, not %zu",
                       DS_BATCH_KEYS_MAX, parts);
    *out_parts = parts;
    return DS_OK;
}

/* The sizes of all parts, one block after the other; with `separated`, a 0 stands
 * between two blocks, as BLOCK_CREATE has it. NULL when out of memory. */
static uint64_t *
sizes_in_a_row(const struct ds_block_sizes *blocks, size_t block_count, size_t parts,
               bool separated)
{
    uint64_t *sizes = calloc(parts + block_count, sizeof *sizes);
    size_t at = 0;
    for (size_t i = 0; sizes != NULL && i < block_count; i++) {
        memcpy(sizes + at, blocks[i].sizes, blocks[i].count * sizeof *sizes);
        at += blocks[i].count + separated;
    }
    return sizes;
}

/* `message_sizes` are those of `creation`, in the form of the message. */
static enum ds_status
request_blocks(struct ds_client *client, struct creation *creation,
               const uint64_t *message_sizes, size_t size_count, uint32_t room_wait_ms,
               struct ds_error *err)
{
    AUTO_WRITER(body);
    encode_block_create(&body, 0, message_sizes, size_count);
    struct request request = {.type = MESSAGE_BLOCK_CREATE,
                              .body = &body,
                              .wait_until_ms = client_room_until_ms(room_wait_ms),
                              .on_reply = creation_on_reply,
                              .arg = creation};
    struct wait wait = client_room_wait(client, room_wait_ms);
    return client_call(client, &request, &wait, err);
}

static enum ds_status
create_one_by_request(struct ds_client *client, const uint64_t *sizes, size_t count,
                      uint32_t room_wait_ms, struct ds_buffer **out,
                      struct ds_error *err)
{
    struct creation creation = {
        .sizes = sizes, .count = count, .is_block = true, .out = out};
    enum ds_status status =
        request_blocks(client, &creation, sizes, count, room_wait_ms, err);
    if (status == DS_OK && count == 1 && is_lendable(client, sizes[0])) {
        uint8_t key[BLOCK_KEY_BYTES];
        wire_block_key(out[0]->block, 0, key);
        (void)buffer_set_key(out[0], slice(key, sizeof key)); /* As in create_one(). */
    }
    return status;
}

enum ds_status
block_create_by_request(struct ds_client *client, const uint64_t *sizes, size_t count,
                        struct ds_buffer **out, struct ds_error *err)
{
    return create_one_by_request(client, sizes, count, client->room_wait_ms, out, err);
}

/* Over room that was lent to us, where it is one part and there is any. */
static enum ds_status
create_one(struct ds_client *client, const struct ds_block_sizes *block,
           uint32_t room_wait_ms, struct ds_buffer **out, struct ds_error *err)
{
    struct ds_buffer *lent = NULL;
    enum ds_status status = DS_OK;
    if (block->count == 1 && is_lendable(client, block->sizes[0]))
        status = create_lent_block(client, block->sizes[0], &lent, err);
    if (status != DS_OK)
        return status;
    if (lent == NULL)
        return create_one_by_request(client, block->sizes, block->count, room_wait_ms,
                                     out, err);
    *out = lent;
    return DS_OK;
}

static enum ds_status
create_several(struct ds_client *client, const struct ds_block_sizes *blocks,
               size_t block_count, size_t parts, uint32_t room_wait_ms,
               struct ds_buffer **out, struct ds_error *err)
{
    uint64_t *sizes = sizes_in_a_row(blocks, block_count, parts, false);
    uint64_t *separated = sizes_in_a_row(blocks, block_count, parts, true);
    enum ds_status status;
    if (sizes == NULL || separated == NULL) {
        status = ds_fail(err, DS_NO_MEMORY, "out of memory for %zu sizes", parts);
    } else {
        struct creation creation = {.sizes = sizes,
                                    .count = parts,
                                    .is_block = true,
                                    .blocks = blocks,
                                    .out = out};
        status = request_blocks(client, &creation, separated, parts + block_count - 1,
                                room_wait_ms, err);
    }
    free(sizes);
    free(separated);
    return status;
}

enum ds_status
ds_blocks_create(struct ds_client *client, const struct ds_block_sizes *blocks,
                 size_t block_count, uint32_t room_wait_ms, struct ds_buffer **out,
                 struct ds_error *err)
{
    size_t parts = 0;
    if (out == NULL)
        return ds_fail(err, DS_INVALID, "no place for the blocks");
    enum ds_status status = check_client(client, err);
    if (status == DS_OK)
        status = check_blocks(blocks, block_count, &parts, err);
    if (status != DS_OK)
        return status;
    if (block_count == 1)
        return create_one(client, blocks, room_wait_ms, out, err);
    return create_several(client, blocks, block_count, parts, room_wait_ms, out, err);
}

enum ds_status
ds_block_create(struct ds_client *client, const uint64_t *sizes, size_t count,
                struct ds_buffer **out, struct ds_error *err)
{
    struct ds_block_sizes block = {.sizes = sizes, .count = count};
    enum ds_status status = check_client(client, err);
    if (status != DS_OK)
        return status;
    return ds_blocks_create(client, &block, 1, client->room_wait_ms, out, err);
}

static enum ds_status
check_one_block(struct ds_buffer *const *parts, size_t count, struct ds_error *err)
{
    enum ds_status status = check_sealable(parts, count, true, err);
    for (size_t i = 1; i < count && status == DS_OK; i++)
        if (memcmp(&parts[i]->block, &parts[0]->block, sizeof parts[0]->block) != 0)
            status = ds_fail(err, DS_INVALID, "part %zu is of another block", i);
    return status;
}

enum ds_status
ds_block_seal(struct ds_client *client, struct ds_buffer *const *parts, size_t count,
              struct ds_block_id *out_id, struct ds_error *err)
{
    if (out_id == NULL)
        return ds_fail(err, DS_INVALID, "no place for the block's id");
    enum ds_status status = check_client(client, err);
    if (status == DS_OK)
        status = check_one_block(parts, count, err);
    if (status == DS_OK)
        status = seal_all(client, parts, count, err);
    if (status == DS_OK)
        *out_id = parts[0]->block;
    return status;
}

/* Keys of the parts, and the bytes that they point at, in one allocation. */
static struct ds_slice *
part_keys(const struct ds_block_id *ids, const uint32_t *parts, size_t count)
{
    struct ds_slice *keys = calloc(count, sizeof *keys + BLOCK_KEY_BYTES);
    if (keys == NULL)
        return NULL;
    uint8_t *bytes = (uint8_t *)(keys + count);
    for (size_t i = 0; i < count; i++) {
        wire_block_key(ids[i], parts[i], bytes + i * BLOCK_KEY_BYTES);
        keys[i] = slice(bytes + i * BLOCK_KEY_BYTES, BLOCK_KEY_BYTES);
    }
    return keys;
}

static enum ds_status
check_ids(const struct ds_block_id *ids, size_t count, struct ds_error *err)
{
    if (ids == NULL || count == 0)
        return ds_fail(err, DS_INVALID, "no blocks are named");
    if (count > DS_BATCH_KEYS_MAX)
        return ds_fail(err, DS_INVALID, "at most %d blocks or parts at once, not %zu",
                       DS_BATCH_KEYS_MAX, count);
    return DS_OK;
}

static enum ds_status
check_parts(const uint32_t *parts, size_t count, struct ds_error *err)
{
    if (parts == NULL)
        return ds_fail(err, DS_INVALID, "no parts are named");
    for (size_t i = 0; i < count; i++)
        if (parts[i] >= DS_BLOCK_PARTS_MAX)
            return ds_fail(err, DS_INVALID, "a block has no part %u", parts[i]);
    return DS_OK;
}

enum ds_status
ds_block_get(struct ds_client *client, const struct ds_block_id *ids,
             const uint32_t *parts, size_t count, struct ds_buffer **out,
             struct ds_error *err)
{
    if (out == NULL)
        return ds_fail(err, DS_INVALID, "no place for the buffers");
    enum ds_status status = check_client(client, err);
    if (status == DS_OK)
        status = check_ids(ids, count, err);
    if (status == DS_OK)
        status = check_parts(parts, count, err);
    if (status != DS_OK)
        return status;
    struct ds_slice *keys = part_keys(ids, parts, count);
    if (keys == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for %zu keys", count);
    status = lookup_keys(client, keys, count, LOOKUP_BLOCKS, 0, out, err);
    free(keys);
    return status;
}

enum ds_status
ds_block_delete(struct ds_client *client, const struct ds_block_id *ids, size_t count,
                struct ds_error *err)
{
    enum ds_status status = check_client(client, err);
    if (status == DS_OK)
        status = check_ids(ids, count, err);
    if (status != DS_OK)
        return status;
    janitor_settle(); /* When this returns, what was dropped is room for anybody. */
    AUTO_WRITER(body);
    encode_block_ids(&body, ids, count);
    struct request request = {.type = MESSAGE_BLOCK_DELETE, .body = &body};
    struct wait wait = client_wait(client, client->request_timeout_ms);
    return client_call(client, &request, &wait, err);
}
