/* Filling the parts of a block. */
#ifndef PIECES_H
#define PIECES_H

#include "core.h"

/* Python's copy_pieces(): see _core.pyi. */
PyObject *core_copy_pieces(PyObject *module, PyObject *list);

#endif
