/* Letting go of the GIL, and hearing of signals meanwhile. */
#ifndef GIL_H
#define GIL_H

#include "core.h"

#include <stdatomic.h>

/* The value of `call`, which runs without the GIL and must not touch Python. */
#define WITHOUT_GIL(call)                  \
    __extension__({                        \
        gil_release();                     \
        __typeof__(call) result_ = (call); \
        gil_take();                        \
        result_;                           \
    })

void gil_release(void);
void gil_take(void);

/* Who is inside a connection that any thread may close. close() turns new calls away
 * and ends those that wait; the last one out closes the handle, because the library
 * wants nobody inside then.
 *
 * Owner: whoever holds the GIL. `closing` alone is also read without it. */
struct gate {
    Py_ssize_t inside_count;
    atomic_bool closing;
};

/* False when the gate is closed. */
bool gate_enter(struct gate *gate);

/* True when the caller has to close the handle. */
bool gate_leave(struct gate *gate);

/* As gate_leave(): true when nobody is inside any more. False too when already closed.
 */
bool gate_close(struct gate *gate);

/* The library's interrupt hook; `gate` is a struct gate. Runs the Python handlers of
 * signals that came in, and ends the call when one raises or the gate is closing. */
int gate_interrupted(void *gate);

#endif
