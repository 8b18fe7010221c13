#include "worker/resources.h"

#include "base/check.h"
#include "base/log.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/files.h"
#include "os/memfile.h"
#include "os/memory_limit.h"
#include "os/random.h"
#include "os/secret_file.h"
#include "os/sockets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* All members may come at once; the system's own limit is 4,096 as well. */
enum { BACKLOG = 4096, HUGE_PAGE_BYTES = 2 << 20 };

/* ---- Paths ---- */

static enum ds_status
default_home(const struct resources *resources, char *out, struct ds_error *err)
{
    char folder[PATH_MAX];
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int used;
    if (runtime != NULL && runtime[0] == '/')
        used = snprintf(folder, sizeof folder, "%s/datasystem", runtime);
    else
        used = snprintf(folder, sizeof folder, "/tmp/datasystem-%u", geteuid());
    if (used < 0 || (size_t)used >= sizeof folder)
        return ds_fail(err, DS_INVALID, "XDG_RUNTIME_DIR is too long a path");
    used =
        snprintf(out, PATH_MAX, "%s/%s_%u", folder, resources->host, resources->port);
    if (used < 0 || used >= PATH_MAX)
        return ds_fail(err, DS_INVALID, "home folder '%s' is too long a path", folder);
    return DS_OK;
}

/* Flags' paths that begin with "./" (or no "/") are relative to home. */
static enum ds_status
resolve(const struct resources *resources, const char *path, char *out,
        struct ds_error *err)
{
    int used;
    if (path[0] == '/')
        used = snprintf(out, PATH_MAX, "%s", path);
    else
        used = snprintf(out, PATH_MAX, "%s/%s", resources->home,
                        strncmp(path, "./", 2) == 0 ? path + 2 : path);
    if (used < 0 || used >= PATH_MAX)
        return ds_fail(err, DS_INVALID, "path '%s' is too long", path);
    return DS_OK;
}

static enum ds_status
resolve_socket(const struct worker_flags *flags, struct resources *out,
               struct ds_error *err)
{
    char folder[PATH_MAX];
    enum ds_status status = resolve(out, flags->unix_domain_socket_dir, folder, err);
    if (status != DS_OK)
        return status;
    int used = snprintf(out->socket_path, PATH_MAX, "%s/worker.sock", folder);
    if (used < 0 || used >= PATH_MAX)
        return ds_fail(err, DS_INVALID, "path '%s' is too long", folder);
    return DS_OK;
}

static enum ds_status
resolve_addresses(const struct worker_flags *flags, struct resources *out,
                  struct ds_error *err)
{
    const char *bound =
        flags->bind_address[0] != '\0' ? flags->bind_address : flags->worker_address;
    enum ds_status status = socket_parse_address(flags->worker_address, out->host,
                                                 sizeof out->host, &out->port, err);
    if (status == DS_OK)
        status = socket_parse_address(bound, out->bind_host, sizeof out->bind_host,
                                      &out->bind_port, err);
    return status;
}

enum ds_status
resources_resolve(const struct worker_flags *flags, struct resources *out,
                  struct ds_error *err)
{
    *out = (struct resources){.lock_fd = -1,
                              .arena_fd = -1,
                              .table_fd = -1,
                              .pins_fd = -1,
                              .unix_fd = -1,
                              .tcp_fd = -1,
                              .metastore_fd = -1};
    enum ds_status status = resolve_addresses(flags, out, err);
    if (status != DS_OK)
        return status;
    if (flags->home[0] == '\0')
        status = default_home(out, out->home, err);
    else if (snprintf(out->home, PATH_MAX, "%s", flags->home) >= PATH_MAX)
        status = ds_fail(err, DS_INVALID, "home folder '%s' is too long", flags->home);
    if (status == DS_OK)
        status = resolve_socket(flags, out, err);
    if (status == DS_OK)
        status = resolve(out, flags->health_check_path, out->health_path, err);
    if (status == DS_OK)
        status = resolve(out, flags->ready_check_path, out->ready_path, err);
    if (status == DS_OK)
        status = resolve(out, flags->log_dir, out->log_dir, err);
    return status;
}

/* ---- Memory ---- */

static enum ds_status
check_huge_pages(uint64_t arena_bytes, struct ds_error *err)
{
    uint64_t wanted = arena_bytes / HUGE_PAGE_BYTES, pages = memory_free_huge_pages();
    if (pages >= wanted)
        return DS_OK;
    char command[HUGE_PAGE_COMMAND_BYTES];
    memory_huge_page_command(wanted, command);
    return ds_fail(err, DS_NO_MEMORY,
                   "failed to mmap shared memory: Cannot allocate memory "
                   "(--enable_huge_tlb needs %ju free huge pages of 2 MiB, there are "
                   "%ju; run '%s' as root, or leave out --enable_huge_tlb)",
                   (uintmax_t)wanted, (uintmax_t)pages, command);
}

/* A memory file has no quota of its own: filling one that does not fit ends with the
 * kernel's out-of-memory killer, so the size is refused here. */
static enum ds_status
check_memory(uint64_t arena_bytes, int64_t asked_mb, struct ds_error *err)
{
    struct memory_limit limit;
    memory_limit_read(&limit);
    if (arena_bytes <= limit.available_bytes)
        return DS_OK;
    return ds_fail(err, DS_NO_MEMORY,
                   "failed to mmap shared memory: Cannot allocate memory "
                   "(--shared_memory_size_mb %jd, but only %ju MB are available: %s; "
                   "reduce --shared_memory_size_mb or free memory)",
                   (intmax_t)asked_mb, (uintmax_t)(limit.available_bytes >> 20),
                   limit.source);
}

static enum ds_status
create_memory(const struct worker_flags *flags, struct resources *resources,
              struct ds_error *err)
{
    uint64_t arena_bytes = (uint64_t)flags->shared_memory_size_mb << 20;
    resources->huge_page_bytes = flags->enable_huge_tlb ? HUGE_PAGE_BYTES : 0;
    arena_bytes = round_up(arena_bytes, HUGE_PAGE_BYTES);
    resources->geometry =
        store_geometry_default(arena_bytes, (uint32_t)flags->max_client_num);

    enum ds_status status =
        flags->enable_huge_tlb
            ? check_huge_pages(arena_bytes, err)
            : check_memory(arena_bytes, flags->shared_memory_size_mb, err);
    if (status == DS_OK)
        status = memfile_create("datasystem_arena", arena_bytes,
                                resources->huge_page_bytes, &resources->arena_fd, err);
    if (status == DS_OK)
        status =
            memfile_create("datasystem_table", store_table_bytes(&resources->geometry),
                           0, &resources->table_fd, err);
    if (status == DS_OK)
        status =
            memfile_create("datasystem_pins", store_pins_bytes(&resources->geometry), 0,
                           &resources->pins_fd, err);
    return status;
}

/* Headers are written here, once, so that every child merely opens the store. */
static enum ds_status
format_memory(struct resources *resources, struct ds_error *err)
{
    struct store_memory memory = {
        .table_bytes = store_table_bytes(&resources->geometry),
        .pins_bytes = store_pins_bytes(&resources->geometry),
        .arena_bytes = resources->geometry.arena_bytes,
    };
    enum ds_status status = memfile_map(resources->table_fd, 0, memory.table_bytes,
                                        true, &memory.table, err);
    if (status != DS_OK)
        return status;
    status =
        memfile_map(resources->pins_fd, 0, memory.pins_bytes, true, &memory.pins, err);
    if (status == DS_OK) {
        store_format(&memory, &resources->geometry, random_u32_nonzero(),
                     random_u32_nonzero(), resources->huge_page_bytes);
        memfile_unmap(memory.pins, memory.pins_bytes);
    }
    memfile_unmap(memory.table, memory.table_bytes);
    return status;
}

/* ---- Sockets ---- */

static enum ds_status
folder_of(const char *path, char *out, struct ds_error *err)
{
    DS_ASSERT(path[0] == '/');
    snprintf(out, PATH_MAX, "%s", path);
    *strrchr(out, '/') = '\0';
    return files_make_folder(out, 0700, err);
}

static enum ds_status
listen_metastore(const struct worker_flags *flags, struct resources *resources,
                 struct ds_error *err)
{
    char host[64];
    uint16_t port;
    enum ds_status status =
        socket_parse_address(flags->metastore_address, host, sizeof host, &port, err);
    if (status != DS_OK)
        return status;
    return socket_listen_tcp(host, port, BACKLOG, &resources->metastore_fd, &port, err);
}

static enum ds_status
listen_all(const struct worker_flags *flags, struct resources *resources,
           struct ds_error *err)
{
    uint16_t port;
    enum ds_status status =
        socket_listen_tcp(resources->bind_host, resources->bind_port, BACKLOG,
                          &resources->tcp_fd, &port, err);
    if (status == DS_OK && flags->start_metastore_service)
        status = listen_metastore(flags, resources, err);
    if (status != DS_OK)
        return status;

    char folder[PATH_MAX];
    status = folder_of(resources->socket_path, folder, err);
    if (status == DS_OK)
        status = files_make_private_folder(folder, err);
    if (status == DS_OK)
        status = socket_listen_unix(resources->socket_path, BACKLOG,
                                    &resources->unix_fd, err);
    return status;
}

static enum ds_status
prepare_home(struct resources *resources, struct ds_error *err)
{
    char folder[PATH_MAX];
    enum ds_status status = files_make_folder(resources->home, 0700, err);
    if (status == DS_OK)
        status = folder_of(resources->health_path, folder, err);
    if (status == DS_OK)
        status = folder_of(resources->ready_path, folder, err);
    if (status != DS_OK)
        return status;
    char lock[PATH_MAX];
    if (snprintf(lock, sizeof lock, "%s/worker.lock", resources->home) >= PATH_MAX)
        return ds_fail(err, DS_INVALID, "home folder '%s' is too long",
                       resources->home);
    return files_lock(lock, &resources->lock_fd, err);
}

static enum ds_status
read_key(const struct worker_flags *flags, struct resources *resources,
         struct ds_error *err)
{
    struct secret *secret = &resources->secret;
    enum ds_status status =
        secret_file_read(flags->auth_key_file, AUTH_SECRET_BYTES_MIN, secret, err);
    resources->has_key = status == DS_OK && secret->len > 0;
    resources->encrypts = flags->encrypt_connections;
    if (resources->has_key)
        auth_key_derive(slice(secret->bytes, secret->len), &resources->key);
    else if (status == DS_OK && resources->encrypts)
        return ds_fail(err, DS_INVALID,
                       "--encrypt_connections true needs a key: name its file with "
                       "--auth_key_file (or DATASYSTEM_AUTH_KEY_FILE)");
    return status;
}

static enum ds_status
refuse_missing(const struct worker_flags *flags, struct ds_error *err)
{
    if (flags->enable_rdma)
        return ds_fail(err, DS_UNSUPPORTED,
                       "--enable_rdma true: this build has no RDMA transport yet; it "
                       "needs UCX and an RDMA NIC (check with ibv_devices). Leave out "
                       "--enable_rdma to use TCP");
    if (flags->etcd_address[0] != '\0' &&
        (flags->metastore_address[0] != '\0' || flags->start_metastore_service))
        return ds_fail(
            err, DS_INVALID,
            "Only one coordination backend can be specified: --etcd_address, "
            "or --metastore_address with --start_metastore_service");
    return DS_OK;
}

enum ds_status
resources_open(const struct worker_flags *flags, struct resources *resources,
               struct ds_error *err)
{
    enum ds_status status = refuse_missing(flags, err);
    if (status == DS_OK)
        status = read_key(flags, resources, err);
    if (status == DS_OK)
        status = prepare_home(resources, err);
    if (status == DS_OK)
        status = listen_all(flags, resources, err);
    if (status == DS_OK)
        status = create_memory(flags, resources, err);
    if (status == DS_OK)
        status = format_memory(resources, err);
    if (status != DS_OK)
        resources_close(resources);
    return status;
}

void
resources_close(struct resources *resources)
{
    int *fds[] = {&resources->unix_fd,  &resources->tcp_fd,   &resources->metastore_fd,
                  &resources->arena_fd, &resources->table_fd, &resources->pins_fd};
    if (resources->unix_fd >= 0)
        files_remove(resources->socket_path);
    if (resources->lock_fd >= 0) { /* The files below are ours only while we hold it. */
        files_remove(resources->health_path);
        files_remove(resources->ready_path);
    }
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
    auth_key_wipe(&resources->key);
    secret_wipe(&resources->secret);
    if (resources->lock_fd >= 0)
        close(resources->lock_fd);
    resources->lock_fd = -1;
}
