/* The rest of src/os: clock, random numbers, files, memory files, processes, the helper
 * thread. */
#include "objects.h"

#include "base/check.h"
#include "base/status.h"
#include "net/http.h"
#include "net/program.h"
#include "os/boot_id.h"
#include "os/clock.h"
#include "os/copy.h"
#include "os/files.h"
#include "os/mailbox.h"
#include "os/memfile.h"
#include "os/process.h"
#include "os/random.h"
#include "os/secret_file.h"
#include "os/sockets.h"
#include "os/supervisor.h"
#include "os/tcp_peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- Clock, chance, machine ---- */

uint64_t
clock_monotonic_ms(void)
{
    return sim.now_ns / SIM_MS;
}

uint64_t
clock_coarse_ms(void)
{
    return clock_monotonic_ms();
}

uint64_t
clock_monotonic_ns(void)
{
    return sim.now_ns;
}

/* Nothing keeps a core busy here: no time passes while a process runs. */
uint64_t
clock_thread_ns(void)
{
    return sim.now_ns;
}

uint64_t
clock_boot_ds(void)
{
    return sim.now_ns / (100 * SIM_MS);
}

void
random_bytes(void *out, size_t bytes)
{
    uint8_t *at = out;
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(sim_random() >> 40);
}

uint64_t
random_u64(void)
{
    return sim_random();
}

uint32_t
random_u32_nonzero(void)
{
    return (uint32_t)sim_between(1, UINT32_MAX);
}

bool
boot_id_get(char out[BOOT_ID_BYTES])
{
    snprintf(out, BOOT_ID_BYTES, "%s", "00000000-0000-4000-8000-000000000001");
    return true;
}

enum ds_status
tcp_peer_check_user(int fd, struct ds_error *err)
{
    (void)fd;
    (void)err;
    return DS_OK;
}

enum ds_status
tcp_peer_check_listener(int fd, struct ds_error *err)
{
    (void)fd;
    (void)err;
    return DS_OK;
}

/* All come from another host: with a key, who connects over TCP has to prove it. */
bool
tcp_peer_is_ours(int fd)
{
    (void)fd;
    return false;
}

static size_t secret_bytes;

void
machine_choose_secret(void)
{
    secret_bytes = sim_chance(1, 2) ? 0 : 32;
}

enum ds_status
secret_file_read(const char *path, size_t bytes_min, struct secret *out,
                 struct ds_error *err)
{
    (void)path;
    (void)err;
    DS_ASSERT(bytes_min <= 32);
    memset(out->bytes, 's', secret_bytes);
    out->len = secret_bytes;
    return DS_OK;
}

void
secret_wipe(struct secret *secret)
{
    memset(secret, 0, sizeof *secret);
}

/* Piece by piece: others see it half-done. */
void
copy_bytes(void *to, const void *from, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        size_t step = bytes - done < 512 ? bytes - done : 512;
        memcpy((uint8_t *)to + done, (const uint8_t *)from + done, step);
        done += step;
        sim_yield_rarely();
    }
}

/* ---- Files ---- */

enum ds_status
files_make_folder(const char *path, mode_t mode, struct ds_error *err)
{
    (void)path;
    (void)mode;
    (void)err;
    return DS_OK;
}

enum ds_status
files_make_private_folder(const char *path, struct ds_error *err)
{
    (void)path;
    (void)err;
    return DS_OK;
}

enum ds_status
files_write(const char *path, const char *text, mode_t mode, struct ds_error *err)
{
    (void)path;
    (void)text;
    (void)mode;
    (void)err;
    return DS_OK;
}

bool
files_read(const char *path, char *out, size_t out_bytes)
{
    (void)path;
    (void)out;
    (void)out_bytes;
    return false;
}

enum ds_status
files_lock(const char *path, int *out_fd, struct ds_error *err)
{
    if (object_lock_exists(path))
        return ds_fail(err, DS_EXISTS, "%s is taken", path);
    struct object *lock = object_new(OBJECT_LOCK);
    snprintf(lock->name, sizeof lock->name, "%s", path);
    *out_fd = descriptor_open(lock);
    return DS_OK;
}

/* ---- Memory files ---- */

int
memory_file_open(uint64_t bytes)
{
    struct object *file = object_new(OBJECT_MEMORY);
    file->data_bytes = bytes;
    file->data = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    DS_ASSERT(file->data != MAP_FAILED);
    return descriptor_open(file);
}

void *
memory_file_data(int fd)
{
    return object_of(fd)->data;
}

enum ds_status
memfile_map(int fd, uint64_t offset, uint64_t bytes, bool writable, void **out,
            struct ds_error *err)
{
    struct object *file = object_of(fd);
    (void)writable;
    if (file->kind != OBJECT_MEMORY || offset > file->data_bytes ||
        bytes > file->data_bytes - offset)
        return ds_fail(err, DS_IO, "map: outside the file");
    *out = file->data + offset;
    return DS_OK;
}

enum ds_status
memfile_map_private(int fd, uint64_t offset, uint64_t bytes, void **out,
                    struct ds_error *err)
{
    return memfile_map(fd, offset, bytes, true, out, err);
}

void
memfile_unmap_private(void *data, uint64_t bytes)
{
    (void)data;
    (void)bytes;
}

/* The file stays until the end of the run. */
void
memfile_unmap(void *data, uint64_t bytes)
{
    (void)data;
    (void)bytes;
}

void
memfile_prefault(const void *data, uint64_t bytes)
{
    (void)data;
    (void)bytes;
}

enum ds_status
memfile_populate(int fd, uint64_t offset, uint64_t bytes, struct ds_error *err)
{
    void *data;
    return memfile_map(fd, offset, bytes, true, &data, err);
}

enum ds_status
memfile_collapse(void *data, uint64_t bytes, struct ds_error *err)
{
    (void)data;
    (void)bytes;
    (void)err;
    return DS_OK;
}

enum ds_status
memfile_size(int fd, uint64_t *out, struct ds_error *err)
{
    (void)err;
    *out = object_of(fd)->data_bytes;
    return DS_OK;
}

enum ds_status
memfile_mark(int fd, uint64_t number, int *out_fd, struct ds_error *err)
{
    (void)err;
    struct object *mark = object_new(OBJECT_MARK);
    mark->marked = object_of(fd);
    mark->number = number;
    *out_fd = descriptor_open(mark);
    return DS_OK;
}

bool
memfile_is_marked(int fd, uint64_t number)
{
    return object_mark_exists(object_of(fd), number);
}

/* ---- Processes ---- */

int
process_open(pid_t pid, uint64_t start_time)
{
    if (process_find((uint32_t)pid) == NULL || start_time != (uint64_t)pid * 10) {
        errno = ESRCH;
        return -1;
    }
    struct object *process = object_new(OBJECT_PROCESS);
    process->number = (uint64_t)pid;
    return descriptor_open(process);
}

void
process_describe(pid_t pid, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "PID %d (simulated)", (int)pid);
}

/* ---- Going on with another node's queue: there is one node ---- */

uint64_t
process_start_time(pid_t pid)
{
    return (uint64_t)pid * 10;
}

bool
process_program_beside(const char *name, char *out, size_t out_bytes)
{
    (void)name;
    (void)out;
    (void)out_bytes;
    return false;
}

enum ds_status
secret_hand_over(const struct secret *secret, int *out_fd, struct ds_error *err)
{
    (void)secret;
    (void)out_fd;
    return ds_fail(err, DS_UNSUPPORTED, "there is one node");
}

enum ds_status
program_start(uv_loop_t *loop, char **arguments, int stdin_fd,
              void (*on_end)(int exit_code, int signal_number, void *arg), void *arg,
              struct program **out, struct ds_error *err)
{
    (void)loop;
    (void)arguments;
    (void)stdin_fd;
    (void)on_end;
    (void)arg;
    (void)out;
    return ds_fail(err, DS_UNSUPPORTED, "there is one node");
}

enum ds_status
http_open(uv_loop_t *loop, const struct http_options *options, struct http **out,
          struct ds_error *err)
{
    (void)loop;
    (void)options;
    (void)out;
    return ds_fail(err, DS_UNSUPPORTED, "there is no etcd");
}

void
http_post(struct http *http, const struct http_request *request,
          http_answer_fn on_answer, void *arg)
{
    (void)http;
    (void)request;
    (void)on_answer;
    (void)arg;
}

void
http_close(struct http *http)
{
    (void)http;
}

void
program_kill(struct program *program)
{
    (void)program;
}

void
program_forget(struct program *program)
{
    (void)program;
}

/* ---- The helper thread: as a second fiber, without anything in between ---- */

struct mailbox {
    int fd;
    struct mailbox_job *done;
};

enum ds_status
mailbox_create(struct mailbox **out, struct ds_error *err)
{
    (void)err;
    struct mailbox *box = calloc(1, sizeof *box);
    box->fd = descriptor_open(object_new(OBJECT_MAILBOX));
    *out = box;
    return DS_OK;
}

void
mailbox_destroy(struct mailbox *box)
{
    if (box == NULL)
        return;
    socket_close(box->fd);
    free(box);
}

void
mailbox_submit(struct mailbox *box, struct mailbox_job *job)
{
    job->run(job);
    job->next = box->done;
    box->done = job;
    object_of(box->fd)->number = 1;
    process_wake(process_current());
}

int
mailbox_fd(const struct mailbox *box)
{
    return box->fd;
}

struct mailbox_job *
mailbox_collect(struct mailbox *box)
{
    struct mailbox_job *job = box->done;
    if (job != NULL)
        box->done = job->next;
    object_of(box->fd)->number = box->done != NULL;
    return job;
}

/* ---- The supervisor: node.c ---- */

void
supervisor_child_is_up(void)
{
}
