#include "worker_process.h"

#include <datasystem/datasystem.h>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START_TRIES = 500, TRY_US = 20000 };

static void
exec_worker(const struct worker_process *worker, int arena_mb)
{
    char address[32];
    char arena[16];
    snprintf(address, sizeof address, "127.0.0.1:%u", (unsigned)worker->port);
    snprintf(arena, sizeof arena, "%d", arena_mb);
    char *const arguments[] = {"datasystem_worker",
                               "--worker_address",
                               address,
                               "--datasystem_home_dir",
                               (char *)worker->folder,
                               "--shared_memory_size_mb",
                               arena,
                               NULL};
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* A test that crashes leaves nothing behind. */
    execv(DATASYSTEM_WORKER, arguments);
    perror("execv " DATASYSTEM_WORKER);
    _exit(127);
}

/* Only the next child gets the new namespace. */
static pid_t
fork_into_new_namespace(void)
{
    int ours = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    CHECK(ours >= 0);
    if (unshare(CLONE_NEWPID) < 0)
        fprintf(stderr, "only root can make a pid namespace\n");
    pid_t pid = fork();
    if (pid != 0) {
        CHECK(setns(ours, CLONE_NEWPID) == 0);
        close(ours);
    }
    return pid;
}

static void
run(struct worker_process *worker, int arena_mb)
{
    worker->supervisor = worker->unseeing ? fork_into_new_namespace() : fork();
    CHECK(worker->supervisor >= 0);
    if (worker->supervisor == 0)
        exec_worker(worker, arena_mb);
    struct ds_client_options options = {
        .struct_bytes = sizeof options, .host = "127.0.0.1", .port = worker->port};
    struct ds_client *client = NULL;
    struct ds_error err = {0};
    for (int i = 0; i < START_TRIES && client == NULL; i++) {
        usleep(TRY_US);
        if (ds_client_open(&options, &client, &err) != DS_OK)
            client = NULL;
    }
    if (client == NULL)
        fprintf(stderr, "the worker does not serve: %s\n", err.message);
    CHECK(client != NULL);
    ds_client_close(client);
}

void
worker_start(struct worker_process *worker, int arena_mb)
{
    *worker = (struct worker_process){.port = test_free_port()};
    test_make_folder(worker->folder);
    run(worker, arena_mb);
}

void
worker_start_unseeing(struct worker_process *worker, int arena_mb)
{
    *worker = (struct worker_process){.port = test_free_port(), .unseeing = true};
    test_make_folder(worker->folder);
    run(worker, arena_mb);
}

static void
end(struct worker_process *worker)
{
    int status;
    CHECK(kill(worker->supervisor, SIGTERM) == 0);
    CHECK(waitpid(worker->supervisor, &status, 0) == worker->supervisor);
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), 0);
}

void
worker_stop(struct worker_process *worker)
{
    end(worker);
    test_remove_folder(worker->folder);
}

void
worker_replace(struct worker_process *worker, int arena_mb)
{
    end(worker);
    run(worker, arena_mb);
}

pid_t
worker_child(const struct worker_process *worker)
{
    char path[64];
    char text[32];
    long pid = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)worker->supervisor,
             (int)worker->supervisor);
    for (int i = 0; i < START_TRIES && pid == 0; i++) {
        FILE *file = fopen(path, "re");
        CHECK(file != NULL);
        if (fgets(text, sizeof text, file) != NULL)
            pid = strtol(text, NULL, 10);
        else
            usleep(TRY_US);
        fclose(file);
    }
    CHECK(pid > 0);
    return (pid_t)pid;
}

void
worker_kill_child(const struct worker_process *worker)
{
    CHECK(kill(worker_child(worker), SIGKILL) == 0);
}

uint64_t
worker_stat(struct ds_client *client, const char *name)
{
    char *json = NULL;
    char quoted[64];
    CHECK_OK(ds_client_stats(client, &json, NULL));
    snprintf(quoted, sizeof quoted, "\"%s\": ", name);
    const char *at = json == NULL ? NULL : strstr(json, quoted);
    uint64_t value = at == NULL ? 0 : strtoull(at + strlen(quoted), NULL, 10);
    if (at == NULL)
        fprintf(stderr, "there is no %s among the worker's counters\n", name);
    free(json);
    CHECK(at != NULL);
    return value;
}
