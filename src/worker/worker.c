#include "worker/worker.h"

#include "base/check.h"
#include "base/log.h"
#include "base/status.h"
#include "net/run.h"
#include "os/clock.h"
#include "os/memfile.h"
#include "os/supervisor.h"
#include "worker/arenas.h"
#include "worker/checksums.h"
#include "worker/client.h"
#include "worker/copies.h"
#include "worker/election.h"
#include "worker/kept_journals.h"
#include "worker/keys.h"
#include "worker/leaving.h"
#include "worker/membership.h"
#include "worker/metastore.h"
#include "worker/orphans.h"
#include "worker/peers.h"
#include "worker/populate.h"
#include "worker/queues.h"
#include "worker/relays.h"
#include "worker/reports.h"
#include "worker/session.h"
#include "worker/small_values.h"
#include "worker/stats.h"
#include "worker/takeover.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Loop callbacks ---- */

enum {
    EXPIRED_TICKS = 100, /* Between two looks for bindings that have expired. */
    FAREWELL_MS = 1000,
};

static void farewell(struct worker *worker, uint64_t now_ms);

static void
on_tick(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    store_tick(worker->store, clock_boot_ds());
    uint64_t now = clock_monotonic_ms();
    orphans_tick(worker, now);
    clients_tick(worker, now);
    election_tick(worker->election);
    if (worker->farewell_until_ms != 0)
        farewell(worker, now);
    if (worker->stopping)
        return;
    if (worker->metastore != NULL)
        metastore_tick(worker->metastore, now);
    peers_tick(worker->peers);
    copies_tick(worker);
    relays_tick(worker, now);
    owners_tick(worker);
    queues_tick(worker);
    takeover_tick(worker);
    arenas_tick(worker);
    leaving_tick(worker);
    if (++worker->tick_count % EXPIRED_TICKS == 0)
        directory_forget_expired(worker);
    if (worker->is_unreported)
        stats_report_ready(worker);
    checksums_tick(worker->checksums);
}

static void
on_unix_accept(int fd, void *arg)
{
    session_open(arg, fd, SESSION_UNIX);
}

static void
on_tcp_accept(int fd, void *arg)
{
    session_open(arg, fd, SESSION_TCP);
}

static void
on_metastore_accept(int fd, void *arg)
{
    session_open(arg, fd, SESSION_METASTORE);
}

/* ---- Stopping ---- */

/* Connections are closed, memory stays: the supervisor lets go of it when we exit. */
static void
stop(struct worker *worker)
{
    if (worker->stopping)
        return;
    worker->stopping = true;
    log_info("worker stopping");
    if (worker->metastore != NULL) /* An epoch that is kept is one that was told. */
        metastore_tick(worker->metastore, clock_monotonic_ms());
    stats_report_stopping(worker);
    for (size_t i = 0; i < 3; i++) {
        if (worker->listeners[i] != NULL)
            listener_close(worker->listeners[i]);
    }
    LIST_FOREACH (link, &worker->sessions) {
        struct session *session = CONTAINER_OF(link, struct session, link);
        conn_close(session->conn, NULL);
    }
    clients_close(worker);
    election_close(worker->election);
    worker->election = NULL;
    membership_close(worker->membership);
    worker->membership = NULL;
    takeover_stop(worker);
    if (worker->peers != NULL)
        peers_stop(worker->peers);
    populate_stop(worker->populate);
    checksums_stop(worker->checksums);
    uv_close((uv_handle_t *)&worker->tick, NULL);
    uv_close((uv_handle_t *)&worker->room_tick, NULL);
    uv_close((uv_handle_t *)&worker->terminate, NULL);
    uv_close((uv_handle_t *)&worker->interrupt, NULL);
}

/* Whoever has the metastore stays until the others know the last members. */
static void
farewell(struct worker *worker, uint64_t now_ms)
{
    bool is_heard = worker->metastore == NULL ||
                    metastore_has_told_all(worker->metastore) ||
                    now_ms >= worker->farewell_until_ms;
    if (!is_heard)
        return;
    worker->farewell_until_ms = 0;
    if (worker->election != NULL)
        election_resign(worker->election, stop);
    else
        stop(worker);
}

static void
on_left(struct worker *worker)
{
    uint64_t now_ms = clock_monotonic_ms();
    worker->farewell_until_ms = now_ms + FAREWELL_MS;
    if (worker->metastore != NULL)
        metastore_tick(worker->metastore, now_ms);
    farewell(worker, now_ms);
}

/* The others hear of it before we are gone. */
void
worker_end(struct worker *worker)
{
    bool is_second = worker->is_leaving;
    worker->is_leaving = true;
    if (worker->membership == NULL || is_second) {
        stop(worker);
        return;
    }
    queues_hang_up(worker);
    membership_leave(worker->membership, on_left);
}

static void
on_signal(uv_signal_t *handle, int number)
{
    (void)number;
    worker_end(handle->data);
}

/* ---- Starting ---- */

static enum ds_status
open_memory(struct worker *worker, struct ds_error *err)
{
    const struct resources *resources = worker->resources;
    struct store_memory *memory = &worker->memory;
    void *arena = NULL;
    memory->table_bytes = store_table_bytes(&resources->geometry);
    memory->pins_bytes = store_pins_bytes(&resources->geometry);
    memory->arena_bytes = resources->geometry.arena_bytes;
    enum ds_status status = memfile_map(resources->table_fd, 0, memory->table_bytes,
                                        true, &memory->table, err);
    if (status == DS_OK)
        status = memfile_map(resources->pins_fd, 0, memory->pins_bytes, true,
                             &memory->pins, err);
    if (status == DS_OK)
        status = memfile_map(resources->arena_fd, 0, resources->geometry.arena_bytes,
                             true, &arena, err);
    worker->arena = arena;
    return status;
}

static enum ds_status
open_store(struct worker *worker, struct ds_error *err)
{
    struct store_recovery report;
    enum ds_status status =
        store_open(&worker->memory, clock_boot_ds(), &worker->store, &report, err);
    if (status == DS_OK && worker->restarts == 0)
        store_set_lease(worker->store, LEASE_NEVER_ENDS); /* Unless it joins others. */
    if (status != DS_OK || worker->restarts == 0)
        return status;
    arenas_recover(worker);
    log_warn("worker recovered restarts=%d sealed=%ju unsealed=%ju deleted=%ju "
             "dropped_overlapping=%ju dropped_damaged=%ju",
             worker->restarts, (uintmax_t)report.sealed, (uintmax_t)report.writing,
             (uintmax_t)report.dead, (uintmax_t)report.dropped_overlapping,
             (uintmax_t)report.dropped_damaged);
    return clients_recover(worker, err);
}

static enum ds_status
listen_on(struct worker *worker, struct ds_error *err)
{
    const struct resources *resources = worker->resources;
    enum ds_status status =
        listener_create(&worker->loop, resources->unix_fd, on_unix_accept, worker,
                        &worker->listeners[0], err);
    if (status == DS_OK)
        status = listener_create(&worker->loop, resources->tcp_fd, on_tcp_accept,
                                 worker, &worker->listeners[1], err);
    if (status == DS_OK && resources->metastore_fd >= 0)
        status =
            listener_create(&worker->loop, resources->metastore_fd, on_metastore_accept,
                            worker, &worker->listeners[2], err);
    return status;
}

static void
start_handles(struct worker *worker)
{
    uv_timer_init(&worker->loop, &worker->tick);
    worker->tick.data = worker;
    uv_timer_start(&worker->tick, on_tick, WORKER_TICK_MS, WORKER_TICK_MS);
    uv_timer_init(&worker->loop, &worker->room_tick);
    worker->room_tick.data = worker;
    uv_signal_init(&worker->loop, &worker->terminate);
    worker->terminate.data = worker;
    uv_signal_start(&worker->terminate, on_signal, SIGTERM);
    uv_signal_init(&worker->loop, &worker->interrupt);
    worker->interrupt.data = worker;
    uv_signal_start(&worker->interrupt, on_signal, SIGINT);
}

static void
be_ready(struct worker *worker)
{
    worker->waits_to_join = false;
    stats_report_ready(worker);
    log_info("worker ready address=%s restarts=%d", worker->flags->worker_address,
             worker->restarts);
}

static void
on_joined(struct worker *worker)
{
    if (worker->waits_to_join)
        be_ready(worker);
}

static enum ds_status
join_cluster(struct worker *worker, struct ds_error *err)
{
    enum ds_status status = DS_OK;
    if (!flags_name_cluster(worker->flags))
        return DS_OK;
    if (worker->flags->etcd_address[0] != '\0')
        status = election_open(worker, &worker->election, err);
    if (status != DS_OK)
        return status;
    return membership_open(worker, on_joined, &worker->membership, err);
}

static enum ds_status
start(struct worker *worker, struct ds_error *err)
{
    enum ds_status status = open_memory(worker, err);
    if (status == DS_OK)
        status = open_store(worker, err);
    if (status == DS_OK)
        status = populate_start(worker, store_header(worker->store)->populated,
                                &worker->populate, err);
    if (status == DS_OK)
        status = checksums_start(worker, &worker->checksums, err);
    if (status == DS_OK)
        status = peers_open(worker, &worker->peers, err);
    if (status == DS_OK)
        status = owners_open(&worker->owners, err);
    if (status == DS_OK)
        status = directory_open(&worker->directory, err);
    if (status == DS_OK && worker->resources->metastore_fd >= 0)
        status = metastore_open(worker, NULL, &worker->metastore, err);
    if (status == DS_OK)
        status = listen_on(worker, err);
    worker->started_ms = clock_monotonic_ms(); /* What was found may have taken long. */
    return status;
}

static void
fini(struct worker *worker)
{
    uv_run(&worker->loop, UV_RUN_DEFAULT);
    orphans_close(worker);
    queues_close(worker);
    kept_journals_close(worker);
    metastore_close(worker->metastore);
    peers_close(worker->peers);
    keys_close(worker);
    reports_close(worker);
    arenas_close(worker);
    leaving_close(worker);
    small_values_close(worker);
    directory_close(worker->directory);
    owners_close(worker->owners);
    hmap_fini(&worker->waiting_keys);
    copies_close(worker);
    relays_close(worker);
    store_close(worker->store);
    memfile_unmap(worker->memory.table, worker->memory.table_bytes);
    memfile_unmap(worker->memory.pins, worker->memory.pins_bytes);
    memfile_unmap(worker->arena, worker->resources->geometry.arena_bytes);
    int busy = uv_loop_close(&worker->loop);
    DS_ASSERT(busy == 0);
}

static void
init(struct worker *worker, const struct worker_flags *flags,
     const struct resources *resources, int restarts)
{
    *worker = (struct worker){
        .flags = flags,
        .resources = resources,
        .restarts = restarts,
        .block_counter =
            wire_block_counter(restarts), /* Ids of this arena never repeat. */
    };
    list_init(&worker->sessions);
    list_init(&worker->strangers);
    list_init(&worker->clients);
    list_init(&worker->unseen);
    list_init(&worker->parked_creates);
    list_init(&worker->orphans);
    list_init(&worker->orphan_readers);
    list_init(&worker->queues);
    hmap_init(&worker->waiting_keys);
    hmap_init(&worker->copies);
    hmap_init(&worker->relays);
    list_init(&worker->copies_unasked);
    list_init(&worker->batch_spares);
    list_init(&worker->key_requests);
    list_init(&worker->reports);
    list_init(&worker->started);
    list_init(&worker->taken);
    kept_journals_open(worker);
}

enum ds_status
worker_open(struct worker *worker, const struct worker_flags *flags,
            const struct resources *resources, int restarts, struct ds_error *err)
{
    init(worker, flags, resources, restarts);
    int result = uv_loop_init(&worker->loop);
    if (result < 0)
        return ds_fail(err, DS_IO, "cannot make an event loop: %s",
                       uv_strerror(result));
    start_handles(worker);
    enum ds_status status = start(worker, err);
    if (status != DS_OK)
        worker_close(worker);
    return status;
}

void
worker_close(struct worker *worker)
{
    stop(worker);
    fini(worker);
}

int
worker_run(const struct worker_flags *flags, const struct resources *resources,
           int restarts)
{
    struct worker worker;
    struct ds_error err = {0};
    enum ds_status status = worker_open(&worker, flags, resources, restarts, &err);
    if (status == DS_OK && (status = join_cluster(&worker, &err)) != DS_OK)
        worker_close(&worker);
    if (status != DS_OK) {
        log_error("worker cannot start reason=\"%s\"", err.message);
        if (restarts > 0)
            return SUPERVISOR_CRASH_EXIT; /* The memory is full of data: try again. */
        fprintf(stderr, "%s\n", err.message);
        return EXIT_FAILURE;
    }
    /* What is in its memory is served at once; who has nothing can wait, but not for
     * those who wait for it. */
    worker.waits_to_join =
        worker.membership != NULL && restarts == 0 &&
        (worker.metastore == NULL || !metastore_is_settling(worker.metastore));
    if (!worker.waits_to_join)
        be_ready(&worker);
    supervisor_child_is_up();
    run_loop(&worker.loop);
    worker_close(&worker);
    log_info("worker stopped");
    return EXIT_SUCCESS;
}
