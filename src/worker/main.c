/* datasystem_worker: the supervisor opens what must survive, then forks the worker. */
#include "base/log.h"
#include "base/status.h"
#include "os/files.h"
#include "os/logfile.h"
#include "os/sockets.h"
#include "os/supervisor.h"
#include "worker/flags.h"
#include "worker/resources.h"
#include "worker/worker.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct worker_flags flags;
static struct resources resources;

static int
run_child(int restarts, void *arg)
{
    (void)arg;
    return worker_run(&flags, &resources, restarts);
}

/* The supervisor logs each crash; the probe files must not promise what is not there.
 */
static void
on_crash(int wait_status, int crashes, int will_restart, void *arg)
{
    (void)wait_status;
    (void)arg;
    files_remove(resources.health_path);
    files_remove(resources.ready_path);
    if (!will_restart)
        fprintf(stderr,
                "datasystem_worker gave up after %d crashes within a minute; "
                "see %s\n",
                crashes, resources.log_dir);
}

static int
fail(const struct ds_error *err)
{
    const char *prefix = err->status == DS_NO_MEMORY ? "Runtime error: " : "";
    fprintf(stderr, "%s%s\n", prefix, err->message);
    log_error("worker cannot start reason=\"%s\"", err->message);
    return EXIT_FAILURE;
}

static void
warn_about_ignored(void)
{
    char names[1024];
    if (flags_without_effect(&flags, names, sizeof names))
        log_warn("worker flags without effect here: %s", names);
}

/* Once, when it starts: the guide's commands name no key. */
static void
warn_about_no_key(void)
{
    if (resources.has_key || socket_host_is_loopback(resources.host))
        return;
    log_warn(
        "worker has no key: whoever reaches %s may read, change and delete what is "
        "kept here. Start all workers with --auth_key_file FILE (from 'openssl rand "
        "-hex 32', mode 600), or let a firewall see to who reaches them",
        flags.worker_address);
}

/* Proxies are for the outside world; nodes talk to each other directly. */
static void
ignore_proxies(void)
{
    static const char *const names[] = {"http_proxy",  "https_proxy", "HTTP_PROXY",
                                        "HTTPS_PROXY", "all_proxy",   "ALL_PROXY"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
}

static enum log_level
log_level_wanted(void)
{
    if (flags.v > 0)
        return LOG_DEBUG;
    return flags.minloglevel > 2 ? LOG_ERROR
                                 : (enum log_level)(LOG_INFO + (int)flags.minloglevel);
}

static enum ds_status
open_log(struct logfile **out, struct ds_error *err)
{
    bool named = flags.log_filename[0] != '\0';
    struct logfile_options options = {
        .folder = resources.log_dir,
        .name = named ? flags.log_filename : "datasystem_worker",
        .size_bytes_max = (uint64_t)flags.max_log_size << 20,
        .files_max = (uint32_t)flags.max_log_file_num,
        .mode = 0600,
    };
    enum ds_status status = logfile_open(&options, out, err);
    if (status == DS_OK)
        log_set_sink(logfile_write, *out, log_level_wanted());
    return status;
}

int
main(int argc, char **argv)
{
    struct ds_error err = {0};
    ignore_proxies();
    if (flags_parse(argc, argv, &flags, &err) != DS_OK ||
        resources_resolve(&flags, &resources, &err) != DS_OK)
        return fail(&err);
    struct logfile *log = NULL;
    if (open_log(&log, &err) != DS_OK ||
        resources_open(&flags, &resources, &err) != DS_OK)
        return fail(&err);
    warn_about_ignored();
    warn_about_no_key();
    struct supervisor_options options = {
        .child = run_child,
        .on_crash = on_crash,
        .name = "datasystem_worker",
    };
    int code = supervisor_run(&options);
    resources_close(&resources);
    log_set_sink(NULL, NULL, LOG_NONE);
    logfile_close(log);
    return code;
}
