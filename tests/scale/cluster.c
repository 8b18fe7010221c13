#include "cluster.h"

#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "machine.h"
#include "meta/ring.h"
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

static struct worker_flags flags;
static struct store_geometry geometry;

void
scale_fail(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "scale: %s\n", text);
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
    struct store_memory memory = {.table_bytes = store_table_bytes(&geometry),
                                  .pins_bytes = store_pins_bytes(&geometry),
                                  .arena_bytes = geometry.arena_bytes};
    uint8_t *at = mmap(NULL, memory_bytes(&memory), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        scale_fail("out of memory for a node");
    memory.table = at;
    memory.pins = at + memory.table_bytes;
    node->arena = at + memory.table_bytes + memory.pins_bytes;
    node->memory = memory;
    store_format(&memory, &geometry, (uint32_t)scale_random() | 1,
                 (uint32_t)scale_random() | 1, 0);
}

static void
memory_close(struct node *node)
{
    munmap(node->memory.table, memory_bytes(&node->memory));
    node->memory = (struct store_memory){0};
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
        .geometry = geometry,
    };
    snprintf(resources->home, sizeof resources->home, "%s/%u", cluster.home,
             node->index);
    node->flags = flags;
    node->flags.worker_address = node->address;
}

void
node_start(struct node *node)
{
    struct ds_error err = {0};
    DS_ASSERT(!node->is_up);
    memory_open(node);
    open_resources(node);
    if (node->index == 0 &&
        files_make_folder(node->resources.home, 0700, &err) != DS_OK)
        scale_fail("%s", err.message);
    node->is_muted = false;
    node->is_silent = false;
    node->epoch_seen = 0;
    node->now_ns = scale_now_ns();
    node->is_up = true;
    machine_open_worker(node);
    if (membership_open(&node->worker, on_joined, &node->worker.membership, &err) !=
        DS_OK)
        scale_fail("%s", err.message);
}

static void
end_worker(struct node *node)
{
    worker_close(&node->worker);
    node->is_up = false;
    memory_close(node);
}

void
node_kill(struct node *node)
{
    DS_ASSERT(node->is_up);
    node->is_muted = true;
    end_worker(node);
}

void
node_silence(struct node *node)
{
    node->is_silent = true;
}

/* Its process ends when it has said goodbye. */
static void
end_if_stopped(void *arg)
{
    struct node *node = arg;
    if (node->worker.stopping)
        end_worker(node);
    else
        scale_at(scale_now_ns() + SCALE_MS, end_if_stopped, node);
}

void
node_stop(struct node *node)
{
    uv_signal_t *handle = &node->worker.terminate;
    node->now_ns = scale_now_ns();
    handle->signal_cb(handle, SIGTERM);
    scale_at(scale_now_ns() + SCALE_MS, end_if_stopped, node);
}

/* ---- All ---- */

/* Room for a node's own keys, and for copies of others. */
static void
choose_geometry(uint32_t keys_per_node)
{
    uint64_t slots = 1024;
    while (slots < 2 * (uint64_t)keys_per_node)
        slots *= 2;
    geometry = (struct store_geometry){
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
    static char *arguments[] = {
        "datasystem_worker",
        "--worker_address=10.0.0.0:31501",
        "--metastore_address=10.0.0.0:2379",
    };
    struct ds_error err = {0};
    if (flags_parse(3, arguments, &flags, &err) != DS_OK)
        scale_fail("%s", err.message);
}

void
cluster_open(uint32_t places, uint32_t keys_per_node)
{
    log_set_sink(NULL, NULL, LOG_NONE);
    parse_flags();
    choose_geometry(keys_per_node);
    cluster.count = places;
    cluster.nodes = calloc(places, sizeof *cluster.nodes);
    snprintf(cluster.home, sizeof cluster.home, "/tmp/datasystem-scale-XXXXXX");
    if (cluster.nodes == NULL || mkdtemp(cluster.home) == NULL)
        scale_fail("cannot make a folder or have memory for %u nodes", places);
    for (uint32_t i = 0; i < places; i++) {
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
        node->is_muted = true;
        if (node->is_up)
            end_worker(node);
        files_remove_folder(node->resources.home);
    }
    scale_clear();
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
        scale_fail("node %u goes back from epoch %ju to %ju", node->index,
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
    uint64_t now_ds = scale_now_ns() / (100 * SCALE_MS);
    enum ds_status status =
        store_create(node->worker.store, &request, now_ds, &view, &err);
    if (status == DS_OK) {
        struct seal_request seal = {.ref = view.ref};
        status = store_seal(node->worker.store, &seal, now_ds, &err);
    }
    if (status != DS_OK)
        scale_fail("%s", err.message);
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
        scale_fail("no owner for a key");
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
