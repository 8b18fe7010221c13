/* In place of what the worker asks of its machine: time, memory, files, other programs and
 * the helper threads. And the ring of keys, which all members build alike: here the first one
 * does, and the others are given the same and charged the processor's time that it took. */
#include "machine.h"

#include "base/check.h"
#include "base/planted.h"
#include "base/status.h"
#include "meta/ring.h"
#include "net/program.h"
#include "net/run.h"
#include "os/clock.h"
#include "os/memfile.h"
#include "os/sockets.h"
#include "os/tcp_peer.h"
#include "worker/checksums.h"
#include "worker/election.h"
#include "worker/launch.h"
#include "worker/metastore.h"
#include "worker/populate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* ---- Whose code runs ---- */

struct node *node_running;
enum planted_bug planted_bug = PLANTED_NONE;

struct node_entry
node_enter(struct node *node, struct tally *whose)
{
    struct node_entry entry = {cpu_enter(whose), node_running};
    node_running = node;
    return entry;
}

void
node_leave(struct node_entry entry)
{
    node_running = entry.before;
    cpu_leave(entry.account);
}

/* ---- Clocks: no two nodes have the same ---- */

uint64_t
node_monotonic_ns(const struct node *node)
{
    uint64_t now_ns = virtual_now_ns();
    return node == NULL ? now_ns : now_ns + node->clock_ns - node->asleep_ns;
}

uint64_t
clock_monotonic_ms(void)
{
    return node_monotonic_ns(node_running) / VIRTUAL_MS;
}

uint64_t
clock_monotonic_ns(void)
{
    return node_monotonic_ns(node_running);
}

uint64_t
clock_coarse_ms(void)
{
    return clock_monotonic_ms();
}

/* It goes on while the machine sleeps. */
uint64_t
clock_boot_ds(void)
{
    uint64_t ahead_ns = node_running == NULL ? 0 : node_running->clock_ns;
    return (virtual_now_ns() + ahead_ns) / (100 * VIRTUAL_MS);
}

uint64_t
clock_thread_ns(void)
{
    return virtual_now_ns();
}

/* The only one that reads the wall clock, so nothing else can depend on it. */
void
clock_utc_text(char *out)
{
    int64_t wall_ns = (int64_t)virtual_now_ns();
    if (node_running != NULL)
        wall_ns += node_running->wall_ns;
    snprintf(out, 32, "%jd", (intmax_t)wall_ns);
}

/* ---- Memory and peers ---- */

/* The node whose worker is being opened. */
static struct node *opening;

void
machine_open_worker(struct node *node)
{
    struct ds_error err = {0};
    opening = node;
    if (worker_open(&node->worker, &node->flags, &node->resources, node->restarts,
                    &err) != DS_OK) {
        fprintf(stderr, "cluster: a worker does not start: %s\n", err.message);
        abort();
    }
}

/* Descriptors of memory files are enum memory_fd here. */
enum ds_status __wrap_memfile_map(int fd, uint64_t offset, uint64_t bytes,
                                  bool writable, void **out, struct ds_error *err);
enum ds_status
__wrap_memfile_map(int fd, uint64_t offset, uint64_t bytes, bool writable, void **out,
                   struct ds_error *err)
{
    (void)offset;
    (void)bytes;
    (void)writable;
    (void)err;
    *out = fd == FD_TABLE  ? opening->memory.table
           : fd == FD_PINS ? opening->memory.pins
                           : opening->arena;
    return DS_OK;
}

void __wrap_memfile_unmap(void *data, uint64_t bytes);
void
__wrap_memfile_unmap(void *data, uint64_t bytes)
{
    (void)data;
    (void)bytes;
}

enum ds_status __wrap_socket_peer_user(int fd, uid_t *out, struct ds_error *err);
enum ds_status
__wrap_socket_peer_user(int fd, uid_t *out, struct ds_error *err)
{
    (void)fd;
    (void)err;
    *out = geteuid();
    return DS_OK;
}

enum ds_status __wrap_tcp_peer_check_user(int fd, struct ds_error *err);
enum ds_status
__wrap_tcp_peer_check_user(int fd, struct ds_error *err)
{
    (void)fd;
    (void)err;
    return DS_OK;
}

/* ---- Files: the one that a metastore keeps ---- */

static bool
is_kept(const char *path)
{
    return node_running != NULL && strstr(path, "/metastore.epoch") != NULL;
}

enum ds_status __wrap_files_write(const char *path, const char *text, mode_t mode,
                                  struct ds_error *err);
enum ds_status
__wrap_files_write(const char *path, const char *text, mode_t mode,
                   struct ds_error *err)
{
    (void)mode;
    (void)err;
    if (is_kept(path) && !node_running->is_muted)
        snprintf(node_running->saved, sizeof node_running->saved, "%s", text);
    return DS_OK;
}

bool __wrap_files_read(const char *path, char *out, size_t out_bytes);
bool
__wrap_files_read(const char *path, char *out, size_t out_bytes)
{
    bool is_there = is_kept(path) && node_running->saved[0] != '\0';
    if (is_there)
        snprintf(out, out_bytes, "%s", node_running->saved);
    return is_there;
}

void __wrap_files_remove(const char *path);
void
__wrap_files_remove(const char *path)
{
    if (is_kept(path) && !node_running->is_muted)
        node_running->saved[0] = '\0';
}

/* A supervisor's, of a controller. */
enum ds_status
__wrap_socket_connect_unix(const char *path, int *out_fd, struct ds_error *err);
enum ds_status
__wrap_socket_connect_unix(const char *path, int *out_fd, struct ds_error *err)
{
    *out_fd = -1;
    if (machine_programs.listens != NULL && machine_programs.listens(path))
        return DS_OK;
    return ds_fail(err, DS_NOT_READY, "nobody listens at '%s'", path);
}

/* ---- Other programs ---- */

uint32_t machine_programs_started;
struct machine_programs machine_programs;

/* Owner: itself, until it has ended and its worker knows, or does not care. */
struct program {
    void (*on_end)(int exit_code, int signal_number, void *arg); /* NULL: forgotten. */
    void *arg;
    struct node *node;
    int exit_code;
    int signal_number;
    bool is_played;
    bool has_ended;
};

/* Nothing runs unless somebody plays it: then it serves nothing. */
enum ds_status
program_start(uv_loop_t *loop, char **arguments, int stdin_fd,
              void (*on_end)(int exit_code, int signal_number, void *arg), void *arg,
              struct program **out, struct ds_error *err)
{
    (void)loop;
    (void)stdin_fd;
    (void)err;
    struct program *program = calloc(1, sizeof *program);
    DS_ASSERT(program != NULL);
    *program = (struct program){.on_end = on_end, .arg = arg, .node = node_running};
    machine_programs_started++;
    program->is_played = machine_programs.start != NULL && !node_running->is_muted;
    if (program->is_played)
        machine_programs.start(program, node_running, arguments[0],
                               strtoull(arguments[1], NULL, 10));
    *out = program;
    return DS_OK;
}

static void
tell_end(void *arg)
{
    struct program *program = arg;
    if (program->on_end != NULL) {
        struct node_entry entry = node_enter(program->node, &program->node->tally);
        program->on_end(program->exit_code, program->signal_number, program->arg);
        node_leave(entry);
    }
    free(program);
}

void
machine_program_end(struct program *program, int exit_code, int signal_number)
{
    if (program->has_ended)
        return;
    program->has_ended = true;
    program->exit_code = exit_code;
    program->signal_number = signal_number;
    virtual_at(virtual_now_ns(), tell_end, program);
}

void
program_kill(struct program *program)
{
    if (program->is_played && !program->node->is_muted)
        machine_programs.killed(program);
    machine_program_end(program, 0, 9);
}

void
program_forget(struct program *program)
{
    program->on_end = NULL;
    if (!program->is_played)
        machine_program_end(program, 0, 0);
}

enum ds_status
launch_prepare(const struct worker *worker, const char *queue, uint64_t term,
               struct launch *out, struct ds_error *err)
{
    (void)err;
    *out = (struct launch){.count = 2};
    snprintf(out->socket, sizeof out->socket, "%.100s/%s-%ju", worker->resources->home,
             queue, (uintmax_t)term);
    snprintf(out->term, sizeof out->term, "%ju", (uintmax_t)term);
    out->arguments[0] = out->socket;
    out->arguments[1] = out->term;
    return DS_OK;
}

/* ---- No etcd ---- */

enum ds_status
election_open(struct worker *worker, struct election **out, struct ds_error *err)
{
    (void)worker;
    (void)out;
    return ds_fail(err, DS_UNSUPPORTED, "there is no etcd");
}

void
election_close(struct election *election)
{
    (void)election;
}

void
election_ask(struct election *election, election_answer_fn on_answer, void *arg)
{
    (void)election;
    on_answer(arg, NULL, "there is no etcd");
}

bool
election_holds(const struct election *election)
{
    (void)election;
    return false;
}

void
election_save(struct election *election, struct members_past past)
{
    (void)election;
    (void)past;
}

void
election_resign(struct election *election, void (*on_done)(struct worker *worker))
{
    (void)election;
    (void)on_done;
}

void
election_tick(struct election *election)
{
    (void)election;
}

void
launch_clean_up(const struct worker *worker)
{
    (void)worker;
}

void
run_loop(uv_loop_t *loop)
{
    (void)loop;
}

/* ---- Helper threads: all memory is there, and nothing is hashed in advance ---- */

enum ds_status
populate_start(struct worker *worker, uint64_t already, struct populate **out,
               struct ds_error *err)
{
    (void)already;
    (void)err;
    store_set_populated(worker->store, worker->memory.arena_bytes);
    *out = NULL;
    return DS_OK;
}

void
populate_stop(struct populate *populate)
{
    (void)populate;
}

void
populate_hurry(struct populate *populate)
{
    (void)populate;
}

bool
populate_is_done(const struct populate *populate)
{
    (void)populate;
    return true;
}

bool
populate_step_now(struct populate *populate)
{
    (void)populate;
    return false;
}

enum ds_status
checksums_start(struct worker *worker, struct checksums **out, struct ds_error *err)
{
    (void)worker;
    (void)err;
    *out = NULL;
    return DS_OK;
}

void
checksums_stop(struct checksums *checksums)
{
    (void)checksums;
}

void
checksums_tick(struct checksums *checksums)
{
    (void)checksums;
}

/* ---- Rings ---- */

uint64_t machine_ring_ns;

/* Owner: the list, while somebody has it. */
struct shared_ring {
    struct list link;
    uint64_t hash; /* Of its nodes. */
    size_t count;
    struct ring *ring;
    uint32_t references;
    uint64_t cpu_ns;
};

static struct list rings = {.next = &rings, .prev = &rings};

enum ds_status __real_ring_create(const uint32_t *nodes, size_t count,
                                  struct ring **out, struct ds_error *err);
void __real_ring_destroy(struct ring *ring);

static struct shared_ring *
find_ring(uint64_t hash, size_t count)
{
    LIST_FOREACH (link, &rings) {
        struct shared_ring *shared = CONTAINER_OF(link, struct shared_ring, link);
        if (shared->hash == hash && shared->count == count)
            return shared;
    }
    return NULL;
}

static struct shared_ring *
build_ring(const uint32_t *nodes, size_t count, uint64_t hash)
{
    struct shared_ring *shared = calloc(1, sizeof *shared);
    DS_ASSERT(shared != NULL);
    uint64_t began = cpu_thread_ns();
    enum ds_status status = __real_ring_create(nodes, count, &shared->ring, NULL);
    DS_ASSERT(status == DS_OK);
    machine_ring_ns = shared->cpu_ns = cpu_thread_ns() - began;
    shared->hash = hash;
    shared->count = count;
    list_push_front(&rings, &shared->link);
    return shared;
}

enum ds_status __wrap_ring_create(const uint32_t *nodes, size_t count,
                                  struct ring **out, struct ds_error *err);
enum ds_status
__wrap_ring_create(const uint32_t *nodes, size_t count, struct ring **out,
                   struct ds_error *err)
{
    if (network_faults
            .are_on) /* Who gets the same ring twice takes it for one epoch. */
        return __real_ring_create(nodes, count, out, err);
    cpu_pause();
    uint64_t hash = XXH3_64bits(nodes, count * sizeof *nodes);
    struct shared_ring *shared = find_ring(hash, count);
    if (shared == NULL)
        shared = build_ring(nodes, count, hash);
    shared->references++;
    *out = shared->ring;
    cpu_resume();
    cpu_charge(shared->cpu_ns);
    return DS_OK;
}

void __wrap_ring_destroy(struct ring *ring);
void
__wrap_ring_destroy(struct ring *ring)
{
    if (network_faults.are_on) {
        __real_ring_destroy(ring);
        return;
    }
    LIST_FOREACH (link, &rings) {
        struct shared_ring *shared = CONTAINER_OF(link, struct shared_ring, link);
        if (shared->ring != ring)
            continue;
        if (--shared->references > 0)
            return;
        list_remove(&shared->link);
        __real_ring_destroy(shared->ring);
        free(shared);
        return;
    }
}

/* ---- The metastore's part of the head's tick ---- */

void __real_metastore_tick(struct metastore *metastore, uint64_t now_ms);
void __wrap_metastore_tick(struct metastore *metastore, uint64_t now_ms);
void
__wrap_metastore_tick(struct metastore *metastore, uint64_t now_ms)
{
    struct cpu_account outer = cpu_enter(&cluster.nodes[0].metastore);
    __real_metastore_tick(metastore, now_ms);
    cpu_leave(outer);
}
