#include "worker/orphans.h"

#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "os/clock.h"
#include "worker/blocks.h"
#include "worker/session.h"

#include <stdlib.h>

enum {
    /* The controller's adoption travels behind its answer to the client: let it arrive.
     */
    ORPHAN_GRACE_MS = 1000,
    /* A controller that was told may have died before it did anything: tell again. */
    ORPHAN_REPEAT_MS = 10000,
    ORPHANS_PER_REPLY = 4096,
};

struct orphan {
    struct list link; /* In worker->orphans, until adopted or deleted. */
    struct ds_block_id id;
    uint64_t due_ms; /* When a controller is told (again). */
};

/* ---- Collecting ---- */

static void
note_part(struct ds_slice key, void *arg)
{
    struct worker *worker = arg;
    struct orphan *orphan;
    if (key.len != BLOCK_KEY_BYTES)
        return;
    struct reader reader = reader_of(key.data, key.len);
    struct ds_slice id = read_bytes(&reader, sizeof orphan->id.bytes);
    if (read_u32(&reader) != 0)
        return; /* One note per block: that of part 0. */
    orphan = calloc(1, sizeof *orphan);
    if (orphan == NULL)
        return; /* Its memory comes back when the worker restarts. */
    memcpy(orphan->id.bytes, id.data, sizeof orphan->id.bytes);
    orphan->due_ms = clock_monotonic_ms() + ORPHAN_GRACE_MS;
    list_push_back(&worker->orphans, &orphan->link);
}

void
orphans_collect(struct worker *worker, uint32_t region)
{
    store_client_provisional(worker->store, region + 1, note_part, worker);
}

void
orphans_recover(struct worker *worker)
{
    store_client_provisional(worker->store, 0, note_part, worker);
}

static bool
is_still_orphan(struct worker *worker, const struct orphan *orphan)
{
    struct object_view view;
    return blocks_find_part(worker, orphan->id, 0, &view) &&
           (view.flags & SLOT_FLAG_PROVISIONAL) != 0;
}

/* The ids of those that are due; forgets those that are settled. */
static size_t
list_due(struct worker *worker, uint64_t now_ms, struct ds_block_id *out, size_t max)
{
    size_t count = 0;
    LIST_FOREACH (link, &worker->orphans) {
        struct orphan *orphan = CONTAINER_OF(link, struct orphan, link);
        if (count == max)
            break;
        if (orphan->due_ms > now_ms)
            continue;
        if (is_still_orphan(worker, orphan)) {
            out[count++] = orphan->id;
            orphan->due_ms = now_ms + ORPHAN_REPEAT_MS;
        } else {
            list_remove(&orphan->link);
            free(orphan);
        }
    }
    return count;
}

void
orphans_tick(struct worker *worker, uint64_t now_ms)
{
    if (list_is_empty(&worker->orphans) || list_is_empty(&worker->orphan_readers))
        return;
    static struct ds_block_id ids[ORPHANS_PER_REPLY]; /* Loop thread only. */
    size_t count = list_due(worker, now_ms, ids, ORPHANS_PER_REPLY);
    if (count == 0)
        return;
    struct list *first = worker->orphan_readers.next;
    struct session *session = CONTAINER_OF(first, struct session, orphan_link);
    list_remove(&session->orphan_link);
    AUTO_WRITER(writer);
    encode_block_ids(&writer, ids, count);
    session_reply(session, &session->orphan_request, &writer);
}

void
orphans_close(struct worker *worker)
{
    LIST_FOREACH (link, &worker->orphans)
        free(CONTAINER_OF(link, struct orphan, link));
    list_init(&worker->orphans);
}

/* ---- Messages ---- */

void
handle_orphans(struct session *session, const struct frame_header *header,
               struct ds_slice body)
{
    if (body.len != 0) {
        session_reject(session, "malformed ORPHANS");
        return;
    }
    session->orphan_request = *header;
    list_remove(&session->orphan_link);
    list_push_back(&session->worker->orphan_readers, &session->orphan_link);
}
