#include "worker/orphans.h"

#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "os/clock.h"
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

static bool
block_part_exists(struct worker *worker, struct ds_block_id id, uint32_t part,
                  struct object_view *out)
{
    if (part >= DS_BLOCK_PARTS_MAX)
        return false;
    uint8_t key[BLOCK_KEY_BYTES];
    wire_block_key(id, part, key);
    return store_find(worker->store, slice(key, sizeof key), clock_boot_ds(), out);
}

/* Parts of a block are numbered from 0 without a gap, and go from the last to the
 * first, so that a crash in between leaves no gap either. */
static uint32_t
block_part_count(struct worker *worker, struct ds_block_id id)
{
    struct object_view view;
    uint32_t count = 0;
    while (block_part_exists(worker, id, count, &view))
        count++;
    return count;
}

static void
block_delete(struct worker *worker, struct ds_block_id id)
{
    uint64_t now = clock_boot_ds();
    for (uint32_t i = block_part_count(worker, id); i > 0; i--) {
        uint8_t key[BLOCK_KEY_BYTES];
        wire_block_key(id, i - 1, key);
        store_delete(worker->store, slice(key, sizeof key), now);
        worker->counters.deletes++;
    }
}

/* From the last to the first, too: a block counts as adopted once part 0 is. */
static bool
block_adopt(struct worker *worker, struct ds_block_id id)
{
    uint64_t now = clock_boot_ds();
    uint32_t count = block_part_count(worker, id);
    for (uint32_t i = count; i > 0; i--) {
        uint8_t key[BLOCK_KEY_BYTES];
        wire_block_key(id, i - 1, key);
        bool adopted = store_adopt(worker->store, slice(key, sizeof key), now);
        DS_ASSERT(adopted);
    }
    return count > 0;
}

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
    return block_part_exists(worker, orphan->id, 0, &view) &&
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

void
handle_block_delete(struct session *session, const struct frame_header *header,
                    struct ds_slice body)
{
    struct block_id_list ids;
    if (!decode_block_ids(body, &ids)) {
        session_reject(session, "malformed BLOCK_DELETE");
        return;
    }
    struct ds_block_id id;
    while (next_block_id(&ids, &id))
        block_delete(session->worker, id);
    store_tick(session->worker->store, clock_boot_ds());
    conn_reply(session->conn, header, (struct ds_slice){0});
}

void
handle_block_adopt(struct session *session, const struct frame_header *header,
                   struct ds_slice body)
{
    struct block_id_list ids;
    if (!decode_block_ids(body, &ids)) {
        session_reject(session, "malformed BLOCK_ADOPT");
        return;
    }
    AUTO_WRITER(writer);
    encode_flags_begin(&writer, ids.count);
    struct ds_block_id id;
    while (next_block_id(&ids, &id))
        write_u8(&writer, block_adopt(session->worker, id));
    session_reply(session, header, &writer);
}
