/* Room for a part that arrives, or why there is none. */
#include "worker/copies_internal.h"

#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/clock.h"
#include "os/memfile.h"
#include "worker/creates.h"

#include <stdlib.h>

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

size_t
copy_piece_count(const struct copy *copy)
{
    return (copy->view.size + CHECKSUM_PIECE_BYTES - 1) / CHECKSUM_PIECE_BYTES;
}

size_t
copy_range_count(const struct copy *copy)
{
    return copy->view.size == 0 ? 1 : (copy->view.size - 1) / RANGE_BYTES + 1;
}

static bool
make_notes(struct copy *copy)
{
    copy->pieces = calloc(copy_piece_count(copy), sizeof *copy->pieces);
    copy->has_arrived = calloc(copy_range_count(copy), sizeof *copy->has_arrived);
    return copy->pieces != NULL && copy->has_arrived != NULL;
}

static void
drop_notes(struct copy *copy)
{
    free(copy->pieces);
    free(copy->has_arrived);
    copy->pieces = NULL;
    copy->has_arrived = NULL;
}

void
copy_refuse(const struct worker *worker, struct copy *copy, const char *what,
            const struct ds_error *err)
{
    free(copy->refusal);
    copy->refusal = calloc(1, sizeof *copy->refusal);
    if (copy->refusal != NULL)
        (void)ds_fail(copy->refusal, err->status, "the worker at %s %s: %s",
                      worker->flags->worker_address, what, err->message);
}

bool
copy_reserve(struct worker *worker, struct copy *copy, uint64_t bytes)
{
    struct ds_error err = {0};
    enum ds_status status = reserve(worker, copy, bytes, &err);
    if (status == DS_OK) {
        if (make_notes(copy)) {
            store_hold(worker->store, &copy->view);
            return true;
        }
        drop_notes(copy);
        store_abort(worker->store, copy->view.ref);
        (void)ds_fail(&err, DS_NO_MEMORY, "out of memory for its checksums");
    }
    log_warn("worker cannot copy a block's part bytes=%ju reason=\"%s\"",
             (uintmax_t)bytes, err.message);
    copy_refuse(worker, copy, "has no room for a copy of what another node has", &err);
    return false;
}

uint8_t *
copy_place(const struct worker *worker, const struct copy *copy, uint64_t offset,
           uint64_t bytes)
{
    uint8_t *place = worker->arena + copy->view.offset + offset;
    memfile_prefault(place, bytes);
    return place;
}

void
copy_let_go(struct worker *worker, struct copy *copy)
{
    if (copy->pieces == NULL)
        return;
    if (copy->has_failed)
        store_abort(worker->store, copy->view.ref);
    store_unhold(worker->store, copy->view.offset);
    drop_notes(copy);
}
