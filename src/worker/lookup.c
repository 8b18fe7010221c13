/* LOOKUP (where objects are) and FETCH (their bytes through the socket). */
#include "worker/lookup.h"

#include "base/check.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "worker/arenas.h"
#include "worker/copies.h"
#include "worker/elsewhere.h"
#include "worker/membership.h"
#include "worker/objects.h"
#include "worker/transfer.h"
#include "worker/waiters.h"

#include <stdlib.h>

/* Longer than a fetch between nodes takes that comes to an end at all; whoever asked gives
 * up sooner. */
enum { FETCH_WAIT_MS = 60000 };

/* A worker that was started again hears within milliseconds who belongs, unless the metastore
 * is away, or was started again as well. */
enum { MEMBERS_WAIT_MS = 20000 };

/* A user's object that another node is to have a copy of goes by its name. */
bool
lookup_find(struct worker *worker, const struct lookup *message, struct ds_slice key,
            struct object_view *out)
{
    struct object_name name;
    bool is_block = key.len == BLOCK_KEY_BYTES;
    if ((message->flags & LOOKUP_BLOCKS) != 0 ? !is_block
                                              : !wire_user_key_is_legal(key))
        return false;
    if ((message->flags & LOOKUP_BLOCKS) != 0 && wire_object_name(key, &name) &&
        objects_find_named(worker, &name, out))
        return true;
    return store_find(worker->store, key, clock_boot_ds(), out);
}

bool
lookup_find_named(struct worker *worker, const struct object_name *name,
                  struct object_view *out)
{
    struct lookup by_name = {.flags = LOOKUP_BLOCKS};
    uint8_t key[BLOCK_KEY_BYTES];
    wire_object_key(name, key);
    return lookup_find(worker, &by_name, slice(key, sizeof key), out);
}

static bool
lacks_one(struct worker *worker, const struct lookup *message)
{
    struct key_list keys = message->keys;
    struct ds_slice key;
    struct object_view view;
    bool is_found = true;
    while (is_found && next_key(&keys, &key))
        is_found = lookup_find(worker, message, key, &view);
    return !is_found;
}

/* Answers with what is there now, or why something that is elsewhere is not. */
static void
answer(struct session *session, const struct frame_header *header, struct ds_slice body)
{
    struct worker *worker = session->worker;
    struct lookup message;
    bool decoded = decode_lookup(body, &message);
    DS_ASSERT(decoded); /* It was, before it was parked. */
    if (session->refusal != NULL && lacks_one(session->worker, &message)) {
        conn_reply_error(session->conn, header, session->refusal);
        return;
    }
    if (header->type == MESSAGE_FETCH) {
        fetch_answer(session, header, &message);
        return;
    }
    AUTO_WRITER(writer);
    encode_found_begin(&writer, message.keys.count);
    struct ds_slice key;
    while (next_key(&message.keys, &key)) {
        struct object_view view;
        struct wire_object object = {.found =
                                         lookup_find(worker, &message, key, &view)};
        if (object.found) {
            object.slot = view.ref.slot;
            object.commit = view.commit;
            object.offset = view.offset;
            object.size = view.size;
        }
        worker->counters.hits += object.found;
        worker->counters.misses += !object.found;
        encode_found_object(&writer, &object);
    }
    session_reply(session, header, &writer);
}

void
lookup_answer(struct session *session, const struct frame_header *header,
              struct ds_slice body, uint32_t left_ms)
{
    (void)left_ms;
    answer(session, header, body);
}

/* It is missing, and may come: a user's key when somebody puts it, a block's part when it
 * is being fetched from another node. */
static bool
may_come(struct session *session, const struct lookup *message, struct ds_slice key)
{
    struct object_view view;
    struct wire_value value;
    if (lookup_find(session->worker, message, key, &view) ||
        copies_find_range(session->worker, message, key, &view, &value))
        return false;
    return (message->flags & LOOKUP_BLOCKS) == 0 || copies_fetch(session->worker, key);
}

/* Parks if anything is missing that may come; *out_parked tells. */
static enum ds_status
park_for_missing(struct session *session, const struct frame_header *header,
                 struct ds_slice body, const struct lookup *message, uint32_t wait_ms,
                 waiter_answer_fn on_there, bool *out_parked, struct ds_error *err)
{
    struct ds_slice *missing = calloc((size_t)message->keys.count + 1, sizeof *missing);
    if (missing == NULL)
        return ds_fail(err, DS_NO_MEMORY, "worker is out of memory");
    size_t count = 0;
    struct key_list keys = message->keys;
    struct ds_slice key;
    uint8_t buffer[RANGE_KEY_BYTES];
    while (next_key(&keys, &key)) {
        if (may_come(session, message, key))
            missing[count++] = copies_awaited(message, key, buffer);
    }
    enum ds_status status = DS_OK;
    if (count > 0)
        status =
            waiters_park(session, header, body, wait_ms, missing, count, on_there, err);
    if ((message->flags & LOOKUP_BLOCKS) != 0)
        copies_ask(session->worker);
    free(missing);
    *out_parked = count > 0;
    return status;
}

/* ---- Users' keys ---- */

/* Other nodes have a say in what it is. */
static bool
is_elsewhere(struct worker *worker, const struct lookup *message)
{
    struct key_list keys = message->keys;
    struct ds_slice key;
    struct object_view view;
    bool is_current = owners_is_current(worker) || PLANTED(LEASELESS_TABLE);
    while (worker->membership != NULL && next_key(&keys, &key)) {
        bool is_found = is_current && lookup_find(worker, message, key, &view);
        if (wire_user_key_is_legal(key) && !is_found && !directory_is_here(worker, key))
            return true;
    }
    return false;
}

void
lookup_user_keys(struct session *session, const struct frame_header *header,
                 struct ds_slice body, uint32_t wait_ms)
{
    struct lookup message;
    struct ds_error err = {0};
    bool decoded = decode_lookup(body, &message);
    DS_ASSERT(decoded);
    enum ds_status status = DS_OK;
    bool parked = is_elsewhere(session->worker, &message);
    if (parked)
        status = elsewhere_start(session, header, body, &message, wait_ms, &err);
    else if (wait_ms > 0)
        status = park_for_missing(session, header, body, &message, wait_ms,
                                  lookup_user_keys, &parked, &err);
    if (status != DS_OK)
        conn_reply_error(session->conn, header, &err);
    else if (!parked)
        answer(session, header, body);
}

/* ---- Blocks, and objects by their names ---- */

enum ds_status
lookup_blocks(struct session *session, const struct frame_header *header,
              struct ds_slice body, waiter_answer_fn on_there, struct ds_error *err)
{
    struct lookup message;
    bool parked = false;
    bool decoded = decode_lookup(body, &message);
    DS_ASSERT(decoded);
    enum ds_status status = park_for_missing(session, header, body, &message,
                                             FETCH_WAIT_MS, on_there, &parked, err);
    if (status == DS_OK && !parked)
        on_there(session, header, body, 0);
    return status;
}

/* One of them is on another node, if anywhere, and nobody has told us yet which nodes there are. */
static bool
has_nobodys_yet(struct worker *worker, const struct lookup *message)
{
    struct key_list keys = message->keys;
    struct ds_slice key;
    struct object_view view;
    bool has_one = false;
    if (membership_knows(worker->membership))
        return false;
    while (!has_one && next_key(&keys, &key))
        has_one = key.len == BLOCK_KEY_BYTES &&
                  !arena_id_equal(arenas_birth(key), arenas_own(worker)) &&
                  !lookup_find(worker, message, key, &view);
    return has_one;
}

void
lookup_known_blocks(struct session *session, const struct frame_header *header,
                    struct ds_slice body, uint32_t wait_ms)
{
    struct lookup message;
    struct ds_error err = {0};
    bool decoded = decode_lookup(body, &message);
    DS_ASSERT(decoded);
    enum ds_status status;
    if (!has_nobodys_yet(session->worker, &message))
        status = lookup_blocks(session, header, body, lookup_answer, &err);
    else if (wait_ms > 0)
        status = waiters_park(session, header, body, wait_ms, NULL, 0,
                              lookup_known_blocks, &err);
    else
        status =
            ds_fail(&err, DS_NOT_READY,
                    "this worker was started again and could not find out within "
                    "%d s which nodes there are, as the metastore does not answer; "
                    "try again",
                    MEMBERS_WAIT_MS / 1000);
    if (status != DS_OK)
        conn_reply_error(session->conn, header, &err);
}

void
handle_lookup(struct session *session, const struct frame_header *header,
              struct ds_slice body)
{
    struct lookup message;
    if (!decode_lookup(body, &message)) {
        session_reject(session, "malformed LOOKUP");
        return;
    }
    struct ds_error err = {0};
    session->worker->counters.lookups++;
    if (message.keys.count > LOOKUP_KEYS_MAX)
        (void)ds_fail(&err, DS_INVALID,
                      "%u keys in one request; at most %u are allowed, split it",
                      message.keys.count, LOOKUP_KEYS_MAX);
    else if ((message.flags & LOOKUP_BLOCKS) != 0)
        lookup_known_blocks(session, header, body,
                            session->client == NULL ? 0 : MEMBERS_WAIT_MS);
    else
        lookup_user_keys(session, header, body, message.wait_ms);
    if (err.status != DS_OK)
        conn_reply_error(session->conn, header, &err);
}
