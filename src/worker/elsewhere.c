#include "worker/elsewhere.h"

#include "base/check.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "worker/lookup.h"
#include "worker/objects.h"

#include <stdlib.h>

/* So often a copy is tried of what its holder says it has. */
enum { COPIES_MAX = 3 };

static const struct key_request_ops find_ops;

/* The lookup of that number; NULL: there is none. */
static struct key_request *
find_lookup(const struct session *session, uint32_t sequence)
{
    LIST_FOREACH (link, &session->key_requests) {
        struct key_request *request =
            CONTAINER_OF(link, struct key_request, session_link);
        if (request->ops == &find_ops && request->header.sequence == sequence)
            return request;
    }
    return NULL;
}

/* It is somewhere, but not here. */
static bool
is_missing(const struct key_item *item)
{
    struct object_view view;
    return item->is_done && item->answer.answer == KEY_YES &&
           !lookup_find_named(item->request->worker, &item->answer.object, &view);
}

static void
fail(struct key_request *request, const struct ds_error *err)
{
    conn_reply_error(request->session->conn, &request->header, err);
    keys_free(request);
}

/* ---- The answer ---- */

/* Nothing is found, and one of the keys is known to be lost: that is worth saying. */
static bool
is_lost(const struct key_request *request, struct ds_error *err)
{
    const struct key_item *lost = NULL;
    for (uint32_t i = 0; i < request->count; i++) {
        const struct key_item *item = &request->items[i];
        if (item->answer.answer == KEY_YES)
            return false;
        if (item->answer.answer == KEY_LOST)
            lost = item;
    }
    if (lost != NULL)
        (void)ds_fail(err, DS_NOT_FOUND,
                      "'%.*s' was on node %u, which is no member of the cluster any "
                      "more; put it again",
                      (int)lost->change.key.len, (const char *)lost->change.key.data,
                      lost->answer.object.node);
    return lost != NULL;
}

/* Names of what the keys are, in their order; zeros for what is nowhere. */
static void
encode_by_name(const struct key_request *request, struct writer *out)
{
    struct lookup lookup;
    bool decoded = decode_lookup(slice(request->body, request->body_bytes), &lookup);
    DS_ASSERT(decoded);
    lookup.flags |= LOOKUP_BLOCKS;
    lookup.wait_ms = 0;
    encode_lookup(out, &lookup, NULL, 0);
    patch_u32(out, out->len - 4, request->count);
    for (uint32_t i = 0; i < request->count; i++) {
        const struct wire_answer *answer = &request->items[i].answer;
        uint8_t key[BLOCK_KEY_BYTES] = {0};
        if (answer->answer == KEY_YES)
            wire_object_key(&answer->object, key);
        write_short_bytes(out, slice(key, sizeof key));
    }
}

/* ---- What is gone at its holder ---- */

static void
on_checked(struct key_request *check)
{
    struct session *session = check->session;
    struct key_request *request =
        session == NULL ? NULL : find_lookup(session, check->header.sequence);
    bool is_there = false;
    for (uint32_t i = 0; request != NULL && i < check->count; i++) {
        request->items[check->items[i].position].is_done = false;
        is_there = is_there || check->items[i].answer.answer == KEY_YES;
    }
    keys_free(check);
    if (request == NULL)
        return;
    request->detail += is_there;
    keys_start_again(request);
}

static const struct key_request_ops check_ops = {.finish = on_checked};

/* The owner is told of what is not there, so that it asks the holder. */
static void
check_missing(struct key_request *request, uint32_t missing_count)
{
    struct key_request *check;
    struct ds_error err = {0};
    if (keys_new(request->session, &request->header,
                 slice(request->body, request->body_bytes), missing_count, &check_ops,
                 &check, &err) != DS_OK) {
        fail(request, &err);
        return;
    }
    check->order = KEY_UNBIND_IF_GONE;
    for (uint32_t i = 0; i < request->count && check->count < missing_count; i++) {
        const struct key_item *item = &request->items[i];
        if (!is_missing(item))
            continue;
        struct ds_slice body = slice(request->body, request->body_bytes);
        struct key_item *its =
            keys_add(check, keys_in_body(check, body, item->change.key));
        its->change.object = item->answer.object;
        its->position = i;
    }
    keys_start(check, 0);
}

/* All copies that could be fetched are here. */
static void
on_copied(struct session *session, const struct frame_header *header,
          struct ds_slice body, uint32_t left_ms)
{
    struct key_request *request = find_lookup(session, header->sequence);
    struct ds_error err = {0};
    uint32_t missing_count = 0;
    DS_ASSERT(request != NULL);
    for (uint32_t i = 0; i < request->count; i++)
        missing_count += is_missing(&request->items[i]);
    if (missing_count == 0) {
        lookup_answer(session, header, body, left_ms);
        keys_free(request);
    } else if (session->refusal != NULL) {
        fail(request, session->refusal);
    } else if (request->detail >= COPIES_MAX) {
        (void)ds_fail(
            &err, DS_NOT_READY,
            "what is on other nodes does not arrive at this one; its worker's "
            "log has the reason");
        fail(request, &err);
    } else if (clock_monotonic_ms() >= request->give_up_at) {
        (void)ds_fail(&err, DS_TIMEOUT, "keys change faster than they can be read");
        fail(request, &err);
    } else {
        check_missing(request, missing_count);
    }
}

/* ---- Where the keys are ---- */

static void
on_found(struct key_request *request)
{
    struct ds_error err = {0};
    if (request->session == NULL) {
        keys_free(request);
        return;
    }
    if (keys_check(request, &err) != DS_OK || is_lost(request, &err)) {
        fail(request, &err);
        return;
    }
    AUTO_WRITER(body);
    encode_by_name(request, &body);
    if (body.failed) {
        (void)ds_fail(&err, DS_NO_MEMORY, "worker is out of memory");
        fail(request, &err);
        return;
    }
    if (lookup_blocks(request->session, &request->header, slice(body.data, body.len),
                      on_copied, &err) != DS_OK)
        fail(request, &err);
}

static const struct key_request_ops find_ops = {.finish = on_found};

enum ds_status
elsewhere_start(struct session *session, const struct frame_header *header,
                struct ds_slice body, const struct lookup *message, uint32_t wait_ms,
                struct ds_error *err)
{
    struct worker *worker = session->worker;
    struct key_request *request;
    struct key_list keys = message->keys;
    struct ds_slice key;
    struct object_view view;
    bool is_current = owners_is_current(worker) || PLANTED(LEASELESS_TABLE);
    if (find_lookup(session, header->sequence) != NULL)
        return ds_fail(err, DS_INVALID, "two lookups of one number at a time");
    enum ds_status status =
        keys_new(session, header, body, keys.count, &find_ops, &request, err);
    if (status != DS_OK)
        return status;
    request->order = KEY_FIND;
    request->wants_values = true;
    while (next_key(&keys, &key)) {
        struct key_item *item = keys_add(request, keys_in_body(request, body, key));
        item->is_done = !wire_user_key_is_legal(key);
        if (item->is_done || !is_current || !lookup_find(worker, message, key, &view))
            continue;
        item->answer.answer = KEY_YES;
        item->answer.object = objects_name(worker, view.ref);
        item->is_done = true;
    }
    keys_start(request, wait_ms);
    return DS_OK;
}
