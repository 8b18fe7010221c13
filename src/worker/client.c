#include "worker/client.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/status.h"
#include "net/watch.h"
#include "os/clock.h"
#include "os/memfile.h"
#include "os/process.h"
#include "os/random.h"
#include "worker/creates.h"
#include "worker/orphans.h"
#include "worker/session.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Asking for all marks takes time by the square of their number: 10000 would take half
 * a second. */
enum { MARKS_PER_TICK = 64 };

static void
client_free(struct client *client)
{
    if (client->watch_fd >= 0)
        close(client->watch_fd);
    free(client);
}

static void
on_watch_closed(uv_handle_t *handle)
{
    client_free(handle->data);
}

/* Sessions that are left (a fork's child may still use its parent's) lose their client.
 */
static void
detach_sessions(struct client *client, const char *reason)
{
    LIST_FOREACH (link, &client->worker->sessions) {
        struct session *session = CONTAINER_OF(link, struct session, link);
        if (session->client != client)
            continue;
        session->client = NULL;
        session->creator = 0;
        creates_drop(session); /* They would be created for nobody. */
        conn_close(session->conn, reason);
    }
}

/* `reason` is for the log; NULL: nothing to tell. */
static void
forget(struct client *client, const char *reason)
{
    struct worker *worker = client->worker;
    list_remove(&client->link);
    if (client->watch_fd < 0) {
        list_remove(&client->unseen_link);
        DS_ASSERT(worker->unseen_count > 0);
        worker->unseen_count--;
    }
    detach_sessions(client, reason);
    if (client->watching) {
        uv_poll_stop(&client->watch);
        uv_close((uv_handle_t *)&client->watch, on_watch_closed);
    } else {
        client_free(client);
    }
}

/* What it had not sealed goes at once, what it had pinned with it; its provisional
 * blocks wait for the controller's word. */
static void
bury(struct client *client, bool died, const char *why)
{
    struct worker *worker = client->worker;
    log_debug("worker client gone region=%u pid=%u reason=%s", client->region,
              client->identity.pid, why);
    worker->counters.clients_died += died;
    orphans_collect(worker, client->region);
    store_client_remove(worker->store, client->region);
    store_tick(worker->store, clock_boot_ds());
    forget(client, died ? "its process is gone" : NULL);
}

static void
on_watch(uv_poll_t *watch, int status, int events)
{
    (void)status;
    (void)events;
    bury(watch->data, true, "process ended");
}

static bool
watch_process(struct client *client)
{
    if (client->watch_fd < 0) {
        list_push_back(&client->worker->unseen, &client->unseen_link);
        client->worker->unseen_count++;
        return true;
    }
    if (uv_poll_init(&client->worker->loop, &client->watch, client->watch_fd) != 0)
        return false;
    client->watch.data = client;
    client->watching = true;
    return watch_start(&client->watch, UV_READABLE | UV_DISCONNECT, on_watch) == 0;
}

/* Takes watch_fd. NULL when out of memory or descriptors. */
static struct client *
client_new(struct worker *worker, uint32_t region,
           const struct client_identity *identity, int watch_fd)
{
    struct client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        if (watch_fd >= 0)
            close(watch_fd);
        return NULL;
    }
    client->worker = worker;
    client->region = region;
    client->identity = *identity;
    client->watch_fd = watch_fd;
    list_init(&client->unseen_link);
    list_push_back(&worker->clients, &client->link);
    if (!watch_process(client)) {
        forget(client, NULL);
        return NULL;
    }
    return client;
}

/* ---- Joining ---- */

static int
compare_pids(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

/* The value that occurs most often among the sorted pids. */
static uint32_t
most_frequent(const uint32_t *pids, size_t count, size_t *out_times)
{
    uint32_t winner = 0;
    size_t times = 0, run = 0;
    for (size_t i = 0; i < count; i++) {
        run = i > 0 && pids[i] == pids[i - 1] ? run + 1 : 1;
        if (run > times) {
            times = run;
            winner = pids[i];
        }
    }
    *out_times = times;
    return winner;
}

/* Whose clients are so many that there is no place left. 0: of processes that cannot be
 * seen. */
static uint32_t
busiest_process(struct worker *worker, size_t *out_times)
{
    size_t count = 0, count_max = worker->resources->geometry.region_count;
    uint32_t *pids = calloc(count_max, sizeof *pids);
    *out_times = 0;
    if (pids == NULL)
        return 0;
    LIST_FOREACH (link, &worker->clients) {
        DS_ASSERT(count < count_max);
        pids[count++] = CONTAINER_OF(link, struct client, link)->identity.pid;
    }
    qsort(pids, count, sizeof *pids, compare_pids);
    uint32_t busiest = most_frequent(pids, count, out_times);
    free(pids);
    return busiest;
}

static enum ds_status
fail_full(struct worker *worker, struct ds_error *err)
{
    size_t times;
    char who[PROCESS_TEXT_BYTES] = "processes that the worker cannot see (over TCP, "
                                   "children of a fork, other containers)";
    uint32_t pid = busiest_process(worker, &times);
    if (pid != 0)
        process_describe((pid_t)pid, who, sizeof who);
    return ds_fail(err, DS_FULL,
                   "Client number upper to the limit: all %u places for clients are "
                   "taken (--max_client_num), %zu of them by %s; close clients there, "
                   "or start the worker with a larger --max_client_num",
                   worker->resources->geometry.region_count, times, who);
}

static enum ds_status
add(struct worker *worker, const struct client_identity *identity, int watch_fd,
    struct client **out, struct ds_error *err)
{
    uint32_t region;
    enum ds_status status = store_client_add(worker->store, identity, &region, err);
    if (status != DS_OK) {
        if (watch_fd >= 0)
            close(watch_fd);
        return status == DS_FULL ? fail_full(worker, err) : status;
    }
    struct client *client = client_new(worker, region, identity, watch_fd);
    if (client == NULL) {
        store_client_remove(worker->store, region);
        return ds_fail(err, DS_NO_MEMORY, "worker cannot watch process %u",
                       identity->pid);
    }
    *out = client;
    return DS_OK;
}

enum ds_status
client_add(struct worker *worker, struct peer *peer, bool maps_memory,
           struct client **out, struct ds_error *err)
{
    struct client_identity identity = {.token = random_u64()};
    int watch_fd = peer->pidfd;
    peer->pidfd = -1;
    if (watch_fd >= 0 && peer->pid != 0) {
        identity.pid = (uint32_t)peer->pid;
        identity.pid_start_time = peer->start_time;
    } else {
        socket_close(watch_fd); /* The next worker could not open it again. */
        watch_fd = -1;
        identity.has_mark = maps_memory;
    }
    return add(worker, &identity, watch_fd, out, err);
}

/* Should the worker end before the mark is there, the region has no mark, and the next
 * worker frees it. */
enum ds_status
client_add_fork_claim(struct client *parent, int *out_mark, struct ds_error *err)
{
    struct worker *worker = parent->worker;
    struct client_identity identity = {.token = random_u64(), .has_mark = true};
    struct client *claim = NULL;
    enum ds_status status = add(worker, &identity, -1, &claim, err);
    if (status != DS_OK)
        return status;
    DS_ASSERT(claim != NULL);
    status = client_mark(claim, out_mark, err);
    if (status == DS_OK) {
        store_client_copy_pins(worker->store, parent->region, claim->region);
        return DS_OK;
    }
    store_client_remove(worker->store, claim->region);
    forget(claim, NULL);
    return status;
}

enum ds_status
client_mark(const struct client *client, int *out_mark, struct ds_error *err)
{
    *out_mark = -1;
    if (!client->identity.has_mark)
        return DS_OK;
    return memfile_mark(client->worker->resources->pins_fd, client->region, out_mark,
                        err);
}

static bool
is_marked(const struct worker *worker, uint32_t region)
{
    return memfile_is_marked(worker->resources->pins_fd, region);
}

struct client *
client_find(struct worker *worker, uint32_t region, uint64_t token)
{
    LIST_FOREACH (link, &worker->clients) {
        struct client *client = CONTAINER_OF(link, struct client, link);
        if (client->region == region && client->identity.token == token)
            return client;
    }
    return NULL;
}

void
client_leave(struct client *client, const char *why)
{
    bury(client, false, why);
}

/* ---- Restart, time, end ---- */

/* One who lives is never taken for dead, which would cost it what it reads just now: not
 * to be able to tell is an error, and the next try may be. */
static enum ds_status
recover_one(struct worker *worker, uint32_t region,
            const struct client_identity *identity, struct ds_error *err)
{
    int watch_fd = -1;
    bool alive = true; /* For now, if nothing but its silence would tell. */
    if (identity->has_mark) {
        alive = is_marked(worker, region);
    } else if (identity->pid != 0) {
        watch_fd = process_open((pid_t)identity->pid, identity->pid_start_time);
        alive = watch_fd >= 0;
        if (!alive && errno != ESRCH)
            return ds_fail_errno(err, "cannot watch process %u", identity->pid);
    }
    if (!alive) {
        store_client_remove(worker->store, region);
        return DS_OK;
    }
    struct client *client = client_new(worker, region, identity, watch_fd);
    if (client == NULL)
        return ds_fail(err, DS_NO_MEMORY, "cannot watch process %u", identity->pid);
    client->has_spoken = true;
    client->must_resume = true;
    client->silent_since = clock_monotonic_ms();
    return DS_OK;
}

enum ds_status
clients_recover(struct worker *worker, struct ds_error *err)
{
    enum ds_status status = DS_OK;
    for (uint32_t i = 0; i < worker->resources->geometry.region_count; i++) {
        struct client_identity identity;
        if (status == DS_OK && store_client_get(worker->store, i, &identity))
            status = recover_one(worker, i, &identity, err);
    }
    if (status == DS_OK)
        orphans_recover(worker);
    return status;
}

static void
bury_if_dead(struct client *client, uint64_t now_ms)
{
    struct worker *worker = client->worker;
    uint64_t grace_ms = (uint64_t)worker->flags->client_dead_timeout_s * 1000;
    if (client->identity.has_mark) {
        if (!is_marked(worker, client->region))
            bury(client, true, "no process has its mark any more");
    } else if (client->session_count == 0 && client->silent_since + grace_ms < now_ms) {
        bury(client, true, "its connections closed and its process is not visible");
    }
}

void
clients_tick(struct worker *worker, uint64_t now_ms)
{
    uint64_t left = min_u64(worker->unseen_count, MARKS_PER_TICK);
    LIST_FOREACH (link, &worker->unseen) {
        struct client *client = CONTAINER_OF(link, struct client, unseen_link);
        if (left-- == 0)
            break;
        list_remove(link);
        list_push_back(&worker->unseen, link);
        bury_if_dead(client, now_ms);
    }
}

void
clients_close(struct worker *worker)
{
    LIST_FOREACH (link, &worker->clients)
        forget(CONTAINER_OF(link, struct client, link), NULL);
}
