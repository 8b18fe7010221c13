/* Differences between CPython 3.10 and 3.13: the only place that asks for a version. */
#ifndef COMPAT_H
#define COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if PY_VERSION_HEX < 0x030d0000
#define Py_IsFinalizing _Py_IsFinalizing
#endif

#endif
