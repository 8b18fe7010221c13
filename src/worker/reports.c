#include "worker/reports.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "meta/members.h"
#include "meta/ring.h"
#include "os/clock.h"
#include "worker/directory.h"
#include "worker/objects.h"
#include "worker/owners.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Keys in one message: its receiver takes about a millisecond for them. */
enum { PART_KEYS_MAX = 4096 };

/* How far a message gets, and what is in it. Deleted keys follow when all objects are
 * told. */
struct part {
    size_t refs_end;
    size_t known_end;
    uint32_t count;
};

/* To one member. Invariant: refs [0, at) are told, and answered. Owner: worker->reports. */
struct report {
    struct list link;
    struct peer_request request;
    struct worker *worker;
    struct key_owner to;
    uint64_t epoch;
    uint64_t since; /* 0: it is all we have. */
    bool is_back;
    bool must_collect; /* Its receiver wants all. */
    bool is_under_way;
    bool is_over; /* A newer one takes its place. */
    size_t count;
    size_t capacity;
    size_t at;
    struct object_ref *refs; /* Owned. */
    /* Of its keys, which were ours, what we know: objects, or none, and keys, one
     * behind the other. They follow; */
    struct writer known;
    size_t known_at;  /* those before this are told. */
    struct part part; /* Under way. */
};

static void
report_free(struct report *report)
{
    list_remove(&report->link);
    free(report->refs);
    writer_fini(&report->known);
    free(report);
}

/* ---- What is told ---- */

static bool
append(struct report *report, struct object_ref ref)
{
    if (report->count == report->capacity) {
        size_t capacity = max_u64(64, 2 * report->capacity);
        struct object_ref *refs = realloc(report->refs, capacity * sizeof *refs);
        if (refs == NULL)
            return false;
        report->refs = refs;
        report->capacity = capacity;
    }
    report->refs[report->count++] = ref;
    return true;
}

/* What is to be told, by the ring that the directory does not know yet. Each object looks
 * for its report among all members', which are in the order of their nodes. */
struct collection {
    struct worker *worker;
    const struct ring *ring;
    struct report **reports;
    size_t count;
    struct writer *ours; /* What falls to us again; NULL: we know it. */
    bool has_failed;
};

/* NULL: there is none. */
static struct report *
find_report(const struct collection *collection, uint32_t node)
{
    size_t low = 0, high = collection->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (collection->reports[middle]->to.node < node)
            low = middle + 1;
        else
            high = middle;
    }
    bool is_found =
        low < collection->count && collection->reports[low]->to.node == node;
    return is_found ? collection->reports[low] : NULL;
}

static void
collect(const struct object_view *view, struct ds_slice key, void *arg)
{
    struct collection *collection = arg;
    if ((view->flags & SLOT_FLAG_BLOCK) != 0)
        return;
    uint32_t owner = ring_owner(collection->ring, ring_position(key));
    struct report *report = find_report(collection, owner);
    if (report == NULL)
        return; /* Ours. */
    struct key_owner before = owners_find(collection->worker, key);
    if (report->since != 0 && key_owner_equal(&before, &report->to))
        return; /* It knows. */
    if (PLANTED(LOST_REPORT))
        return;
    if (!append(report, view->ref))
        collection->has_failed = true;
}

static void
collect_known(struct ds_slice key, const struct object_name *object, void *arg)
{
    struct collection *collection = arg;
    struct report *report =
        find_report(collection, ring_owner(collection->ring, ring_position(key)));
    struct writer *known = report != NULL ? &report->known : collection->ours;
    uint8_t name[BLOCK_KEY_BYTES] = {0};
    if (known == NULL)
        return;
    if (object->node != 0)
        wire_object_key(object, name);
    write_bytes(known, slice(name, sizeof name));
    write_short_bytes(known, key);
    collection->has_failed = collection->has_failed || known->failed;
}

/* ---- Telling ---- */

/* False: it has gone meanwhile. */
static bool
describe(const struct report *report, struct object_ref ref, struct wire_binding *out)
{
    struct worker *worker = report->worker;
    struct object_name name = objects_name(worker, ref);
    struct object_view view;
    uint8_t buffer[DS_KEY_BYTES_MAX];
    if (!objects_find_named(worker, &name, &view))
        return false;
    uint64_t now = clock_boot_ds();
    *out = (struct wire_binding){.object = name,
                                 .key = store_key(worker->store, ref.slot, buffer)};
    out->ttl_ds = objects_left_ds(view.expires_ds, now);
    return true;
}

/* What we know of one key more. */
static struct wire_binding
read_known(struct reader *reader)
{
    struct wire_binding known = {.object = {0}};
    (void)wire_object_name(read_bytes(reader, BLOCK_KEY_BYTES), &known.object);
    known.key = read_short_bytes(reader);
    return known;
}

static struct part
encode_bindings(const struct report *report, struct writer *body)
{
    struct part part = {.refs_end = min_u64(report->count, report->at + PART_KEYS_MAX),
                        .known_end = report->known_at};
    struct wire_binding binding;
    for (size_t i = report->at; i < part.refs_end; i++) {
        if (!describe(report, report->refs[i], &binding))
            continue;
        encode_binding(body, &binding);
        part.count++;
    }
    struct reader reader = reader_of(report->known.data, report->known.len);
    (void)read_bytes(&reader, report->known_at);
    while (part.refs_end == report->count && part.count < PART_KEYS_MAX &&
           reader_left(&reader) > 0) {
        binding = read_known(&reader);
        encode_binding(body, &binding);
        part.count++;
        part.known_end = report->known.len - reader_left(&reader);
    }
    return part;
}

static bool
is_whole(const struct report *report, const struct part *part)
{
    return part->refs_end == report->count && part->known_end == report->known.len;
}

static void
encode(const struct peer_request *request, struct writer *body)
{
    struct report *report = CONTAINER_OF(request, struct report, request);
    struct key_owner from = owners_self(report->worker);
    AUTO_WRITER(bindings);
    AUTO_WRITER(lost);
    report->part = encode_bindings(report, &bindings);
    bool is_last = is_whole(report, &report->part);
    if (is_last && report->since == 0 && !report->is_back)
        owners_tell_lost(report->worker, &lost);
    struct key_report message = {.node = from.node,
                                 .incarnation = from.incarnation,
                                 .restarts = from.restarts,
                                 .member_since = from.since,
                                 .epoch = report->epoch,
                                 .since = report->since,
                                 .is_back = report->is_back,
                                 .is_last = is_last,
                                 .lost = slice(lost.data, lost.len),
                                 .bindings.count = report->part.count};
    encode_key_report_begin(body, &message);
    write_bytes(body, slice(bindings.data, bindings.len));
    body->failed = body->failed || bindings.failed || lost.failed;
}

/* Their keys are other objects by now: ours are of the past. */
static void
let_go(struct worker *worker, struct answer_list refused)
{
    struct wire_answer answer;
    struct object_view view;
    uint8_t buffer[DS_KEY_BYTES_MAX];
    uint32_t count = 0;
    while (next_answer(&refused, &answer)) {
        if (objects_find_named(worker, &answer.object, &view))
            count += store_delete(worker->store,
                                  store_key(worker->store, view.ref.slot, buffer),
                                  clock_boot_ds());
    }
    if (count > 0)
        log_warn("worker lets go of %" PRIu32
                 " objects whose keys were changed without it",
                 count);
}

static void tell(struct report *report);

/* All, from the beginning. False when out of memory: then nothing is told before the next
 * tick has tried again. */
static bool
collect_all(struct report *report)
{
    struct worker *worker = report->worker;
    struct collection collection = {.worker = worker,
                                    .ring = owners_ring(worker->owners),
                                    .reports = &report,
                                    .count = 1};
    report->since = 0;
    report->count = 0;
    report->at = 0;
    report->known_at = 0;
    store_each(worker->store, collect, &collection);
    return !collection.has_failed;
}

static void
end(struct worker *worker, struct peer_request *request,
    const struct peer_answer *answer)
{
    struct report *report = CONTAINER_OF(request, struct report, request);
    struct key_report_reply reply;
    bool is_said = answer->header != NULL && answer->header->status == DS_OK &&
                   decode_report_reply(answer->body, &reply);
    report->is_under_way = false;
    if (report->is_over || worker->stopping ||
        (answer->header == NULL &&
         !peers_know(worker->peers, report->to.node, report->to.incarnation))) {
        report_free(report);
        return;
    }
    if (!is_said)
        return; /* It does not know that epoch yet: at the next tick. */
    let_go(worker, reply.refused);
    if (reply.wants_all && report->since != 0) {
        report->must_collect = true;
        tell(report);
        return;
    }
    report->at = report->part.refs_end;
    report->known_at = report->part.known_end;
    if (is_whole(report, &report->part))
        report_free(report);
    else
        tell(report);
}

static const struct peer_request_ops report_ops = {
    .type = MESSAGE_KEY_REPORT, .encode = encode, .end = end};

/* Later, if it cannot be sent now. */
static void
tell(struct report *report)
{
    report->request = (struct peer_request){.ops = &report_ops,
                                            .node = report->to.node,
                                            .incarnation = report->to.incarnation};
    list_init(&report->request.link);
    if (report->must_collect)
        report->must_collect = !collect_all(report);
    report->is_under_way =
        !report->must_collect && peers_ask(report->worker->peers, &report->request);
}

/* ---- Epochs ---- */

/* Not all of the epoch before has been told to that node. */
static bool
is_being_told(const struct worker *worker, uint32_t node)
{
    LIST_FOREACH (link, &worker->reports) {
        const struct report *report = CONTAINER_OF(link, struct report, link);
        if (report->to.node == node && !report->is_over)
            return true;
    }
    return false;
}

/* A process that has not been told of any epoch by us, or not of all of the last one, is
 * told everything. */
static struct report *
report_new(struct worker *worker, const struct report_to *to,
           const struct member *member)
{
    struct report *report = calloc(1, sizeof *report);
    if (report == NULL)
        return NULL;
    list_init(&report->link);
    report->worker = worker;
    report->to = (struct key_owner){member->node, member->incarnation, member->restarts,
                                    member->since};
    report->epoch = to->epoch;
    report->is_back = to->of_all;
    if (!to->of_all && owners_has_member(worker->owners, &report->to) &&
        !is_being_told(worker, member->node))
        report->since = owners_epoch(worker->owners);
    return report;
}

/* In the order of their nodes. False when out of memory. */
static bool
add_reports(struct collection *collection, const struct report_to *to)
{
    uint32_t own = store_header(collection->worker->store)->node;
    collection->reports = calloc((size_t)to->count + 1, sizeof(struct report *));
    for (uint32_t i = 0; collection->reports != NULL && i < to->count; i++) {
        if (to->members[i].node == own)
            continue;
        struct report *report = report_new(collection->worker, to, &to->members[i]);
        if (report == NULL)
            return false;
        collection->reports[collection->count++] = report;
    }
    return collection->reports != NULL;
}

/* They take the place of those of the epoch before. */
static void
take_over(struct worker *worker, const struct collection *collection)
{
    LIST_FOREACH (link, &worker->reports) {
        struct report *old = CONTAINER_OF(link, struct report, link);
        old->is_over = true;
        if (!old->is_under_way)
            report_free(old);
    }
    for (size_t i = 0; i < collection->count; i++)
        list_push_back(&worker->reports, &collection->reports[i]->link);
}

/* What we knew of keys that were ours, and have not told yet, is told to whose they are now. */
static void
collect_untold(struct collection *collection)
{
    LIST_FOREACH (link, &collection->worker->reports) {
        const struct report *old = CONTAINER_OF(link, const struct report, link);
        struct reader reader = reader_of(old->known.data, old->known.len);
        (void)read_bytes(&reader, old->known_at);
        while (!old->is_over && reader_left(&reader) > 0) {
            struct wire_binding known = read_known(&reader);
            collect_known(known.key, &known.object, collection);
        }
    }
}

bool
reports_members_changed(struct worker *worker, const struct report_to *to,
                        struct writer *out_ours)
{
    struct collection collection = {.worker = worker, .ring = to->ring};
    collection.has_failed = !add_reports(&collection, to);
    if (!collection.has_failed && collection.count > 0)
        store_each(worker->store, collect, &collection);
    if (!collection.has_failed && collection.count > 0 && !to->of_all)
        directory_each_known(worker, collect_known, &collection);
    collection.ours = out_ours;
    if (!collection.has_failed && !to->of_all)
        collect_untold(&collection);
    if (!collection.has_failed)
        take_over(worker, &collection);
    for (size_t i = 0; collection.has_failed && i < collection.count; i++)
        report_free(collection.reports[i]);
    free(collection.reports);
    return !collection.has_failed;
}

/* What is known of a key, of no object or one of another node. False when out of memory. */
static bool
take_known(struct worker *worker, const struct wire_binding *known)
{
    return known->object.node == 0 ? directory_take_deleted(worker, known->key)
                                   : directory_take_known(worker, known);
}

bool
reports_take_ours(struct worker *worker, const struct writer *ours)
{
    struct reader reader = reader_of(ours->data, ours->len);
    bool is_taken = true;
    while (reader_left(&reader) > 0) {
        struct wire_binding known = read_known(&reader);
        is_taken = take_known(worker, &known) && is_taken;
    }
    return is_taken;
}

void
reports_tick(struct worker *worker)
{
    LIST_FOREACH (link, &worker->reports) {
        struct report *report = CONTAINER_OF(link, struct report, link);
        if (report->is_under_way)
            continue;
        if (peers_know(worker->peers, report->to.node, report->to.incarnation))
            tell(report);
        else
            report_free(report);
    }
}

void
reports_close(struct worker *worker)
{
    LIST_FOREACH (link, &worker->reports)
        report_free(CONTAINER_OF(link, struct report, link));
}

/* ---- What others report ---- */

/* It comes from a member as we know it, and of an epoch that we know. */
static bool
is_known(const struct worker *worker, const struct key_report *report,
         const struct key_owner *from)
{
    return worker->membership != NULL &&
           report->epoch <= owners_epoch(worker->owners) &&
           owners_has_member(worker->owners, from);
}

/* Its key may have been deleted, or changed, since. Of a member whose keys we have known all
 * the time, nothing is news: what we do not know is of before a change that it obeyed behind
 * the report. */
static bool
is_of_past(const struct worker *worker, const struct key_owner *from,
           const struct key_report *report, const struct wire_binding *binding)
{
    if (directory_knows(worker, binding))
        return false;
    return report->is_back ? !owners_remember(worker, from, binding->key)
                           : owners_knew(worker, binding->key);
}

/* False when out of memory. */
static bool
take(struct worker *worker, const struct key_owner *from,
     const struct key_report *report, struct writer *refused, uint32_t *out_count)
{
    struct binding_list list = report->bindings;
    struct wire_binding binding;
    while (next_binding(&list, &binding)) {
        struct wire_answer answer = {.answer = KEY_NO, .object = binding.object};
        enum key_answer taken = KEY_YES;
        if (binding.object.node != from->node)
            taken = take_known(worker, &binding) ? KEY_YES : KEY_MOVED;
        else if (is_of_past(worker, from, report, &binding))
            taken = KEY_NO;
        else
            taken = directory_take_report(worker, &binding);
        if (taken == KEY_MOVED)
            return false;
        if (taken == KEY_YES)
            continue;
        encode_answer(refused, &answer);
        (*out_count)++;
    }
    return !refused->failed;
}

void
handle_key_report(struct session *session, const struct frame_header *header,
                  struct ds_slice body)
{
    struct worker *worker = session->worker;
    struct key_report report;
    struct ds_error err = {0};
    AUTO_WRITER(refused);
    AUTO_WRITER(writer);
    uint32_t count = 0;
    if (session->kind != SESSION_TCP || !decode_key_report(body, &report)) {
        session_reject(session, "malformed KEY_REPORT");
        return;
    }
    struct key_owner from = {report.node, report.incarnation, report.restarts,
                             report.member_since};
    bool is_late = owners_knows_later(worker, &from, report.epoch);
    bool wants_all = !is_late && report.since != 0 &&
                     report.since < owners_epoch_before(worker->owners);
    if (!is_known(worker, &report, &from) ||
        (report.is_back && !is_late && !owners_listen(worker, &from, report.epoch)))
        (void)ds_fail(
            &err, DS_NOT_READY,
            "this worker does not know that epoch yet, or hears others first");
    else if (!is_late && !wants_all &&
             (!take(worker, &from, &report, &refused, &count) ||
              !owners_hear_lost(worker, report.lost)))
        (void)ds_fail(&err, DS_NO_MEMORY, "out of memory for bindings");
    if (err.status != DS_OK) {
        conn_reply_error(session->conn, header, &err); /* It is told again. */
        return;
    }
    encode_report_reply_begin(&writer, wants_all, count);
    write_bytes(&writer, slice(refused.data, refused.len));
    session_reply(session, header, &writer);
    if (is_late || wants_all || !report.is_last)
        return;
    if (report.is_back && report.epoch == owners_epoch(worker->owners))
        directory_forget_unsaid(worker, &from);
    owners_reported(worker, &from, report.epoch);
}
