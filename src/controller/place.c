#include "controller/place.h"

#include "base/status.h"
#include "os/files.h"
#include "os/sockets.h"

#include <stdio.h>
#include <string.h>

enum { BACKLOG = 4096, PATH_BYTES_MAX = 4096 };

/* "/run/q" of "/run/q/socket"; "." of "socket". */
static void
folder_of(const char *path, char *out, size_t out_bytes)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        snprintf(out, out_bytes, ".");
    else
        snprintf(out, out_bytes, "%.*s", (int)(slash == path ? 1 : slash - path), path);
}

static void
lock_path_of(const char *socket_path, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "%s.lock", socket_path);
}

enum ds_status
place_open(const char *socket_path, const char *host, uint16_t port, struct place *out,
           struct ds_error *err)
{
    char folder[PATH_BYTES_MAX];
    char lock[PATH_BYTES_MAX + 8];
    struct place place = {
        .socket_path = socket_path, .listen_fd = -1, .lock_fd = -1, .tcp_fd = -1};
    if (strlen(socket_path) >= sizeof folder)
        return ds_fail(err, DS_INVALID, "--socket: the path is too long");
    folder_of(socket_path, folder, sizeof folder);
    lock_path_of(socket_path, lock, sizeof lock);
    enum ds_status status = files_make_private_folder(folder, err);
    if (status == DS_OK)
        status = files_lock(lock, &place.lock_fd, err);
    if (status == DS_OK)
        status = socket_listen_unix(socket_path, BACKLOG, &place.listen_fd, err);
    if (status == DS_OK && host != NULL)
        status =
            socket_listen_tcp(host, port, BACKLOG, &place.tcp_fd, &place.tcp_port, err);
    if (status != DS_OK) {
        place_close(&place);
        return status;
    }
    *out = place;
    return DS_OK;
}

/* Files go only if they are ours: the lock says so. */
void
place_close(struct place *place)
{
    char lock[PATH_BYTES_MAX + 8];
    lock_path_of(place->socket_path, lock, sizeof lock);
    if (place->listen_fd >= 0)
        files_remove(place->socket_path);
    socket_close(place->listen_fd);
    socket_close(place->tcp_fd);
    if (place->lock_fd >= 0)
        files_remove(lock);
    socket_close(place->lock_fd);
    place->listen_fd = place->lock_fd = place->tcp_fd = -1;
}
