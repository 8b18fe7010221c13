/* What clients do with the queue: rows are put in blocks of one part, got, and cleared. A
 * row is a key of the oracle, after those of the store. */
#include "workload.h"

#include "node.h"

#include "base/check.h"
#include "base/slice.h"
#include "wire/msgpack.h"

#include <stdlib.h>
#include <string.h>

enum {
    ROWS_AT_ONCE = 3,
    GET_TRIES = 40, /* Of rows that others put and clear meanwhile. */
    HEAD_WORDS = 1 + ROWS_AT_ONCE,
};

/* A block has, in words: how many rows, where each begins, then the values. */
struct rows {
    uint32_t count;
    uint32_t keys[ROWS_AT_ONCE];
    uint32_t values[ROWS_AT_ONCE];
    uint32_t numbers[ROWS_AT_ONCE]; /* Of the oracle's operations. */
};

static struct rows
choose_rows(void)
{
    struct rows rows = {.count = (uint32_t)sim_between(1, ROWS_AT_ONCE)};
    uint32_t first = (uint32_t)sim_below(QUEUE_ROWS);
    for (uint32_t i = 0; i < rows.count; i++)
        rows.keys[i] = STORE_KEYS + (first + i) % QUEUE_ROWS;
    return rows;
}

static void
begin_all(struct rows *rows, enum operation operation)
{
    for (uint32_t i = 0; i < rows->count; i++) {
        rows->numbers[i] = oracle_begin(rows->keys[i], operation, rows->values[i]);
        if (operation != OPERATION_READ)
            oracle_takes_effect_once(rows->numbers[i]);
    }
}

static void
end_all(const struct rows *rows, enum outcome outcome)
{
    for (uint32_t i = 0; i < rows->count; i++)
        oracle_end(rows->numbers[i], outcome, 0);
}

/* ---- Calling ---- */

static void
write_keys(struct writer *request, const struct rows *rows)
{
    msgpack_write_array(request, rows->count);
    for (uint32_t i = 0; i < rows->count; i++) {
        char name[16];
        snprintf(name, sizeof name, "row.%u", rows->keys[i]);
        msgpack_write_str(request, slice_of_text(name));
    }
}

static void
begin_request(struct writer *request, const char *operation, size_t arguments,
              const struct rows *rows)
{
    msgpack_write_array(request, 1 + arguments);
    msgpack_write_str(request, slice_of_text(operation));
    msgpack_write_str(request, slice_of_text("partition"));
    write_keys(request, rows);
}

/* *out_reply is to be free()d. */
static enum ds_status
call(struct client *client, const char *what, const struct writer *request,
     uint8_t **out_reply, size_t *out_bytes)
{
    struct ds_error err = {0};
    void *reply = NULL;
    DS_ASSERT(!request->failed);
    client->begin_ns = sim.now_ns;
    enum ds_status status =
        ds_queue_call(client->queue, slice(request->data, request->len), TIMEOUT_MS,
                      &reply, out_bytes, &err);
    workload_book(client, status, what, TIMEOUT_MS);
    workload_expect(client, status, &err, what);
    *out_reply = reply;
    return status;
}

/* ---- Put ---- */

static uint64_t
block_bytes(const struct rows *rows)
{
    uint64_t bytes = 8 * HEAD_WORDS;
    for (uint32_t i = 0; i < rows->count; i++)
        bytes += value_bytes(rows->values[i]);
    return bytes;
}

static void
fill_block(void *data, const struct rows *rows)
{
    uint64_t *head = data;
    uint64_t at = 8 * HEAD_WORDS;
    head[0] = rows->count;
    for (uint32_t i = 0; i < rows->count; i++) {
        head[1 + i] = at;
        value_write((uint8_t *)data + at, rows->keys[i], rows->values[i]);
        at += value_bytes(rows->values[i]);
    }
}

/* A sealed block with the rows' values; false when there is none. */
static bool
make_block(struct client *client, const struct rows *rows, struct ds_block_id *out)
{
    uint64_t bytes = block_bytes(rows);
    struct ds_buffer *part = NULL;
    struct ds_error err = {0};
    client->begin_ns = sim.now_ns;
    enum ds_status status = ds_block_create(client->ds, &bytes, 1, &part, &err);
    workload_book(client, status, "block create", TIMEOUT_MS);
    workload_expect(client, status, &err, "block create");
    if (status != DS_OK)
        return false;
    fill_block(ds_buffer_data(part), rows);
    client->begin_ns = sim.now_ns;
    status = ds_block_seal(client->ds, &part, 1, out, &err);
    workload_book(client, status, "block seal", TIMEOUT_MS);
    if (status != DS_IO) /* It may have been created before the memory was lost. */
        workload_expect(client, status, &err, "block seal");
    ds_buffer_release(part);
    return status == DS_OK;
}

static void
delete_block(struct client *client, const struct ds_block_id *id)
{
    struct ds_error err = {0};
    client->begin_ns = sim.now_ns;
    enum ds_status status = ds_block_delete(client->ds, id, 1, &err);
    workload_book(client, status, "block delete", TIMEOUT_MS);
    workload_expect(client, status, &err, "block delete");
}

/* Refused also because the block was given up. */
static enum outcome
outcome_of(enum ds_status status)
{
    return status == DS_NOT_FOUND ? OUTCOME_NOTHING : workload_outcome(status);
}

void
queue_load_put(struct client *client)
{
    struct rows rows = choose_rows();
    struct ds_block_id id;
    uint32_t wipes = oracle_wipes();
    for (uint32_t i = 0; i < rows.count; i++)
        rows.values[i] = oracle_new_value();
    sim_trace("kv put rows=%u+%u values=%u..", rows.keys[0], rows.count,
              rows.values[0]);
    if (!make_block(client, &rows, &id))
        return;
    AUTO_WRITER(request);
    begin_request(&request, "kv_put", 4, &rows);
    msgpack_write_array(&request, 5);
    msgpack_write_array(&request, 1);
    msgpack_write_bin(&request, slice(id.bytes, sizeof id.bytes));
    msgpack_write_str(&request, slice_of_text("simulation"));
    msgpack_write_array(&request, 1);
    msgpack_write_str(&request, slice_of_text("x"));
    msgpack_write_array(&request, 1);
    msgpack_write_uint(&request, block_bytes(&rows));
    msgpack_write_array(&request, 0);
    msgpack_write_nil(&request);
    begin_all(&rows, OPERATION_PUT);
    for (uint32_t i = 0; i < rows.count; i++)
        oracle_stored_before(rows.numbers[i], wipes);
    uint8_t *reply = NULL;
    size_t reply_bytes;
    enum ds_status status = call(client, "kv put", &request, &reply, &reply_bytes);
    enum outcome outcome = outcome_of(status);
    end_all(&rows, outcome);
    free(reply);
    if (outcome == OUTCOME_NOTHING)
        delete_block(client, &id);
}

/* ---- Clear ---- */

static void
clear(struct client *client, struct rows *rows)
{
    AUTO_WRITER(request);
    begin_request(&request, "kv_clear", 2, rows);
    begin_all(rows, OPERATION_CLEAR);
    uint8_t *reply = NULL;
    size_t reply_bytes;
    enum ds_status status = call(client, "kv clear", &request, &reply, &reply_bytes);
    end_all(rows, outcome_of(status));
    free(reply);
}

void
queue_load_clear(struct client *client)
{
    struct rows rows = choose_rows();
    sim_trace("kv clear rows=%u+%u", rows.keys[0], rows.count);
    clear(client, &rows);
}

void
queue_load_clear_all(struct client *client)
{
    for (uint32_t i = 0; i < QUEUE_ROWS; i++) {
        struct rows rows = {.count = 1, .keys = {STORE_KEYS + i}};
        clear(client, &rows);
    }
}

/* ---- Get ---- */

/* Where a row is, as the controller said last. */
struct place {
    bool is_there;
    bool is_settled; /* Its value is known. */
    struct ds_block_id id;
    uint32_t row;
};

/* [found, fields, groups]: sets the places of rows that are wanted, in their order. */
static void
read_places(const uint8_t *reply, size_t bytes, const uint32_t *wanted, uint32_t count,
            struct place *places)
{
    struct reader reader = reader_of(reply, bytes);
    uint32_t at[ROWS_AT_ONCE];
    uint32_t found = count;
    struct ds_block_id ids[ROWS_AT_ONCE];
    DS_ASSERT(msgpack_read_array(&reader) == 3);
    for (uint32_t i = 0; i < count; i++)
        at[i] = wanted[i];
    if (!msgpack_read_nil(&reader)) {
        found = msgpack_read_array(&reader);
        for (uint32_t i = 0; i < found; i++)
            at[i] = wanted[msgpack_read_uint(&reader)];
    }
    DS_ASSERT(msgpack_read_array(&reader) == 1);
    msgpack_skip(&reader); /* "x" */
    DS_ASSERT(msgpack_read_array(&reader) == 1);
    DS_ASSERT(msgpack_read_array(&reader) == 3);
    msgpack_skip(&reader);
    uint32_t blocks = msgpack_read_array(&reader);
    DS_ASSERT(blocks <= count);
    for (uint32_t i = 0; i < blocks; i++) {
        DS_ASSERT(msgpack_read_array(&reader) == 2);
        struct ds_slice id = msgpack_read_bin(&reader);
        DS_ASSERT(id.len == sizeof ids[i].bytes);
        memcpy(ids[i].bytes, id.data, sizeof ids[i].bytes);
        msgpack_skip(&reader);
    }
    uint32_t runs = msgpack_read_array(&reader) / 3;
    uint32_t done = 0;
    for (uint32_t i = 0; i < runs; i++) {
        uint64_t block = msgpack_read_uint(&reader);
        uint64_t row = msgpack_read_uint(&reader);
        uint64_t length = msgpack_read_uint(&reader);
        DS_ASSERT(block < blocks);
        for (uint64_t j = 0; j < length; j++, done++) {
            DS_ASSERT(done < found);
            places[at[done]] = (struct place){
                .is_there = true, .id = ids[block], .row = (uint32_t)(row + j)};
        }
    }
    DS_ASSERT(done == found);
    DS_ASSERT(reader_done(&reader));
}

/* Asks where the rows are whose value is not known yet. DS_OK also if none is there. */
static enum ds_status
find_rows(struct client *client, const struct rows *rows, struct place *places)
{
    struct rows asked = {0};
    uint32_t wanted[ROWS_AT_ONCE];
    for (uint32_t i = 0; i < rows->count; i++) {
        if (places[i].is_settled)
            continue;
        places[i].is_there = false;
        wanted[asked.count] = i;
        asked.keys[asked.count++] = rows->keys[i];
    }
    AUTO_WRITER(request);
    begin_request(&request, "kv_get", 3, &asked);
    msgpack_write_nil(&request);
    uint8_t *reply = NULL;
    size_t reply_bytes = 0;
    enum ds_status status = call(client, "kv get", &request, &reply, &reply_bytes);
    if (status == DS_OK)
        read_places(reply, reply_bytes, wanted, asked.count, places);
    free(reply);
    return status == DS_NOT_FOUND ? DS_OK : status;
}

/* The value of row `i`, from its block, if that is there. */
static enum ds_status
read_row(struct client *client, struct rows *rows, uint32_t i, struct place *place)
{
    static const uint32_t part = 0;
    struct ds_buffer *buffer = NULL;
    struct ds_error err = {0};
    client->begin_ns = sim.now_ns;
    enum ds_status status =
        ds_block_get(client->ds, &place->id, &part, 1, &buffer, &err);
    workload_book(client, status, "block get", TIMEOUT_MS);
    workload_expect(client, status, &err, "block get");
    if (buffer == NULL)
        return status == DS_NOT_FOUND ? DS_OK : status;
    const uint64_t *head = ds_buffer_data(buffer);
    uint64_t bytes = ds_buffer_size(buffer);
    if (bytes < 8 * HEAD_WORDS || place->row >= head[0] || head[0] > ROWS_AT_ONCE ||
        head[1 + place->row] > bytes)
        sim_fail("the block of row %u is none of ours", rows->keys[i]);
    uint64_t begin = head[1 + place->row];
    uint64_t end = place->row + 1 < head[0] ? head[2 + place->row] : bytes;
    rows->values[i] =
        value_read((const uint8_t *)head + begin, end - begin, rows->keys[i], "kv get");
    place->is_settled = true;
    workload_hold(client, buffer, begin, rows->keys[i], rows->values[i]);
    return DS_OK;
}

/* A block may be gone because its rows were put again or cleared since we asked; then
 * they are somewhere else by now. One that the controller names again is lost. */
static enum ds_status
read_rows(struct client *client, struct rows *rows)
{
    struct place places[ROWS_AT_ONCE] = {0};
    for (int try = 0; try < GET_TRIES; try++) {
        struct place before[ROWS_AT_ONCE];
        bool is_done = true;
        memcpy(before, places, sizeof before);
        enum ds_status status = find_rows(client, rows, places);
        for (uint32_t i = 0; status == DS_OK && i < rows->count; i++) {
            struct place *place = &places[i];
            bool is_same = try > 0 && before[i].is_there &&
                           memcmp(before[i].id.bytes, place->id.bytes,
                                  sizeof place->id.bytes) == 0;
            if (place->is_settled)
                continue;
            if (place->is_there)
                status = read_row(client, rows, i, place);
            place->is_settled = place->is_settled || !place->is_there || is_same;
            is_done = is_done && place->is_settled;
        }
        if (status != DS_OK || is_done)
            return status;
    }
    sim_fail("rows that nobody can get: %u+%u", rows->keys[0], rows->count);
}

static void
get(struct client *client, struct rows *rows)
{
    begin_all(rows, OPERATION_READ);
    enum ds_status status = read_rows(client, rows);
    sim_trace("kv get rows=%u+%u values=%u..", rows->keys[0], rows->count,
              rows->values[0]);
    for (uint32_t i = 0; i < rows->count; i++)
        oracle_end(rows->numbers[i], status == DS_OK ? OUTCOME_DONE : OUTCOME_UNKNOWN,
                   rows->values[i]);
}

void
queue_load_get(struct client *client)
{
    struct rows rows = choose_rows();
    get(client, &rows);
}

void
queue_load_get_all(struct client *client)
{
    for (uint32_t i = 0; i < QUEUE_ROWS; i++) {
        struct rows rows = {.count = 1, .keys = {STORE_KEYS + i}};
        get(client, &rows);
    }
}
