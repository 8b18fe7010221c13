#include "worker/copies_internal.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/planted.h"
#include "base/slice.h"
#include "base/status.h"
#include "worker/seal.h"
#include "worker/waiters.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Owner: the peers. */
struct range {
    struct peer_request request;
    struct copy *copy;
    uint64_t offset;
    struct wire_place asker; /* None: who is asked has to send it itself. */
};

static struct range *
range_of(struct peer_request *request)
{
    return CONTAINER_OF(request, struct range, request);
}

static uint64_t
hash_of(const uint8_t key[BLOCK_KEY_BYTES])
{
    return XXH3_64bits(key, BLOCK_KEY_BYTES);
}

/* NULL: it is not being fetched. */
static struct copy *
find_copy(const struct worker *worker, const uint8_t key[BLOCK_KEY_BYTES])
{
    struct hmap_node *node = hmap_chain(&worker->copies, hash_of(key));
    for (; node != NULL; node = node->next) {
        struct copy *copy = CONTAINER_OF(node, struct copy, by_key);
        if (memcmp(copy->key, key, BLOCK_KEY_BYTES) == 0)
            return copy;
    }
    return NULL;
}

/* ---- Asking ---- */

static const struct peer_request_ops range_ops;

static void
encode(const struct peer_request *request, struct writer *body)
{
    const struct range *range = CONTAINER_OF(request, const struct range, request);
    struct lookup lookup = {.flags = LOOKUP_BLOCKS | LOOKUP_RANGE,
                            .range_offset = range->offset,
                            .range_bytes = RANGE_BYTES,
                            .asker = range->asker};
    if (range->asker.node != 0)
        lookup.flags |= LOOKUP_RELAY;
    struct ds_slice key = slice(range->copy->key, BLOCK_KEY_BYTES);
    encode_lookup(body, &lookup, &key, 1);
}

/* Blocks are moved when their node leaves. A user's object is where its name says: what is
 * moved gets another name. */
static struct arena_id
place_of(const struct worker *worker, const uint8_t key[BLOCK_KEY_BYTES])
{
    struct ds_block_id block;
    struct object_name name;
    memcpy(&block, key, sizeof block); /* The key begins with it. */
    struct block_birth birth = wire_block_birth(&block);
    struct arena_id born = {birth.node, birth.incarnation};
    return wire_object_name(slice(key, BLOCK_KEY_BYTES), &name)
               ? born
               : arenas_find(worker, born);
}

/* A copy that is not kept is no help to others. */
static bool
may_relay(const struct worker *worker, const struct copy *copy)
{
    return copy->take == NULL && copy->relay.node == 0 && !copy->is_direct &&
           worker->flags->enable_data_replication;
}

static bool
ask_range(struct worker *worker, struct copy *copy, uint64_t offset)
{
    struct arena_id own = arenas_own(worker);
    struct arena_id from = copy->relay.node != 0 ? copy->relay : copy->at;
    struct range *range = calloc(1, sizeof *range);
    if (range == NULL)
        return false;
    *range = (struct range){.request = {.ops = &range_ops,
                                        .node = from.node,
                                        .incarnation = from.incarnation},
                            .copy = copy,
                            .offset = offset};
    if (offset == 0 && may_relay(worker, copy))
        range->asker = (struct wire_place){own.node, own.incarnation};
    if (!peers_ask(worker->peers, &range->request)) {
        free(range);
        return false;
    }
    copy->under_way++;
    return true;
}

static void
go_direct(struct copy *copy)
{
    copy->relay = (struct arena_id){0};
    copy->is_direct = true;
}

/* False: nobody can be asked. */
static bool
ask_anyone(struct worker *worker, struct copy *copy, uint64_t offset)
{
    if (ask_range(worker, copy, offset))
        return true;
    if (copy->relay.node == 0)
        return false;
    go_direct(copy);
    return ask_range(worker, copy, offset);
}

bool
copy_ask_next(struct worker *worker, struct copy *copy)
{
    if (!ask_anyone(worker, copy, copy->asked))
        return false;
    copy->asked += RANGE_BYTES;
    return true;
}

static void
ask_more(struct worker *worker, struct copy *copy)
{
    DS_ASSERT(copy->pieces != NULL);
    while (!copy->has_failed && copy->under_way < RANGES_MAX &&
           copy->asked < copy->view.size)
        copy->has_failed = !copy_ask_next(worker, copy);
}

/* ---- A range arrives ---- */

/* False: it is not there, or the answer is malformed. */
static bool
read_answer(const struct range *range, const struct peer_answer *answer,
            struct wire_value *out)
{
    struct fetched list;
    if (answer->header == NULL || answer->header->status != DS_OK ||
        !decode_fetched(answer->body, &list) || list.count != 1 ||
        !next_value(&list, out) || !out->found || out->total <= range->offset)
        return false;
    return out->size == min_u64(RANGE_BYTES, out->total - range->offset) &&
           out->size == answer->header->payload_bytes;
}

bool
copy_begin_arriving(struct worker *worker, struct copy *copy, uint64_t bytes)
{
    if (!copy_reserve(worker, copy, bytes))
        return false;
    ask_more(worker, copy);
    return true;
}

/* Of the first range the size of the part is known by: its place is reserved then. */
static void *
on_payload_begin(struct worker *worker, struct peer_request *request,
                 const struct peer_answer *answer)
{
    struct range *range = range_of(request);
    struct copy *copy = range->copy;
    struct wire_value value;
    if (copy->has_failed || !read_answer(range, answer, &value))
        return NULL;
    if (copy->pieces == NULL && !copy_begin_arriving(worker, copy, value.total))
        return NULL;
    return value.total == copy->view.size
               ? copy_place(worker, copy, range->offset, value.size)
               : NULL;
}

static enum ds_status
fail_damaged(struct worker *worker, struct copy *copy, struct ds_error *err)
{
    worker->counters.damaged++;
    copy->damage_count++;
    copy->is_damaged = true;
    (void)ds_fail(err, DS_CORRUPT, "its checksum is not the one that was sent");
    copy_refuse(worker, copy, "got what another node has damaged, again and again",
                err);
    return DS_CORRUPT;
}

/* It lies where it belongs; not when the copy had failed before it came. */
static enum ds_status
take_range(struct worker *worker, const struct range *range,
           const struct peer_answer *answer, struct ds_error *err)
{
    struct copy *copy = range->copy;
    struct wire_value value;
    if (copy->has_failed || copy->pieces == NULL ||
        !read_answer(range, answer, &value) || value.total != copy->view.size)
        return ds_fail(err, DS_IO, "its bytes did not all arrive");
    uint64_t *pieces = copy->pieces + range->offset / CHECKSUM_PIECE_BYTES;
    const uint8_t *bytes = worker->arena + copy->view.offset + range->offset;
    size_t count = 0;
    for (uint64_t at = 0; at < value.size; at += CHECKSUM_PIECE_BYTES)
        pieces[count++] =
            checksum_of(bytes + at, min_u64(CHECKSUM_PIECE_BYTES, value.size - at));
    if (value.whole.known)
        copy->whole = value.whole;
    else if (checksum_of_pieces(pieces, count) != value.checksum &&
             !PLANTED(UNCOMPARED_COPY))
        return fail_damaged(worker, copy, err);
    return DS_OK;
}

/* ---- The end ---- */

/* Seals the copy, or hands it over, if it is what was sent. */
static enum ds_status
take_part(struct worker *worker, struct copy *copy, struct ds_error *err)
{
    const struct object_view *view = &copy->view;
    uint64_t found = checksum_of_pieces(copy->pieces, copy_piece_count(copy));
    struct objects_seal seal = {.ref = view->ref,
                                .ttl_seconds = copies_ttl_s(worker),
                                .checksum = {true, found}};
    if (copy->whole.known && copy->whole.value != found && !PLANTED(UNCOMPARED_COPY))
        return fail_damaged(worker, copy, err);
    if (copy->take == NULL)
        return objects_seal(worker, &seal, err);
    copy->take->ref = view->ref;
    copy->take->checksum = found;
    copy->take->has_arrived = true;
    return DS_OK;
}

static void
give_up(struct copy *copy, const struct ds_error *err)
{
    if (copy->pieces != NULL && !copy->has_failed)
        log_warn("worker gives up a copy of a block's part bytes=%ju reason=\"%s\"",
                 (uintmax_t)copy->view.size, err->message);
    copy->has_failed = true;
}

/* Its node has left meanwhile, and gave it to another one, which is asked now; or what was
 * passed on to us was not what it should be, and who has it is asked; or asked again. */
static bool
begin_again(struct worker *worker, struct copy *copy)
{
    struct arena_id at = place_of(worker, copy->key);
    bool is_same = arena_id_equal(at, copy->at);
    bool is_bad_luck = copy->is_damaged && copy->damage_count < DAMAGES_MAX;
    if (!copy->has_failed || at.node == 0 || arena_id_equal(at, arenas_own(worker)) ||
        (is_same && copy->relay.node == 0 && !is_bad_luck))
        return false;
    copy_let_go(worker, copy);
    copy->at = at;
    copy->relay = (struct arena_id){0};
    copy->is_direct = is_same;
    copy->asked = 0;
    copy->whole = (struct wire_checksum){0};
    free(copy->refusal);
    copy->refusal = NULL;
    copy->is_damaged = false;
    copy->has_failed = !copy_ask_next(worker, copy);
    return !copy->has_failed;
}

/* ---- Passing on what is arriving ---- */

/* Who waits for a range waits for this key. */
static struct ds_slice
range_key(const uint8_t key[BLOCK_KEY_BYTES], uint64_t offset,
          uint8_t out[RANGE_KEY_BYTES])
{
    memcpy(out, key, BLOCK_KEY_BYTES);
    memcpy(out + BLOCK_KEY_BYTES, &offset, sizeof offset);
    return slice(out, RANGE_KEY_BYTES);
}

/* It is here, or gone, or is there and cannot be had. */
static void
wake_for(struct worker *worker, const struct copy *copy, struct ds_slice key)
{
    waiters_key_settled(worker, key, copy->has_failed ? copy->refusal : NULL);
}

static void
wake_for_range(struct worker *worker, const struct copy *copy, uint64_t offset)
{
    uint8_t key[RANGE_KEY_BYTES];
    wake_for(worker, copy, range_key(copy->key, offset, key));
}

/* Who waits for it, or for a range of it, looks again. */
static void
wake(struct worker *worker, const struct copy *copy)
{
    wake_for(worker, copy, slice(copy->key, BLOCK_KEY_BYTES));
    for (size_t i = 0; i < copy_range_count(copy); i++)
        wake_for_range(worker, copy, i * RANGE_BYTES);
}

/* One range of one part, as we ask for them. */
static bool
asks_for_range(const struct lookup *message)
{
    uint32_t flags = LOOKUP_BLOCKS | LOOKUP_RANGE;
    return (message->flags & flags) == flags && message->keys.count == 1 &&
           message->range_bytes == RANGE_BYTES &&
           message->range_offset % RANGE_BYTES == 0;
}

struct ds_slice
copies_awaited(const struct lookup *message, struct ds_slice key,
               uint8_t buffer[RANGE_KEY_BYTES])
{
    return asks_for_range(message) ? range_key(key.data, message->range_offset, buffer)
                                   : key;
}

bool
copies_find_range(const struct worker *worker, const struct lookup *message,
                  struct ds_slice key, struct object_view *out,
                  struct wire_value *value)
{
    uint64_t offset = message->range_offset;
    struct copy *copy = asks_for_range(message) && key.len == BLOCK_KEY_BYTES
                            ? find_copy(worker, key.data)
                            : NULL;
    if (copy == NULL || copy->pieces == NULL || copy->has_failed ||
        offset >= copy->view.size || !copy->has_arrived[offset / RANGE_BYTES])
        return false;
    size_t first = offset / CHECKSUM_PIECE_BYTES;
    size_t count =
        min_u64(RANGE_BYTES / CHECKSUM_PIECE_BYTES, copy_piece_count(copy) - first);
    *out = copy->view;
    value->checksum = checksum_of_pieces(copy->pieces + first, count);
    value->whole = copy->whole;
    return true;
}

/* Whoever waits looks again: at what is there now, or at nothing. */
void
copy_finish(struct worker *worker, struct copy *copy)
{
    struct ds_error err = {0};
    struct copy_take *take = copy->take;
    if (!copy->has_failed && take_part(worker, copy, &err) != DS_OK)
        give_up(copy, &err);
    if (begin_again(worker, copy))
        return;
    copy_let_go(worker, copy);
    if (take == NULL) {
        hmap_remove(&worker->copies, &copy->by_key);
        if (!PLANTED(UNTOLD_WAITER))
            wake(worker, copy);
    }
    free(copy->refusal);
    free(copy);
    if (take != NULL)
        take->done(worker, take);
}

/* We are told to ask another worker for it. */
static bool
is_relayed(const struct range *range, const struct peer_answer *answer,
           struct arena_id *out)
{
    struct wire_value value;
    struct fetched list;
    if (range->asker.node == 0 || answer->header == NULL ||
        answer->header->status != DS_OK || answer->header->payload_bytes != 0 ||
        !decode_fetched(answer->body, &list) || list.count != 1 ||
        !next_value(&list, &value) || !value.found || value.relay.node == 0)
        return false;
    *out = (struct arena_id){value.relay.node, value.relay.incarnation};
    return true;
}

/* False: it cannot be had. */
static bool
ask_again(struct worker *worker, const struct range *range,
          const struct peer_answer *answer)
{
    struct copy *copy = range->copy;
    struct arena_id asked = {range->request.node, range->request.incarnation};
    struct arena_id relay;
    if (copy->has_failed)
        return false;
    bool is_told = is_relayed(range, answer, &relay);
    if (!is_told && arena_id_equal(asked, copy->at))
        return false;
    if (is_told && peers_know(worker->peers, relay.node, relay.incarnation))
        copy->relay = relay;
    else
        go_direct(copy);
    return ask_anyone(worker, copy, range->offset);
}

static void
end(struct worker *worker, struct peer_request *request,
    const struct peer_answer *answer)
{
    struct range *range = range_of(request);
    struct copy *copy = range->copy;
    struct ds_error err = {0};
    copy->under_way--;
    if (take_range(worker, range, answer, &err) == DS_OK) {
        copy->has_arrived[range->offset / RANGE_BYTES] = true;
        wake_for_range(worker, copy, range->offset);
        ask_more(worker, copy);
    } else if (!ask_again(worker, range, answer)) {
        give_up(copy, &err);
    }
    free(range);
    if (copy->under_way == 0)
        copy_finish(worker, copy);
}

static const struct peer_request_ops range_ops = {
    .type = MESSAGE_FETCH,
    .tries_max = 2,
    .in_any_order = true,
    .encode = encode,
    .on_payload_begin = on_payload_begin,
    .end = end,
};

/* ---- Beginning ---- */

static bool
is_mostly_small(const uint8_t key[BLOCK_KEY_BYTES])
{
    static const uint8_t zero[BLOCK_KEY_BYTES - sizeof(struct ds_block_id)];
    struct object_name name;
    if (wire_object_name(slice(key, BLOCK_KEY_BYTES), &name))
        return true;
    return memcmp(key + sizeof(struct ds_block_id), zero, sizeof zero) == 0;
}

static struct copy *
copy_new(const uint8_t key[BLOCK_KEY_BYTES], struct arena_id at)
{
    struct copy *copy = calloc(1, sizeof *copy);
    if (copy == NULL)
        return NULL;
    memcpy(copy->key, key, BLOCK_KEY_BYTES);
    copy->at = at;
    list_init(&copy->unasked);
    return copy;
}

bool
copies_take(struct worker *worker, const struct object_name *object,
            struct copy_take *take)
{
    uint8_t key[BLOCK_KEY_BYTES];
    wire_object_key(object, key);
    struct arena_id at = place_of(worker, key);
    struct copy *copy =
        peers_know(worker->peers, at.node, at.incarnation) ? copy_new(key, at) : NULL;
    take->has_arrived = false;
    if (copy == NULL)
        return false;
    copy->take = take;
    list_push_back(&worker->copies_unasked, &copy->unasked);
    return true;
}

bool
copies_fetch(struct worker *worker, struct ds_slice key)
{
    if (key.len != BLOCK_KEY_BYTES)
        return false;
    struct arena_id at = place_of(worker, key.data);
    if (arena_id_equal(at, arenas_own(worker)) ||
        !peers_know(worker->peers, at.node, at.incarnation))
        return false;
    if (find_copy(worker, key.data) != NULL)
        return true;
    struct copy *copy = copy_new(key.data, at);
    if (copy == NULL)
        return false;
    if (!hmap_insert(&worker->copies, &copy->by_key, hash_of(copy->key))) {
        free(copy);
        return false;
    }
    if (is_mostly_small(copy->key)) {
        list_push_back(&worker->copies_unasked, &copy->unasked);
        return true;
    }
    if (copy_ask_next(worker, copy))
        return true;
    hmap_remove(&worker->copies, &copy->by_key);
    free(copy);
    return false;
}
