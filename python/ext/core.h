/* yr.datasystem._core: the Python face of libdatasystem, one type per file.
 *
 * What holds everywhere here
 *   GIL         A call of the library that may block or copy much runs inside
 *               WITHOUT_GIL() (gil.h). No lock is held while the GIL is taken.
 *   State       Types live in struct core_state, one per module object; the types are
 *               final, so PyType_GetModuleState(Py_TYPE(self)) finds it.
 *   Failure     A function that returns a PyObject * or a bool has set an exception
 * when it returns NULL or false. Ownership   AUTO(type) destroys a local when it leaves
 * scope, TAKE(p) hands it over.
 */
#ifndef CORE_H
#define CORE_H

#include "compat.h"

#include <datasystem/datasystem.h>

#include <stdbool.h>

#define AUTO(type) __attribute__((cleanup(type##_auto)))

#define TAKE(pointer)                           \
    __extension__({                             \
        __typeof__(pointer) taken_ = (pointer); \
        (pointer) = NULL;                       \
        taken_;                                 \
    })

#define CORE_ASSERT(condition) ((condition) ? (void)0 : Py_FatalError(#condition))

/* ISO C keeps functions and objects apart; CPython's tables hold both as void *. */
#define SLOT(id, function)                  \
    {                                       \
        id, __extension__(void *)(function) \
    }
#define METHOD(function) ((PyCFunction)(void (*)(void))(function))

/* Owner: the module object. */
struct core_state {
    PyTypeObject *error_type;
    PyTypeObject *buffer_type;
    PyTypeObject *view_type;
    PyTypeObject *client_type;
    PyTypeObject *queue_type;
    PyTypeObject *row_runs_type;
    PyObject *call_log; /* NULL: not opened yet; None: there is none. See trace.h. */
};

struct core_state *core_state_of(PyObject *self);

/* The types, each defined in its file. */
extern PyType_Spec error_spec;
extern PyType_Spec buffer_spec;
extern PyType_Spec view_spec;
extern PyType_Spec client_spec;
extern PyType_Spec queue_spec;
extern PyType_Spec row_runs_spec;

static inline void
object_auto(PyObject **object)
{
    Py_XDECREF(*object);
}

/* ---- Errors ------------------------------------------------------------------ */

/* Raise DatasystemError for `status` and return NULL. An exception that is already set,
 * such as KeyboardInterrupt from a signal's handler, stays. */
PyObject *raise_status(const struct core_state *state, enum ds_status status,
                       const struct ds_error *err);

/* Raise DatasystemError with a text of our own. */
PyObject *raise_text(const struct core_state *state, enum ds_status status,
                     const char *format, ...) __attribute__((format(printf, 3, 4)));

/* None on DS_OK, else as raise_status(). */
PyObject *none_or_raise(const struct core_state *state, enum ds_status status,
                        const struct ds_error *err);

/* The number that users know for `status`. */
int status_number(enum ds_status status);

#endif
