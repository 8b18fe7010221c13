/* The bytes of a journal that go to its keepers, one piece to each at a time. */
#include "worker/journal_copies_internal.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/append_file.h"
#include "os/clock.h"
#include "worker/peers.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Bytes for a keeper. Owner: the peers. */
struct piece {
    struct peer_request request;
    struct journal_copies *copies; /* NULL: they are closed. */
    uint64_t number;
    uint64_t epoch;               /* When it was sent, */
    bool is_known;                /* as is this. */
    struct journal_write message; /* Its name and bytes are these: */
    char name[QUEUE_PLACE_NAME_MAX + 1];
    uint8_t bytes[];
};

/* Also when it is sent again, which may be much later. */
static void
encode_piece(const struct peer_request *request, struct writer *body)
{
    const struct piece *piece = CONTAINER_OF(request, const struct piece, request);
    struct journal_write message = piece->message;
    message.is_unsure =
        piece->copies == NULL || journal_copies_is_unsure(piece->copies);
    encode_journal_write(body, &message);
}

static struct keeper *
keeper_with(struct journal_copies *copies, const struct piece *piece)
{
    for (uint32_t i = 0; copies != NULL && i < JOURNAL_COPIES_MAX; i++) {
        if (copies->keepers[i].piece == piece)
            return &copies->keepers[i];
    }
    return NULL;
}

static void
note_caught_up(struct journal_copies *copies, struct keeper *keeper)
{
    if (keeper->late_ds == 0 || !journal_keeper_has_all(copies, keeper))
        return;
    keeper->late_ds = 0;
    log_info("worker queue %s has a copy of its journal at node %" PRIu32, copies->name,
             keeper->node);
}

static void
take_answer(struct journal_copies *copies, struct keeper *keeper,
            const struct piece *piece, struct ds_slice body)
{
    const struct journal_write *message = &piece->message;
    uint64_t bytes;
    if (!decode_journal_written(body, &bytes)) {
        keeper->rests = true;
        return;
    }
    if (bytes != message->offset + message->bytes.len) { /* It has forgotten. */
        keeper->bytes = 0;
        keeper->sequence = 0;
        return;
    }
    keeper->bytes = bytes;
    keeper->heard_ms = clock_monotonic_ms();
    if (piece->epoch == copies->epoch && piece->is_known == copies->is_known) {
        /* Else it may be from before a gap. */
        keeper->number = piece->number;
        keeper->is_promised = false;
        keeper->has_spoken = true;
    }
    if (message->sequence > 0)
        keeper->sequence = message->sequence;
    note_caught_up(copies, keeper);
}

/* Its disk may be full: it is tried again at each tick. */
static void
note_refused(const struct journal_copies *copies, struct keeper *keeper,
             const struct peer_answer *answer)
{
    keeper->rests = true;
    keeper->is_promised = false;
    keeper->has_spoken = true;
    if (keeper->late_ds != 0)
        return;
    keeper->late_ds = clock_boot_ds();
    log_warn("worker queue %s: node %" PRIu32
             " cannot keep its journal reason=\"%.*s\"",
             copies->name, keeper->node, (int)min_u64(answer->body.len, 400),
             (const char *)answer->body.data);
}

static void
end_piece(struct worker *worker, struct peer_request *request,
          const struct peer_answer *answer)
{
    struct piece *piece = CONTAINER_OF(request, struct piece, request);
    struct journal_copies *copies = piece->copies;
    struct keeper *keeper = keeper_with(copies, piece);
    (void)worker;
    if (keeper != NULL) {
        keeper->piece = NULL;
        if (answer->header == NULL) {
            keeper->rests = true; /* It is no member any more. */
        } else if (answer->header->status == DS_EXISTS) {
            journal_copies_supersede(copies);
        } else if (answer->header->status == DS_NOT_READY) {
            keeper->is_promised = true;
            keeper->rests = true;
        } else if (answer->header->status != DS_OK) {
            note_refused(copies, keeper, answer);
        } else {
            take_answer(copies, keeper, piece, answer->body);
        }
        journal_copies_step(copies);
    }
    free(piece);
}

static const struct peer_request_ops piece_ops = {
    .type = MESSAGE_JOURNAL_WRITE, .encode = encode_piece, .end = end_piece};

/* Said once, tried again at each tick. */
static void
note_unreadable(struct journal_copies *copies, const struct ds_error *err)
{
    if (!copies->is_unreadable)
        log_error("worker queue %s has no copies of its journal reason=\"%s\"",
                  copies->name, err->message);
    copies->is_unreadable = true;
}

/* The next bytes for the keeper; NULL when out of memory, or the file is not there. */
static struct piece *
piece_new(struct journal_copies *copies, const struct keeper *keeper)
{
    const struct journal_sync *sync = &copies->sync;
    DS_ASSERT(keeper->bytes <= sync->bytes);
    size_t bytes = min_u64(sync->bytes - keeper->bytes, JOURNAL_WRITE_BYTES_MAX);
    struct piece *piece = calloc(1, sizeof *piece + bytes);
    struct ds_error err = {0};
    if (piece == NULL)
        return NULL;
    if (append_file_read(copies->file, keeper->bytes, piece->bytes, bytes, &err) !=
        DS_OK) {
        note_unreadable(copies, &err);
        append_file_close(copies->file);
        copies->file = NULL; /* To be opened again. */
        free(piece);
        return NULL;
    }
    memcpy(piece->name, copies->name, sizeof piece->name);
    piece->request.ops = &piece_ops;
    piece->request.node = keeper->node;
    piece->request.incarnation = keeper->incarnation;
    piece->copies = copies;
    piece->number = sync->number;
    piece->epoch = copies->epoch;
    piece->is_known = copies->is_known;
    bool is_last = keeper->bytes + bytes == sync->bytes;
    const struct table_header *table = store_header(copies->worker->store);
    piece->message = (struct journal_write){.name = slice_of_text(piece->name),
                                            .term = copies->term,
                                            .node = table->node,
                                            .incarnation = table->incarnation,
                                            .id = sync->id,
                                            .offset = keeper->bytes,
                                            .sequence = is_last ? sync->sequence : 0,
                                            .bytes = slice(piece->bytes, bytes)};
    return piece;
}

/* The journal may have been written anew meanwhile: then its controller asks again. */
static bool
open_file(struct journal_copies *copies)
{
    struct ds_error err = {0};
    if (copies->file != NULL && copies->file_id == copies->sync.id)
        return true;
    append_file_close(copies->file);
    copies->file = NULL;
    if (append_file_open_to_read(copies->path, &copies->file, &err) != DS_OK) {
        note_unreadable(copies, &err);
        return false;
    }
    if (append_file_inode(copies->file) != copies->sync.inode) {
        append_file_close(copies->file);
        copies->file = NULL;
        return false;
    }
    copies->file_id = copies->sync.id;
    copies->is_unreadable = false;
    return true;
}

void
journal_keeper_step(struct journal_copies *copies, struct keeper *keeper)
{
    const struct journal_sync *sync = &copies->sync;
    if (!copies->has_sync || copies->is_superseded || keeper->node == 0 ||
        keeper->piece != NULL || keeper->rests || !open_file(copies))
        return;
    if (keeper->id != sync->id || keeper->bytes > sync->bytes) {
        keeper->id = sync->id;
        keeper->bytes = 0;
        keeper->sequence = 0;
    }
    bool is_to_confirm =
        keeper->number == 0 || (copies->is_asked && keeper->number < sync->number &&
                                !journal_copies_have_lease(copies));
    if (journal_keeper_has_all(copies, keeper) && !is_to_confirm)
        return;
    struct piece *piece = piece_new(copies, keeper);
    if (piece == NULL || !peers_ask(copies->worker->peers, &piece->request)) {
        keeper->rests = true;
        free(piece);
        return;
    }
    keeper->piece = piece;
}

void
journal_keeper_let_go(struct keeper *keeper)
{
    if (keeper->piece != NULL)
        keeper->piece->copies = NULL;
    keeper->piece = NULL;
}
