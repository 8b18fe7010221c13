#include "worker/copies.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/checksum.h"
#include "os/clock.h"
#include "worker/arenas.h"
#include "worker/creates.h"
#include "worker/peers.h"
#include "worker/seal.h"
#include "worker/waiters.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* A range is asked for, and compared, as one, while it is in a cache. So many of a part
 * are under way at once: all connections to its node have the next one waiting. */
enum {
    RANGE_BYTES = 2 * CHECKSUM_PIECE_BYTES,
    RANGES_MAX = 8,
};

/* First parts, and users' objects, of which most are small, are asked for together: so much
 * of each. */
enum {
    BATCH_PARTS_MAX = 64,
    BATCH_BYTES_EACH = 64 << 10,
};

/* A part on its way. Owner: its ranges under way together. Invariants: `view` is reserved,
 * and held, exactly while `pieces` is there; bytes [0, asked) were asked for. */
struct copy {
    struct hmap_node by_key; /* In worker->copies. */
    struct list unasked;     /* In worker->copies_unasked, or in none. */
    uint8_t key[BLOCK_KEY_BYTES];
    struct copy_take *take; /* Who gets it when it has arrived; NULL: it is a copy. */
    struct arena_id at;     /* Who is asked. */
    struct object_view view;
    uint64_t *pieces; /* Owned; checksums of what has arrived. */
    struct wire_checksum whole;
    uint64_t asked;
    uint32_t under_way;
    bool has_failed; /* It ends when nothing is under way any more. */
};

/* Owner: the peers. */
struct range {
    struct peer_request request;
    struct copy *copy;
    uint64_t offset;
};

/* Owner: the peers. */
struct batch {
    struct peer_request request;
    uint8_t *bytes; /* Owned; the beginnings of all, one behind the other. */
    uint32_t count;
    struct copy *copies[BATCH_PARTS_MAX];
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

static bool
is_asked(const struct worker *worker, const uint8_t key[BLOCK_KEY_BYTES])
{
    struct hmap_node *node = hmap_chain(&worker->copies, hash_of(key));
    for (; node != NULL; node = node->next) {
        if (memcmp(CONTAINER_OF(node, struct copy, by_key)->key, key,
                   BLOCK_KEY_BYTES) == 0)
            return true;
    }
    return false;
}

/* ---- Asking ---- */

static const struct peer_request_ops range_ops;

static void
encode(const struct peer_request *request, struct writer *body)
{
    const struct range *range = CONTAINER_OF(request, const struct range, request);
    struct lookup lookup = {.flags = LOOKUP_BLOCKS | LOOKUP_RANGE,
                            .range_offset = range->offset,
                            .range_bytes = RANGE_BYTES};
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

/* The next range; false: nobody can be asked. */
static bool
ask_next(struct worker *worker, struct copy *copy)
{
    struct range *range = calloc(1, sizeof *range);
    if (range == NULL)
        return false;
    *range = (struct range){.request = {.ops = &range_ops,
                                        .node = copy->at.node,
                                        .incarnation = copy->at.incarnation},
                            .copy = copy,
                            .offset = copy->asked};
    if (!peers_ask(worker->peers, &range->request)) {
        free(range);
        return false;
    }
    copy->asked += RANGE_BYTES;
    copy->under_way++;
    return true;
}

static void
ask_more(struct worker *worker, struct copy *copy)
{
    DS_ASSERT(copy->pieces != NULL);
    while (!copy->has_failed && copy->under_way < RANGES_MAX &&
           copy->asked < copy->view.size)
        copy->has_failed = !ask_next(worker, copy);
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

static enum ds_status
reserve(struct worker *worker, struct copy *copy, uint64_t bytes, struct ds_error *err)
{
    struct create_request request = {.key = slice(copy->key, BLOCK_KEY_BYTES),
                                     .size = bytes,
                                     .flags = SLOT_FLAG_BLOCK | SLOT_FLAG_COPY};
    if (copy->take != NULL) {
        request.key = copy->take->key;
        request.flags = copy->take->flags;
    }
    enum ds_status status =
        store_create(worker->store, &request, clock_boot_ds(), &copy->view, err);
    while (status == DS_FULL && creates_populate_for(worker, bytes))
        status =
            store_create(worker->store, &request, clock_boot_ds(), &copy->view, err);
    worker->counters.out_of_memory += status == DS_FULL;
    return status;
}

static size_t
piece_count(const struct copy *copy)
{
    return (copy->view.size + CHECKSUM_PIECE_BYTES - 1) / CHECKSUM_PIECE_BYTES;
}

/* False, with a line in the log: there is no room for so many. */
static bool
begin_arriving(struct worker *worker, struct copy *copy, uint64_t bytes)
{
    struct ds_error err = {0};
    enum ds_status status = reserve(worker, copy, bytes, &err);
    if (status == DS_OK) {
        copy->pieces = calloc(piece_count(copy), sizeof *copy->pieces);
        if (copy->pieces != NULL) {
            store_hold(worker->store, &copy->view);
            ask_more(worker, copy);
            return true;
        }
        store_abort(worker->store, copy->view.ref);
        (void)ds_fail(&err, DS_NO_MEMORY, "out of memory for its checksums");
    }
    log_warn("worker cannot copy a block's part bytes=%ju reason=\"%s\"",
             (uintmax_t)bytes, err.message);
    return false;
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
    if (copy->pieces == NULL && !begin_arriving(worker, copy, value.total))
        return NULL;
    return value.total == copy->view.size
               ? worker->arena + copy->view.offset + range->offset
               : NULL;
}

static enum ds_status
fail_damaged(struct worker *worker, struct ds_error *err)
{
    worker->counters.damaged++;
    return ds_fail(err, DS_CORRUPT, "its checksum is not the one that was sent");
}

/* It lies where it belongs. */
static enum ds_status
take_range(struct worker *worker, const struct range *range,
           const struct peer_answer *answer, struct ds_error *err)
{
    struct copy *copy = range->copy;
    struct wire_value value;
    if (copy->pieces == NULL || !read_answer(range, answer, &value) ||
        value.total != copy->view.size)
        return ds_fail(err, DS_IO, "its bytes did not all arrive");
    uint64_t *pieces = copy->pieces + range->offset / CHECKSUM_PIECE_BYTES;
    const uint8_t *bytes = worker->arena + copy->view.offset + range->offset;
    size_t count = 0;
    for (uint64_t at = 0; at < value.size; at += CHECKSUM_PIECE_BYTES)
        pieces[count++] =
            checksum_of(bytes + at, min_u64(CHECKSUM_PIECE_BYTES, value.size - at));
    if (value.whole.known)
        copy->whole = value.whole;
    else if (checksum_of_pieces(pieces, count) != value.checksum)
        return fail_damaged(worker, err);
    return DS_OK;
}

/* ---- The end ---- */

/* Seals the copy, or hands it over, if it is what was sent. */
static enum ds_status
take_part(struct worker *worker, struct copy *copy, struct ds_error *err)
{
    const struct object_view *view = &copy->view;
    uint64_t found = checksum_of_pieces(copy->pieces, piece_count(copy));
    struct objects_seal seal = {.ref = view->ref, .checksum = {true, found}};
    if (copy->whole.known && copy->whole.value != found)
        return fail_damaged(worker, err);
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

/* What was reserved for it is kept, or given back. */
static void
let_go(struct worker *worker, struct copy *copy)
{
    if (copy->pieces == NULL)
        return;
    if (copy->has_failed)
        store_abort(worker->store, copy->view.ref);
    store_unhold(worker->store, copy->view.offset);
    free(copy->pieces);
    copy->pieces = NULL;
}

/* Its node has left meanwhile, and gave it to another one, which is asked now. */
static bool
begin_again(struct worker *worker, struct copy *copy)
{
    struct arena_id at = place_of(worker, copy->key);
    if (!copy->has_failed || at.node == 0 || arena_id_equal(at, copy->at) ||
        arena_id_equal(at, arenas_own(worker)))
        return false;
    let_go(worker, copy);
    copy->at = at;
    copy->asked = 0;
    copy->whole = (struct wire_checksum){0};
    copy->has_failed = !ask_next(worker, copy);
    return !copy->has_failed;
}

/* Whoever waits looks again: at what is there now, or at nothing. */
static void
finish(struct worker *worker, struct copy *copy)
{
    struct ds_error err = {0};
    struct copy_take *take = copy->take;
    if (!copy->has_failed && take_part(worker, copy, &err) != DS_OK)
        give_up(copy, &err);
    if (begin_again(worker, copy))
        return;
    let_go(worker, copy);
    if (take == NULL) {
        hmap_remove(&worker->copies, &copy->by_key);
        waiters_key_appeared(worker, slice(copy->key, BLOCK_KEY_BYTES));
    }
    free(copy);
    if (take != NULL)
        take->done(worker, take);
}

static void
end(struct worker *worker, struct peer_request *request,
    const struct peer_answer *answer)
{
    struct range *range = range_of(request);
    struct copy *copy = range->copy;
    struct ds_error err = {0};
    copy->under_way--;
    if (take_range(worker, range, answer, &err) != DS_OK)
        give_up(copy, &err);
    else
        ask_more(worker, copy);
    free(range);
    if (copy->under_way == 0)
        finish(worker, copy);
}

static const struct peer_request_ops range_ops = {
    .type = MESSAGE_FETCH,
    .tries_max = 2,
    .in_any_order = true,
    .encode = encode,
    .on_payload_begin = on_payload_begin,
    .end = end,
};

/* ---- Several at once ---- */

static void
encode_batch(const struct peer_request *request, struct writer *body)
{
    const struct batch *batch = CONTAINER_OF(request, const struct batch, request);
    struct lookup lookup = {.flags = LOOKUP_BLOCKS | LOOKUP_RANGE,
                            .range_bytes = BATCH_BYTES_EACH};
    struct ds_slice keys[BATCH_PARTS_MAX];
    for (uint32_t i = 0; i < batch->count; i++)
        keys[i] = slice(batch->copies[i]->key, BLOCK_KEY_BYTES);
    encode_lookup(body, &lookup, keys, batch->count);
}

/* False: the answer is malformed. */
static bool
read_batch(const struct batch *batch, const struct peer_answer *answer,
           struct fetched *out)
{
    struct wire_value value;
    uint64_t bytes = 0;
    if (answer->header == NULL || answer->header->status != DS_OK ||
        !decode_fetched(answer->body, out) || out->count != batch->count)
        return false;
    struct fetched list = *out;
    while (next_value(&list, &value)) {
        if (value.size != (value.found ? min_u64(BATCH_BYTES_EACH, value.total) : 0) ||
            (value.found && value.size == 0))
            return false;
        bytes += value.size;
    }
    return bytes == answer->header->payload_bytes;
}

static void *
on_batch_begin(struct worker *worker, struct peer_request *request,
               const struct peer_answer *answer)
{
    struct batch *batch = CONTAINER_OF(request, struct batch, request);
    struct fetched list;
    (void)worker;
    if (!read_batch(batch, answer, &list))
        return NULL;
    if (batch->bytes == NULL) /* The connection had not ended in the middle. */
        batch->bytes = malloc((size_t)batch->count * BATCH_BYTES_EACH);
    return batch->bytes;
}

/* All of it has come, or the rest is asked for. */
static void
take_beginning(struct worker *worker, struct copy *copy, const struct wire_value *value,
               const uint8_t *bytes)
{
    if (!value->found) {
        copy->has_failed = true;
    } else if (value->size < value->total) {
        copy->has_failed = !ask_next(worker, copy);
    } else {
        copy->asked = value->total;
        copy->has_failed = !begin_arriving(worker, copy, value->total);
    }
    if (copy->pieces == NULL)
        return;
    copy->pieces[0] =
        checksum_copy(worker->arena + copy->view.offset, bytes, value->size);
    copy->whole = value->whole.known ? value->whole
                                     : (struct wire_checksum){true, value->checksum};
}

static void
end_batch(struct worker *worker, struct peer_request *request,
          const struct peer_answer *answer)
{
    struct batch *batch = CONTAINER_OF(request, struct batch, request);
    struct fetched list = {0};
    bool is_whole = batch->bytes != NULL && read_batch(batch, answer, &list);
    size_t at = 0;
    for (uint32_t i = 0; i < batch->count; i++) {
        struct copy *copy = batch->copies[i];
        struct wire_value value = {0};
        if (is_whole && next_value(&list, &value)) {
            take_beginning(worker, copy, &value, batch->bytes + at);
            at += value.size;
        } else {
            copy->has_failed = true;
        }
        if (copy->under_way == 0)
            finish(worker, copy);
    }
    free(batch->bytes);
    free(batch);
}

static const struct peer_request_ops batch_ops = {
    .type = MESSAGE_FETCH,
    .tries_max = 2,
    .in_any_order = true,
    .encode = encode_batch,
    .on_payload_begin = on_batch_begin,
    .end = end_batch,
};

/* Up to so many that are not asked for yet, of the node of the first. */
static uint32_t
choose(struct worker *worker, struct copy *out[BATCH_PARTS_MAX])
{
    uint32_t count = 0;
    struct arena_id at = {0};
    LIST_FOREACH (link, &worker->copies_unasked) {
        struct copy *copy = CONTAINER_OF(link, struct copy, unasked);
        if (count == 0)
            at = copy->at;
        if (!arena_id_equal(copy->at, at))
            continue;
        list_remove(&copy->unasked);
        out[count++] = copy;
        if (count == BATCH_PARTS_MAX)
            break;
    }
    return count;
}

static bool
ask_batch(struct worker *worker, struct copy *const *copies, uint32_t count)
{
    struct batch *batch = calloc(1, sizeof *batch);
    if (batch == NULL)
        return false;
    batch->request = (struct peer_request){.ops = &batch_ops,
                                           .node = copies[0]->at.node,
                                           .incarnation = copies[0]->at.incarnation};
    batch->count = count;
    memcpy(batch->copies, copies, count * sizeof(struct copy *));
    if (peers_ask(worker->peers, &batch->request))
        return true;
    free(batch);
    return false;
}

void
copies_ask(struct worker *worker)
{
    struct copy *copies[BATCH_PARTS_MAX];
    uint32_t count;
    while ((count = choose(worker, copies)) > 0) {
        bool is_asked_for =
            count == 1 ? ask_next(worker, copies[0]) : ask_batch(worker, copies, count);
        for (uint32_t i = 0; i < count && !is_asked_for; i++) {
            copies[i]->has_failed = true;
            finish(worker, copies[i]);
        }
    }
}

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
    if (is_asked(worker, key.data))
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
    if (ask_next(worker, copy))
        return true;
    hmap_remove(&worker->copies, &copy->by_key);
    free(copy);
    return false;
}
