#include "net/watch.h"

#include "base/check.h"

#include <errno.h>
#include <sys/epoll.h>

int
watch_start(uv_poll_t *poll, int events, uv_poll_cb on_event)
{
    uv_os_fd_t fd;
    int result = uv_fileno((const uv_handle_t *)poll, &fd);
    DS_ASSERT(result == 0);
    result = uv_poll_start(poll, events, on_event); /* Takes it out, where it was in. */
    DS_ASSERT(result == 0);
    /* Which events are wanted libuv says later: it takes a descriptor that is there for
     * one that was watched before. */
    struct epoll_event nothing_yet = {.data.fd = fd};
    if (epoll_ctl(uv_backend_fd(poll->loop), EPOLL_CTL_ADD, fd, &nothing_yet) == 0)
        return 0;
    result = -errno;
    (void)uv_poll_stop(poll);
    return result;
}
