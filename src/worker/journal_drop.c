#include "worker/journal_drop.h"

#include "base/slice.h"
#include "meta/members.h"
#include "wire/journals.h"
#include "worker/membership.h"
#include "worker/peers.h"
#include "worker/worker.h"

#include <stdio.h>
#include <stdlib.h>

/* Owner: the peers. */
struct drop {
    struct peer_request request;
    uint64_t term;
    bool is_attempt;
    char name[QUEUE_PLACE_NAME_MAX + 1];
};

static void
encode(const struct peer_request *request, struct writer *body)
{
    const struct drop *drop = CONTAINER_OF(request, const struct drop, request);
    struct journal_ask message = {.name = slice_of_text(drop->name),
                                  .term = drop->term,
                                  .intent =
                                      drop->is_attempt ? ASK_WITHDRAWN : ASK_TO_KNOW};
    encode_journal_ask(body, &message);
}

static void
end(struct worker *worker, struct peer_request *request,
    const struct peer_answer *answer)
{
    (void)worker;
    (void)answer;
    free(CONTAINER_OF(request, struct drop, request));
}

static const struct peer_request_ops drop_ops = {
    .type = MESSAGE_JOURNAL_DROP, .tries_max = 1, .encode = encode, .end = end};

static void
drop_at(struct worker *worker, const struct member *member, const char *queue,
        uint64_t term, enum journal_drop_what what)
{
    struct drop *drop = calloc(1, sizeof *drop);
    if (drop == NULL)
        return;
    drop->request = (struct peer_request){
        .ops = &drop_ops, .node = member->node, .incarnation = member->incarnation};
    drop->term = term;
    drop->is_attempt = what == JOURNAL_ATTEMPT;
    snprintf(drop->name, sizeof drop->name, "%s", queue);
    if (!peers_ask(worker->peers, &drop->request))
        free(drop);
}

static bool
is_among(uint32_t node, const uint32_t *nodes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (nodes[i] == node)
            return true;
    }
    return false;
}

void
journal_drop(struct worker *worker, const char *queue, uint64_t term,
             enum journal_drop_what what, const uint32_t *spared, size_t spared_count)
{
    uint32_t own = store_header(worker->store)->node;
    const struct member *member = NULL;
    while ((member = membership_next(worker->membership, own, member)) != NULL) {
        if (!is_among(member->node, spared, spared_count))
            drop_at(worker, member, queue, term, what);
    }
}
