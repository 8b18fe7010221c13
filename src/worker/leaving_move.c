/* What a worker that leaves gives to the one that takes over, request by request. */
#include "base/check.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/slice.h"
#include "os/clock.h"
#include "wire/leaving.h"
#include "worker/blocks.h"
#include "worker/keys.h"
#include "worker/leaving_internal.h"
#include "worker/objects.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t BATCH_BYTES_MAX = 64
                                        << 20; /* Of one request, but for the first. */

/* Of ids of deleted blocks in one. */
enum { DELETED_MAX = 65536 };

/* What goes by one request. */
enum kind { KIND_ADOPTED, KIND_PROVISIONAL, KIND_KEY };

/* ---- What is to be moved ---- */

static bool
is_told(const struct leaving *leaving, struct object_ref ref)
{
    return leaving->told[ref.slot] == ref.generation + 1;
}

static bool
is_ours(const struct worker *worker, struct ds_slice key)
{
    return wire_is_block_key(key) && arenas_is_here(worker, arenas_birth(key));
}

static void
append(struct leaving *leaving, struct object_ref ref)
{
    if (leaving->count == leaving->capacity) {
        size_t capacity = max_u64(1024, 2 * leaving->capacity);
        struct object_ref *refs = realloc(leaving->refs, capacity * sizeof *refs);
        leaving->is_out_of_memory = leaving->is_out_of_memory || refs == NULL;
        if (refs == NULL)
            return;
        leaving->refs = refs;
        leaving->capacity = capacity;
    }
    leaving->refs[leaving->count++] = ref;
}

struct collection {
    struct leaving *leaving;
    bool of_keys;
    struct amount amount;
};

static void
collect_one(const struct object_view *view, struct ds_slice key, void *arg)
{
    struct collection *collection = arg;
    struct leaving *leaving = collection->leaving;
    bool is_block = (view->flags & SLOT_FLAG_BLOCK) != 0;
    if ((view->flags & SLOT_FLAG_COPY) != 0 || is_block == collection->of_keys ||
        is_told(leaving, view->ref) || (PLANTED(KEPT_KEY) && view->ref.slot % 2 == 0) ||
        (is_block ? !is_ours(leaving->worker, key) : !wire_user_key_is_legal(key)))
        return;
    append(leaving, view->ref);
    collection->amount.objects++;
    collection->amount.bytes += view->size;
    collection->amount.room += extent_bytes(view->size);
}

struct amount
leaving_collect(struct leaving *leaving, bool of_keys)
{
    struct collection collection = {.leaving = leaving, .of_keys = of_keys};
    leaving->count = leaving->at = 0;
    leaving->taken_count = leaving->refused_count = 0;
    store_each(leaving->worker->store, collect_one, &collection);
    return collection.amount;
}

/* ---- Requests to others ---- */

/* Owner: the peers. */
struct step {
    struct peer_request request;
    uint32_t round;
    struct writer body;
};

static void
encode(const struct peer_request *request, struct writer *body)
{
    const struct step *step = CONTAINER_OF(request, const struct step, request);
    write_bytes(body, slice(step->body.data, step->body.len));
}

static void on_answer(struct leaving *leaving, const struct peer_request *request,
                      const struct peer_answer *answer);

static void
end(struct worker *worker, struct peer_request *request,
    const struct peer_answer *answer)
{
    struct step *step = CONTAINER_OF(request, struct step, request);
    struct leaving *leaving = worker->leaving;
    leaving->open_steps--;
    if (!worker->stopping && leaving->round == step->round)
        on_answer(leaving, request, answer);
    writer_fini(&step->body);
    free(step);
}

#define STEP_OPS(name, message)                   \
    static const struct peer_request_ops name = { \
        .type = (message), .encode = encode, .end = end}
STEP_OPS(room_ops, MESSAGE_TAKE_ROOM);
STEP_OPS(take_ops, MESSAGE_TAKE);
STEP_OPS(take_keys_ops, MESSAGE_TAKE_KEYS);
STEP_OPS(delete_ops, MESSAGE_BLOCK_DELETE);
STEP_OPS(end_ops, MESSAGE_TAKE_END);

/* Takes what is in `body`. False: there is no memory, or nobody to be asked. */
static bool
ask(struct leaving *leaving, const struct peer_request_ops *ops, struct arena_id to,
    struct writer *body)
{
    struct step *step = calloc(1, sizeof *step);
    if (step == NULL || body->failed) {
        free(step);
        return false;
    }
    step->request = (struct peer_request){
        .ops = ops, .node = to.node, .incarnation = to.incarnation};
    list_init(&step->request.link);
    step->round = leaving->round;
    step->body = *body;
    if (!peers_ask(leaving->worker->peers, &step->request)) {
        free(step);
        return false;
    }
    *body = (struct writer){0};
    leaving->open_steps++;
    return true;
}

/* The next is not sent before it is answered. At the next tick, if it cannot be now. */
static void
ask_taker(struct leaving *leaving, const struct peer_request_ops *ops,
          struct writer *body)
{
    leaving->is_under_way = ask(leaving, ops, leaving->taker, body);
}

bool
leaving_ask_for_room(struct leaving *leaving, struct arena_id member)
{
    AUTO_WRITER(nothing);
    return ask(leaving, &room_ops, member, &nothing);
}

/* This process. */
static struct wire_giver
giver_of(const struct worker *worker)
{
    struct arena_id own = arenas_own(worker);
    return (struct wire_giver){own.node, own.incarnation, (uint32_t)worker->restarts};
}

static void
encode_all_arenas(const struct leaving *leaving, bool is_whole, struct writer *body)
{
    struct wire_giver giver = giver_of(leaving->worker);
    AUTO_WRITER(arenas);
    arenas_encode_ours(leaving->worker, is_whole, &arenas);
    encode_take_end(body, &giver, slice(arenas.data, arenas.len));
    body->failed = body->failed || arenas.failed;
}

void
leaving_call_back(struct leaving *leaving)
{
    AUTO_WRITER(body);
    encode_all_arenas(leaving, false, &body);
    (void)ask(leaving, &end_ops, leaving->taker, &body);
}

/* ---- Moving ---- */

static bool
find_sealed(const struct leaving *leaving, struct object_ref ref,
            struct object_view *out)
{
    enum slot_state state;
    return store_inspect(leaving->worker->store, ref.slot, out, &state) &&
           state == SLOT_SEALED && out->ref.generation == ref.generation;
}

static enum kind
kind_of(const struct object_view *view)
{
    if ((view->flags & SLOT_FLAG_BLOCK) == 0)
        return KIND_KEY;
    return (view->flags & SLOT_FLAG_PROVISIONAL) != 0 ? KIND_PROVISIONAL : KIND_ADOPTED;
}

/* The next of one kind, as many as go by one request. */
static enum kind
choose_batch(struct leaving *leaving)
{
    enum kind kind = KIND_ADOPTED;
    uint64_t bytes = 0;
    struct object_view view;
    leaving->batch_count = 0;
    for (; leaving->at < leaving->count && leaving->batch_count < LEAVING_BATCH_MAX;
         leaving->at++) {
        if (!find_sealed(leaving, leaving->refs[leaving->at], &view))
            continue;
        if (leaving->batch_count == 0)
            kind = kind_of(&view);
        bytes += view.size;
        if (leaving->batch_count > 0 &&
            (kind_of(&view) != kind || bytes > BATCH_BYTES_MAX))
            break;
        leaving->batch[leaving->batch_count++] = view;
    }
    return kind;
}

static void
offer_blocks(struct leaving *leaving, enum kind kind)
{
    struct lookup lookup = {.flags = LOOKUP_BLOCKS};
    struct wire_giver giver = giver_of(leaving->worker);
    uint8_t buffer[DS_KEY_BYTES_MAX];
    AUTO_WRITER(body);
    if (kind == KIND_PROVISIONAL)
        lookup.flags |= LOOKUP_PROVISIONAL;
    encode_take_begin(&body, &giver);
    encode_lookup(&body, &lookup, NULL, 0);
    if (!body.failed)
        patch_u32(&body, body.len - 4, leaving->batch_count);
    for (uint32_t i = 0; i < leaving->batch_count; i++)
        write_short_bytes(&body, store_key(leaving->worker->store,
                                           leaving->batch[i].ref.slot, buffer));
    ask_taker(leaving, &take_ops, &body);
}

static void
offer_keys(struct leaving *leaving)
{
    struct worker *worker = leaving->worker;
    uint8_t buffer[DS_KEY_BYTES_MAX];
    AUTO_WRITER(body);
    encode_take_keys_begin(&body, leaving->batch_count);
    for (uint32_t i = 0; i < leaving->batch_count; i++) {
        const struct object_view *view = &leaving->batch[i];
        struct wire_take_key key = {
            .object = objects_name(worker, view->ref),
            .is_evictable = (view->flags & SLOT_FLAG_EVICTABLE) != 0,
            .key = store_key(worker->store, view->ref.slot, buffer)};
        encode_take_key(&body, &key);
    }
    ask_taker(leaving, &take_keys_ops, &body);
}

/* False: there is none. */
static bool
offer_batch(struct leaving *leaving)
{
    size_t before = leaving->at;
    enum kind kind = choose_batch(leaving);
    if (leaving->batch_count == 0)
        return false;
    leaving->has_given = true;
    if (kind == KIND_KEY)
        offer_keys(leaving);
    else
        offer_blocks(leaving, kind);
    if (!leaving->is_under_way)
        leaving->at = before;
    return true;
}

/* What was deleted while the taker took it. False: there is nothing. */
static bool
pass_on_deleted(struct leaving *leaving)
{
    AUTO_WRITER(body);
    struct writer *deleted = &leaving->deleted;
    size_t bytes = min_u64(deleted->len, DELETED_MAX * sizeof(struct ds_block_id));
    if (bytes == 0)
        return false;
    encode_block_ids(&body, (const struct ds_block_id *)deleted->data,
                     bytes / sizeof(struct ds_block_id));
    ask_taker(leaving, &delete_ops, &body);
    if (!leaving->is_under_way)
        return true;
    memmove(deleted->data, deleted->data + bytes, deleted->len - bytes);
    deleted->len -= bytes;
    return true;
}

/* Looks through the table once more. False: the taker has all. */
static bool
find_more(struct leaving *leaving)
{
    bool was_refused = leaving->refused_count > 0 && leaving->taken_count == 0;
    struct amount left = leaving_collect(leaving, false);
    if (left.objects == 0)
        left = leaving_collect(leaving, true);
    if (leaving->is_out_of_memory || leaving->deleted.failed)
        leaving_stay(leaving, "it is out of memory for the list of its objects");
    else if (was_refused && left.objects > 0)
        leaving_stay(leaving,
                     "%s has no room for, or cannot fetch, %" PRIu64 " of %" PRIu64
                     " objects (%.1f of %.1f MiB); its log has the reason",
                     leaving->to, left.objects, leaving->all.objects,
                     leaving_mib(left.bytes), leaving_mib(leaving->all.bytes));
    return left.objects > 0 || leaving->phase != MOVES;
}

/* From now on the taker's word counts. Nothing was sealed or deleted since it was found
 * that it has all, but a key's owner may still say that an object is to be sealed: then at
 * another tick. */
static void
hand_over(struct leaving *leaving)
{
    AUTO_WRITER(body);
    if (keys_are_binding(leaving->worker))
        return;
    encode_all_arenas(leaving, true, &body);
    leaving->has_given = true;
    ask_taker(leaving, &end_ops, &body);
    if (leaving->is_under_way)
        leaving->phase = HANDS_OVER;
}

void
leaving_advance(struct leaving *leaving)
{
    while (leaving->phase == MOVES && !leaving->is_under_way) {
        if (pass_on_deleted(leaving) || offer_batch(leaving)) {
            if (!leaving->is_under_way)
                return;
        } else if (!find_more(leaving)) {
            hand_over(leaving);
            return;
        }
    }
}

/* ---- Answers ---- */

/* False: it is malformed. */
static bool
take_flags(struct leaving *leaving, struct ds_slice body)
{
    uint32_t count;
    const uint8_t *flags;
    if (!decode_flags(body, &count, &flags) || count != leaving->batch_count)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        const struct object_view *view = &leaving->batch[i];
        struct object_view now;
        bool is_here = find_sealed(leaving, view->ref, &now);
        leaving->refused_count += flags[i] == 0 && is_here;
        leaving->taken_count += flags[i] != 0;
        if (flags[i] == 0 || (is_here && kind_of(&now) != kind_of(view)))
            continue; /* Or it was adopted meanwhile: once more. */
        leaving->told[view->ref.slot] = view->ref.generation + 1;
        leaving->moved.objects++;
        leaving->moved.bytes += view->size;
    }
    return true;
}

static void
take_answer(struct leaving *leaving, enum message_type type, struct ds_slice body)
{
    if (type == MESSAGE_TAKE_END) {
        leaving->phase = IS_TOLD;
        leaving->until_ms = clock_monotonic_ms() + LEAVING_TOLD_MS;
    } else if ((type == MESSAGE_TAKE || type == MESSAGE_TAKE_KEYS) &&
               !take_flags(leaving, body)) {
        leaving_stay(leaving, "%s gave an answer that makes no sense", leaving->to);
    }
    leaving_advance(leaving);
}

/* Without an answer the taker is no member any more, which is looked for at each tick. */
static void
on_answer(struct leaving *leaving, const struct peer_request *request,
          const struct peer_answer *answer)
{
    if (request->ops->type == MESSAGE_TAKE_ROOM) {
        leaving_take_room(leaving, request, answer);
        return;
    }
    if (leaving->phase == STAYS)
        return; /* It has called back what the taker still had. */
    leaving->is_under_way = false;
    if (answer->header == NULL)
        return;
    if (answer->header->status == DS_OK)
        take_answer(leaving, request->ops->type, answer->body);
    else
        leaving_stay(leaving, "%s does not take over what this node has: %.*s",
                     leaving->to, (int)min_u64(answer->body.len, 256),
                     (const char *)answer->body.data);
}

/* ---- Orders for blocks ---- */

/* A part that the taker has as one that is not adopted is offered once more. */
static void
forget_told(struct leaving *leaving, struct ds_block_id id)
{
    struct object_view view;
    for (uint32_t i = 0; blocks_find_part(leaving->worker, id, i, &view); i++) {
        if (!is_told(leaving, view.ref))
            continue;
        leaving->told[view.ref.slot] = 0;
        leaving->moved.objects--;
        leaving->moved.bytes -= view.size;
    }
}

void
leaving_note_order(struct worker *worker, enum message_type type, struct ds_block_id id)
{
    struct leaving *leaving = worker->leaving;
    if (leaving == NULL || leaving->phase != MOVES)
        return;
    if (type == MESSAGE_BLOCK_ADOPT)
        forget_told(leaving, id);
    else if (!PLANTED(KEPT_BLOCK))
        write_bytes(&leaving->deleted, slice(id.bytes, sizeof id.bytes));
}
