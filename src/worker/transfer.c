#include "worker/transfer.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/checksum.h"
#include "os/clock.h"
#include "os/memfile.h"
#include "worker/copies.h"
#include "worker/creates.h"
#include "worker/lookup.h"
#include "worker/objects.h"
#include "worker/relays.h"
#include "worker/seal.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- FETCH ---- */

/* Keeps one object's extent until its bytes are sent. */
struct hold {
    struct worker *worker;
    uint64_t offset;
};

static void
on_sent(void *arg)
{
    struct hold *hold = arg;
    store_unhold(hold->worker->store, hold->offset);
    free(hold);
}

struct fetch {
    struct writer fetched;
    struct conn_payload *payloads;
    size_t payload_count;
    uint64_t bytes;
};

/* The part of the object that was asked for. */
static enum ds_status
cut(const struct lookup *message, const struct object_view *view, uint64_t *out_bytes,
    struct ds_error *err)
{
    uint64_t offset = message->range_offset, wanted = message->range_bytes;
    uint64_t left = offset < view->size ? view->size - offset : 0;
    bool is_cut = wanted > left && (message->flags & LOOKUP_RANGE) == 0;
    if (left == 0 || is_cut)
        return ds_fail(err, DS_OUT_OF_RANGE,
                       "bytes [%ju, +%ju) are outside an object of %ju bytes",
                       (uintmax_t)offset, (uintmax_t)wanted, (uintmax_t)view->size);
    *out_bytes = wanted == 0 ? left : min_u64(wanted, left);
    return DS_OK;
}

/* What the table says of the whole object finds damage of any kind, so a worker gets that
 * of ranges as well. What it does not say is computed here. */
static void
say_checksums(struct worker *worker, const struct lookup *message,
              const struct object_view *view, struct wire_value *value)
{
    const uint8_t *bytes = worker->arena + view->offset + message->range_offset;
    bool is_range = (message->flags & LOOKUP_RANGE) != 0;
    bool is_whole = value->size == view->size;
    if ((view->flags & SLOT_FLAG_CHECKSUM) != 0)
        value->whole = (struct wire_checksum){true, view->checksum};
    if (value->whole.known && (is_whole || is_range))
        value->checksum = is_range ? 0 : view->checksum;
    else
        value->checksum = checksum_of(bytes, value->size);
    if (!value->whole.known && is_whole)
        (void)store_set_checksum(worker->store, view->ref, value->checksum);
}

/* Another worker gets it from one that got it before. */
static bool
is_relayed(struct worker *worker, const struct lookup *message, struct ds_slice key,
           const struct object_view *view, struct wire_place *out)
{
    uint32_t flags = LOOKUP_RELAY | LOOKUP_BLOCKS;
    struct arena_id asker = {message->asker.node, message->asker.incarnation};
    if ((message->flags & flags) != flags || message->keys.count != 1 ||
        message->range_offset != 0 || view->size <= RELAY_BYTES_MIN)
        return false;
    struct arena_id relay = relays_join(worker, key, asker);
    *out = (struct wire_place){relay.node, relay.incarnation};
    return relay.node != 0;
}

static enum ds_status
fetch_one(struct session *session, const struct lookup *message, struct ds_slice key,
          struct fetch *fetch, struct ds_error *err)
{
    struct worker *worker = session->worker;
    struct object_view view;
    struct wire_value value = {0};
    bool is_sealed = lookup_find(worker, message, key, &view);
    value.found = is_sealed || copies_find_range(worker, message, key, &view, &value);
    worker->counters.hits += value.found;
    worker->counters.misses += !value.found;
    value.total = value.found ? view.size : 0;
    if (!value.found || is_relayed(worker, message, key, &view, &value.relay)) {
        encode_fetched_value(&fetch->fetched, &value);
        return DS_OK;
    }
    uint64_t bytes = 0;
    enum ds_status status = cut(message, &view, &bytes, err);
    if (status != DS_OK)
        return status;
    struct hold *hold = malloc(sizeof *hold);
    if (hold == NULL)
        return ds_fail(err, DS_NO_MEMORY, "worker is out of memory");
    *hold = (struct hold){.worker = worker, .offset = view.offset};
    store_hold(worker->store, &view);
    fetch->payloads[fetch->payload_count++] = (struct conn_payload){
        .data = worker->arena + view.offset + message->range_offset,
        .bytes = bytes,
        .on_sent = on_sent,
        .arg = hold,
    };
    fetch->bytes += bytes;
    value.size = bytes;
    if (is_sealed)
        say_checksums(worker, message, &view, &value);
    encode_fetched_value(&fetch->fetched, &value);
    return DS_OK;
}

static enum ds_status
fetch_all(struct session *session, const struct lookup *message, struct fetch *fetch,
          struct ds_error *err)
{
    fetch->payloads = calloc((size_t)message->keys.count + 1, sizeof *fetch->payloads);
    if (fetch->payloads == NULL)
        return ds_fail(err, DS_NO_MEMORY, "worker is out of memory");
    encode_fetched_begin(&fetch->fetched, message->keys.count);
    struct key_list keys = message->keys;
    struct ds_slice key;
    while (next_key(&keys, &key)) {
        enum ds_status status = fetch_one(session, message, key, fetch, err);
        if (status != DS_OK)
            return status;
    }
    return DS_OK;
}

void
fetch_answer(struct session *session, const struct frame_header *header,
             const struct lookup *message)
{
    struct fetch fetch = {0};
    struct ds_error err = {0};
    enum ds_status status = fetch_all(session, message, &fetch, &err);
    if (status == DS_OK) {
        struct frame_header reply = {
            .type = header->type,
            .sequence = header->sequence,
            .body_bytes = (uint32_t)fetch.fetched.len,
            .payload_bytes = fetch.bytes,
        };
        session->worker->counters.bytes_fetched += fetch.bytes;
        conn_send(session->conn, &reply, slice(fetch.fetched.data, fetch.fetched.len),
                  NULL, 0, fetch.payloads, fetch.payload_count);
    } else {
        for (size_t i = 0; i < fetch.payload_count; i++)
            on_sent(fetch.payloads[i].arg);
        conn_reply_error(session->conn, header, &err);
    }
    free(fetch.payloads);
    writer_fini(&fetch.fetched);
}

/* ---- PUT and FILL ---- */

/* The same request again, after its reply was lost: the object is there already. */
static bool
is_repeat(struct session *session, const struct frame_header *header,
          const struct put *message)
{
    uint32_t client, sequence;
    return session->creator != 0 &&
           store_find_creator(session->worker->store, message->key, clock_boot_ds(),
                              &client, &sequence) &&
           client == session->creator && sequence == header->sequence;
}

/* Where the payload goes; keeps `view` until it is in it, whatever becomes of it meanwhile. */
static void *
receive_into(struct session *session, const struct object_view *view, bool is_fill,
             uint64_t offset, uint64_t bytes)
{
    uint8_t *place = session->worker->arena + view->offset + offset;
    DS_ASSERT(!session->put_open);
    session->put = *view;
    session->put_err = (struct ds_error){0};
    session->put_open = true;
    session->put_is_fill = is_fill;
    store_hold(session->worker->store, view);
    memfile_prefault(place, bytes);
    return place;
}

/* Where the value goes, or NULL with session->put_err saying why it cannot. A peer on a
 * socket cannot wait for the arena to be populated, so that happens here and now. */
void *
put_payload_begin(struct session *session, const struct frame_header *header,
                  struct ds_slice body)
{
    struct worker *worker = session->worker;
    struct put message;
    put_abandon(session);
    session->put_err = (struct ds_error){0};
    if (!decode_put(body, &message)) {
        ds_fail(&session->put_err, DS_INVALID, "malformed PUT");
        return NULL;
    }
    if (is_repeat(session, header, &message))
        return NULL;
    struct object_view view = {0};
    enum ds_status status =
        objects_create(session, message.key, header->payload_bytes, message.write_mode,
                       header->sequence, &view, &session->put_err);
    while (status == DS_FULL && creates_populate_for(worker, header->payload_bytes))
        status = objects_create(session, message.key, header->payload_bytes,
                                message.write_mode, header->sequence, &view,
                                &session->put_err);
    if (status != DS_OK) {
        worker->counters.out_of_memory += status == DS_FULL;
        return NULL;
    }
    return receive_into(session, &view, false, 0, view.size);
}

/* The object that is to be filled, if it is still the session's client's to fill. */
static enum ds_status
find_reserved(struct session *session, const struct fill *message, uint64_t bytes,
              struct object_view *out, struct ds_error *err)
{
    struct object_ref ref = {message->ref.slot, message->ref.generation};
    if (!store_find_writing(session->worker->store, ref, session->creator, out))
        return ds_fail(
            err, DS_INVALID,
            "nothing to fill in slot %u: the object was given up, sealed, or "
            "never created; create it again",
            ref.slot);
    if (bytes > 0 && message->offset < out->size &&
        bytes <= out->size - message->offset)
        return DS_OK;
    return ds_fail(err, DS_OUT_OF_RANGE,
                   "bytes [%ju, +%ju) are outside an object of %ju bytes",
                   (uintmax_t)message->offset, (uintmax_t)bytes, (uintmax_t)out->size);
}

/* Where the bytes go, or NULL. */
void *
fill_payload_begin(struct session *session, const struct frame_header *header,
                   struct ds_slice body)
{
    struct fill message;
    struct object_view view;
    put_abandon(session);
    if (!decode_fill(body, &message) ||
        find_reserved(session, &message, header->payload_bytes, &view, NULL) != DS_OK)
        return NULL; /* handle_fill() says why. */
    return receive_into(session, &view, true, message.offset, header->payload_bytes);
}

/* The last byte has arrived, or none will. */
static void
put_arrived(struct session *session)
{
    DS_ASSERT(session->put_open);
    session->put_open = false;
    store_unhold(session->worker->store, session->put.offset);
}

void
put_abandon(struct session *session)
{
    if (!session->put_open)
        return;
    if (!session->put_is_fill)
        store_abort(session->worker->store, session->put.ref);
    put_arrived(session);
}

/* Says what arrived damaged; `what` names it. */
static enum ds_status
compare(struct worker *worker, const char *what, uint64_t found, uint64_t wanted,
        struct ds_error *err)
{
    if (found == wanted)
        return DS_OK;
    worker->counters.damaged++;
    log_error("worker received damaged bytes %s checksum=%016jx sent=%016jx", what,
              (uintmax_t)found, (uintmax_t)wanted);
    return ds_fail(err, DS_CORRUPT,
                   "the bytes of %s were damaged on their way to the worker: their "
                   "checksum is %016jx, that of what was sent is %016jx; nothing was "
                   "stored, send them again",
                   what, (uintmax_t)found, (uintmax_t)wanted);
}

static void
reply_put(struct session *session, const struct frame_header *header,
          struct ds_slice body, const struct ds_error *err)
{
    (void)body;
    if (err->status == DS_OK)
        conn_reply(session->conn, header, (struct ds_slice){0});
    else
        conn_reply_error(session->conn, header, err);
}

/* The value has arrived, and is published if it is whole; that replies. */
static enum ds_status
put_finish(struct session *session, const struct frame_header *header,
           struct ds_slice body, const struct put *message, struct ds_error *err)
{
    struct worker *worker = session->worker;
    const struct object_view *put = &session->put;
    struct objects_seal seal = {
        .ref = put->ref,
        .ttl_seconds = message->ttl_seconds,
        .only_if_absent = message->only_if_absent,
        .checksum = {true, checksum_of(worker->arena + put->offset, put->size)},
    };
    char what[DS_KEY_BYTES_MAX + 16];
    snprintf(what, sizeof what, "'%.*s'", (int)message->key.len,
             (const char *)message->key.data);
    if (message->checksum.known && compare(worker, what, seal.checksum.value,
                                           message->checksum.value, err) != DS_OK)
        return DS_CORRUPT;
    if (PLANTED(EMPTY_ACK)) {
        store_abort(worker->store, put->ref);
        reply_put(session, header, body, err);
        return DS_OK;
    }
    return seal_one(session, header, body, message->key, &seal, reply_put, err);
}

void
handle_put(struct session *session, const struct frame_header *header,
           struct ds_slice body)
{
    struct put message;
    struct ds_error err = session->put_err;
    session->put_err = (struct ds_error){0};
    if (!decode_put(body, &message)) {
        session_reject(session, "malformed PUT");
        return;
    }
    if (header->payload_bytes == 0)
        (void)ds_fail(&err, DS_INVALID,
                      "The dataSize value should be bigger than zero.");
    if (err.status != DS_OK || !session->put_open) { /* Not open: it was a repeat. */
        reply_put(session, header, body, &err);
        return;
    }
    put_arrived(session);
    if (put_finish(session, header, body, &message, &err) == DS_OK)
        return;
    store_abort(session->worker->store, session->put.ref);
    conn_reply_error(session->conn, header, &err);
}

/* The bytes in the arena against what the client sent. */
static enum ds_status
check_filled(struct session *session, const struct fill *message, uint64_t bytes,
             const struct object_view *view, struct ds_error *err)
{
    char what[64];
    const uint8_t *data = session->worker->arena + view->offset + message->offset;
    snprintf(what, sizeof what, "an object [%ju, +%ju)", (uintmax_t)message->offset,
             (uintmax_t)bytes);
    return compare(session->worker, what, checksum_of(data, bytes), message->checksum,
                   err);
}

/* The object may have been given up while its bytes arrived. */
void
handle_fill(struct session *session, const struct frame_header *header,
            struct ds_slice body)
{
    struct fill message;
    struct object_view view;
    struct ds_error err = {0};
    if (session->put_open)
        put_arrived(session);
    if (!decode_fill(body, &message)) {
        session_reject(session, "malformed FILL");
        return;
    }
    uint64_t bytes = header->payload_bytes;
    enum ds_status status = find_reserved(session, &message, bytes, &view, &err);
    if (status == DS_OK)
        status = check_filled(session, &message, bytes, &view, &err);
    if (status == DS_OK)
        conn_reply(session->conn, header, (struct ds_slice){0});
    else
        conn_reply_error(session->conn, header, &err);
}
