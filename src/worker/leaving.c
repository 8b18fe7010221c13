#include "worker/leaving.h"

#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "wire/leaving.h"
#include "worker/keys.h"
#include "worker/leaving_internal.h"
#include "worker/membership.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROOM_MS = 2000,  /* Who has not said by then how much room it has has none. */
    LINGER_MS = 500, /* Others hear of it some time after us. */
    NEWS_DS_MAX =
        50,         /* Without a word of the metastore for so long nobody would hear. */
    LOG_MS = 1000,  /* Between two lines about how far it is, */
    CALL_MS = 1000, /* and between two calls to who has what is ours. */
    JSON_BYTES = 2048,
};

/* ---- What it means for others ---- */

bool
leaving_is_active(const struct worker *worker)
{
    return worker->leaving != NULL && worker->leaving->phase != STAYS;
}

bool
leaving_is_handed_over(const struct worker *worker)
{
    return worker->leaving != NULL && worker->leaving->phase >= HANDS_OVER;
}

struct arena_id
leaving_taker(const struct worker *worker)
{
    return worker->leaving->taker;
}

/* What is sealed now would go with it. */
static bool
seals_too_late(const struct worker *worker)
{
    return leaving_is_handed_over(worker) ||
           (worker->leaving != NULL && worker->leaving->phase == HAS_NOTHING);
}

bool
leaving_refuses(const struct worker *worker, enum message_type type)
{
    bool reserves =
        type == MESSAGE_CREATE || type == MESSAGE_BLOCK_CREATE || type == MESSAGE_PUT;
    bool publishes =
        type == MESSAGE_SEAL || type == MESSAGE_PUBLISH || type == MESSAGE_FILL;
    return (reserves && leaving_is_active(worker)) ||
           (publishes && seals_too_late(worker));
}

void
leaving_refuse(struct session *session, const struct frame_header *header)
{
    struct ds_error err = {0};
    (void)ds_fail(&err, DS_NOT_READY,
                  "the worker at %s leaves its cluster and stores nothing new; use "
                  "another node",
                  session->worker->flags->worker_address);
    conn_reply_error(session->conn, header, &err);
}

/* ---- Staying after all ---- */

double
leaving_mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* As it may stand in JSON. */
static void
make_plain(char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            *text = '\'';
        else if ((unsigned char)*text < ' ')
            *text = ' ';
    }
}

void
leaving_stay(struct leaving *leaving, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(leaving->reason, sizeof leaving->reason, format, arguments);
    va_end(arguments);
    make_plain(leaving->reason);
    log_warn("worker stays in its cluster reason=\"%s\"", leaving->reason);
    leaving->phase = STAYS;
    leaving->is_under_way = false;
    if (leaving->has_given)
        leaving_call_back(leaving);
    leaving->round++; /* Whatever is answered now is of the past. */
    leaving->has_given = false;
    free(leaving->told);
    free(leaving->refs);
    leaving->told = NULL;
    leaving->refs = NULL;
    leaving->count = leaving->capacity = leaving->at = 0;
    writer_fini(&leaving->deleted);
    leaving->deleted = (struct writer){0};
}

/* ---- Nothing to move, or nobody to move it to ---- */

/* No others are known, and this one is: a worker that was started again and has not heard who
 * belongs may have others. */
static bool
is_alone(const struct worker *worker)
{
    const struct membership *membership = worker->membership;
    return membership == NULL ||
           (membership_count(membership) == 1 &&
            membership_at(membership, 0)->node == arenas_own(worker).node);
}

static void
end_with_nothing(struct leaving *leaving)
{
    free(leaving->told);
    free(leaving->refs);
    leaving->told = NULL;
    leaving->refs = NULL;
    leaving->capacity = 0;
    leaving->phase = HAS_NOTHING;
    leaving->until_ms = clock_monotonic_ms() + LEAVING_NOTHING_MS;
}

/* ---- Who takes it over ---- */

static void
choose(struct leaving *leaving)
{
    if (leaving->taker.node == 0 && is_alone(leaving->worker)) {
        leaving->ends_alone = true; /* Who was asked had just left as well. */
        end_with_nothing(leaving);
    } else if (leaving->taker.node == 0) {
        leaving_stay(leaving,
                     "no other member says that it has room for the %" PRIu64
                     " objects (%.1f MiB) that only this node has",
                     leaving->all.objects, leaving_mib(leaving->all.room));
    } else if (leaving->room < leaving->all.room) {
        leaving_stay(leaving,
                     "no member has room for the %" PRIu64
                     " objects (%.1f MiB) that only this node has; the most, %.1f "
                     "MiB, has %s. Delete something, or add a node",
                     leaving->all.objects, leaving_mib(leaving->all.room),
                     leaving_mib(leaving->room), leaving->to);
    } else {
        leaving->phase = MOVES;
        log_info("worker leaves its cluster to=%s objects=%" PRIu64 " bytes=%" PRIu64,
                 leaving->to, leaving->all.objects, leaving->all.bytes);
        leaving_advance(leaving);
    }
}

void
leaving_take_room(struct leaving *leaving, const struct peer_request *request,
                  const struct peer_answer *answer)
{
    uint64_t room = 0;
    const struct member *member =
        membership_find(leaving->worker->membership, request->node);
    leaving->open_rooms--;
    if (leaving->phase != ASKS_FOR_ROOM)
        return;
    if (answer->header != NULL && answer->header->status == DS_OK && member != NULL &&
        decode_room(answer->body, &room) && room > leaving->room) {
        leaving->room = room;
        leaving->taker = (struct arena_id){request->node, request->incarnation};
        memcpy(leaving->to, member->address, sizeof leaving->to);
    }
    if (leaving->open_rooms == 0)
        choose(leaving);
}

static void
ask_all_for_room(struct leaving *leaving)
{
    const struct membership *membership = leaving->worker->membership;
    uint32_t own = arenas_own(leaving->worker).node;
    leaving->phase = ASKS_FOR_ROOM;
    leaving->until_ms = clock_monotonic_ms() + ROOM_MS;
    for (uint32_t i = 0; i < membership_count(membership); i++) {
        const struct member *member = membership_at(membership, i);
        struct arena_id other = {member->node, member->incarnation};
        if (member->node != own)
            leaving->open_rooms += leaving_ask_for_room(leaving, other);
    }
    if (leaving->open_rooms == 0)
        choose(leaving);
}

/* ---- Time ---- */

static void
log_progress(struct leaving *leaving, uint64_t now_ms)
{
    if (now_ms < leaving->logged_ms + LOG_MS)
        return;
    leaving->logged_ms = now_ms;
    log_info("worker moves its objects to=%s moved=%" PRIu64 " of=%" PRIu64
             " bytes=%" PRIu64 " of=%" PRIu64,
             leaving->to, leaving->moved.objects, leaving->all.objects,
             leaving->moved.bytes, leaving->all.bytes);
}

/* The taker is not there any more. What it had of ours is still here, but users' keys. */
static bool
is_taker_lost(const struct leaving *leaving)
{
    return leaving->phase >= MOVES && leaving->phase < GOES &&
           !peers_know(leaving->worker->peers, leaving->taker.node,
                       leaving->taker.incarnation);
}

/* Who has our blocks; NULL: nobody says so. */
static const struct member *
find_taker(const struct leaving *leaving, bool *out_is_whole)
{
    struct arena_id own = arenas_own(leaving->worker);
    return membership_find_taker(leaving->worker->membership, own.node, own.incarnation,
                                 out_is_whole);
}

/* The taker may have given them on by now. */
static bool
do_all_know(const struct leaving *leaving)
{
    bool is_whole = false;
    (void)find_taker(leaving, &is_whole);
    return leaving->phase >= HANDS_OVER && is_whole;
}

static bool
is_metastore_away(const struct leaving *leaving)
{
    return membership_confirmed_ds(leaving->worker->membership) + NEWS_DS_MAX <
           clock_boot_ds();
}

static void
stay_without_metastore(struct leaving *leaving)
{
    leaving_stay(leaving,
                 "the metastore does not answer, so nobody could be told where "
                 "the objects of this node are");
}

/* It stayed, and a member has what is ours: it did not hear that we stay, or took it behind
 * our call. */
static void
call_back_again(struct leaving *leaving, uint64_t now_ms)
{
    bool is_whole;
    const struct member *taker = find_taker(leaving, &is_whole);
    if (taker == NULL || now_ms < leaving->logged_ms + CALL_MS)
        return;
    leaving->logged_ms = now_ms;
    leaving->taker = (struct arena_id){taker->node, taker->incarnation};
    leaving_call_back(leaving);
}

void
leaving_tick(struct worker *worker)
{
    struct leaving *leaving = worker->leaving;
    uint64_t now_ms = clock_monotonic_ms();
    if (leaving == NULL || worker->is_leaving)
        return;
    if (leaving->phase == STAYS) {
        call_back_again(leaving, now_ms);
    } else if (is_taker_lost(leaving) && !do_all_know(leaving)) {
        leaving->has_given = false;
        leaving_stay(leaving,
                     "%s, which was to take over what this node has, is lost; %" PRIu64
                     " objects (%.1f MiB) are still to be moved",
                     leaving->to, leaving->all.objects,
                     leaving_mib(leaving->all.bytes));
    } else if (leaving->phase == ASKS_FOR_ROOM && now_ms >= leaving->until_ms) {
        choose(leaving);
    } else if (leaving->phase == MOVES && is_metastore_away(leaving)) {
        stay_without_metastore(leaving);
    } else if (leaving->phase == MOVES) {
        log_progress(leaving, now_ms);
        leaving_advance(leaving);
    } else if (leaving->phase == IS_TOLD && do_all_know(leaving)) {
        leaving->phase = LINGERS;
        leaving->until_ms = now_ms + LINGER_MS;
    } else if (leaving->phase == IS_TOLD && now_ms >= leaving->until_ms) {
        leaving_stay(leaving,
                     "the metastore does not tell the others that %s has the blocks "
                     "of this node",
                     leaving->to);
    } else if (leaving->phase == HAS_NOTHING && leaving->ends_alone &&
               !is_alone(worker)) {
        leaving_stay(leaving, "another member came that can take what only this node "
                              "has; try again");
    } else if ((leaving->phase == LINGERS || leaving->phase == HAS_NOTHING) &&
               now_ms >= leaving->until_ms) {
        leaving->phase = GOES;
        worker_end(worker);
    }
}

/* ---- LEAVE ---- */

/* Nor is there anything that its client will be told is there. */
static bool
has_nothing_to_move(struct leaving *leaving)
{
    struct amount blocks = leaving_collect(leaving, false);
    struct amount keys = leaving_collect(leaving, true);
    leaving->all = (struct amount){blocks.objects + keys.objects,
                                   blocks.bytes + keys.bytes, blocks.room + keys.room};
    leaving->count = leaving->at = 0;
    return leaving->all.objects == 0 && !keys_are_binding(leaving->worker);
}

/* What an earlier attempt left is of the past. False when out of memory. */
static bool
reset(struct worker *worker)
{
    struct leaving *leaving = worker->leaving;
    if (leaving == NULL && (leaving = calloc(1, sizeof *leaving)) == NULL)
        return false;
    uint64_t *told =
        calloc(store_header(worker->store)->slot_count, sizeof *leaving->told);
    uint32_t round = leaving->round + 1;
    DS_ASSERT(leaving->told == NULL && leaving->refs == NULL);
    DS_ASSERT(leaving->open_steps == 0);
    *leaving = (struct leaving){.worker = worker, .round = round, .told = told};
    worker->leaving = leaving;
    return told != NULL;
}

static enum ds_status
begin(struct worker *worker, struct ds_error *err)
{
    if (worker->leaving != NULL && worker->leaving->open_steps > 0)
        return ds_fail(err, DS_NOT_READY,
                       "what was under way when the worker stayed last time is not "
                       "answered yet; try again in a minute");
    if (!reset(worker))
        return ds_fail(err, DS_NO_MEMORY, "worker is out of memory");
    struct leaving *leaving = worker->leaving;
    if (has_nothing_to_move(leaving))
        end_with_nothing(leaving);
    else if (is_metastore_away(leaving))
        stay_without_metastore(leaving);
    else
        ask_all_for_room(leaving);
    return DS_OK;
}

static const char *
state_of(const struct leaving *leaving)
{
    if (leaving->phase == STAYS)
        return "staying";
    if (leaving->phase == HAS_NOTHING)
        return "nothing";
    return leaving->phase < HANDS_OVER ? "moving" : "moved";
}

static void
reply(struct session *session, const struct frame_header *header, const char *state)
{
    static const struct leaving nothing;
    char json[JSON_BYTES];
    const struct leaving *leaving = session->worker->leaving;
    if (leaving == NULL)
        leaving = &nothing;
    int bytes =
        snprintf(json, sizeof json,
                 "{\"state\": \"%s\", \"to\": \"%s\", \"moved_objects\": %" PRIu64
                 ", \"objects\": %" PRIu64 ", \"moved_bytes\": %" PRIu64
                 ", \"bytes\": %" PRIu64 ", \"reason\": \"%s\"}",
                 state != NULL ? state : state_of(leaving), leaving->to,
                 leaving->moved.objects, leaving->all.objects, leaving->moved.bytes,
                 leaving->all.bytes, leaving->reason);
    DS_ASSERT(bytes > 0 && (size_t)bytes < sizeof json);
    conn_reply(session->conn, header, slice(json, (size_t)bytes));
}

void
handle_leave(struct session *session, const struct frame_header *header,
             struct ds_slice body)
{
    struct worker *worker = session->worker;
    enum leave_action action;
    struct ds_error err = {0};
    if (!decode_leave(body, &action)) {
        session_reject(session, "malformed LEAVE");
        return;
    }
    bool is_active = leaving_is_active(worker);
    bool stays = action == LEAVE_BEGIN && !is_active && is_alone(worker);
    if (action == LEAVE_BEGIN && !is_active && !stays && begin(worker, &err) != DS_OK) {
        conn_reply_error(session->conn, header, &err);
        return;
    }
    if (action == LEAVE_CANCEL && is_active && worker->leaving->phase < HANDS_OVER)
        leaving_stay(worker->leaving, "leaving was cancelled");
    reply(session, header, stays ? "nothing" : NULL);
}

void
leaving_close(struct worker *worker)
{
    struct leaving *leaving = worker->leaving;
    if (leaving == NULL)
        return;
    free(leaving->told);
    free(leaving->refs);
    writer_fini(&leaving->deleted);
    free(leaving);
}
