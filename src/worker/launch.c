#include "worker/launch.h"

#include "base/check.h"
#include "base/status.h"
#include "os/files.h"
#include "os/process.h"
#include "worker/kept_journals.h"
#include "worker/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void
add(struct launch *launch, const char *option, const char *value)
{
    DS_ASSERT(launch->count + 2 < LAUNCH_ARGUMENTS_MAX);
    launch->arguments[launch->count++] = (char *)(uintptr_t)option;
    if (value != NULL)
        launch->arguments[launch->count++] = (char *)(uintptr_t)value;
}

static bool
name_socket(const struct worker *worker, const char *queue, uint64_t term,
            struct launch *launch)
{
    const char *beside = worker->resources->socket_path;
    const char *slash = strrchr(beside, '/');
    if (slash == NULL)
        return false;
    int used = snprintf(launch->socket, sizeof launch->socket,
                        "%.*s/takeover-%016" PRIx64 "-%" PRIu64 ".sock",
                        (int)(slash - beside), beside, kept_journal_hash(queue), term);
    return used > 0 && (size_t)used < sizeof launch->socket;
}

enum ds_status
launch_prepare(const struct worker *worker, const char *queue, uint64_t term,
               struct launch *launch, struct ds_error *err)
{
    launch->count = 0;
    if (!name_socket(worker, queue, term, launch) ||
        !process_program_beside("transfer_queue_controller", launch->program,
                                sizeof launch->program))
        return ds_fail(err, DS_NOT_FOUND,
                       "there is no transfer_queue_controller beside this program");
    pid_t supervisor = getppid();
    snprintf(launch->term, sizeof launch->term, "%" PRIu64, term);
    snprintf(launch->ends_with, sizeof launch->ends_with, "%d,%" PRIu64,
             (int)supervisor, process_start_time(supervisor));
    snprintf(launch->owner, sizeof launch->owner, "worker of node %" PRIu32,
             store_header(worker->store)->node);
    add(launch, launch->program, NULL);
    add(launch, "--session", queue);
    add(launch, "--term", launch->term);
    add(launch, "--socket", launch->socket);
    add(launch, "--host", worker->resources->host);
    add(launch, "--worker_socket", worker->resources->socket_path);
    add(launch, "--log_dir", worker->resources->log_dir);
    add(launch, "--owner", launch->owner);
    add(launch, "--ends_with", launch->ends_with);
    if (worker->resources->has_key)
        add(launch, "--auth_key_file", "/dev/stdin");
    if (worker->resources->encrypts)
        add(launch, "--encrypt_connections", NULL);
    launch->arguments[launch->count] = NULL;
    return DS_OK;
}

void
launch_clean_up(const struct worker *worker)
{
    char folder[PATH_MAX];
    const char *beside = worker->resources->socket_path;
    const char *slash = strrchr(beside, '/');
    if (slash == NULL || !flags_name_cluster(worker->flags))
        return;
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - beside), beside);
    files_remove_named(folder, "takeover-");
}
