/* First parts of blocks, and users' objects, of which most are small, are asked for
 * together. */
#include "worker/copies_internal.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdlib.h>
#include <string.h>

/* So much of each, and no more of them than are still in a cache when they go where they
 * belong: 500 x 64 KB come in two thirds of the time where 8 and not 64 are in a batch.
 * Memory for several batches is kept for a while: pages that were touched before are
 * received into in half the time. */
enum {
    BATCH_PARTS_MIN = 8,
    BATCH_PARTS_MAX = 64,
    BATCH_BYTES_EACH = 64 << 10,
    BATCH_BYTES_WANTED = BATCH_PARTS_MIN * BATCH_BYTES_EACH,
    BATCH_BYTES_MAX = BATCH_PARTS_MAX * BATCH_BYTES_EACH,
    SPARES_MAX = 8,
    SPARE_TICKS = 100, /* Without a copy on its way, and they are given back. */
};

/* Owner: the peers. */
struct batch {
    struct peer_request request;
    uint8_t *bytes; /* Owned, BATCH_BYTES_MAX; the beginnings of all in a row. */
    uint32_t count;
    struct copy *copies[BATCH_PARTS_MAX];
};

/* ---- Memory ---- */

/* NULL when out of memory. */
static uint8_t *
take_memory(struct worker *worker)
{
    struct list *spare = worker->batch_spares.prev; /* The last that was used. */
    if (list_is_empty(&worker->batch_spares))
        return malloc(BATCH_BYTES_MAX);
    list_remove(spare);
    worker->batch_spare_count--;
    return (uint8_t *)spare;
}

/* Accepts NULL. */
static void
give_memory_back(struct worker *worker, uint8_t *bytes)
{
    struct list *spare = (struct list *)(void *)bytes; /* At its beginning. */
    if (bytes == NULL || worker->batch_spare_count == SPARES_MAX) {
        free(bytes);
        return;
    }
    list_init(spare);
    list_push_back(&worker->batch_spares, spare);
    worker->batch_spare_count++;
}

static void
free_spares(struct worker *worker)
{
    LIST_FOREACH (spare, &worker->batch_spares) {
        list_remove(spare);
        free(spare);
    }
    worker->batch_spare_count = 0;
}

void
copies_tick(struct worker *worker)
{
    if (worker->copies.count > 0)
        worker->batch_idle_ticks = 0;
    else if (++worker->batch_idle_ticks == SPARE_TICKS)
        free_spares(worker);
}

void
copies_close(struct worker *worker)
{
    DS_ASSERT(worker->copies.count == 0);
    hmap_fini(&worker->copies);
    free_spares(worker);
}

/* ---- Asking for several ---- */

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
    if (!read_batch(batch, answer, &list))
        return NULL;
    if (batch->bytes == NULL) /* The connection had not ended in the middle. */
        batch->bytes = take_memory(worker);
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
        copy->has_failed = !copy_ask_next(worker, copy);
    } else {
        copy->asked = value->total;
        copy->has_failed = !copy_begin_arriving(worker, copy, value->total);
    }
    if (copy->pieces == NULL)
        return;
    copy->pieces[0] =
        checksum_copy(copy_place(worker, copy, 0, value->size), bytes, value->size);
    copy->whole = value->whole.known ? value->whole
                                     : (struct wire_checksum){true, value->checksum};
}

/* How large they are is not known before they come, so the next are taken to be as these. */
static void
note_sizes(struct worker *worker, uint32_t count, uint64_t bytes)
{
    if (bytes == 0)
        return;
    uint64_t parts = BATCH_BYTES_WANTED * (uint64_t)count / bytes;
    parts = max_u64(parts, BATCH_PARTS_MIN);
    worker->batch_parts = (uint32_t)min_u64(parts, BATCH_PARTS_MAX);
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
            copy_finish(worker, copy);
    }
    note_sizes(worker, batch->count, at);
    give_memory_back(worker, batch->bytes);
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
    uint32_t count = 0, wanted = max_u32(worker->batch_parts, BATCH_PARTS_MIN);
    struct arena_id at = {0};
    LIST_FOREACH (link, &worker->copies_unasked) {
        struct copy *copy = CONTAINER_OF(link, struct copy, unasked);
        if (count == 0)
            at = copy->at;
        if (!arena_id_equal(copy->at, at))
            continue;
        list_remove(&copy->unasked);
        out[count++] = copy;
        if (count == wanted)
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
        bool is_asked_for = count == 1 ? copy_ask_next(worker, copies[0])
                                       : ask_batch(worker, copies, count);
        for (uint32_t i = 0; i < count && !is_asked_for; i++) {
            copies[i]->has_failed = true;
            copy_finish(worker, copies[i]);
        }
    }
}
