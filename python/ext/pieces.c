/* copy_pieces(): what a put copies into the parts of its block, by one call. */
#include "pieces.h"

#include "arguments.h"
#include "buffer.h"
#include "gil.h"

/* Sources that go one after the other to one place. Owner: the call. */
struct piece {
    Py_buffer target;
    struct values sources;
    uint8_t *to; /* In `target`. */
};

struct pieces {
    struct piece *items;
    size_t count;
    uint64_t bytes;
};

static void
pieces_auto(struct pieces *pieces)
{
    for (size_t i = 0; i < pieces->count; i++) {
        PyBuffer_Release(&pieces->items[i].target);
        values_auto(&pieces->items[i].sources);
    }
    PyMem_RawFree(pieces->items);
}

/* (target, where to begin there, list of sources) */
static bool
piece_open(const struct core_state *state, PyObject *tuple, struct piece *out,
           uint64_t *out_bytes)
{
    Py_ssize_t start;
    PyObject *sources;
    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "a piece is a tuple");
        return false;
    }
    if (!PyArg_ParseTuple(tuple, "w*nO:piece", &out->target, &start, &sources) ||
        !values_open(sources, &out->sources))
        return false;
    uint64_t bytes = 0;
    for (size_t i = 0; i < out->sources.count; i++)
        bytes += out->sources.items[i].bytes.len;
    if (start < 0 || start > out->target.len ||
        bytes > (uint64_t)(out->target.len - start))
        return raise_text(state, DS_INVALID, "A piece reaches outside its target.") !=
               NULL;
    out->to = (uint8_t *)out->target.buf + start;
    *out_bytes += bytes;
    return true;
}

static bool
pieces_open(const struct core_state *state, PyObject *list, struct pieces *out)
{
    AUTO(object) PyObject *tuples = PySequence_Tuple(list);
    if (tuples == NULL)
        return false;
    size_t count = (size_t)PyTuple_GET_SIZE(tuples);
    out->items = array_new(count, sizeof *out->items);
    if (out->items == NULL)
        return false;
    while (out->count < count) {
        PyObject *tuple = PyTuple_GET_ITEM(tuples, (Py_ssize_t)out->count);
        struct piece *piece = &out->items[out->count++];
        if (!piece_open(state, tuple, piece, &out->bytes))
            return false;
    }
    return true;
}

static void
copy_all(const struct pieces *pieces)
{
    for (size_t i = 0; i < pieces->count; i++) {
        const struct piece *piece = &pieces->items[i];
        uint8_t *to = piece->to;
        for (size_t n = 0; n < piece->sources.count; n++) {
            struct ds_slice bytes = piece->sources.items[n].bytes;
            ds_copy(to, bytes.data, bytes.len);
            to += bytes.len;
        }
    }
}

PyObject *
core_copy_pieces(PyObject *module, PyObject *list)
{
    AUTO(pieces) struct pieces pieces = {0};
    if (!pieces_open(PyModule_GetState(module), list, &pieces))
        return NULL;
    bool is_long = pieces.bytes >= UNLOCKED_COPY_BYTES_MIN;
    if (is_long)
        gil_release();
    copy_all(&pieces);
    if (is_long)
        gil_take();
    Py_RETURN_NONE;
}
