/* RowRuns: which rows of which blocks a result has, and how they become its columns. */
#include "arguments.h"
#include "gil.h"

#include <string.h>

/* Owner: whoever holds the GIL; nothing changes after the construction. */
struct row_runs {
    PyObject ob_base;
    struct ds_run *runs;
    size_t run_count;
    uint64_t *block_rows; /* Rows of each block, */
    bool *is_used;        /* and whether a run names it. */
    size_t block_count;
    uint64_t row_count;
};

static struct row_runs *
row_runs_of(PyObject *self)
{
    return (struct row_runs *)self;
}

/* ---- Construction ------------------------------------------------------------ */

static void *
raise_bad_run(const struct core_state *state, size_t index)
{
    return raise_text(state, DS_INVALID,
                      "run %zu names a block that is not listed, or rows that it does "
                      "not have",
                      index);
}

static bool
runs_open(const struct core_state *state, struct row_runs *self,
          const struct sizes *numbers)
{
    if (numbers->count % 3 != 0)
        return raise_text(state, DS_INVALID, "runs are triples, not %zu numbers",
                          numbers->count) != NULL;
    self->run_count = numbers->count / 3;
    self->runs = array_new(self->run_count, sizeof *self->runs);
    if (self->runs == NULL)
        return false;
    for (size_t i = 0; i < self->run_count; i++) {
        const uint64_t *of = &numbers->items[3 * i];
        struct ds_run run = {.source = of[0], .first = of[1], .count = of[2]};
        if (run.source >= self->block_count ||
            run.first > self->block_rows[run.source] ||
            run.count > self->block_rows[run.source] - run.first ||
            run.count > PY_SSIZE_T_MAX / 8 - 1 - self->row_count)
            return raise_bad_run(state, i) != NULL;
        self->runs[i] = run;
        self->is_used[run.source] = true;
        self->row_count += run.count;
    }
    return true;
}

static PyObject *
row_runs_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"runs", "block_rows", NULL};
    PyObject *runs_object, *rows_object;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:RowRuns", names, &runs_object,
                                     &rows_object))
        return NULL;
    AUTO(sizes) struct sizes runs = {0};
    AUTO(sizes) struct sizes block_rows = {0};
    if (!sizes_open(runs_object, &runs) || !sizes_open(rows_object, &block_rows))
        return NULL;
    AUTO(object) PyObject *object = type->tp_alloc(type, 0);
    if (object == NULL)
        return NULL;
    struct row_runs *self = row_runs_of(object);
    self->block_count = block_rows.count;
    self->block_rows = TAKE(block_rows.items);
    self->is_used = array_new(self->block_count, sizeof *self->is_used);
    if (self->is_used == NULL || !runs_open(PyType_GetModuleState(type), self, &runs))
        return NULL;
    return TAKE(object);
}

static void
row_runs_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    struct row_runs *self = row_runs_of(object);
    PyMem_RawFree(self->runs);
    PyMem_RawFree(self->block_rows);
    PyMem_RawFree(self->is_used);
    type->tp_free(object);
    Py_DECREF(type);
}

/* ---- Columns ----------------------------------------------------------------- */

/* A column as Python describes it, with its memory held. Owner: the call. */
struct held_column {
    struct ds_column column;
    struct ds_rows *sources;
    Py_buffer *held; /* Of each source, data and offsets. */
    size_t held_count;
    Py_buffer offsets; /* Of the result; `obj` is NULL where there are none. */
    Py_buffer out;
    uint8_t *to; /* In `out`. */
    Py_ssize_t to_bytes;
};

static void
held_column_auto(struct held_column *column)
{
    for (size_t i = 0; i < column->held_count; i++)
        PyBuffer_Release(&column->held[i]);
    PyBuffer_Release(&column->offsets);
    PyBuffer_Release(&column->out);
    PyMem_RawFree(column->sources);
    PyMem_RawFree(column->held);
}

/* Bytes [start, start + size) of `object`, which is held then. */
static bool
hold_range(const struct core_state *state, struct held_column *column, PyObject *object,
           Py_ssize_t start, Py_ssize_t size, const void **out)
{
    Py_buffer *held = &column->held[column->held_count];
    if (PyObject_GetBuffer(object, held, PyBUF_SIMPLE) < 0)
        return false;
    column->held_count++;
    if (start < 0 || size < 0 || start > held->len || size > held->len - start)
        return raise_text(state, DS_CORRUPT,
                          "bytes [%zd, +%zd) are outside of a part of %zd bytes", start,
                          size, held->len) != NULL;
    *out = (const uint8_t *)held->buf + start;
    return true;
}

/* (data, start, bytes, offsets or None, start of the offsets, units of a row) */
static bool
source_open(const struct core_state *state, struct held_column *column, PyObject *tuple,
            uint64_t row_count, struct ds_rows *out)
{
    PyObject *data, *offsets;
    Py_ssize_t start, bytes, offsets_start;
    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "a source is a tuple");
        return false;
    }
    if (!PyArg_ParseTuple(tuple, "OnnOnO&:source", &data, &start, &bytes, &offsets,
                          &offsets_start, parse_u64, &out->row_units))
        return false;
    out->row_count = row_count;
    out->data.len = (size_t)bytes;
    if (!hold_range(state, column, data, start, bytes, &out->data.data))
        return false;
    if (offsets == Py_None)
        return true;
    if (row_count >= PY_SSIZE_T_MAX / 8)
        return raise_text(state, DS_CORRUPT, "a block has too many rows") != NULL;
    return hold_range(state, column, offsets, offsets_start,
                      (Py_ssize_t)(row_count + 1) * 8, &out->offsets);
}

/* `sources` has one for each block; those of unused blocks are not looked at. */
static bool
sources_open(const struct core_state *state, const struct row_runs *self,
             PyObject *sources, struct held_column *out)
{
    if (!PyList_Check(sources) ||
        PyList_GET_SIZE(sources) != (Py_ssize_t)self->block_count) {
        PyErr_Format(PyExc_TypeError, "sources must be a list of %zu",
                     self->block_count);
        return false;
    }
    out->sources = array_new(self->block_count, sizeof *out->sources);
    out->held = array_new(2 * self->block_count, sizeof *out->held);
    if (out->sources == NULL || out->held == NULL)
        return false;
    for (size_t i = 0; i < self->block_count; i++) {
        AUTO(object)
        PyObject *source = Py_NewRef(PyList_GET_ITEM(sources, (Py_ssize_t)i));
        if (self->is_used[i] &&
            !source_open(state, out, source, self->block_rows[i], &out->sources[i]))
            return false;
    }
    out->column.sources = out->sources;
    out->column.source_count = self->block_count;
    out->column.runs = self->runs;
    out->column.run_count = self->run_count;
    return true;
}

/* ---- Offsets ----------------------------------------------------------------- */

struct lengths {
    int64_t shortest;
    int64_t longest;
};

static struct lengths
lengths_of(const int64_t *offsets, uint64_t row_count)
{
    struct lengths lengths = {.shortest = row_count == 0 ? 0 : INT64_MAX};
    for (uint64_t i = 0; i < row_count; i++) {
        int64_t length = offsets[i + 1] - offsets[i];
        lengths.shortest = length < lengths.shortest ? length : lengths.shortest;
        lengths.longest = length > lengths.longest ? length : lengths.longest;
    }
    return lengths;
}

static PyObject *
row_runs_offsets(PyObject *object, PyObject *args)
{
    const struct core_state *state = core_state_of(object);
    const struct row_runs *self = row_runs_of(object);
    AUTO(held_column) struct held_column column = {0};
    PyObject *sources;
    if (!PyArg_ParseTuple(args, "OO&w*:offsets", &sources, parse_u64,
                          &column.column.unit_bytes, &column.out) ||
        !sources_open(state, self, sources, &column))
        return NULL;
    if (column.out.len != (Py_ssize_t)(self->row_count + 1) * 8)
        return raise_text(state, DS_INVALID, "no room for just %zu offsets",
                          (size_t)self->row_count + 1);
    struct ds_error err = {0};
    enum ds_status status = ds_gather_offsets(&column.column, column.out.buf,
                                              (size_t)self->row_count + 1, &err);
    if (status != DS_OK)
        return raise_status(state, status, &err);
    struct lengths lengths = lengths_of(column.out.buf, self->row_count);
    return Py_BuildValue("LL", (long long)lengths.shortest, (long long)lengths.longest);
}

/* ---- Rows -------------------------------------------------------------------- */

struct held_columns {
    struct held_column *items;
    size_t count;
    Py_ssize_t bytes;
};

static void
held_columns_auto(struct held_columns *columns)
{
    for (size_t i = 0; i < columns->count; i++)
        held_column_auto(&columns->items[i]);
    PyMem_RawFree(columns->items);
}

/* (sources, bytes of a unit, offsets or None, out, start in it, bytes there) */
static bool
column_open(const struct core_state *state, const struct row_runs *self,
            PyObject *tuple, struct held_column *out)
{
    PyObject *sources, *offsets;
    Py_ssize_t start;
    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "a column is a tuple");
        return false;
    }
    if (!PyArg_ParseTuple(tuple, "OO&Ow*nn:column", &sources, parse_u64,
                          &out->column.unit_bytes, &offsets, &out->out, &start,
                          &out->to_bytes) ||
        !sources_open(state, self, sources, out))
        return false;
    if (start < 0 || out->to_bytes < 0 || start > out->out.len ||
        out->to_bytes > out->out.len - start)
        return raise_text(state, DS_INVALID, "no room for the column") != NULL;
    out->to = (uint8_t *)out->out.buf + start;
    if (offsets == Py_None)
        return true;
    if (PyObject_GetBuffer(offsets, &out->offsets, PyBUF_SIMPLE) < 0)
        return false;
    if (out->offsets.len != (Py_ssize_t)(self->row_count + 1) * 8)
        return raise_text(state, DS_INVALID, "these are not the column's offsets") !=
               NULL;
    return true;
}

static bool
columns_open(const struct core_state *state, const struct row_runs *self,
             PyObject *list, struct held_columns *out)
{
    size_t count = (size_t)PyList_GET_SIZE(list);
    out->items = array_new(count, sizeof *out->items);
    if (out->items == NULL)
        return false;
    while (out->count < count) {
        AUTO(object)
        PyObject *tuple = Py_XNewRef(PyList_GetItem(list, (Py_ssize_t)out->count));
        struct held_column *column = &out->items[out->count++];
        if (tuple == NULL || !column_open(state, self, tuple, column))
            return false;
        out->bytes += column->to_bytes;
    }
    return true;
}

static enum ds_status
copy_columns(const struct held_columns *columns, struct ds_error *err)
{
    for (size_t i = 0; i < columns->count; i++) {
        const struct held_column *column = &columns->items[i];
        enum ds_status status =
            ds_gather_rows(&column->column, column->offsets.buf, column->to,
                           (uint64_t)column->to_bytes, err);
        if (status != DS_OK)
            return status;
    }
    return DS_OK;
}

static PyObject *
row_runs_copy(PyObject *object, PyObject *list)
{
    const struct core_state *state = core_state_of(object);
    AUTO(held_columns) struct held_columns columns = {0};
    if (!PyList_Check(list))
        return PyErr_Format(PyExc_TypeError, "columns must be a list");
    if (!columns_open(state, row_runs_of(object), list, &columns))
        return NULL;
    bool is_long = columns.bytes >= UNLOCKED_COPY_BYTES_MIN;
    struct ds_error err = {0};
    if (is_long)
        gil_release();
    enum ds_status status = copy_columns(&columns, &err);
    if (is_long)
        gil_take();
    return none_or_raise(state, status, &err);
}

/* ---- The type ---------------------------------------------------------------- */

static PyObject *
row_runs_rows(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromUnsignedLongLong(row_runs_of(self)->row_count);
}

static PyObject *
row_runs_is_whole(PyObject *object, void *closure)
{
    (void)closure;
    const struct row_runs *self = row_runs_of(object);
    return PyBool_FromLong(self->run_count == 1 &&
                           self->row_count == self->block_rows[self->runs[0].source]);
}

static PyObject *
row_runs_used(PyObject *object, void *closure)
{
    (void)closure;
    const struct row_runs *self = row_runs_of(object);
    AUTO(object) PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < self->block_count; i++) {
        if (!self->is_used[i])
            continue;
        AUTO(object) PyObject *number = PyLong_FromSize_t(i);
        if (number == NULL || PyList_Append(list, number) < 0)
            return NULL;
    }
    return TAKE(list);
}

static PyMethodDef row_runs_methods[] = {
    {"offsets", row_runs_offsets, METH_VARARGS,
     "Fill in where each row of a column begins; its shortest and longest row."},
    {"copy", row_runs_copy, METH_O, "Copy the rows of columns into place."},
    {0},
};

static PyGetSetDef row_runs_getters[] = {
    {"rows", row_runs_rows, NULL, "the number of rows", NULL},
    {"is_whole", row_runs_is_whole, NULL, "whether they are one block as it is", NULL},
    {"used", row_runs_used, NULL, "the blocks that runs name, ascending", NULL},
    {0},
};

static PyType_Slot row_runs_slots[] = {
    {Py_tp_doc, "Rows of a result: runs of rows of blocks."},
    SLOT(Py_tp_new, row_runs_new),
    SLOT(Py_tp_dealloc, row_runs_dealloc),
    {Py_tp_methods, row_runs_methods},
    {Py_tp_getset, row_runs_getters},
    {0, NULL},
};

PyType_Spec row_runs_spec = {
    .name = "yr.datasystem._core.RowRuns",
    .basicsize = sizeof(struct row_runs),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = row_runs_slots,
};
