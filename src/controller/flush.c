/* What must be in the journal, and in its copies, before anybody hears of it. */
#include "controller/controller.h"

#include "base/check.h"
#include "base/log.h"
#include "base/planted.h"
#include "controller/session.h"
#include "os/clock.h"
#include "os/supervisor.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool
controller_must_hold(const struct controller *controller)
{
    return controller->journal != NULL && !PLANTED(EARLY_REPLY) &&
           (journal_is_pending(controller->journal) ||
            (controller->copied.state != COPIED_OFF &&
             copied_must_wait(&controller->copied, clock_boot_ds())));
}

static void on_turn(uv_prepare_t *turn);

static void
expect_turn(struct controller *controller)
{
    int result = uv_prepare_start(&controller->turn, on_turn);
    DS_ASSERT(result == 0);
}

/* Clients look elsewhere then: another may have gone on with the queue. */
static void
on_patience_over(uv_timer_t *timer)
{
    struct controller *controller = timer->data;
    controller->is_patient = false;
    if (controller->stopping)
        return;
    log_warn(
        "controller cannot say anything now: its worker, or those with copies of its "
        "journal, do not answer");
    controller->is_mute = true;
    sessions_close(controller);
}

static void
end_patience(struct controller *controller)
{
    controller->is_patient = false;
    if (!controller->ended)
        (void)uv_timer_stop(&controller->patience);
}

static void
watch_patience(struct controller *controller)
{
    if (!copied_is_waiting(&controller->copied)) {
        end_patience(controller);
        controller->is_mute = false;
    } else if (!controller->is_mute && !controller->is_patient && !controller->ended) {
        int result = uv_timer_start(&controller->patience, on_patience_over,
                                    CONTROLLER_MUTE_MS, 0);
        DS_ASSERT(result == 0);
        controller->is_patient = true;
    }
}

uint64_t
controller_take_ticket(struct controller *controller)
{
    uint64_t ticket = copied_take_ticket(&controller->copied);
    if (ticket > 0 && !controller->ended)
        expect_turn(controller);
    watch_patience(controller);
    return ticket;
}

/* Asks for copies of what is in the journal, if it is time to. */
static void
ask_for_copies(struct controller *controller)
{
    if (controller->worker == NULL || controller->journal == NULL ||
        !worker_link_is_served(controller->worker))
        return;
    struct journal_extent extent = journal_extent(controller->journal);
    if (!copied_begin_request(&controller->copied, extent.id))
        return;
    struct journal_sync message = {.number = controller->copied.asked,
                                   .id = extent.id,
                                   .inode = extent.inode,
                                   .bytes = extent.bytes,
                                   .sequence = extent.sequence};
    worker_link_sync(controller->worker, &message);
}

/* What waited for copies goes on, and what came meanwhile waits for the next. */
static void
go_on(struct controller *controller)
{
    if (controller->ended)
        return;
    if (controller->journal == NULL || !journal_is_pending(controller->journal))
        sessions_send_held(controller);
    worker_link_wake(controller->worker);
    expect_turn(controller);
}

void
controller_served(struct controller *controller, bool is_copied)
{
    if (controller->copied.state == COPIED_UNKNOWN || is_copied)
        log_info("controller journal is%s copied to other nodes",
                 is_copied ? "" : " not");
    copied_set(&controller->copied, is_copied && controller->journal != NULL);
    go_on(controller);
    watch_patience(controller);
}

void
controller_synced(struct controller *controller, const struct journal_synced *answer)
{
    if (!copied_end_request(&controller->copied, answer->number, answer->lease_until))
        return;
    end_patience(controller); /* Something moves. */
    controller->serve.has_answered = true;
    go_on(controller);
    watch_patience(controller);
}

void
controller_worker_away(struct controller *controller)
{
    copied_lose_lease(&controller->copied);
}

/* Nothing that ends a process in good order: the supervisor starts the next one, which
 * reads what the file does have. */
static void
die_of_journal(const struct ds_error *err)
{
    log_error("controller cannot write its journal, starting again from it: %s",
              err->message);
    fprintf(stderr, "transfer_queue_controller: %s\n", err->message);
    fflush(NULL);
    _exit(SUPERVISOR_CRASH_EXIT);
}

/* Blocks that the worker was told to delete, and has not yet deleted, are known to the
 * link alone by now. */
static void
compact(struct controller *controller)
{
    struct ds_error err = {0};
    struct ds_block_id *deleting = NULL;
    size_t count = 0;
    if (controller->worker != NULL &&
        !worker_link_deleting(controller->worker, &deleting, &count)) {
        log_error("controller compact reason=\"out of memory, will try again\"");
        return;
    }
    struct snapshot_source source = {.queue = controller->queue,
                                     .replies = controller->replies,
                                     .deleting = deleting,
                                     .deleting_count = count};
    enum ds_status status = journal_compact(controller->journal, &source, &err);
    free(deleting);
    if (status != DS_OK)
        die_of_journal(&err);
}

void
controller_flush(struct controller *controller)
{
    struct ds_error err = {0};
    (void)uv_prepare_stop(&controller->turn);
    if (controller->journal != NULL && journal_is_pending(controller->journal)) {
        if (journal_flush(controller->journal, &err) != DS_OK)
            die_of_journal(&err);
        copied_note_written(&controller->copied);
    }
    ask_for_copies(controller);
    sessions_send_held(controller);
    if (controller->journal != NULL && !controller->stopping &&
        journal_is_long(controller->journal)) {
        compact(controller);
        copied_note_written(&controller->copied);
        ask_for_copies(controller);
    }
}

static void
on_turn(uv_prepare_t *turn)
{
    controller_flush(turn->data);
}

void
controller_write_down(struct controller *controller, enum record_type type,
                      struct request_id id, struct ds_slice body)
{
    journal_append(controller->journal, type, id, body);
    expect_turn(controller);
}
