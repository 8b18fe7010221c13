#include "gil.h"

/* The state that this thread gave up in gil_release(), for the hook to come back to.
 * PyGILState_Ensure() would do the same for the main interpreter only. */
static _Thread_local PyThreadState *released_thread;

void
gil_release(void)
{
    CORE_ASSERT(released_thread == NULL);
    released_thread = PyEval_SaveThread();
}

void
gil_take(void)
{
    CORE_ASSERT(released_thread != NULL);
    PyEval_RestoreThread(TAKE(released_thread));
}

bool
gate_enter(struct gate *gate)
{
    if (atomic_load(&gate->closing))
        return false;
    gate->inside_count++;
    return true;
}

bool
gate_leave(struct gate *gate)
{
    CORE_ASSERT(gate->inside_count > 0);
    gate->inside_count--;
    return gate->inside_count == 0 && atomic_load(&gate->closing);
}

bool
gate_close(struct gate *gate)
{
    bool closed_before = atomic_exchange(&gate->closing, true);
    return !closed_before && gate->inside_count == 0;
}

int
gate_interrupted(void *gate_pointer)
{
    struct gate *gate = gate_pointer;
    if (atomic_load(&gate->closing))
        return 1;
    /* A thread that asks for the GIL during finalization never comes back. */
    if (released_thread == NULL || Py_IsFinalizing())
        return 0;
    /* A handler may use the library again, so gil_release() must find a clean slate. */
    PyEval_RestoreThread(TAKE(released_thread));
    int failed = PyErr_CheckSignals();
    released_thread = PyEval_SaveThread();
    return failed;
}
