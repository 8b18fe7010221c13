#include "nodes.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"
#include "machine.h"
#include "meta/ring.h"
#include "network.h"
#include "os/files.h"
#include "worker/directory.h"
#include "worker/membership.h"
#include "worker/objects.h"
#include "worker/owners.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct cluster cluster;

void (*cluster_on_fail)(const char *text);

static struct cluster_options options;
static struct worker_flags flags;

void
cluster_fail(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (cluster_on_fail != NULL)
        cluster_on_fail(text);
    else
        fprintf(stderr, "%s: %s\n", options.name, text);
    exit(EXIT_FAILURE);
}

/* ---- Memory of a node ---- */

static uint64_t
memory_bytes(const struct store_memory *memory)
{
    return memory->table_bytes + memory->pins_bytes + memory->arena_bytes;
}

static void
memory_open(struct node *node)
{
    const struct store_geometry *geometry = &options.geometry;
    struct store_memory memory = {.table_bytes = store_table_bytes(geometry),
                                  .pins_bytes = store_pins_bytes(geometry),
                                  .arena_bytes = geometry->arena_bytes};
    uint8_t *at = mmap(NULL, memory_bytes(&memory), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        cluster_fail("out of memory for a node");
    memory.table = at;
    memory.pins = at + memory.table_bytes;
    node->arena = at + memory.table_bytes + memory.pins_bytes;
    node->memory = memory;
    node->has_supervisor = true;
    node->restarts = 0;
    store_format(&memory, geometry, (uint32_t)chance_random() | 1,
                 (uint32_t)chance_random() | 1, 0);
}

static void
memory_close(struct node *node)
{
    munmap(node->memory.table, memory_bytes(&node->memory));
    node->memory = (struct store_memory){0};
    node->has_supervisor = false;
}

/* What nobody sees any more is not done: the memory will be as it is now. */
static void
mute(struct node *node)
{
    uint64_t bytes = memory_bytes(&node->memory);
    DS_ASSERT(node->snapshot == NULL && !node->is_muted);
    node->snapshot = malloc(bytes);
    if (node->snapshot == NULL)
        cluster_fail("out of memory for what a node leaves behind");
    memcpy(node->snapshot, node->memory.table, bytes);
    node->is_muted = true;
    node->steps_left = 0;
}

static void
go_back_to_snapshot(struct node *node)
{
    if (node->snapshot != NULL)
        memcpy(node->memory.table, node->snapshot, memory_bytes(&node->memory));
    free(node->snapshot);
    node->snapshot = NULL;
}

/* ---- Life ---- */

static void
on_joined(struct worker *worker)
{
    (void)worker;
}

static void
open_resources(struct node *node)
{
    struct resources *resources = &node->resources;
    *resources = (struct resources){
        .lock_fd = -1,
        .arena_fd = FD_ARENA,
        .table_fd = FD_TABLE,
        .pins_fd = FD_PINS,
        .unix_fd = PORT_UNIX,
        .tcp_fd = PORT_WORKER,
        .metastore_fd = node->index == 0 ? PORT_METASTORE : -1,
        .geometry = options.geometry,
    };
    snprintf(resources->home, sizeof resources->home, "%s/%u", cluster.home,
             node->index);
    node->flags = flags;
    node->flags.worker_address = node->address;
}

static void
open_worker(struct node *node)
{
    struct ds_error err = {0};
    DS_ASSERT(!node->is_up);
    node->is_muted = false;
    node->is_silent = false;
    node->is_stalled = false;
    node->epoch_seen = 0;
    node->now_ns = virtual_now_ns();
    node->is_up = true;
    struct node_entry entry = node_enter(node, &node->tally);
    machine_open_worker(node);
    if (membership_open(&node->worker, on_joined, &node->worker.membership, &err) !=
        DS_OK)
        cluster_fail("%s", err.message);
    node_leave(entry);
}

void
node_start(struct node *node)
{
    memory_open(node);
    open_resources(node);
    open_worker(node);
}

void
node_revive(struct node *node)
{
    DS_ASSERT(node->has_supervisor);
    node->restarts++;
    open_worker(node);
}

static void
close_worker(struct node *node)
{
    node->steps_left = 0;
    struct node_entry entry = node_enter(node, &node->tally);
    worker_close(&node->worker);
    node_leave(entry);
    node->is_up = false;
}

static void
end_worker(struct node *node)
{
    close_worker(node);
    memory_close(node);
}

void
node_kill(struct node *node)
{
    if (node->is_up) {
        node->is_muted = true;
        close_worker(node);
    }
    go_back_to_snapshot(node);
    memory_close(node);
}

void
node_crash(struct node *node)
{
    DS_ASSERT(node->is_up);
    if (!node->is_muted)
        mute(node);
    close_worker(node);
    go_back_to_snapshot(node);
}

void
node_crash_after(struct node *node, uint64_t steps)
{
    node->steps_left = steps;
}

static void
crash_muted(void *arg)
{
    struct node *node = arg;
    if (node->is_up && node->is_muted)
        node_crash(node);
}

/* Between two stores to shared memory; what it does until the event is over is not seen. */
static void
on_step(const char *name, void *arg)
{
    struct node *node = node_running;
    (void)name;
    (void)arg;
    if (node == NULL || node->steps_left == 0 || --node->steps_left > 0)
        return;
    mute(node);
    virtual_at(virtual_now_ns(), crash_muted, node);
}

void
node_silence(struct node *node)
{
    node->is_silent = true;
}

void
node_stall(struct node *node)
{
    node->is_stalled = true;
}

void
node_go_on(struct node *node, bool was_asleep, uint64_t stalled_ns)
{
    node->is_stalled = false;
    node->asleep_ns += was_asleep ? stalled_ns : 0;
    if (node->is_up)
        loop_go_on(&node->worker.loop);
    network_changed(0);
}

bool
node_has_stopped(const struct node *node)
{
    return node->is_up && node->worker.stopping && !node->is_muted && !node->is_stalled;
}

void
node_end(struct node *node)
{
    end_worker(node);
}

/* Its process ends when it has said goodbye. */
static void
end_if_stopped(void *arg)
{
    struct node *node = arg;
    if (node->worker.stopping)
        end_worker(node);
    else
        virtual_at(virtual_now_ns() + VIRTUAL_MS, end_if_stopped, node);
}

static void
tell_to_stop(struct node *node)
{
    struct node_entry entry = node_enter(node, &node->tally);
    uv_signal_t *handle = &node->worker.terminate;
    node->now_ns = virtual_now_ns();
    handle->signal_cb(handle, SIGTERM);
    node_leave(entry);
}

void
node_stop(struct node *node)
{
    tell_to_stop(node);
    if (!network_faults.are_on) /* Else many things can come in between. */
        virtual_at(virtual_now_ns() + VIRTUAL_MS, end_if_stopped, node);
}

/* ---- All ---- */

struct store_geometry
cluster_geometry(uint32_t keys_per_node)
{
    uint64_t slots = 1024;
    while (slots < 2 * (uint64_t)keys_per_node)
        slots *= 2;
    return (struct store_geometry){
        .arena_bytes = slots * 256,
        .slot_count = slots,
        .bucket_count = slots / 4,
        .key_heap_bytes = 16 << 10,
        .region_count = 1,
        .words_per_region = 64,
    };
}

static void
parse_flags(void)
{
    static char timeout[48];
    static char *arguments[] = {
        "datasystem_worker",
        "--worker_address=10.0.0.0:31501",
        "--metastore_address=10.0.0.0:2379",
        timeout,
    };
    struct ds_error err = {0};
    snprintf(timeout, sizeof timeout, "--node_timeout_s=%u", options.node_timeout_s);
    if (flags_parse(options.node_timeout_s == 0 ? 3 : 4, arguments, &flags, &err) !=
        DS_OK)
        cluster_fail("%s", err.message);
}

void
cluster_open(const struct cluster_options *wanted)
{
    options = *wanted;
    parse_flags();
    store_set_step_hook(network_faults.are_on ? on_step : NULL, NULL);
    cluster.count = options.places;
    cluster.nodes = calloc(options.places, sizeof *cluster.nodes);
    snprintf(cluster.home, sizeof cluster.home, "/tmp/datasystem-cluster-XXXXXX");
    if (cluster.nodes == NULL ||
        (!network_faults.are_on && mkdtemp(cluster.home) == NULL))
        cluster_fail("cannot make a folder or have memory for %u nodes",
                     options.places);
    for (uint32_t i = 0; i < options.places; i++) {
        struct node *node = &cluster.nodes[i];
        node->index = i;
        snprintf(node->address, sizeof node->address, "10.0.%u.%u:31501", i / 256,
                 i % 256);
    }
}

void
cluster_close(void)
{
    for (uint32_t i = 0; i < cluster.count; i++) {
        struct node *node = &cluster.nodes[i];
        if (node->has_supervisor)
            node_kill(node);
        if (!network_faults.are_on)
            files_remove_folder(node->resources.home);
    }
    virtual_clear();
    if (!network_faults.are_on)
        rmdir(cluster.home);
    free(cluster.nodes);
    cluster = (struct cluster){0};
}

static bool
is_running(const struct node *node)
{
    return node->is_up && !node->is_silent && !node->worker.stopping;
}

uint32_t
cluster_running(void)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < cluster.count; i++)
        count += is_running(&cluster.nodes[i]);
    return count;
}

uint32_t
node_id(const struct node *node)
{
    return store_header(node->worker.store)->node;
}

struct node *
cluster_find(uint32_t id)
{
    for (uint32_t i = 0; i < cluster.count; i++) {
        if (cluster.nodes[i].is_up && node_id(&cluster.nodes[i]) == id)
            return &cluster.nodes[i];
    }
    return NULL;
}

uint64_t
cluster_epoch(void)
{
    return owners_epoch(cluster.nodes[0].worker.owners);
}

static void
check_epoch(struct node *node)
{
    uint64_t epoch = owners_epoch(node->worker.owners);
    if (epoch < node->epoch_seen)
        cluster_fail("node %u goes back from epoch %ju to %ju", node->index,
                     (uintmax_t)node->epoch_seen, (uintmax_t)epoch);
    node->epoch_seen = epoch;
}

bool
cluster_knows(uint32_t count, uint64_t after)
{
    uint64_t epoch = cluster_epoch();
    bool all = epoch > after;
    for (uint32_t i = 0; i < cluster.count; i++) {
        struct node *node = &cluster.nodes[i];
        if (!is_running(node))
            continue;
        check_epoch(node);
        all = all && node->epoch_seen == epoch &&
              membership_count(node->worker.membership) == count;
    }
    return all;
}

bool
cluster_knows_keys(void)
{
    for (uint32_t i = 0; i < cluster.count; i++) {
        const struct node *node = &cluster.nodes[i];
        if (is_running(node) &&
            (store_header(node->worker.store)->known_epoch != cluster_epoch() ||
             !owners_is_current(&node->worker)))
            return false;
    }
    return true;
}

/* ---- Users' keys ---- */

struct ds_slice
key_name(char *out, size_t out_bytes, uint32_t node, uint32_t number)
{
    snprintf(out, out_bytes, "key-%u-%u", node, number);
    return slice_of_text(out);
}

static struct object_name
put_key(struct node *node, struct ds_slice key)
{
    struct ds_error err = {0};
    struct object_view view;
    struct create_request request = {.key = key, .size = 64};
    uint64_t now_ds = virtual_now_ns() / (100 * VIRTUAL_MS);
    enum ds_status status =
        store_create(node->worker.store, &request, now_ds, &view, &err);
    if (status == DS_OK) {
        struct seal_request seal = {.ref = view.ref};
        status = store_seal(node->worker.store, &seal, now_ds, &err);
    }
    if (status != DS_OK)
        cluster_fail("%s", err.message);
    return objects_name(&node->worker, view.ref);
}

static void
add_key(struct node *node, struct ds_slice key)
{
    struct wire_binding binding = {.key = key, .object = put_key(node, key)};
    struct key_owner owner = owners_find(&node->worker, key);
    if (owners_is_self(&node->worker, &owner))
        return;
    struct node *other = cluster_find(owner.node);
    if (other == NULL || directory_take_report(&other->worker, &binding) != KEY_YES)
        cluster_fail("no owner for a key");
}

void
cluster_add_keys(uint32_t per_node)
{
    char name[32];
    for (uint32_t i = 0; i < cluster.count; i++) {
        for (uint32_t j = 0; cluster.nodes[i].is_up && j < per_node; j++)
            add_key(&cluster.nodes[i], key_name(name, sizeof name, i, j));
    }
}
