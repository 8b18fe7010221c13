/* Gathering the rows of a column. Pure: no client, no lock. */
#include "base/status.h"
#include "os/copy.h"

#include <datasystem/datasystem.h>

#include <string.h>

static enum ds_status
fail_damaged(struct ds_error *err)
{
    return ds_fail(err, DS_CORRUPT, "the row offsets are damaged");
}

static enum ds_status
fail_no_such_rows(const struct ds_run *run, struct ds_error *err)
{
    return ds_fail(err, DS_INVALID, "no rows [%ju, +%ju) in source %ju",
                   (uintmax_t)run->first, (uintmax_t)run->count,
                   (uintmax_t)run->source);
}

static enum ds_status
fail_too_large(struct ds_error *err)
{
    return ds_fail(err, DS_INVALID, "a column has at most 2^63 - 1 bytes");
}

static enum ds_status
check_run(const struct ds_column *column, const struct ds_run *run,
          struct ds_error *err)
{
    if (run->source >= column->source_count)
        return fail_no_such_rows(run, err);
    uint64_t row_count = column->sources[run->source].row_count;
    if (run->first > row_count || run->count > row_count - run->first)
        return fail_no_such_rows(run, err);
    return DS_OK;
}

/* ---- Offsets ---- */

/* Do the data of a source reach to unit `end`, and no further where that is the last? */
static bool
data_reach(const struct ds_rows *rows, int64_t end, uint64_t unit_bytes, bool is_last)
{
    uint64_t bytes;
    if (end < 0 || __builtin_mul_overflow((uint64_t)end, unit_bytes, &bytes))
        return false;
    return is_last ? bytes == rows->data.len : bytes <= rows->data.len;
}

static const uint8_t *
offset_place(const struct ds_rows *rows, uint64_t row)
{
    return (const uint8_t *)rows->offsets + row * sizeof(int64_t);
}

/* The offsets of a run, copied to out[0] to out[count] and then checked there. */
static enum ds_status
take_offsets(const struct ds_column *column, const struct ds_run *run, int64_t *out,
             struct ds_error *err)
{
    const struct ds_rows *rows = &column->sources[run->source];
    int64_t base = out[0];
    memcpy(out, offset_place(rows, run->first), (run->count + 1) * sizeof *out);
    int64_t begin = out[0];
    int64_t end = out[run->count];
    bool is_last = run->first + run->count == rows->row_count;
    if (begin < 0 || (run->first == 0 && begin != 0) ||
        !data_reach(rows, end, column->unit_bytes, is_last))
        return fail_damaged(err);
    for (uint64_t i = 0; i < run->count; i++)
        if (out[i + 1] < out[i])
            return fail_damaged(err);
    int64_t sum;
    if (__builtin_add_overflow(base, end - begin, &sum))
        return fail_too_large(err);
    for (uint64_t i = 0; i <= run->count; i++)
        out[i] += base - begin;
    return DS_OK;
}

/* The same for rows of one size. */
static enum ds_status
count_offsets(const struct ds_column *column, const struct ds_run *run, int64_t *out,
              struct ds_error *err)
{
    uint64_t row_units = column->sources[run->source].row_units;
    int64_t units, sum;
    if (row_units > INT64_MAX ||
        __builtin_mul_overflow((int64_t)row_units, run->count, &units) ||
        __builtin_add_overflow(out[0], units, &sum))
        return fail_too_large(err);
    for (uint64_t i = 0; i < run->count; i++)
        out[i + 1] = out[i] + (int64_t)row_units;
    return DS_OK;
}

enum ds_status
ds_gather_offsets(const struct ds_column *column, int64_t *out_offsets,
                  size_t offset_count, struct ds_error *err)
{
    if (column == NULL || out_offsets == NULL || offset_count == 0)
        return ds_fail(err, DS_INVALID, "no column, or no place for its offsets");
    size_t room = offset_count - 1;
    int64_t *out = out_offsets;
    out[0] = 0;
    for (size_t i = 0; i < column->run_count; i++) {
        const struct ds_run *run = &column->runs[i];
        enum ds_status status = check_run(column, run, err);
        if (status == DS_OK && run->count > room)
            status = ds_fail(err, DS_INVALID, "the column has over %zu rows",
                             offset_count - 1);
        if (status == DS_OK)
            status = column->sources[run->source].offsets == NULL
                         ? count_offsets(column, run, out, err)
                         : take_offsets(column, run, out, err);
        if (status != DS_OK)
            return status;
        room -= run->count;
        out += run->count;
    }
    if (room > 0)
        return ds_fail(err, DS_INVALID, "the column has only %zu rows, not %zu",
                       offset_count - 1 - room, offset_count - 1);
    int64_t bytes;
    if (__builtin_mul_overflow(out[0], column->unit_bytes, &bytes))
        return fail_too_large(err);
    return DS_OK;
}

/* ---- Rows ---- */

/* The unit of its source where a run begins. */
static uint64_t
run_begin(const struct ds_rows *rows, const struct ds_run *run, bool *out_fits)
{
    if (rows->offsets == NULL) {
        uint64_t begin = 0;
        *out_fits = !__builtin_mul_overflow(run->first, rows->row_units, &begin);
        return begin;
    }
    int64_t begin;
    memcpy(&begin, offset_place(rows, run->first), sizeof begin);
    *out_fits = begin >= 0;
    return (uint64_t)begin;
}

/* How many units a run has in the result. */
static uint64_t
run_units(const struct ds_rows *rows, const struct ds_run *run, const int64_t *offsets,
          bool *out_fits)
{
    if (offsets != NULL) {
        *out_fits = offsets[run->count] >= offsets[0];
        return (uint64_t)offsets[run->count] - (uint64_t)offsets[0];
    }
    uint64_t units = 0;
    *out_fits = !__builtin_mul_overflow(run->count, rows->row_units, &units);
    return units;
}

/* Where the rows of a run are; they lie within their source. `*out` must be empty. */
static enum ds_status
find_run(const struct ds_column *column, const struct ds_run *run,
         const int64_t *offsets, struct ds_slice *out, struct ds_error *err)
{
    const struct ds_rows *rows = &column->sources[run->source];
    bool has_begin, has_end;
    uint64_t begin = run_begin(rows, run, &has_begin);
    uint64_t units = run_units(rows, run, offsets, &has_end);
    uint64_t start, bytes;
    bool fits = has_begin && has_end &&
                !__builtin_mul_overflow(begin, column->unit_bytes, &start) &&
                !__builtin_mul_overflow(units, column->unit_bytes, &bytes) &&
                start <= rows->data.len && bytes <= rows->data.len - start;
    if (!fits)
        return rows->offsets == NULL ? fail_no_such_rows(run, err) : fail_damaged(err);
    if (bytes > 0) { /* An empty source may have no place. */
        out->data = (const uint8_t *)rows->data.data + start;
        out->len = bytes;
    }
    return DS_OK;
}

enum ds_status
ds_gather_rows(const struct ds_column *column, const int64_t *offsets, void *out,
               uint64_t out_bytes, struct ds_error *err)
{
    if (column == NULL || (out == NULL && out_bytes > 0))
        return ds_fail(err, DS_INVALID, "no column, or no place for its rows");
    uint8_t *to = out;
    uint64_t room = out_bytes;
    for (size_t i = 0; i < column->run_count; i++) {
        const struct ds_run *run = &column->runs[i];
        struct ds_slice from = {0};
        enum ds_status status = check_run(column, run, err);
        if (status == DS_OK)
            status = find_run(column, run, offsets, &from, err);
        if (status == DS_OK && from.len > room)
            status = ds_fail(err, DS_INVALID, "the column has over %ju bytes",
                             (uintmax_t)out_bytes);
        if (status != DS_OK)
            return status;
        if (from.len > 0) { /* Of nothing there may be no place at all. */
            copy_bytes(to, from.data, from.len);
            to += from.len;
            room -= from.len;
        }
        offsets = offsets == NULL ? NULL : offsets + run->count;
    }
    if (room > 0)
        return ds_fail(err, DS_INVALID, "the column has only %ju bytes, not %ju",
                       (uintmax_t)(out_bytes - room), (uintmax_t)out_bytes);
    return DS_OK;
}
