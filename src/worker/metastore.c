#include "worker/metastore.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "meta/members.h"
#include "meta/ring.h"
#include "os/clock.h"
#include "os/files.h"
#include "worker/election.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUSPECT_MS = 2000,
    ELECTED_SETTLE_MS = 8000, /* All have noticed, asked etcd, and come. */
    RENEW_WAIT_MS_MAX = 600000,
    LINE_BYTES = 512, /* More than an address and a number take. */
};

/* Invariants: a session with `renewal` is a member's, and is in `parked` while that waits
 * for its reply. */
struct metastore {
    struct worker *worker;
    struct members *members;
    struct list parked;
    uint64_t logged_epoch;
    struct members_past saved;
    bool is_elected;        /* What is needed after a restart is in etcd, */
    char path[PATH_MAX];    /* or here. */
    uint32_t holder;        /* Who had it before, if somebody is known to: a node. */
    uint64_t nearly_all_ms; /* Since when only that one is missing; 0: not so. */
};

/* The last renewal of a session. Owner: the session. */
struct renewal {
    struct list link;
    struct session *session;
    struct frame_header request;
    uint32_t node;
    uint32_t incarnation;
    uint64_t epoch;
    uint64_t version;
    uint64_t answer_at_ms;
};

/* ---- What is kept over a restart ---- */

/* The head itself is not counted: when it is started again, it has another arena. Who was
 * elected may lose the metastore alone. */
static struct members_past
past_to_keep(const struct metastore *metastore)
{
    struct members_past past = members_past(metastore->members);
    const char *own = metastore->worker->flags->worker_address;
    if (members_epoch(metastore->members) == 0)
        return metastore->saved;
    if (metastore->is_elected)
        return past;
    for (size_t i = 0; i < members_count(metastore->members); i++) {
        if (strcmp(members_at(metastore->members, i)->address, own) == 0)
            past.count--;
    }
    return past;
}

static void
save(struct metastore *metastore)
{
    struct members_past past = past_to_keep(metastore);
    if (past.epoch == metastore->saved.epoch && past.count == metastore->saved.count)
        return;
    metastore->saved = past;
    if (metastore->is_elected) {
        if (metastore->worker->election != NULL) /* It stops. */
            election_save(metastore->worker->election, past);
        return;
    }
    char text[64];
    struct ds_error err = {0};
    snprintf(text, sizeof text, "%" PRIu64 " %" PRIu32 "\n", past.epoch, past.count);
    if (files_write(metastore->path, text, 0600, &err) != DS_OK)
        log_error("metastore cannot keep its epoch reason=\"%s\"", err.message);
}

static struct members_past
load(const char *path)
{
    char text[64];
    struct members_past past = {0};
    if (PLANTED(EPOCH_BACK) || !files_read(path, text, sizeof text) ||
        sscanf(text, "%" SCNu64 " %" SCNu32, &past.epoch, &past.count) != 2)
        return (struct members_past){0};
    return past;
}

/* ---- Replies ---- */

static void
encode_all(const struct metastore *metastore, struct writer *out)
{
    const struct members *members = metastore->members;
    uint32_t count = (uint32_t)members_count(members);
    uint64_t now_ms = clock_monotonic_ms();
    struct member_list list = {.epoch = members_epoch(members),
                               .version = members_version(members),
                               .lease_ms = (uint32_t)members_lease_ms(members),
                               .lapse_ms = (uint32_t)members_lapse_ms(members, now_ms),
                               .away_ms = (uint32_t)members_away_ms(members, now_ms),
                               .count = count};
    encode_member_list_begin(out, &list);
    for (uint32_t i = 0; i < count; i++) {
        const struct member *member = members_at(members, i);
        struct wire_member wire = {.node = member->node,
                                   .incarnation = member->incarnation,
                                   .restarts = member->restarts,
                                   .since = member->since,
                                   .address = slice_of_text(member->address),
                                   .queues = member->queues,
                                   .arenas = member->arenas};
        encode_member(out, &wire);
    }
}

/* Nothing is new; the lease is, but for who may have been none while we were away. */
static void
reply_unchanged(const struct metastore *metastore, const struct renewal *renewal)
{
    AUTO_WRITER(writer);
    const struct members *members = metastore->members;
    struct member_list list = {.epoch = renewal->epoch, .version = renewal->version};
    if (members_may_serve(members, renewal->node, renewal->incarnation))
        list.lease_ms = (uint32_t)members_lease_ms(members);
    encode_member_list_begin(&writer, &list);
    session_reply(renewal->session, &renewal->request, &writer);
}

static bool
is_news_to(const struct metastore *metastore, const struct renewal *renewal)
{
    uint64_t epoch = members_epoch(metastore->members);
    uint64_t version = members_version(metastore->members);
    return epoch != 0 && (epoch != renewal->epoch || version != renewal->version);
}

/* Replies to those who know another list, or have waited long enough. */
static void
answer_parked(struct metastore *metastore, uint64_t now_ms)
{
    AUTO_WRITER(all); /* Written for the first who needs it. */
    LIST_FOREACH (link, &metastore->parked) {
        struct renewal *renewal = CONTAINER_OF(link, struct renewal, link);
        bool is_news = is_news_to(metastore, renewal);
        if (!is_news && now_ms < renewal->answer_at_ms)
            continue;
        list_remove(&renewal->link);
        if (is_news && all.len == 0)
            encode_all(metastore, &all);
        if (is_news)
            session_reply(renewal->session, &renewal->request, &all);
        else
            reply_unchanged(metastore, renewal);
    }
}

/* ---- Renewing ---- */

static enum ds_status
check_cluster(const struct metastore *metastore, const struct member_renew *message,
              struct ds_error *err)
{
    const char *own = metastore->worker->flags->cluster_name;
    if (slice_equal(slice_of_text(own), message->cluster_name))
        return DS_OK;
    return ds_fail(
        err, DS_MISMATCH,
        "the metastore is that of cluster '%s', the worker at %.*s is of "
        "cluster '%.*s'; give both the same --cluster_name",
        own, (int)message->who.address.len, (const char *)message->who.address.data,
        (int)message->cluster_name.len, (const char *)message->cluster_name.data);
}

static struct member
member_of(const struct wire_member *wire)
{
    static_assert((int)MEMBER_ADDRESS_BYTES_MAX == (int)MEMBER_ADDRESS_MAX, "address");
    struct member member = {
        .node = wire->node,
        .incarnation = wire->incarnation,
        .restarts = wire->restarts,
        .since = wire->since,
        .queues = wire->queues,
        .arenas = wire->arenas,
    };
    memcpy(member.address, wire->address.data, wire->address.len);
    return member;
}

static enum ds_status
renew(struct metastore *metastore, const struct member_renew *message, uint64_t now_ms,
      struct ds_error *err)
{
    enum ds_status status = check_cluster(metastore, message, err);
    if (status != DS_OK)
        return status;
    if ((message->flags & MEMBER_LEAVES) != 0) {
        (void)members_leave(metastore->members, message->who.node,
                            message->who.incarnation);
        return DS_OK;
    }
    struct member who = member_of(&message->who);
    struct members_past past = {message->epoch, message->count};
    return members_renew(metastore->members, &who, past, now_ms, err);
}

static bool
is_parked(const struct session *session)
{
    return session->renewal != NULL && !list_is_empty(&session->renewal->link);
}

/* The latest is answered: the renewal that is parked is dropped. */
static enum ds_status
note_renewal(struct session *session, const struct frame_header *header,
             const struct member_renew *message, uint64_t now_ms, struct ds_error *err)
{
    struct renewal *renewal = session->renewal;
    if (renewal == NULL && (renewal = calloc(1, sizeof *renewal)) == NULL)
        return ds_fail(err, DS_NO_MEMORY, "metastore is out of memory for a member");
    if (is_parked(session))
        list_remove(&renewal->link);
    *renewal = (struct renewal){
        .session = session,
        .request = *header,
        .node = message->who.node,
        .incarnation = message->who.incarnation,
        .epoch = message->epoch,
        .version = message->version,
        .answer_at_ms = now_ms + min_u64(message->wait_ms, RENEW_WAIT_MS_MAX),
    };
    list_init(&renewal->link);
    session->renewal = renewal;
    return DS_OK;
}

/* It comes to the metastore's port, or to that of a worker that may be elected. */
static bool
is_for_metastore(const struct session *session)
{
    bool may_be_elected = session->worker->election != NULL;
    return session->kind == SESSION_METASTORE ||
           (session->kind == SESSION_TCP && may_be_elected);
}

/* False: replied that the metastore is elsewhere. */
static bool
is_here(const struct session *session, const struct frame_header *header)
{
    const struct worker *worker = session->worker;
    struct ds_error err = {0};
    if (worker->election == NULL || election_holds(worker->election))
        return true;
    (void)ds_fail(&err, DS_NOT_READY,
                  "the worker at %s does not have the metastore; ask etcd who does",
                  worker->flags->worker_address);
    conn_reply_error(session->conn, header, &err);
    return false;
}

void
handle_member_renew(struct session *session, const struct frame_header *header,
                    struct ds_slice body)
{
    struct member_renew message;
    if (!is_for_metastore(session) || !decode_member_renew(body, &message)) {
        session_reject(session, "malformed MEMBER_RENEW");
        return;
    }
    if (!is_here(session, header))
        return;
    struct metastore *metastore = session->worker->metastore;
    DS_ASSERT(metastore != NULL);
    struct ds_error err = {0};
    uint64_t now_ms = clock_monotonic_ms();
    enum ds_status status = renew(metastore, &message, now_ms, &err);
    if (status == DS_OK)
        status = note_renewal(session, header, &message, now_ms, &err);
    if (status != DS_OK) {
        log_warn("metastore refused address=%.*s reason=\"%s\"",
                 (int)message.who.address.len, (const char *)message.who.address.data,
                 err.message);
        conn_reply_error(session->conn, header, &err);
        return;
    }
    struct renewal *renewal = session->renewal;
    if ((message.flags & MEMBER_LEAVES) != 0) {
        reply_unchanged(metastore, renewal);
    } else if (message.epoch == 0 && is_news_to(metastore, renewal)) {
        AUTO_WRITER(all); /* Who is new does not wait for the tick. */
        encode_all(metastore, &all);
        session_reply(session, header, &all);
    } else {
        list_push_back(&metastore->parked, &renewal->link);
    }
}

void
metastore_drop(struct session *session)
{
    struct renewal *renewal = session->renewal;
    if (renewal == NULL)
        return;
    members_suspect(session->worker->metastore->members, renewal->node,
                    renewal->incarnation, clock_monotonic_ms() + SUSPECT_MS);
    list_remove(&renewal->link);
    free(renewal);
    session->renewal = NULL;
}

/* ---- Asking ---- */

static void
append(struct writer *json, const char *format, ...)
{
    char text[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    DS_ASSERT(bytes >= 0 && (size_t)bytes < sizeof text);
    write_bytes(json, slice(text, (size_t)bytes));
}

static void
append_member(struct writer *json, const struct member *member, const struct ring *ring)
{
    struct ring_range ranges[RING_POINTS_PER_MEMBER];
    size_t count = ring_ranges(ring, member->node, ranges, RING_POINTS_PER_MEMBER);
    append(json,
           "{\"worker_address\": \"%s\", \"node\": %" PRIu32
           ", \"incarnation\": %" PRIu32 ", \"hash_ranges\": [",
           member->address, member->node, member->incarnation);
    for (size_t i = 0; i < count; i++) {
        const char *separator = i == 0 ? "" : ", ";
        if (ranges[i].after == ranges[i].upto)
            append(json, "\"[0,%" PRIu32 "]\"", UINT32_MAX);
        else
            append(json, "%s\"(%" PRIu32 ",%" PRIu32 "]\"", separator, ranges[i].after,
                   ranges[i].upto);
    }
    append(json, "]}");
}

static struct ring *
make_ring(const struct members *members)
{
    size_t count = members_count(members);
    uint32_t *nodes = calloc(count + 1, sizeof *nodes);
    struct ring *ring = NULL;
    if (nodes == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++)
        nodes[i] = members_at(members, i)->node;
    if (ring_create(nodes, count, &ring, NULL) != DS_OK)
        ring = NULL;
    free(nodes);
    return ring;
}

void
handle_members(struct session *session, const struct frame_header *header,
               struct ds_slice body)
{
    if (!is_for_metastore(session) || body.len != 0) {
        session_reject(session, "malformed MEMBERS");
        return;
    }
    if (!is_here(session, header))
        return;
    const struct members *members = session->worker->metastore->members;
    struct ring *ring = make_ring(members);
    AUTO_WRITER(json);
    json.failed = ring == NULL;
    append(&json, "{\"epoch\": %" PRIu64 ", \"nodes\": [", members_epoch(members));
    for (size_t i = 0; ring != NULL && i < members_count(members); i++) {
        if (i > 0)
            append(&json, ", ");
        append_member(&json, members_at(members, i), ring);
    }
    append(&json, "]}");
    ring_destroy(ring);
    session_reply(session, header, &json);
}

/* ---- Life ---- */

/* A child that was forked again has the arena of the one before: nobody is to be told of an
 * epoch without it. */
static enum ds_status
add_self(struct metastore *metastore, struct ds_error *err)
{
    const struct worker *worker = metastore->worker;
    const struct table_header *table = store_header(worker->store);
    struct member self = {.node = table->node,
                          .incarnation = table->incarnation,
                          .restarts = (uint32_t)worker->restarts};
    struct members_past none = {0};
    snprintf(self.address, sizeof self.address, "%s", worker->flags->worker_address);
    return members_renew(metastore->members, &self, none, clock_monotonic_ms(), err);
}

enum ds_status
metastore_open(struct worker *worker, const struct metastore_past *past,
               struct metastore **out, struct ds_error *err)
{
    struct metastore *metastore = calloc(1, sizeof *metastore);
    if (metastore == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for the metastore");
    metastore->worker = worker;
    metastore->is_elected = past != NULL;
    list_init(&metastore->parked);
    int used = snprintf(metastore->path, sizeof metastore->path, "%s/metastore.epoch",
                        worker->resources->home);
    enum ds_status status = DS_OK;
    if (used < 0 || (size_t)used >= sizeof metastore->path)
        status = ds_fail(err, DS_INVALID, "home folder '%s' is too long",
                         worker->resources->home);
    if (status == DS_OK) {
        metastore->saved = past != NULL ? past->past : load(metastore->path);
        uint64_t lease_ms = (uint64_t)worker->flags->node_timeout_s * 1000;
        status = members_create(lease_ms, metastore->saved, clock_monotonic_ms(),
                                &metastore->members, err);
    }
    if (status == DS_OK && past == NULL && worker->restarts > 0)
        status = add_self(metastore, err);
    if (status != DS_OK) {
        members_destroy(metastore->members);
        free(metastore);
        return status;
    }
    if (past != NULL) {
        metastore->holder = past->holder;
        members_come_after_another(metastore->members,
                                   clock_monotonic_ms() + ELECTED_SETTLE_MS);
    }
    *out = metastore;
    return DS_OK;
}

static void
hang_up(struct metastore *metastore)
{
    LIST_FOREACH (link, &metastore->worker->sessions) {
        struct session *session = CONTAINER_OF(link, struct session, link);
        if (session->renewal == NULL)
            continue;
        list_remove(&session->renewal->link);
        free(session->renewal);
        session->renewal = NULL;
        conn_close(session->conn, NULL);
    }
    DS_ASSERT(list_is_empty(&metastore->parked));
}

/* Others that have said goodbye are not harmed by a wrong answer; of those that were lost, one
 * may only be cut off. */
static bool
is_needed_later(const struct metastore *metastore)
{
    return !metastore->worker->is_leaving || metastore->saved.count > 0 ||
           members_away_ms(metastore->members, clock_monotonic_ms()) > 0;
}

void
metastore_close(struct metastore *metastore)
{
    if (metastore == NULL)
        return;
    hang_up(metastore);
    save(metastore);
    if (!is_needed_later(metastore))
        files_remove(metastore->path);
    members_destroy(metastore->members);
    free(metastore);
}

bool
metastore_is_settling(const struct metastore *metastore)
{
    return members_is_settling(metastore->members);
}

bool
metastore_has_told_all(const struct metastore *metastore)
{
    uint64_t epoch = members_epoch(metastore->members);
    size_t told = 0;
    LIST_FOREACH (link, &metastore->parked) {
        if (CONTAINER_OF(link, struct renewal, link)->epoch == epoch)
            told++;
    }
    return metastore_is_settling(metastore) ||
           told >= members_count(metastore->members);
}

/* Whoever had the metastore before us is most likely lost. If it only lost the metastore, it
 * comes back as soon as the others do. */
static void
settle_without_holder(struct metastore *metastore, uint64_t now_ms)
{
    if (metastore->holder == 0 ||
        !members_lack_only(metastore->members, metastore->holder)) {
        metastore->nearly_all_ms = 0;
        return;
    }
    if (metastore->nearly_all_ms == 0)
        metastore->nearly_all_ms = now_ms;
    if (now_ms - metastore->nearly_all_ms >= SUSPECT_MS)
        members_settle(metastore->members);
}

void
metastore_tick(struct metastore *metastore, uint64_t now_ms)
{
    members_tick(metastore->members, now_ms);
    settle_without_holder(metastore, now_ms);
    uint64_t epoch = members_epoch(metastore->members);
    if (epoch != metastore->logged_epoch)
        log_info("metastore epoch=%" PRIu64 " members=%zu", epoch,
                 members_count(metastore->members));
    metastore->logged_epoch = epoch;
    save(metastore);
    answer_parked(metastore, now_ms);
}
