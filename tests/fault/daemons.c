#include "daemons.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <arpa/inet.h>

enum { TRIES = 4000, TRY_US = 1000, END_TRIES = 10000 };

void
daemons_begin(struct daemons *daemons)
{
    *daemons = (struct daemons){.controller_out = -1};
    test_make_folder(daemons->folder);
    snprintf(daemons->queue_address, sizeof daemons->queue_address, "unix:%s/q/socket",
             daemons->folder);
    snprintf(daemons->output, sizeof daemons->output, "%s/output", daemons->folder);
    snprintf(daemons->control_path, sizeof daemons->control_path, "%s/control",
             daemons->folder);
    int fd = open(daemons->control_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof *daemons->control) != 0)
        abort();
    void *page =
        mmap(NULL, sizeof *daemons->control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        abort();
    close(fd);
    daemons->control = page;
}

/* Becomes `program`; what it says goes to the output file, or to `out`. */
static void
become(const struct daemons *daemons, bool faulty, int out, char *const *arguments,
       const char *program)
{
    int log = open(daemons->output, O_WRONLY | O_CREAT | O_APPEND, 0600);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* A test that crashes leaves nothing behind. */
    if (log < 0 || dup2(log, STDERR_FILENO) < 0 ||
        dup2(out < 0 ? log : out, STDOUT_FILENO) < 0)
        _exit(126);
    if (faulty)
        setenv("FAULT_CONTROL", daemons->control_path, 1);
    execv(program, arguments);
    _exit(127);
}

void
worker_begin(struct daemons *daemons, bool faulty)
{
    char address[32];
    daemons->port = test_free_port();
    snprintf(address, sizeof address, "127.0.0.1:%u", (unsigned)daemons->port);
    char home[128];
    snprintf(home, sizeof home, "%s/w", daemons->folder);
    char *const arguments[] = {"datasystem_worker",
                               "--worker_address",
                               address,
                               "--datasystem_home_dir",
                               home,
                               "--shared_memory_size_mb",
                               "8",
                               NULL};
    daemons->worker = fork();
    if (daemons->worker == 0)
        become(daemons, faulty, -1, arguments,
               faulty ? DATASYSTEM_WORKER_FAULTY : DATASYSTEM_WORKER);
}

void
controller_begin(struct daemons *daemons, bool faulty)
{
    int ends[2];
    char worker_socket[192];
    snprintf(worker_socket, sizeof worker_socket, "%s/w/datasystem/uds/worker.sock",
             daemons->folder);
    char *const arguments[] = {"transfer_queue_controller",
                               "--socket",
                               daemons->queue_address + strlen("unix:"),
                               "--worker_socket",
                               worker_socket,
                               NULL};
    if (pipe2(ends, O_CLOEXEC) != 0)
        abort();
    daemons->controller = fork();
    if (daemons->controller == 0)
        become(daemons, faulty, ends[1], arguments,
               faulty ? CONTROLLER_FAULTY : CONTROLLER);
    close(ends[1]);
    daemons->controller_out = ends[0];
}

/* True once the process has ended; then `*pid` is 0. */
static bool
has_ended(pid_t *pid, int *out_status)
{
    if (*pid == 0)
        return true;
    if (waitpid(*pid, out_status, WNOHANG) != *pid)
        return false;
    *pid = 0;
    return true;
}

static bool
accepts(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool done = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return done;
}

/* Its child writes the file once it serves. */
bool
worker_serves(struct daemons *daemons, int *out_status)
{
    char ready[192];
    snprintf(ready, sizeof ready, "%s/w/datasystem/probe/ready", daemons->folder);
    for (int i = 0; i < TRIES; i++) {
        if (has_ended(&daemons->worker, out_status))
            return false;
        if (access(ready, F_OK) == 0 && accepts(daemons->port))
            return true;
        usleep(TRY_US);
    }
    *out_status = -1;
    return false;
}

bool
controller_serves(struct daemons *daemons, int *out_status)
{
    char said[16] = "";
    struct pollfd watched = {.fd = daemons->controller_out, .events = POLLIN};
    ssize_t got = 0;
    *out_status = -1;
    if (poll(&watched, 1, TRIES) == 1)
        got = read(daemons->controller_out, said, sizeof said - 1);
    if (got > 0 && strncmp(said, "ready", 5) == 0)
        return true;
    for (int i = 0; i < TRIES && !has_ended(&daemons->controller, out_status); i++)
        usleep(TRY_US);
    return false;
}

static int
end(pid_t *pid)
{
    int status = -1;
    if (*pid == 0)
        return 0;
    kill(*pid, SIGTERM);
    for (int i = 0; i < END_TRIES; i++) {
        if (has_ended(pid, &status))
            return status;
        usleep(TRY_US);
    }
    kill(*pid, SIGKILL);
    waitpid(*pid, &status, 0);
    *pid = 0;
    return -1;
}

int
worker_end(struct daemons *daemons)
{
    return end(&daemons->worker);
}

int
controller_end(struct daemons *daemons)
{
    int status = end(&daemons->controller);
    if (daemons->controller_out >= 0)
        close(daemons->controller_out);
    daemons->controller_out = -1;
    return status;
}

void
daemons_end(struct daemons *daemons)
{
    (void)controller_end(daemons);
    (void)worker_end(daemons);
    munmap(daemons->control, sizeof *daemons->control);
    test_remove_folder(daemons->folder);
}

pid_t
child_of(pid_t supervisor)
{
    char path[64], text[32] = "";
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)supervisor,
             (int)supervisor);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fgets(text, sizeof text, file) == NULL)
        text[0] = '\0';
    fclose(file);
    return (pid_t)strtol(text, NULL, 10);
}

int
fds_of(pid_t pid)
{
    char path[64];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *folder = opendir(path);
    if (folder == NULL)
        return -1;
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count - 2;
}
