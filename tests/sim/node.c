#include "node.h"

#include "oracle.h"

#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "controller/controller.h"
#include "net/run.h"
#include "os/random.h"
#include "os/secret_file.h"
#include "os/sockets.h"
#include "store/store.h"
#include "wire/message.h"
#include "worker/stats.h"

#include <stdlib.h>
#include <string.h>

enum { SUPERVISOR_START_NS = 20 * SIM_MS };

struct node node;

static struct worker_flags flags;
static struct resources resources;
static struct store_geometry geometry;

/* ---- Memory and sockets: what the supervisor holds ---- */

/* Small, so that it is full often and its tables are walked quickly. */
static void
choose_geometry(void)
{
    geometry = (struct store_geometry){
        .arena_bytes = (UINT64_C(64) << 10) << sim_between(0, 5),
        .slot_count = sim_chance(1, 4) ? 64 : 256,
        .bucket_count = sim_chance(1, 2) ? 8 : 64,
        .key_heap_bytes = 16384,
        .region_count = NODE_CLIENTS_MAX,
        .words_per_region = 64,
    };
}

static void
open_resources(void)
{
    resources = (struct resources){
        .lock_fd = -1,
        .metastore_fd = -1,
        .geometry = geometry,
        .socket_path = "/run/datasystem/worker.sock",
        .host = NODE_HOST,
        .port = NODE_PORT,
        .tcp_fd = socket_listen_any("tcp:31501"),
        .unix_fd = socket_listen_any("unix:/run/datasystem/worker.sock"),
        .arena_fd = memory_file_open(geometry.arena_bytes),
        .table_fd = memory_file_open(store_table_bytes(&geometry)),
        .pins_fd = memory_file_open(store_pins_bytes(&geometry)),
    };
    struct secret secret;
    enum ds_status status = secret_file_read("", AUTH_SECRET_BYTES_MIN, &secret, NULL);
    DS_ASSERT(status == DS_OK);
    resources.has_key = secret.len > 0;
    if (resources.has_key)
        auth_key_derive(slice(secret.bytes, secret.len), &resources.key);
    resources.encrypts = resources.has_key && sim_chance(1, 2);
    struct store_memory memory = {
        .table = memory_file_data(resources.table_fd),
        .table_bytes = store_table_bytes(&geometry),
        .pins = memory_file_data(resources.pins_fd),
        .pins_bytes = store_pins_bytes(&geometry),
        .arena_bytes = geometry.arena_bytes,
    };
    store_format(&memory, &geometry, random_u32_nonzero(), random_u32_nonzero(), 0);
    node.arenas++;
    node.restarts = 0;
}

/* ---- The worker ---- */

static void
worker_main(void *arg)
{
    struct ds_error err = {0};
    (void)arg;
    memset(&node.state, 0, sizeof node.state);
    if (worker_open(&node.state, &flags, &resources, node.restarts, &err) != DS_OK)
        sim_fail("the worker cannot start: %s", err.message);
    store_check(node.state.store);
    node.is_serving = true;
    stats_report_ready(&node.state);
    run_loop(&node.state.loop);
    sim_fail("the worker ended by itself");
}

static void
on_worker_end(void *arg)
{
    (void)arg;
    node.worker = NULL;
    node.is_serving = false;
}

static void
start_worker(void)
{
    char name[24];
    snprintf(name, sizeof name, "worker.%u.%d", node.arenas, node.restarts);
    node.worker = process_start(name, worker_main, NULL);
    node.worker->on_end = on_worker_end;
    sim_trace("start %s pid=%u", name, node.worker->pid);
}

/* ---- The controller ---- */

static int controller_fd; /* Its supervisor's. */

static void
controller_main(void *arg)
{
    static struct controller_options options = {
        .socket_path = NODE_CONTROLLER_SOCKET,
        .worker_socket_path = "/run/datasystem/worker.sock",
        .journal = {.path = "/run/queue/journal",
                    .session = "simulation",
                    .compact_bytes = 4096},
        .owner = "simulation",
        .owner_fd = -1,
        .tcp_fd = -1,
    };
    (void)arg;
    options.listen_fd = controller_fd;
    if (controller_run(&options, (int)node.controllers - 1) != 0)
        sim_fail("the controller cannot start");
    sim_fail("the controller ended by itself");
}

static void
on_controller_end(void *arg)
{
    (void)arg;
    node.controller = NULL;
}

static void
start_controller(void)
{
    char name[24];
    snprintf(name, sizeof name, "controller.%u", ++node.controllers);
    node.controller = process_start(name, controller_main, NULL);
    node.controller->on_end = on_controller_end;
    sim_trace("start %s pid=%u", name, node.controller->pid);
}

/* ---- The supervisors ---- */

static bool has_controller;

/* A new supervisor, which is never there at once. Until then who has the old memory mapped
 * may read it for a moment: nobody can have changed or missed anything meanwhile. */
static void
begin_anew(void)
{
    sim_sleep(SUPERVISOR_START_NS);
    open_resources();
    node.restarts = -1; /* The first start is none. */
    oracle_wipe();
}

static void
supervise(void *arg)
{
    (void)arg;
    for (;;) {
        sim_sleep(sim_between(1, 20) * SIM_MS);
        if (node.worker == NULL) {
            bool is_new = node.restarts < 0;
            if (is_new)
                begin_anew();
            sim_sleep(sim_chance(1, 2) ? 0 : sim_below(500 * SIM_MS));
            if (!is_new && node.restarts < 0)
                continue; /* It died before it had started another. */
            node.restarts++;
            start_worker();
        }
        if (has_controller && node.controller == NULL)
            start_controller();
    }
}

static void
log_line(enum log_level level, const char *line, void *arg)
{
    (void)arg;
    (void)level;
    sim_print(line);
}

void
node_start(bool with_controller)
{
    static char *arguments[] = {
        "datasystem_worker",
        "--worker_address",
        "127.0.0.1:31501",
        "--client_dead_timeout_s=3",
    };
    struct ds_error err = {0};
    enum ds_status status = flags_parse(4, arguments, &flags, &err);
    DS_ASSERT(status == DS_OK);
    log_set_sink(log_line, NULL, sim.is_tracing ? LOG_DEBUG : LOG_NONE);
    node = (struct node){0};
    has_controller = with_controller;
    choose_geometry();
    machine_choose_secret();
    open_resources();
    start_worker();
    if (with_controller) {
        controller_fd = socket_listen_any("unix:" NODE_CONTROLLER_SOCKET);
        start_controller();
    }
    process_add_fiber(NULL, supervise, NULL);
}

void
node_lose_memory(void)
{
    if (node.restarts < 0)
        return; /* Still dead. */
    sim_trace("the worker's supervisor dies");
    if (node.worker != NULL)
        process_kill(node.worker);
    int fds[] = {resources.tcp_fd, resources.unix_fd, resources.arena_fd,
                 resources.table_fd, resources.pins_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        socket_close(fds[i]);
    node.restarts = -1;
}

/* ---- The end ---- */

struct tally {
    uint64_t live_bytes;
    uint64_t blocks;
};

static void
add_live(const struct object_view *view, struct ds_slice key, void *arg)
{
    struct tally *tally = arg;
    tally->live_bytes += extent_bytes(view->size);
    tally->blocks += wire_is_block_key(key);
}

void
node_check_settled(bool no_blocks)
{
    struct store *store = node.state.store;
    struct store_stats stats;
    struct tally tally = {0};
    DS_ASSERT(node.is_serving);
    store_check(store);
    store_stats(store, &stats);
    store_each(store, add_live, &tally);
    uint64_t live = tally.live_bytes;
    if (no_blocks && tally.blocks > 0)
        sim_fail("left behind: %ju blocks of cleared rows", (uintmax_t)tally.blocks);
    sim_trace("settled objects=%ju used=%ju", (uintmax_t)stats.objects,
              (uintmax_t)stats.arena.used_bytes);
    if (stats.pins != 0 || stats.dead != 0 || stats.writing != 0 || stats.lent != 0 ||
        stats.clients != 0)
        sim_fail("left behind: pins=%ju dead=%ju unsealed=%ju lent=%ju clients=%ju",
                 (uintmax_t)stats.pins, (uintmax_t)stats.dead, (uintmax_t)stats.writing,
                 (uintmax_t)stats.lent, (uintmax_t)stats.clients);
    if (live != stats.arena.used_bytes ||
        stats.arena.used_bytes + stats.arena.free_bytes != stats.arena.total_bytes)
        sim_fail("the arena leaks: live=%ju used=%ju free=%ju total=%ju",
                 (uintmax_t)live, (uintmax_t)stats.arena.used_bytes,
                 (uintmax_t)stats.arena.free_bytes, (uintmax_t)stats.arena.total_bytes);
}
