/* Another program, started in a session of its own, which goes on when we end. */
#ifndef NET_PROGRAM_H
#define NET_PROGRAM_H

#include <datasystem/status.h>

#include <uv.h>

struct program;

/* `arguments` end with NULL; the first is the program's path. Its standard input is
 * `stdin_fd`, or nothing if that is -1; its output goes nowhere. It inherits no other
 * descriptor. `on_end` is called in the loop, and *out is gone then. It does not keep the
 * loop going.
 *   DS_NO_MEMORY, DS_IO */
DS_MUST_USE enum ds_status
program_start(uv_loop_t *loop, char **arguments, int stdin_fd,
              void (*on_end)(int exit_code, int signal_number, void *arg), void *arg,
              struct program **out, struct ds_error *err);

/* Ends it at once, with all that it has started in its session. */
void program_kill(struct program *program);

/* `on_end` is not called any more; the loop frees it. */
void program_forget(struct program *program);

#endif
