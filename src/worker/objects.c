#include "worker/objects.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "worker/waiters.h"

#include <stdlib.h>

/* ---- Rules ---- */

static enum ds_status
check_user_key(struct ds_slice key, struct ds_error *err)
{
    if (wire_user_key_is_legal(key))
        return DS_OK;
    return ds_fail(err, DS_INVALID, "illegal key of %zu bytes", key.len);
}

static enum ds_status
check_mode(uint8_t write_mode, struct ds_error *err)
{
    if (write_mode == DS_NONE_L2_CACHE || write_mode == DS_NONE_L2_CACHE_EVICT)
        return DS_OK;
    return ds_fail(err, DS_INVALID,
                   "The key is set to WRITE_THROUGH_L2_CACHE, WRITE_BACK_L2_CACHE or "
                   "WRITE_BACK_L2_CACHE_EVICT, but L2_cache_type is set to none.");
}

uint32_t
objects_expiry(uint32_t ttl_seconds, uint64_t now_ds)
{
    uint64_t deadline = now_ds + (uint64_t)ttl_seconds * 10;
    if (ttl_seconds == 0 || deadline > UINT32_MAX)
        return 0; /* Over 13 years of uptime away: as good as never. */
    return (uint32_t)deadline;
}

enum ds_status
objects_create(struct session *session, struct ds_slice key, uint64_t size,
               uint8_t write_mode, uint32_t sequence, struct object_view *out,
               struct ds_error *err)
{
    enum ds_status status = check_user_key(key, err);
    if (status == DS_OK)
        status = check_mode(write_mode, err);
    if (status == DS_OK && size == 0)
        status =
            ds_fail(err, DS_INVALID, "The dataSize value should be bigger than zero.");
    if (status != DS_OK)
        return status;
    struct create_request request = {
        .key = key,
        .size = size,
        .client = session->creator,
        .sequence = sequence,
        .flags = write_mode == DS_NONE_L2_CACHE_EVICT ? SLOT_FLAG_EVICTABLE : 0,
    };
    session->worker->counters.creates++;
    return store_create(session->worker->store, &request, clock_boot_ds(), out, err);
}

struct ds_block_id
objects_issue_block_id(struct session *session)
{
    struct worker *worker = session->worker;
    const struct table_header *table = store_header(worker->store);
    struct block_birth birth = {table->node, table->incarnation, session->queue};
    return wire_block_id(birth, worker->block_counter++);
}

void
objects_write_created(struct writer *writer, const struct object_view *view)
{
    struct wire_extent extent = {
        .ref = {.slot = view->ref.slot, .generation = view->ref.generation},
        .offset = view->offset,
    };
    encode_created_extent(writer, extent);
}

/* Values that are just arriving on other connections of the client: their bytes go
 * straight into the arena, so they must not be given up under way. */
static size_t
keep_open_puts(const struct worker *worker, const struct client *client,
               struct object_ref *out)
{
    size_t count = 0;
    LIST_FOREACH (link, &worker->sessions) {
        const struct session *session = CONTAINER_OF(link, struct session, link);
        if (session->client == client && session->put_open && !session->put_is_fill)
            out[count++] = session->put.ref;
    }
    return count;
}

enum ds_status
objects_resume(struct session *session, struct client *client,
               const struct hello *hello, struct ds_error *err)
{
    struct worker *worker = session->worker;
    size_t count_max = (size_t)hello->holding.count + worker->session_count;
    struct object_ref *keep = calloc(count_max + 1, sizeof *keep);
    if (keep == NULL)
        return ds_fail(err, DS_NO_MEMORY, "worker is out of memory");
    struct ref_list holding = hello->holding;
    struct wire_ref ref;
    size_t count = 0;
    while (next_ref(&holding, &ref))
        keep[count++] =
            (struct object_ref){.slot = ref.slot, .generation = ref.generation};
    count += keep_open_puts(worker, client, keep + count);
    DS_ASSERT(count <= count_max);
    store_client_keep_only(worker->store, client->region, keep, count);
    free(keep);
    return DS_OK;
}

/* ---- SEAL ---- */

static void
key_of(const struct worker *worker, uint32_t slot, uint8_t *buffer,
       struct ds_slice *out)
{
    *out = store_key(worker->store, slot, buffer);
}

enum ds_status
objects_seal(struct worker *worker, const struct objects_seal *seal,
             struct ds_error *err)
{
    uint64_t now = clock_boot_ds();
    uint32_t slot = seal->ref.slot;
    struct seal_request request = {
        .ref = seal->ref,
        .expires_ds = objects_expiry(seal->ttl_seconds, now),
        .only_if_absent = seal->only_if_absent,
        .has_checksum = seal->checksum.known,
        .checksum = seal->checksum.value,
    };
    enum ds_status status = store_seal(worker->store, &request, now, err);
    if (status != DS_OK)
        return status;
    worker->counters.seals++;
    struct object_view view;
    enum slot_state state;
    if (store_inspect(worker->store, slot, &view, &state) && state == SLOT_SEALED) {
        worker->counters.bytes_sealed += view.size;
        uint8_t buffer[DS_KEY_BYTES_MAX];
        struct ds_slice key;
        key_of(worker, slot, buffer, &key);
        waiters_key_appeared(worker, key);
    }
    return DS_OK;
}

void
handle_seal(struct session *session, const struct frame_header *header,
            struct ds_slice body)
{
    struct seal message;
    if (!decode_seal(body, &message)) {
        session_reject(session, "malformed SEAL");
        return;
    }
    struct ds_error err = {0};
    struct wire_filled object;
    while (next_filled(&message.objects, &object)) {
        struct objects_seal seal = {
            .ref = {.slot = object.ref.slot, .generation = object.ref.generation},
            .ttl_seconds = message.ttl_seconds,
            .only_if_absent = message.only_if_absent,
            .checksum = object.checksum,
        };
        enum ds_status status = objects_seal(session->worker, &seal, &err);
        if (status != DS_OK) {
            conn_reply_error(session->conn, header, &err);
            return;
        }
        if (PLANTED(LOST_ACK))
            break;
    }
    conn_reply(session->conn, header, (struct ds_slice){0});
}

/* ---- PUBLISH ---- */

static enum ds_status
name_and_seal(struct session *session, const struct publish *message,
              struct ds_error *err)
{
    bool is_block = wire_is_block_key(message->key);
    struct name_request request = {
        .ref = {message->ref.slot, message->ref.generation},
        .client = session->creator,
        .key = message->key,
        .size = message->size,
        .flags = is_block ? BLOCK_PART_FLAGS : 0,
    };
    struct objects_seal seal = {
        .ref = request.ref,
        .ttl_seconds = message->ttl_seconds,
        .only_if_absent = message->only_if_absent,
        .checksum = message->checksum,
    };
    enum ds_status status = is_block ? DS_OK : check_user_key(message->key, err);
    if (status == DS_OK)
        status = store_name(session->worker->store, &request, err);
    if (status == DS_OK)
        status = objects_seal(session->worker, &seal, err);
    return status;
}

void
handle_publish(struct session *session, const struct frame_header *header,
               struct ds_slice body)
{
    struct publish message;
    if (session->client == NULL || !decode_publish(body, &message)) {
        session_reject(session, session->client == NULL ? "PUBLISH by who is no member"
                                                        : "malformed PUBLISH");
        return;
    }
    struct ds_error err = {0};
    if (name_and_seal(session, &message, &err) != DS_OK) {
        conn_reply_error(session->conn, header, &err);
        return;
    }
    struct worker *worker = session->worker;
    struct object_view view = {0};
    bool lends = list_is_empty(&worker->parked_creates) &&
                 store_lend(worker->store, message.lend_bytes, session->creator,
                            header->sequence, &view);
    worker->counters.creates += lends;
    AUTO_WRITER(writer);
    encode_created_begin(&writer, objects_issue_block_id(session), lends);
    if (lends)
        objects_write_created(&writer, &view);
    session_reply(session, header, &writer);
}

/* ---- ABORT ---- */

void
handle_abort(struct session *session, const struct frame_header *header,
             struct ds_slice body)
{
    struct ref_list refs;
    if (!decode_refs(body, &refs)) {
        session_reject(session, "malformed ABORT");
        return;
    }
    struct wire_ref ref;
    while (next_ref(&refs, &ref))
        store_abort(session->worker->store,
                    (struct object_ref){ref.slot, ref.generation});
    conn_reply(session->conn, header, (struct ds_slice){0});
}

/* ---- EXIST, DELETE, EXPIRE: one flag per key ---- */

void
handle_exist(struct session *session, const struct frame_header *header,
             struct ds_slice body)
{
    struct key_list keys;
    if (!decode_keys(body, &keys)) {
        session_reject(session, "malformed EXIST");
        return;
    }
    AUTO_WRITER(writer);
    encode_flags_begin(&writer, keys.count);
    uint64_t now = clock_boot_ds();
    struct ds_slice key;
    while (next_key(&keys, &key)) {
        struct object_view view;
        write_u8(&writer, wire_user_key_is_legal(key) &&
                              store_find(session->worker->store, key, now, &view));
    }
    session_reply(session, header, &writer);
}

void
handle_delete(struct session *session, const struct frame_header *header,
              struct ds_slice body)
{
    struct key_list keys;
    if (!decode_keys(body, &keys)) {
        session_reject(session, "malformed DELETE");
        return;
    }
    struct worker *worker = session->worker;
    AUTO_WRITER(writer);
    encode_flags_begin(&writer, keys.count);
    uint64_t now = clock_boot_ds();
    struct ds_slice key;
    while (next_key(&keys, &key)) {
        bool is_forgotten = PLANTED(LOST_DELETE) && keys.count == 0;
        bool was_there = wire_user_key_is_legal(key) && !is_forgotten &&
                         store_delete(worker->store, key, now);
        worker->counters.deletes += was_there;
        write_u8(&writer, was_there);
    }
    session_reply(session, header, &writer);
}

void
handle_expire(struct session *session, const struct frame_header *header,
              struct ds_slice body)
{
    struct expire message;
    if (!decode_expire(body, &message)) {
        session_reject(session, "malformed EXPIRE");
        return;
    }
    AUTO_WRITER(writer);
    encode_flags_begin(&writer, message.keys.count);
    uint64_t now = clock_boot_ds();
    uint32_t expires = objects_expiry(message.ttl_seconds, now);
    struct ds_slice key;
    while (next_key(&message.keys, &key))
        write_u8(&writer,
                 wire_user_key_is_legal(key) &&
                     store_set_expiry(session->worker->store, key, expires, now));
    session_reply(session, header, &writer);
}
