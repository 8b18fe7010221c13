/* Watching a descriptor on the loop, without libuv's abort(). */
#ifndef NET_WATCH_H
#define NET_WATCH_H

#include <uv.h>

/* As uv_poll_start(), but the descriptor goes into the kernel's set now. libuv alone puts
 * it there in the next turn of the loop, and aborts the process where the kernel is out
 * of memory or of its user's watches. Again for every change of `events`. 0, or a
 * negative errno as of any call of libuv: then the handle is stopped. */
int watch_start(uv_poll_t *poll, int events, uv_poll_cb on_event);

#endif
