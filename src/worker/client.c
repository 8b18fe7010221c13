#include "worker/client.h"

#include "base/check.h"
#include "base/log.h"
#include "base/status.h"
#include "os/clock.h"
#include "os/process.h"
#include "os/random.h"
#include "worker/objects.h"
#include "worker/orphans.h"
#include "worker/session.h"

#include <stdlib.h>
#include <unistd.h>

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
detach_sessions(struct client *client)
{
    LIST_FOREACH (link, &client->worker->sessions) {
        struct session *session = CONTAINER_OF(link, struct session, link);
        if (session->client != client)
            continue;
        session->client = NULL;
        session->creator = 0;
        objects_drop_parked(session); /* They would be created for nobody. */
        conn_close(session->conn, "its process is gone");
    }
}

static void
forget(struct client *client)
{
    list_remove(&client->link);
    detach_sessions(client);
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
bury(struct client *client, const char *why)
{
    struct worker *worker = client->worker;
    log_debug("worker client gone region=%u pid=%u reason=%s", client->region,
              client->identity.pid, why);
    worker->counters.clients_died++;
    orphans_collect(worker, client->region);
    store_client_remove(worker->store, client->region);
    store_tick(worker->store, clock_boot_ds());
    forget(client);
}

static void
on_watch(uv_poll_t *watch, int status, int events)
{
    (void)status;
    (void)events;
    bury(watch->data, "process ended");
}

static bool
watch_start(struct client *client)
{
    if (client->watch_fd < 0)
        return true;
    if (uv_poll_init(&client->worker->loop, &client->watch, client->watch_fd) != 0)
        return false;
    client->watch.data = client;
    client->watching = true;
    return uv_poll_start(&client->watch, UV_READABLE | UV_DISCONNECT, on_watch) == 0;
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
    list_push_back(&worker->clients, &client->link);
    if (!watch_start(client)) {
        forget(client);
        return NULL;
    }
    return client;
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
        return status;
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
client_add(struct worker *worker, struct peer *peer, struct client **out,
           struct ds_error *err)
{
    struct client_identity identity = {
        .pid = peer->pidfd >= 0 ? (uint32_t)peer->pid : 0,
        .pid_start_time = peer->start_time,
        .token = random_u64(),
    };
    int watch_fd = peer->pidfd;
    peer->pidfd = -1;
    return add(worker, &identity, watch_fd, out, err);
}

enum ds_status
client_add_fork_claim(struct client *parent, int pipe_fd, struct ds_error *err)
{
    struct client_identity identity = {.token = random_u64()};
    struct client *claim = NULL;
    enum ds_status status = add(parent->worker, &identity, pipe_fd, &claim, err);
    if (status != DS_OK)
        return status;
    DS_ASSERT(claim != NULL);
    store_client_copy_pins(parent->worker->store, parent->region, claim->region);
    return DS_OK;
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

static void
recover_one(struct worker *worker, uint32_t region,
            const struct client_identity *identity)
{
    int watch_fd = -1;
    if (identity->pid != 0)
        watch_fd = process_open((pid_t)identity->pid, identity->pid_start_time);
    struct client *client = NULL;
    if (identity->pid == 0 || watch_fd >= 0)
        client = client_new(worker, region, identity, watch_fd);
    if (client == NULL) {
        store_client_remove(worker->store, region);
        return;
    }
    client->must_resume = true;
    client->silent_since = clock_monotonic_ms();
}

void
clients_recover(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->resources->geometry.region_count; i++) {
        struct client_identity identity;
        if (store_client_get(worker->store, i, &identity))
            recover_one(worker, i, &identity);
    }
    orphans_recover(worker);
}

void
clients_tick(struct worker *worker, uint64_t now_ms)
{
    uint64_t grace_ms = (uint64_t)worker->flags->client_dead_timeout_s * 1000;
    LIST_FOREACH (link, &worker->clients) {
        struct client *client = CONTAINER_OF(link, struct client, link);
        bool invisible = client->watch_fd < 0 && client->session_count == 0;
        if (invisible && client->silent_since + grace_ms < now_ms)
            bury(client, "its connections closed and its pid is not visible");
    }
}

void
clients_close(struct worker *worker)
{
    LIST_FOREACH (link, &worker->clients)
        forget(CONTAINER_OF(link, struct client, link));
}
