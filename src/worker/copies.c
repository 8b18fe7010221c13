#include "worker/copies.h"

#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/checksum.h"
#include "os/clock.h"
#include "worker/creates.h"
#include "worker/objects.h"
#include "worker/peers.h"
#include "worker/waiters.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* A part on its way. Owner: the peers. */
struct fetch {
    struct peer_request request;
    struct hmap_node by_key; /* In worker->fetches. */
    uint8_t key[BLOCK_KEY_BYTES];
    bool is_arriving; /* In `view`, which is reserved, and held. */
    struct object_view view;
};

static struct fetch *
fetch_of(struct peer_request *request)
{
    return CONTAINER_OF(request, struct fetch, request);
}

static uint64_t
hash_of(const uint8_t key[BLOCK_KEY_BYTES])
{
    return XXH3_64bits(key, BLOCK_KEY_BYTES);
}

static bool
is_asked(const struct worker *worker, const uint8_t key[BLOCK_KEY_BYTES])
{
    struct hmap_node *node = hmap_chain(&worker->fetches, hash_of(key));
    for (; node != NULL; node = node->next) {
        if (memcmp(CONTAINER_OF(node, struct fetch, by_key)->key, key,
                   BLOCK_KEY_BYTES) == 0)
            return true;
    }
    return false;
}

/* ---- The request ---- */

static void
encode(const struct peer_request *request, struct writer *body)
{
    const struct fetch *fetch = CONTAINER_OF(request, const struct fetch, request);
    struct lookup lookup = {.flags = LOOKUP_BLOCKS};
    struct ds_slice key = slice(fetch->key, BLOCK_KEY_BYTES);
    encode_lookup(body, &lookup, &key, 1);
}

/* False: it is not there, or the answer is malformed. */
static bool
read_answer(const struct peer_answer *answer, struct wire_value *out)
{
    struct fetched list;
    return answer->header->status == DS_OK && decode_fetched(answer->body, &list) &&
           list.count == 1 && next_value(&list, out) && out->found &&
           out->size == answer->header->payload_bytes;
}

static enum ds_status
reserve(struct worker *worker, struct fetch *fetch, uint64_t bytes,
        struct ds_error *err)
{
    struct create_request request = {.key = slice(fetch->key, BLOCK_KEY_BYTES),
                                     .size = bytes,
                                     .flags = SLOT_FLAG_BLOCK | SLOT_FLAG_COPY};
    enum ds_status status =
        store_create(worker->store, &request, clock_boot_ds(), &fetch->view, err);
    while (status == DS_FULL && creates_populate_for(worker, bytes))
        status =
            store_create(worker->store, &request, clock_boot_ds(), &fetch->view, err);
    worker->counters.out_of_memory += status == DS_FULL;
    return status;
}

static void *
on_payload_begin(struct worker *worker, struct peer_request *request,
                 const struct peer_answer *answer)
{
    struct fetch *fetch = fetch_of(request);
    struct wire_value value;
    struct ds_error err = {0};
    if (!read_answer(answer, &value))
        return NULL;
    if (fetch->is_arriving) /* Some of it had arrived before the connection ended. */
        return value.size == fetch->view.size ? worker->arena + fetch->view.offset
                                              : NULL;
    if (reserve(worker, fetch, value.size, &err) != DS_OK) {
        log_warn("worker cannot copy a block's part bytes=%ju reason=\"%s\"",
                 (uintmax_t)value.size, err.message);
        return NULL;
    }
    fetch->is_arriving = true;
    store_hold(worker->store, &fetch->view);
    return worker->arena + fetch->view.offset;
}

/* Seals the copy if it is what was sent. */
static enum ds_status
take_part(struct worker *worker, const struct fetch *fetch, uint64_t checksum,
          struct ds_error *err)
{
    const struct object_view *view = &fetch->view;
    uint64_t found = checksum_of(worker->arena + view->offset, view->size);
    struct objects_seal seal = {.ref = view->ref, .checksum = {true, found}};
    if (found == checksum)
        return objects_seal(worker, &seal, err);
    worker->counters.damaged++;
    return ds_fail(err, DS_CORRUPT, "its checksum is not the one that was sent");
}

/* The last byte has arrived, or none will. */
static void
stop_arriving(struct worker *worker, struct fetch *fetch,
              const struct peer_answer *answer)
{
    struct wire_value value;
    struct ds_error err = {0};
    fetch->is_arriving = false;
    enum ds_status status = answer->header != NULL && read_answer(answer, &value)
                                ? take_part(worker, fetch, value.checksum, &err)
                                : ds_fail(&err, DS_IO, "its bytes did not all arrive");
    if (status != DS_OK) {
        log_warn("worker gives up a copy of a block's part bytes=%ju reason=\"%s\"",
                 (uintmax_t)fetch->view.size, err.message);
        store_abort(worker->store, fetch->view.ref);
    }
    store_unhold(worker->store, fetch->view.offset);
}

/* Whoever waits looks again: at what is there now, or at nothing. */
static void
end(struct worker *worker, struct peer_request *request,
    const struct peer_answer *answer)
{
    struct fetch *fetch = fetch_of(request);
    if (fetch->is_arriving)
        stop_arriving(worker, fetch, answer);
    hmap_remove(&worker->fetches, &fetch->by_key);
    waiters_key_appeared(worker, slice(fetch->key, BLOCK_KEY_BYTES));
    free(fetch);
}

static const struct peer_request_ops fetch_ops = {
    .type = MESSAGE_FETCH,
    .tries_max = 2,
    .encode = encode,
    .on_payload_begin = on_payload_begin,
    .end = end,
};

bool
copies_fetch(struct worker *worker, struct ds_slice key)
{
    if (key.len != BLOCK_KEY_BYTES)
        return false;
    struct block_birth birth = wire_block_birth(key.data); /* The key begins with it. */
    if (birth.node == store_header(worker->store)->node)
        return false;
    if (is_asked(worker, key.data))
        return true;
    struct fetch *fetch = calloc(1, sizeof *fetch);
    if (fetch == NULL)
        return false;
    fetch->request = (struct peer_request){
        .ops = &fetch_ops, .node = birth.node, .incarnation = birth.incarnation};
    memcpy(fetch->key, key.data, BLOCK_KEY_BYTES);
    if (!hmap_insert(&worker->fetches, &fetch->by_key, hash_of(fetch->key))) {
        free(fetch);
        return false;
    }
    if (peers_ask(worker->peers, &fetch->request))
        return true;
    hmap_remove(&worker->fetches, &fetch->by_key);
    free(fetch);
    return false;
}
