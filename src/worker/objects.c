#include "worker/objects.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "worker/populate.h"
#include "worker/waiters.h"

#include <stdlib.h>

enum { BLOCK_PART_FLAGS = SLOT_FLAG_BLOCK | SLOT_FLAG_PROVISIONAL };

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

/* ---- CREATE ---- */

/* A create that found no room while the arena is still being populated. */
struct parked_create {
    struct list link;         /* In worker->parked_creates, first come first served. */
    struct list session_link; /* In session->parked_creates. */
    struct session *session;
    struct frame_header header;
    size_t body_bytes;
    uint8_t body[];
};

static size_t
parked_bytes(size_t body_bytes)
{
    return sizeof(struct parked_create) + body_bytes;
}

static void
unpark(struct parked_create *parked)
{
    session_unpark(parked->session, parked_bytes(parked->body_bytes));
    list_remove(&parked->link);
    list_remove(&parked->session_link);
    free(parked);
}

void
objects_drop_parked(struct session *session)
{
    LIST_FOREACH (link, &session->parked_creates)
        unpark(CONTAINER_OF(link, struct parked_create, session_link));
}

/* False when this session has too much waiting already, or out of memory. */
static bool
park(struct session *session, const struct frame_header *header, struct ds_slice body)
{
    if (session_park(session, parked_bytes(body.len), NULL) != DS_OK)
        return false;
    struct parked_create *parked = malloc(parked_bytes(body.len));
    if (parked == NULL) {
        session_unpark(session, parked_bytes(body.len));
        return false;
    }
    parked->session = session;
    parked->header = *header;
    parked->body_bytes = body.len;
    memcpy(parked->body, body.data, body.len);
    list_push_back(&session->worker->parked_creates, &parked->link);
    list_push_back(&session->parked_creates, &parked->session_link);
    populate_hurry(session->worker->populate);
    return true;
}

static void
write_created(struct writer *writer, const struct object_view *view)
{
    struct wire_extent extent = {
        .ref = {.slot = view->ref.slot, .generation = view->ref.generation},
        .offset = view->offset,
    };
    encode_created_extent(writer, extent);
}

/* All or nothing: what a failed batch took is found by its request's number. */
static enum ds_status
create_all(struct session *session, uint32_t sequence, struct create message,
           struct writer *writer, struct ds_error *err)
{
    encode_created_begin(writer, (struct ds_block_id){{0}}, message.objects.count);
    struct object_view view[1] = {0};
    struct ds_slice key;
    uint64_t size;
    while (next_sized_key(&message.objects, &key, &size)) {
        enum ds_status status =
            objects_create(session, key, size, message.write_mode, sequence, view, err);
        if (status != DS_OK)
            return status;
        write_created(writer, view);
    }
    return DS_OK;
}

static struct ds_block_id
issue_block_id(struct worker *worker)
{
    const struct table_header *table = store_header(worker->store);
    return wire_block_id(table->node, table->incarnation, worker->block_counter++);
}

static enum ds_status
block_create_all(struct session *session, uint32_t sequence, struct size_list sizes,
                 struct writer *writer, struct ds_error *err)
{
    struct worker *worker = session->worker;
    struct ds_block_id id = issue_block_id(worker);
    encode_created_begin(writer, id, sizes.count);
    uint64_t size;
    for (uint32_t part = 0; next_size(&sizes, &size); part++) {
        uint8_t key[BLOCK_KEY_BYTES];
        wire_block_key(id, part, key);
        struct create_request request = {
            .key = slice(key, sizeof key),
            .size = size,
            .client = session->creator,
            .sequence = sequence,
            .flags = BLOCK_PART_FLAGS,
        };
        struct object_view view = {0};
        enum ds_status status =
            size == 0
                ? ds_fail(err, DS_INVALID, "part %u of a block is empty", part)
                : store_create(worker->store, &request, clock_boot_ds(), &view, err);
        if (status != DS_OK)
            return status;
        worker->counters.creates++;
        write_created(writer, &view);
    }
    return DS_OK;
}

static bool
is_well_formed(const struct frame_header *header, struct ds_slice body)
{
    struct create create;
    struct size_list sizes;
    return header->type == MESSAGE_CREATE ? decode_create(body, &create)
                                          : decode_block_create(body, &sizes);
}

/* Tries a well-formed CREATE or BLOCK_CREATE; `writer` gets the reply's body. */
static enum ds_status
try_create(struct session *session, const struct frame_header *header,
           struct ds_slice body, struct writer *writer, struct ds_error *err)
{
    enum ds_status status;
    struct create create;
    struct size_list sizes;
    if (header->type == MESSAGE_CREATE) {
        bool decoded = decode_create(body, &create);
        DS_ASSERT(decoded);
        if (create.objects.count > CREATE_OBJECTS_MAX)
            return ds_fail(err, DS_INVALID,
                           "%u objects in one request; at most %u are allowed, split "
                           "it",
                           create.objects.count, CREATE_OBJECTS_MAX);
        status = create_all(session, header->sequence, create, writer, err);
    } else {
        bool decoded = decode_block_create(body, &sizes);
        DS_ASSERT(decoded);
        if (sizes.count == 0 || sizes.count > DS_BLOCK_PARTS_MAX)
            return ds_fail(err, DS_INVALID, "a block has 1 to %u parts, not %u",
                           DS_BLOCK_PARTS_MAX, sizes.count);
        status = block_create_all(session, header->sequence, sizes, writer, err);
    }
    if (status != DS_OK && session->creator != 0)
        store_abort_request(session->worker->store, session->creator, header->sequence);
    return status;
}

static void
answer_create(struct session *session, const struct frame_header *header,
              enum ds_status status, const struct writer *writer,
              const struct ds_error *err)
{
    if (status == DS_OK) {
        session_reply(session, header, writer);
        return;
    }
    if (status == DS_FULL)
        session->worker->counters.out_of_memory++;
    conn_reply_error(session->conn, header, err);
}

static uint64_t
requested_bytes(const struct frame_header *header, struct ds_slice body)
{
    uint64_t size;
    uint64_t total = 0;
    struct create create;
    struct size_list sizes;
    if (header->type == MESSAGE_CREATE && decode_create(body, &create)) {
        struct ds_slice key;
        while (next_sized_key(&create.objects, &key, &size))
            total = saturating_add(total, size);
    } else if (header->type == MESSAGE_BLOCK_CREATE &&
               decode_block_create(body, &sizes)) {
        while (next_size(&sizes, &size))
            total = saturating_add(total, size);
    }
    return total;
}

bool
objects_could_fit(struct worker *worker, uint64_t bytes)
{
    if (populate_is_done(worker->populate))
        return false;
    struct store_stats stats;
    store_stats(worker->store, &stats);
    return bytes <= stats.arena.total_bytes - stats.arena.used_bytes;
}

void
handle_create(struct session *session, const struct frame_header *header,
              struct ds_slice body)
{
    if (session->client == NULL || !is_well_formed(header, body)) {
        session_reject(session, session->client == NULL ? "CREATE by who is no member"
                                                        : "malformed CREATE");
        return;
    }
    struct ds_error err = {0};
    AUTO_WRITER(writer);
    enum ds_status status = try_create(session, header, body, &writer, &err);
    if (status == DS_FULL &&
        objects_could_fit(session->worker, requested_bytes(header, body)) &&
        park(session, header, body))
        return;
    answer_create(session, header, status, &writer, &err);
}

void
handle_block_create(struct session *session, const struct frame_header *header,
                    struct ds_slice body)
{
    handle_create(session, header, body);
}

void
objects_retry_parked(struct worker *worker)
{
    LIST_FOREACH (link, &worker->parked_creates) {
        struct parked_create *parked = CONTAINER_OF(link, struct parked_create, link);
        struct ds_error err = {0};
        AUTO_WRITER(writer);
        struct ds_slice body = slice(parked->body, parked->body_bytes);
        enum ds_status status =
            try_create(parked->session, &parked->header, body, &writer, &err);
        if (status == DS_FULL && !populate_is_done(worker->populate))
            return; /* The first in line waits on; so do those behind it. */
        struct session *session = parked->session;
        struct frame_header header = parked->header;
        unpark(parked);
        answer_create(session, &header, status, &writer, &err);
    }
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
objects_seal(struct worker *worker, struct object_ref ref, uint32_t ttl_seconds,
             bool only_if_absent, struct ds_error *err)
{
    uint64_t now = clock_boot_ds();
    struct seal_request request = {
        .ref = ref,
        .expires_ds = objects_expiry(ttl_seconds, now),
        .only_if_absent = only_if_absent,
    };
    enum ds_status status = store_seal(worker->store, &request, now, err);
    if (status != DS_OK)
        return status;
    worker->counters.seals++;
    struct object_view view;
    enum slot_state state;
    if (store_inspect(worker->store, ref.slot, &view, &state) && state == SLOT_SEALED) {
        worker->counters.bytes_sealed += view.size;
        uint8_t buffer[DS_KEY_BYTES_MAX];
        struct ds_slice key;
        key_of(worker, ref.slot, buffer, &key);
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
    struct wire_ref ref;
    while (next_ref(&message.refs, &ref)) {
        struct object_ref object = {.slot = ref.slot, .generation = ref.generation};
        enum ds_status status = objects_seal(
            session->worker, object, message.ttl_seconds, message.only_if_absent, &err);
        if (status != DS_OK) {
            conn_reply_error(session->conn, header, &err);
            return;
        }
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
    enum ds_status status = is_block ? DS_OK : check_user_key(message->key, err);
    if (status == DS_OK)
        status = store_name(session->worker->store, &request, err);
    if (status == DS_OK)
        status = objects_seal(session->worker, request.ref, message->ttl_seconds,
                              message->only_if_absent, err);
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
    bool lends = store_lend(worker->store, message.lend_bytes, session->creator,
                            header->sequence, &view);
    worker->counters.creates += lends;
    AUTO_WRITER(writer);
    encode_created_begin(&writer, issue_block_id(worker), lends);
    if (lends)
        write_created(&writer, &view);
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
        bool was_there =
            wire_user_key_is_legal(key) && store_delete(worker->store, key, now);
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
