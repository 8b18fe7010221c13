/* Processes: identity that survives pid reuse, and death notices. */
#ifndef OS_PROCESS_H
#define OS_PROCESS_H

#include <datasystem/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Field 22 of /proc/PID/stat; 0 if there is no such process. */
uint64_t process_start_time(pid_t pid);

/* A descriptor that turns readable when the process ends; -1 with errno: ESRCH if it is
 * gone, or is another process than `start_time` says (0: do not check), anything else
 * if we cannot tell. */
int process_open(pid_t pid, uint64_t start_time);

/* True while it exists (and is not a zombie) and started at `start_time` (0: any). */
bool process_is_alive(pid_t pid, uint64_t start_time);

/* The path of a program that lies beside this one; false: there is none. */
bool process_program_beside(const char *name, char *out, size_t out_bytes);

/* As many descriptors as the system lets this process have. The limit that it is born with,
 * 1,024 nearly everywhere, is for programs that use select(); a worker has connections to
 * all others, and a controller to all clients. */
void process_raise_descriptor_limit(void);

/* A process for messages: "PID 12 (python3)", with "?" for a name that is not shown. */
enum { PROCESS_TEXT_BYTES = 100 };
void process_describe(pid_t pid, char *out, size_t out_bytes);

/* The same of the one that listens on a TCP port. Empty text where /proc does not show
 * it. */
void process_describe_listener(uint16_t port, char *out, size_t out_bytes);

#endif
