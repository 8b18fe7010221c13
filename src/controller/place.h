/* Where a controller is found: a Unix socket, and a lock that says it is taken. Both
 * belong to the supervisor, so they stay when the controller's process is replaced, and
 * who connects meanwhile waits in the backlog. Owner: whoever holds it. */
#ifndef CONTROLLER_PLACE_H
#define CONTROLLER_PLACE_H

#include <datasystem/status.h>

struct place {
    const char *socket_path; /* Borrowed. */
    int listen_fd;
    int lock_fd;
};

/* One controller per socket: a second one must not take a living one's away.
 *   DS_EXISTS     somebody is there, whose pid is in the text
 *   DS_INVALID    the path, or its folder is not this user's alone
 *   DS_IO */
DS_MUST_USE enum ds_status
place_open(const char *socket_path, struct place *out, struct ds_error *err);

/* Removes the files. */
void place_close(struct place *place);

#endif
