#include "controller/blocks.h"

#include "base/check.h"
#include "base/log.h"
#include "base/planted.h"
#include "base/slice.h"

void
blocks_delete_dead(struct controller *controller)
{
    struct ds_block_id id;
    while (controller->worker != NULL && queue_peek_dead(controller->queue, &id)) {
        if (!worker_link_delete(controller->worker, id)) {
            log_error("controller delete reason=\"out of memory, will try again\"");
            return;
        }
        queue_pop_dead(controller->queue);
    }
}

static void
before_batch(void *arg)
{
    controller_flush(arg);
}

/* Refused is refused for ever, so that is written down before the worker deletes it. */
static bool
judge_orphan(const struct ds_block_id *id, bool *out_known, void *arg)
{
    struct controller *controller = arg;
    *out_known = queue_knows_block(controller->queue, id) || PLANTED(KEPT_ORPHAN);
    if (*out_known)
        return true;
    if (controller->journal != NULL &&
        journal_reserve(controller->journal, sizeof id->bytes, NULL) != DS_OK)
        return false;
    bool known = queue_refuse_block(controller->queue, id);
    DS_ASSERT(!known);
    if (controller->journal != NULL)
        controller_write_down(controller, RECORD_REFUSED, (struct request_id){0},
                              slice(id->bytes, sizeof id->bytes));
    return true;
}

static uint64_t
take_ticket(void *arg)
{
    return controller_take_ticket(arg);
}

static bool
is_covered(uint64_t ticket, void *arg)
{
    const struct controller *controller = arg;
    return copied_covers(&controller->copied, ticket);
}

static void
on_served(bool is_copied, void *arg)
{
    controller_served(arg, is_copied);
}

static void
on_synced(const struct journal_synced *answer, void *arg)
{
    controller_synced(arg, answer);
}

static void
on_away(void *arg)
{
    controller_worker_away(arg);
}

static void
on_superseded(void *arg)
{
    controller_leave(arg, "another one goes on with its queue");
}

static const struct worker_link_ops link_ops = {
    .before_batch = before_batch,
    .judge_orphan = judge_orphan,
    .take_ticket = take_ticket,
    .is_covered = is_covered,
    .on_served = on_served,
    .on_synced = on_synced,
    .on_away = on_away,
    .on_superseded = on_superseded,
};

static void
adopt(const struct ds_block_id *id, void *arg)
{
    struct controller *controller = arg;
    if (!worker_link_reserve(controller->worker, 1))
        log_error("controller adopt reason=\"out of memory, the worker will ask\"");
    else
        worker_link_adopt(controller->worker, *id);
}

void
blocks_redrive(struct controller *controller)
{
    if (controller->worker == NULL)
        return;
    queue_each_block(controller->queue, adopt, controller);
    if (PLANTED(LOST_DELETION)) {
        struct ds_block_id id;
        while (queue_peek_dead(controller->queue, &id))
            queue_pop_dead(controller->queue);
    }
    blocks_delete_dead(controller);
}

enum ds_status
blocks_open_link(struct controller *controller, struct ds_error *err)
{
    const char *path = controller->options->worker_socket_path;
    if (path == NULL)
        return DS_OK;
    return worker_link_open(&controller->loop, path, &controller->serve, &link_ops,
                            controller, &controller->worker, err);
}
