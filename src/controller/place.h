/* Where a controller is found: a Unix socket, perhaps a TCP port, and a lock that says it
 * is taken. They belong to the supervisor, so they stay when the controller's process is
 * replaced, and who connects meanwhile waits in the backlog. Owner: whoever holds it. */
#ifndef CONTROLLER_PLACE_H
#define CONTROLLER_PLACE_H

#include <datasystem/status.h>

#include <stdint.h>

struct place {
    const char *socket_path; /* Borrowed. */
    int listen_fd;
    int lock_fd;
    int tcp_fd; /* -1: on this node only. */
    uint16_t tcp_port;
};

/* One controller per socket: a second one must not take a living one's away. `host` NULL:
 * no TCP; `port` 0: any.
 *   DS_EXISTS     somebody is there, whose pid is in the text
 *   DS_INVALID    the path, or its folder is not this user's alone; the host is none
 *   DS_IO */
DS_MUST_USE enum ds_status
place_open(const char *socket_path, const char *host, uint16_t port, struct place *out,
           struct ds_error *err);

/* Removes the files. */
void place_close(struct place *place);

#endif
