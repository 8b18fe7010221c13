/* The queue's part of the workload: blocks at the worker, rows at the controller. */
#include "load_internal.h"

#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_PARTS = 2 };

static void
open_queue(struct load *load)
{
    struct ds_queue_options options = {.struct_bytes = sizeof options,
                                       .address = load->queue_address,
                                       .connect_timeout_ms = CALL_TIMEOUT_MS};
    struct ds_error err = {0};
    enum ds_status status = ds_queue_open(&options, &load->queue, &err);
    (void)load_succeeded(load, "open the queue", status, &err);
}

/* MessagePack of small things, without an allocation of the test's own. */
struct pack {
    uint8_t data[256];
    size_t len;
};

static void
pack_byte(struct pack *pack, unsigned value)
{
    pack->data[pack->len++] = (uint8_t)value;
}

static void
pack_text(struct pack *pack, const char *text)
{
    pack_byte(pack, 0xa0u | (unsigned)strlen(text));
    memcpy(pack->data + pack->len, text, strlen(text));
    pack->len += strlen(text);
}

static void
begin_call(struct pack *pack, const char *name, unsigned arguments)
{
    pack->len = 0;
    pack_byte(pack, 0x90u | (arguments + 1));
    pack_text(pack, name);
    pack_text(pack, "p"); /* Always the same: an empty partition stays. */
}

static const char *const row_names[LOAD_ROWS] = {"r0", "r1"};

static enum ds_status
call(struct load *load, const struct pack *pack, void **out, size_t *out_bytes,
     struct ds_error *err)
{
    if (load->queue == NULL)
        open_queue(load);
    if (load->queue == NULL)
        return ds_fail(err, DS_IO, "there is no queue to call");
    return ds_queue_call(load->queue, slice(pack->data, pack->len), CALL_TIMEOUT_MS,
                         out, out_bytes, err);
}

static enum ds_status
call_unheard(struct load *load, const struct pack *pack, struct ds_error *err)
{
    void *reply = NULL;
    size_t bytes = 0;
    enum ds_status status = call(load, pack, &reply, &bytes, err);
    if (status == DS_OK)
        free(reply);
    return status;
}

static bool
make_block(struct load *load, size_t count)
{
    uint64_t sizes[BLOCK_PARTS] = {load_version_bytes[2], load_version_bytes[2]};
    struct ds_buffer *parts[BLOCK_PARTS] = {NULL};
    struct ds_error err = {0};
    enum ds_status status = ds_block_create(load->client, sizes, count, parts, &err);
    if (!load_succeeded(load, "create a block", status, &err))
        return false;
    for (size_t i = 0; i < count; i++)
        load_fill(ds_buffer_data(parts[i]), (int)i, 2, load_version_bytes[2]);
    status = ds_block_seal(load->client, parts, count, &load->block, &err);
    for (size_t i = 0; i < count; i++)
        ds_buffer_release(parts[i]);
    load->block_is_known = load_succeeded(load, "seal a block", status, &err);
    load->block_may_be_ours = load->block_is_known;
    return load->block_is_known;
}

void
load_delete_block(struct load *load, struct ds_client *client)
{
    struct ds_error err = {0};
    enum ds_status status = ds_block_delete(client, &load->block, 1, &err);
    load->block_is_known = !load_succeeded(load, "delete a block", status, &err);
}

/* ['kv_put', partition, ['r0', 'r1'], [[block], 'y', ['x'], [8], []], [{'t': 1}, nil]]
 */
static void
put_rows(struct load *load)
{
    struct pack pack;
    struct ds_error err = {0};
    begin_call(&pack, "kv_put", 4);
    pack_byte(&pack, 0x90 | LOAD_ROWS);
    for (int i = 0; i < LOAD_ROWS; i++)
        pack_text(&pack, row_names[i]);
    pack_byte(&pack, 0x95);
    pack_byte(&pack, 0x91);
    pack_byte(&pack, 0xc4);
    pack_byte(&pack, sizeof load->block.bytes);
    memcpy(pack.data + pack.len, load->block.bytes, sizeof load->block.bytes);
    pack.len += sizeof load->block.bytes;
    pack_text(&pack, "y");
    pack_byte(&pack, 0x91);
    pack_text(&pack, "x");
    pack_byte(&pack, 0x91);
    pack_byte(&pack, 8);
    pack_byte(&pack, 0x90);
    pack_byte(&pack, 0x92);
    pack_byte(&pack, 0x81);
    pack_text(&pack, "t");
    pack_byte(&pack, 1);
    pack_byte(&pack, 0xc0);
    enum ds_status status = call_unheard(load, &pack, &err);
    bool done = load_succeeded(load, "kv_put", status, &err);
    load->block_may_be_ours = !done;
    for (int i = 0; i < LOAD_ROWS; i++)
        load_note(&load->rows[i], done, 2);
}

static bool
holds_block(const struct load *load, const uint8_t *reply, size_t bytes)
{
    return memmem(reply, bytes, load->block.bytes, sizeof load->block.bytes) != NULL;
}

/* kv_get of one row: 1 it is not there, 2 it has its block, 0 an error. */
static uint32_t
get_row(struct load *load, int row, const char *what)
{
    struct pack pack;
    struct ds_error err = {0};
    void *reply = NULL;
    size_t bytes = 0;
    begin_call(&pack, "kv_get", 3);
    pack_byte(&pack, 0x91);
    pack_text(&pack, row_names[row]);
    pack_byte(&pack, 0xc0);
    enum ds_status status = call(load, &pack, &reply, &bytes, &err);
    if (status == DS_NOT_FOUND)
        return ABSENT;
    if (!load_succeeded(load, what, status, &err))
        return 0;
    if (reply == NULL || !holds_block(load, reply, bytes))
        load_fail(load, "%s: row %d without its block", what, row);
    free(reply);
    return 2;
}

static void
check_block(struct load *load, struct ds_client *client, const char *what)
{
    struct ds_block_id ids[BLOCK_PARTS] = {load->block, load->block};
    uint32_t numbers[BLOCK_PARTS] = {0, 1};
    struct ds_buffer *parts[BLOCK_PARTS] = {NULL};
    struct ds_error err = {0};
    enum ds_status status =
        ds_block_get(client, ids, numbers, BLOCK_PARTS, parts, &err);
    if (!load_succeeded(load, what, status, &err))
        return;
    for (int i = 0; i < BLOCK_PARTS; i++) {
        if (load_found(parts[i], i) != 1u << 2)
            load_fail(load, "%s: part %d of the block is not what was put", what, i);
        ds_buffer_release(parts[i]);
    }
}

void
load_check_rows(struct load *load, struct ds_client *client, const char *what)
{
    for (int i = 0; i < LOAD_ROWS; i++) {
        uint32_t found = get_row(load, i, what);
        if (found != 0 && (found & load->rows[i]) == 0)
            load_fail(load, "%s: row %d has %u, promised was one of %u", what, i, found,
                      load->rows[i]);
        if (found == 2 && client != NULL)
            check_block(load, client, what);
    }
}

void
load_clear_row(struct load *load, int row)
{
    struct pack pack;
    struct ds_error err = {0};
    begin_call(&pack, "kv_clear", 2);
    pack_byte(&pack, 0x91);
    pack_text(&pack, row_names[row]);
    enum ds_status status = call_unheard(load, &pack, &err);
    load_note(&load->rows[row], load_succeeded(load, "kv_clear", status, &err), ABSENT);
}

static void
list_rows(struct load *load)
{
    struct pack pack;
    struct ds_error err = {0};
    begin_call(&pack, "kv_list", 1);
    enum ds_status status = call_unheard(load, &pack, &err);
    (void)load_succeeded(load, "kv_list", status, &err);
}

/* Tags alone: a row that is there stays as it is. */
static void
tag_row(struct load *load)
{
    struct pack pack;
    struct ds_error err = {0};
    if (load->rows[0] != 2)
        return;
    begin_call(&pack, "kv_put", 4);
    pack_byte(&pack, 0x91);
    pack_text(&pack, row_names[0]);
    pack_byte(&pack, 0xc0);
    pack_byte(&pack, 0x91);
    pack_byte(&pack, 0x81);
    pack_text(&pack, "u");
    pack_byte(&pack, 2);
    enum ds_status status = call_unheard(load, &pack, &err);
    (void)load_succeeded(load, "kv_put of tags", status, &err);
}

void
load_use_queue(struct load *load)
{
    if (load->queue_address == NULL)
        return;
    open_queue(load);
    if (make_block(load, BLOCK_PARTS)) {
        put_rows(load);
        tag_row(load);
        list_rows(load);
        load_check_rows(load, load->client, "kv_get");
    }
    load_clear_row(load, 1);
    load_check_rows(load, NULL, "kv_get after kv_clear");
}
