/* Buffer: the right to touch one object's bytes, as a Python object. */
#ifndef BUFFER_H
#define BUFFER_H

#include "core.h"

/* Invariant: `handle` is NULL exactly when the bytes were given up, that is when
 * `released` and `exports` is 0.
 * Owner: whoever holds the GIL; a thread that works on the bytes without it counts as
 * an export, so that release() in another thread waits. */
struct buffer {
    PyObject ob_base;
    struct ds_buffer *handle;
    Py_ssize_t size;
    Py_ssize_t exports;
    bool sealed;
    bool sealing; /* A seal of it is on its way; another one is refused. */
    bool released;
};

/* A new Buffer around *handle, which it takes: *handle is NULL afterwards. */
PyObject *buffer_wrap(const struct core_state *state, struct ds_buffer **handle);

/* Keep the bytes while the GIL is away; false when they were released. */
bool buffer_hold(const struct core_state *state, struct buffer *buffer);
void buffer_unhold(struct buffer *buffer);

/* Below, letting the GIL go and getting it back takes longer than the copy. */
enum { UNLOCKED_COPY_BYTES_MIN = 64 << 10 };

/* As ds_copy(); other threads run meanwhile if it is long. The caller keeps both ends
 * where they are. */
void copy_unlocked(void *to, struct ds_slice from);

/* A new PrivateView over `buffer`, which is held; None where there can be none. */
PyObject *view_map(const struct core_state *state, struct buffer *buffer);

#endif
