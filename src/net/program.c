#include "net/program.h"

#include "base/status.h"

#include <signal.h>
#include <stdlib.h>

struct program {
    uv_process_t process;
    void (*on_end)(int exit_code, int signal_number, void *arg);
    void *arg;
};

static void
on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void
on_exit_of(uv_process_t *process, int64_t exit_code, int signal_number)
{
    struct program *program = process->data;
    program->on_end((int)exit_code, signal_number, program->arg);
    uv_close((uv_handle_t *)process, on_closed);
}

enum ds_status
program_start(uv_loop_t *loop, char **arguments, int stdin_fd,
              void (*on_end)(int exit_code, int signal_number, void *arg), void *arg,
              struct program **out, struct ds_error *err)
{
    struct program *program = calloc(1, sizeof *program);
    if (program == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a program");
    uv_stdio_container_t stdio = {.flags = stdin_fd < 0 ? UV_IGNORE : UV_INHERIT_FD,
                                  .data.fd = stdin_fd};
    uv_process_options_t options = {
        .exit_cb = on_exit_of,
        .file = arguments[0],
        .args = arguments,
        .flags = UV_PROCESS_DETACHED,
        .stdio_count = 1,
        .stdio = &stdio,
    };
    program->on_end = on_end;
    program->arg = arg;
    program->process.data = program;
    int result = uv_spawn(loop, &program->process, &options);
    if (result < 0) {
        uv_close((uv_handle_t *)&program->process, on_closed);
        return ds_fail(err, DS_IO, "cannot start '%s': %s", arguments[0],
                       uv_strerror(result));
    }
    uv_unref((uv_handle_t *)&program->process);
    *out = program;
    return DS_OK;
}

void
program_kill(struct program *program)
{
    (void)uv_kill(-uv_process_get_pid(&program->process), SIGKILL);
}

void
program_forget(struct program *program)
{
    uv_close((uv_handle_t *)&program->process, on_closed);
}
