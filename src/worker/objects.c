#include "worker/objects.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "worker/leaving.h"
#include "worker/seal.h"

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
objects_expiry_ds(uint64_t ttl_ds, uint64_t now_ds)
{
    uint64_t deadline = now_ds + ttl_ds;
    if (ttl_ds == 0 || deadline > UINT32_MAX)
        return 0; /* Over 13 years of uptime away: as good as never. */
    return (uint32_t)deadline;
}

uint32_t
objects_expiry(uint32_t ttl_seconds, uint64_t now_ds)
{
    return objects_expiry_ds((uint64_t)ttl_seconds * 10, now_ds);
}

uint32_t
objects_left_ds(uint32_t expires_ds, uint64_t now_ds)
{
    if (expires_ds == 0)
        return 0;
    return expires_ds > now_ds ? (uint32_t)(expires_ds - now_ds) : 1;
}

/* ---- Names ---- */

struct object_name
objects_name(const struct worker *worker, struct object_ref ref)
{
    const struct table_header *table = store_header(worker->store);
    return (struct object_name){table->node, table->incarnation, ref.slot,
                                ref.generation};
}

bool
objects_is_unsealed(const struct worker *worker, struct object_ref ref)
{
    struct object_view view;
    enum slot_state state;
    return store_inspect(worker->store, ref.slot, &view, &state) &&
           state == SLOT_WRITING && view.ref.generation == ref.generation;
}

/* What was sealed and is not its key's object any more is deleted. */
bool
objects_find_named(struct worker *worker, const struct object_name *name,
                   struct object_view *out)
{
    struct object_name here = objects_name(worker, (struct object_ref){0});
    enum slot_state state;
    uint8_t buffer[DS_KEY_BYTES_MAX];
    return name->node == here.node && name->incarnation == here.incarnation &&
           store_inspect(worker->store, name->slot, out, &state) &&
           state == SLOT_SEALED && out->ref.generation == name->generation &&
           store_find(worker->store, store_key(worker->store, name->slot, buffer),
                      clock_boot_ds(), out) &&
           out->ref.slot == name->slot;
}

/* ---- Creating ---- */

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

/* ---- PUBLISH ---- */

static enum ds_status
give_name(struct session *session, const struct publish *message, struct ds_error *err)
{
    bool is_block = wire_is_block_key(message->key);
    struct name_request request = {
        .ref = {message->ref.slot, message->ref.generation},
        .client = session->creator,
        .key = message->key,
        .size = message->size,
        .flags = is_block ? BLOCK_PART_FLAGS : 0,
    };
    enum ds_status status = is_block ? DS_OK : check_user_key(message->key, err);
    if (status == DS_OK)
        status = store_name(session->worker->store, &request, err);
    return status;
}

/* Lends the next. */
static void
reply_published(struct session *session, const struct frame_header *header,
                struct ds_slice body, const struct ds_error *err)
{
    struct worker *worker = session->worker;
    struct publish message;
    bool decoded = decode_publish(body, &message);
    DS_ASSERT(decoded);
    if (err->status != DS_OK) {
        conn_reply_error(session->conn, header, err);
        return;
    }
    struct object_view view = {0};
    bool lends = list_is_empty(&worker->parked_creates) && !leaving_is_active(worker) &&
                 store_lend(worker->store, message.lend_bytes, session->creator,
                            header->sequence, &view);
    worker->counters.creates += lends;
    AUTO_WRITER(writer);
    encode_created_begin(&writer, objects_issue_block_id(session), lends);
    if (lends)
        objects_write_created(&writer, &view);
    session_reply(session, header, &writer);
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
    struct objects_seal seal = {
        .ref = {message.ref.slot, message.ref.generation},
        .ttl_seconds = message.ttl_seconds,
        .only_if_absent = message.only_if_absent,
        .checksum = message.checksum,
    };
    enum ds_status status = give_name(session, &message, &err);
    if (status == DS_OK)
        status =
            seal_one(session, header, body, message.key, &seal, reply_published, &err);
    if (status != DS_OK)
        conn_reply_error(session->conn, header, &err);
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

static void
reply_flags(struct key_request *request)
{
    struct ds_error err = {0};
    enum ds_status status = keys_check(request, &err);
    if (request->session != NULL && status != DS_OK) {
        conn_reply_error(request->session->conn, &request->header, &err);
    } else if (request->session != NULL) {
        AUTO_WRITER(writer);
        encode_flags_begin(&writer, request->count);
        for (uint32_t i = 0; i < request->count; i++) {
            const struct key_item *item = &request->items[i];
            write_u8(&writer, item->was_here || item->answer.answer == KEY_YES);
        }
        session_reply(request->session, &request->header, &writer);
    }
    keys_free(request);
}

/* What its owner does not know of, but we have, goes as well. */
static void
on_flag(struct key_request *request, struct key_item *item)
{
    struct worker *worker = request->worker;
    struct object_view view;
    if (request->order == KEY_UNBIND && item->answer.answer == KEY_NO &&
        item->change.object.node != 0 &&
        objects_find_named(worker, &item->change.object, &view))
        item->was_here = store_delete(worker->store, item->change.key, clock_boot_ds());
    worker->counters.deletes += item->was_here;
}

static const struct key_request_ops flag_ops = {.on_item = on_flag,
                                                .finish = reply_flags};

/* Every key is its owner's to say. */
static void
ask_owners(struct session *session, const struct frame_header *header,
           struct ds_slice body, struct key_list keys, enum key_order order,
           uint32_t ttl_ds)
{
    struct key_request *request;
    struct ds_error err = {0};
    struct ds_slice key;
    struct object_view view;
    if (keys_new(session, header, body, keys.count, &flag_ops, &request, &err) !=
        DS_OK) {
        conn_reply_error(session->conn, header, &err);
        return;
    }
    request->order = order;
    while (next_key(&keys, &key)) {
        struct key_item *item = keys_add(request, keys_in_body(request, body, key));
        item->change.ttl_ds = ttl_ds;
        item->is_done = !wire_user_key_is_legal(key);
        if (!item->is_done &&
            store_find(session->worker->store, key, clock_boot_ds(), &view))
            item->change.object = objects_name(session->worker, view.ref);
    }
    keys_start(request, 0);
}

/* Other nodes have a say in one of them. */
static bool
any_elsewhere(struct worker *worker, struct key_list keys)
{
    struct ds_slice key;
    while (worker->membership != NULL && next_key(&keys, &key)) {
        if (wire_user_key_is_legal(key) && !directory_is_here(worker, key))
            return true;
    }
    return false;
}

void
handle_exist(struct session *session, const struct frame_header *header,
             struct ds_slice body)
{
    struct key_list keys;
    if (!decode_keys(body, &keys)) {
        session_reject(session, "malformed EXIST");
        return;
    }
    if (any_elsewhere(session->worker, keys)) {
        ask_owners(session, header, body, keys, KEY_FIND, 0);
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
    if (any_elsewhere(worker, keys) || owners_may_come_back(worker)) {
        ask_owners(session, header, body, keys, KEY_UNBIND, 0);
        return;
    }
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
    if (any_elsewhere(session->worker, message.keys)) {
        ask_owners(session, header, body, message.keys, KEY_EXPIRE,
                   seal_tenths(message.ttl_seconds));
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
