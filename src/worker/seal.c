#include "worker/seal.h"

#include "base/check.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "worker/objects.h"
#include "worker/waiters.h"

#include <stdlib.h>

/* ---- Here ---- */

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
        waiters_key_settled(worker, store_key(worker->store, slot, buffer), NULL);
    }
    return DS_OK;
}

/* ---- With the word of the key's owner ---- */

bool
seal_is_asked_for(struct worker *worker, struct object_ref ref,
                  struct ds_slice *out_key)
{
    uint8_t buffer[DS_KEY_BYTES_MAX];
    if (worker->membership == NULL || !objects_is_unsealed(worker, ref) ||
        PLANTED(BLIND_SEAL))
        return false;
    *out_key = store_key(worker->store, ref.slot, buffer);
    return wire_user_key_is_legal(*out_key) && !directory_is_here(worker, *out_key);
}

uint32_t
seal_tenths(uint32_t seconds)
{
    return seconds > UINT32_MAX / 10 ? 0 : seconds * 10;
}

static void
add(struct key_request *request, struct ds_slice key, const struct objects_seal *seal)
{
    struct key_item *item = keys_add(request, key);
    item->change.object = objects_name(request->worker, seal->ref);
    item->change.ttl_ds = seal_tenths(seal->ttl_seconds);
    item->checksum = seal->checksum;
}

/* Its owner has spoken. What lost against an object that is there is given up. */
static void
on_item(struct key_request *request, struct key_item *item)
{
    struct objects_seal seal = {
        .ref = {item->change.object.slot, item->change.object.generation},
        .ttl_seconds = item->change.ttl_ds / 10,
        .checksum = item->checksum,
    };
    struct ds_error err = {0};
    if (item->answer.answer == KEY_NO)
        store_abort(request->worker->store, seal.ref);
    else if (objects_seal(request->worker, &seal, &err) != DS_OK &&
             request->err.status == DS_OK)
        request->err = err;
}

static void
give_up_unbound(struct key_request *request)
{
    for (uint32_t i = 0; i < request->count; i++) {
        const struct object_name *object = &request->items[i].change.object;
        if (!request->items[i].is_done)
            store_abort(request->worker->store,
                        (struct object_ref){object->slot, object->generation});
    }
}

/* ---- SEAL ---- */

static void
on_sealed(struct key_request *request)
{
    enum ds_status status = request->err.status;
    if (status == DS_OK)
        status = keys_check(request, &request->err);
    if (request->session != NULL && status == DS_OK)
        conn_reply(request->session->conn, &request->header, (struct ds_slice){0});
    else if (request->session != NULL)
        conn_reply_error(request->session->conn, &request->header, &request->err);
    keys_free(request);
}

static const struct key_request_ops seal_ops = {.on_item = on_item,
                                                .finish = on_sealed};

static struct objects_seal
seal_of(const struct seal *message, const struct wire_filled *object)
{
    return (struct objects_seal){
        .ref = {.slot = object->ref.slot, .generation = object->ref.generation},
        .ttl_seconds = message->ttl_seconds,
        .only_if_absent = message->only_if_absent,
        .checksum = object->checksum,
    };
}

/* How many of them other nodes have a say in; which, and their keys, one behind the
 * other: that is decided once. */
static uint32_t
find_asked_for(struct worker *worker, const struct seal *message, struct writer *out)
{
    struct filled_list objects = message->objects;
    struct wire_filled object;
    struct ds_slice key;
    uint32_t count = 0;
    for (uint32_t i = 0; next_filled(&objects, &object); i++) {
        struct objects_seal seal = seal_of(message, &object);
        if (!seal_is_asked_for(worker, seal.ref, &key))
            continue;
        write_u32(out, i);
        write_short_bytes(out, key);
        count++;
    }
    return count;
}

/* As items of the request whose body they are. */
static void
add_asked_for(struct key_request *request, const struct seal *message, uint32_t count)
{
    struct reader chosen = reader_of(request->body, request->body_bytes);
    struct filled_list objects = message->objects;
    struct wire_filled object;
    uint32_t at = 0;
    while (request->count < count) {
        uint32_t position = read_u32(&chosen);
        struct ds_slice key = read_short_bytes(&chosen);
        do {
            bool has_one = next_filled(&objects, &object);
            DS_ASSERT(has_one);
        } while (at++ < position);
        struct objects_seal seal = seal_of(message, &object);
        add(request, key, &seal);
    }
}

/* All but those of `request`, which may be NULL, up to the first that cannot be sealed. */
static enum ds_status
seal_others(struct worker *worker, const struct seal *message,
            const struct key_request *request, struct ds_error *err)
{
    struct filled_list objects = message->objects;
    struct wire_filled object;
    enum ds_status status = DS_OK;
    uint32_t skipped = 0;
    while (status == DS_OK && next_filled(&objects, &object)) {
        struct objects_seal seal = seal_of(message, &object);
        struct object_name name = objects_name(worker, seal.ref);
        if (request != NULL && skipped < request->count &&
            object_name_equal(&request->items[skipped].change.object, &name))
            skipped++;
        else
            status = objects_seal(worker, &seal, err);
        if (PLANTED(LOST_ACK))
            break;
    }
    return status;
}

void
handle_seal(struct session *session, const struct frame_header *header,
            struct ds_slice body)
{
    struct worker *worker = session->worker;
    struct key_request *request = NULL;
    struct seal message;
    struct ds_error err = {0};
    AUTO_WRITER(keys);
    if (!decode_seal(body, &message)) {
        session_reject(session, "malformed SEAL");
        return;
    }
    uint32_t asked_for = find_asked_for(worker, &message, &keys);
    enum ds_status status = DS_OK;
    if (keys.failed)
        status = ds_fail(&err, DS_NO_MEMORY, "worker is out of memory");
    else if (asked_for > 0)
        status = keys_new(session, header, slice(keys.data, keys.len), asked_for,
                          &seal_ops, &request, &err);
    if (status == DS_OK && request != NULL)
        add_asked_for(request, &message, asked_for);
    if (status == DS_OK)
        status = seal_others(worker, &message, request, &err);
    if (status == DS_OK && request != NULL) {
        request->order = message.only_if_absent ? KEY_BIND_IF_ABSENT : KEY_BIND;
        keys_start(request, 0);
        return;
    }
    if (request != NULL)
        keys_free(request);
    if (status == DS_OK)
        conn_reply(session->conn, header, (struct ds_slice){0});
    else
        conn_reply_error(session->conn, header, &err);
}

/* ---- One object, sealed with something else ---- */

static void
on_one_sealed(struct key_request *request)
{
    if (request->err.status == DS_OK)
        (void)keys_check(request, &request->err);
    give_up_unbound(request); /* Who asks again brings another. */
    if (request->session != NULL)
        request->reply(request->session, &request->header,
                       slice(request->body, request->body_bytes), &request->err);
    keys_free(request);
}

static const struct key_request_ops one_ops = {.on_item = on_item,
                                               .finish = on_one_sealed};

enum ds_status
seal_one(struct session *session, const struct frame_header *header,
         struct ds_slice body, struct ds_slice key, const struct objects_seal *seal,
         key_reply_fn reply, struct ds_error *err)
{
    struct key_request *request;
    struct ds_slice own_key;
    struct ds_error none = {0};
    enum ds_status status;
    if (!seal_is_asked_for(session->worker, seal->ref, &own_key)) {
        status = objects_seal(session->worker, seal, err);
        if (status == DS_OK)
            reply(session, header, body, &none);
        return status;
    }
    status = keys_new(session, header, body, 1, &one_ops, &request, err);
    if (status != DS_OK)
        return status;
    request->order = seal->only_if_absent ? KEY_BIND_IF_ABSENT : KEY_BIND;
    request->reply = reply;
    add(request, keys_in_body(request, body, key), seal);
    keys_start(request, 0);
    return DS_OK;
}
