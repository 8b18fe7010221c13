#include "worker/orphans.h"

#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "meta/members.h"
#include "os/clock.h"
#include "worker/arenas.h"
#include "worker/blocks.h"
#include "worker/membership.h"
#include "worker/peers.h"
#include "worker/queues.h"
#include "worker/session.h"

#include <stdlib.h>
#include <string.h>

enum {
    /* The controller's adoption travels behind its answer to the client: let it arrive.
     */
    ORPHAN_GRACE_MS = 1000,
    /* Who was told may have died before it did anything: tell again. */
    ORPHAN_REPEAT_MS = 10000,
    /* Of another node, which tells us again. */
    ORPHAN_FOREIGN_MS = ORPHAN_REPEAT_MS / 2,
    ORPHAN_FOREIGN_MAX = 65536,
    /* A controller that was killed may come back with its journal, and would miss them. */
    ORPHAN_ABANDONED_MS = 300000,
    ORPHANS_PER_REPLY = 4096,
};

struct orphan {
    struct list link; /* In worker->orphans, until adopted or deleted. */
    struct ds_block_id id;
    uint64_t due_ms;         /* When a controller is told (again). */
    uint64_t unserved_at_ms; /* Since then its queue is nowhere; 0: it is somewhere. */
    bool is_foreign;         /* Another node's, to be told once, */
    uint64_t until_ms;       /* before this. */
    bool is_anybodys;        /* And that node says that any controller may judge. */
};

/* ---- Collecting ---- */

static struct orphan *
note(struct worker *worker, const void *id, uint64_t due_ms)
{
    struct orphan *orphan = calloc(1, sizeof *orphan);
    if (orphan == NULL)
        return NULL;
    memcpy(orphan->id.bytes, id, sizeof orphan->id.bytes);
    orphan->due_ms = due_ms;
    list_push_back(&worker->orphans, &orphan->link);
    return orphan;
}

/* One note per block: that of part 0. Without memory for it, the block's memory comes back
 * when the worker restarts. */
static void
note_part(struct ds_slice key, void *arg)
{
    struct worker *worker = arg;
    if (key.len != BLOCK_KEY_BYTES)
        return;
    struct reader reader = reader_of(key.data, key.len);
    (void)read_bytes(&reader, sizeof(struct ds_block_id));
    if (read_u32(&reader) == 0)
        (void)note(worker, key.data, clock_monotonic_ms() + ORPHAN_GRACE_MS);
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

struct born {
    struct worker *worker;
    struct arena_id arena;
};

static void
note_born(struct ds_slice key, void *arg)
{
    const struct born *born = arg;
    struct ds_block_id id;
    if (key.len != BLOCK_KEY_BYTES)
        return;
    struct reader reader = reader_of(key.data, key.len);
    memcpy(&id, read_bytes(&reader, sizeof id).data, sizeof id);
    struct block_birth birth = wire_block_birth(&id);
    if (read_u32(&reader) == 0 &&
        arena_id_equal((struct arena_id){birth.node, birth.incarnation}, born->arena))
        (void)note(born->worker, key.data, clock_monotonic_ms() + ORPHAN_REPEAT_MS);
}

void
orphans_collect_born(struct worker *worker, struct arena_id arena)
{
    struct born born = {worker, arena};
    store_client_provisional(worker->store, 0, note_born, &born);
}

static void
forget(struct worker *worker, struct orphan *orphan)
{
    worker->foreign_orphan_count -= orphan->is_foreign;
    list_remove(&orphan->link);
    free(orphan);
}

static bool
is_still_orphan(struct worker *worker, const struct orphan *orphan, uint64_t now_ms)
{
    struct object_view view;
    if (orphan->is_foreign)
        return now_ms < orphan->until_ms;
    return blocks_find_part(worker, orphan->id, 0, &view) &&
           (view.flags & SLOT_FLAG_PROVISIONAL) != 0;
}

/* ---- Whom to tell ---- */

/* While its node gives it to another one, its client may still put it. */
static bool
is_ours(const struct worker *worker, const struct orphan *orphan)
{
    struct block_birth birth = wire_block_birth(&orphan->id);
    return arenas_is_here(worker, (struct arena_id){birth.node, birth.incarnation});
}

static uint16_t
queue_of(const struct orphan *orphan)
{
    return wire_block_birth(&orphan->id).queue;
}

/* Any controller may judge it: it is of no queue, or of one that is nowhere, and has been
 * for long. */
static bool
is_anybodys(struct worker *worker, struct orphan *orphan, uint64_t now_ms)
{
    uint16_t queue = queue_of(orphan);
    if (queue == 0 || orphan->is_foreign)
        return queue == 0 || orphan->is_anybodys;
    if (queues_have_tag(worker, queue) || !membership_knows(worker->membership) ||
        membership_find_tag(worker->membership, queue) != NULL)
        orphan->unserved_at_ms = 0;
    else if (orphan->unserved_at_ms == 0)
        orphan->unserved_at_ms = now_ms;
    return orphan->unserved_at_ms != 0 &&
           now_ms - orphan->unserved_at_ms >= ORPHAN_ABANDONED_MS;
}

/* Some of the orphans that are due. */
struct choice {
    bool own_only;  /* Not those of other nodes. */
    bool anybodys;  /* Those that any controller may judge, */
    uint16_t queue; /* and those of this queue; 0: of none. */
};

static bool
is_chosen(struct worker *worker, struct orphan *orphan, struct choice choice,
          uint64_t now_ms)
{
    if (orphan->is_foreign ? choice.own_only : !is_ours(worker, orphan))
        return false;
    if (choice.queue != 0 && queue_of(orphan) == choice.queue)
        return true;
    return choice.anybodys && is_anybodys(worker, orphan, now_ms);
}

/* Their ids; forgets those that are settled. */
static size_t
list_due(struct worker *worker, struct choice choice, uint64_t now_ms,
         struct ds_block_id *out, size_t max)
{
    size_t count = 0;
    LIST_FOREACH (link, &worker->orphans) {
        struct orphan *orphan = CONTAINER_OF(link, struct orphan, link);
        if (count == max)
            break;
        if (orphan->due_ms > now_ms)
            continue;
        if (!is_still_orphan(worker, orphan, now_ms)) {
            forget(worker, orphan);
        } else if (is_chosen(worker, orphan, choice, now_ms)) {
            out[count++] = orphan->id;
            orphan->due_ms = now_ms + ORPHAN_REPEAT_MS;
            if (orphan->is_foreign)
                forget(worker, orphan);
        }
    }
    return count;
}

static void
tell_controller(struct session *session, uint64_t now_ms)
{
    static struct ds_block_id ids[ORPHANS_PER_REPLY]; /* Loop thread only. */
    struct choice choice = {.anybodys = true, .queue = queues_tag_of(session)};
    size_t count = list_due(session->worker, choice, now_ms, ids, ORPHANS_PER_REPLY);
    if (count == 0)
        return;
    list_remove(&session->orphan_link);
    AUTO_WRITER(writer);
    encode_block_ids(&writer, ids, count);
    session_reply(session, &session->orphan_request, &writer);
}

/* ---- Controllers at other members ---- */

/* Owner: the peers. */
struct report {
    struct peer_request request;
    bool is_anybodys;
    size_t count;
    struct ds_block_id ids[ORPHANS_PER_REPLY];
};

static void
encode_report(const struct peer_request *request, struct writer *body)
{
    const struct report *report = CONTAINER_OF(request, const struct report, request);
    encode_orphans_found(body, report->is_anybodys, report->ids, report->count);
}

static void
end_report(struct worker *worker, struct peer_request *request,
           const struct peer_answer *answer)
{
    (void)worker;
    (void)answer; /* They are told again as long as they are orphans. */
    free(CONTAINER_OF(request, struct report, request));
}

static const struct peer_request_ops report_ops = {.type = MESSAGE_ORPHANS_FOUND,
                                                   .tries_max = 2,
                                                   .encode = encode_report,
                                                   .end = end_report};

/* All that are due and chosen, to the member that has the controller. */
static void
tell_member(struct worker *worker, const struct member *member, struct choice choice,
            uint64_t now_ms)
{
    struct report *report = calloc(1, sizeof *report);
    if (report == NULL)
        return;
    report->request = (struct peer_request){
        .ops = &report_ops, .node = member->node, .incarnation = member->incarnation};
    report->is_anybodys = choice.anybodys;
    list_init(&report->request.link);
    report->count = list_due(worker, choice, now_ms, report->ids, ORPHANS_PER_REPLY);
    if (report->count == 0 || !peers_ask(worker->peers, &report->request))
        free(report);
}

/* Where a controller is that may judge it; NULL: it is here, or nowhere. */
static const struct member *
find_judge(struct worker *worker, struct orphan *orphan, struct choice *out,
           uint64_t now_ms)
{
    uint16_t queue = queue_of(orphan);
    *out = (struct choice){.own_only = true, .queue = queue};
    if (is_anybodys(worker, orphan, now_ms)) {
        *out = (struct choice){.own_only = true, .anybodys = true};
        return list_is_empty(&worker->queues)
                   ? membership_find_tag(worker->membership, 0)
                   : NULL;
    }
    return queues_have_tag(worker, queue)
               ? NULL
               : membership_find_tag(worker->membership, queue);
}

static void
tell_members(struct worker *worker, uint64_t now_ms)
{
    LIST_FOREACH (link, &worker->orphans) {
        struct orphan *orphan = CONTAINER_OF(link, struct orphan, link);
        struct choice choice;
        if (orphan->due_ms > now_ms || orphan->is_foreign || !is_ours(worker, orphan))
            continue;
        const struct member *member = find_judge(worker, orphan, &choice, now_ms);
        if (member == NULL)
            continue;
        tell_member(worker, member, choice, now_ms);
        return; /* Others have their turn at the next tick. */
    }
}

void
orphans_tick(struct worker *worker, uint64_t now_ms)
{
    if (list_is_empty(&worker->orphans))
        return;
    LIST_FOREACH (link, &worker->orphan_readers)
        tell_controller(CONTAINER_OF(link, struct session, orphan_link), now_ms);
    tell_members(worker, now_ms);
}

void
orphans_close(struct worker *worker)
{
    LIST_FOREACH (link, &worker->orphans)
        forget(worker, CONTAINER_OF(link, struct orphan, link));
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
handle_orphans_found(struct session *session, const struct frame_header *header,
                     struct ds_slice body)
{
    struct worker *worker = session->worker;
    struct orphans_found found;
    struct ds_block_id id;
    if (!decode_orphans_found(body, &found) || found.ids.count > ORPHANS_PER_REPLY) {
        session_reject(session, "malformed ORPHANS_FOUND");
        return;
    }
    uint64_t now_ms = clock_monotonic_ms();
    while (worker->foreign_orphan_count < ORPHAN_FOREIGN_MAX &&
           next_block_id(&found.ids, &id)) {
        struct orphan *orphan = note(worker, id.bytes, now_ms);
        if (orphan == NULL)
            break;
        orphan->is_foreign = true;
        orphan->is_anybodys = found.is_anybodys;
        orphan->until_ms = now_ms + ORPHAN_FOREIGN_MS;
        worker->foreign_orphan_count++;
    }
    conn_reply(session->conn, header, (struct ds_slice){0});
}
