/* LOOKUP (where objects are) and FETCH (their bytes through the socket). */
#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "worker/session.h"
#include "worker/transfer.h"
#include "worker/waiters.h"

#include <stdlib.h>

static bool
find(struct worker *worker, const struct lookup *message, struct ds_slice key,
     struct object_view *out)
{
    bool legal = (message->flags & LOOKUP_BLOCKS) != 0 ? key.len == BLOCK_KEY_BYTES
                                                       : wire_user_key_is_legal(key);
    return legal && store_find(worker->store, key, clock_boot_ds(), out);
}

/* Answers with what is there now. */
static void
answer_lookup(struct session *session, const struct frame_header *header,
              struct ds_slice body)
{
    struct worker *worker = session->worker;
    struct lookup message;
    bool decoded = decode_lookup(body, &message);
    DS_ASSERT(decoded); /* It was, before it was parked. */
    if (header->type == MESSAGE_FETCH) {
        fetch_answer(session, header, &message);
        return;
    }
    AUTO_WRITER(writer);
    encode_found_begin(&writer, message.keys.count);
    struct ds_slice key;
    while (next_key(&message.keys, &key)) {
        struct object_view view;
        struct wire_object object = {.found = find(worker, &message, key, &view)};
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
    conn_reply(session->conn, header, slice(writer.data, writer.len));
}

/* Parks if anything is missing; false if there is no need (or no memory) to. */
static bool
park_for_missing(struct session *session, const struct frame_header *header,
                 struct ds_slice body, const struct lookup *message)
{
    struct ds_slice *missing = calloc(message->keys.count + 1, sizeof *missing);
    if (missing == NULL)
        return false;
    size_t count = 0;
    struct key_list keys = message->keys;
    struct ds_slice key;
    while (next_key(&keys, &key)) {
        struct object_view view;
        if (!find(session->worker, message, key, &view))
            missing[count++] = key;
    }
    bool parked = count > 0 && waiters_park(session, header, body, message->wait_ms,
                                            missing, count, answer_lookup);
    free(missing);
    return parked;
}

void
handle_lookup(struct session *session, const struct frame_header *header,
              struct ds_slice body)
{
    struct lookup message;
    if (!decode_lookup(body, &message)) {
        session_reject(session, "LOOKUP");
        return;
    }
    session->worker->counters.lookups++;
    if (message.wait_ms > 0 && park_for_missing(session, header, body, &message))
        return;
    answer_lookup(session, header, body);
}
