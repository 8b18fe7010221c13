/* Gathering rows from blocks whose offsets say anything, and change in between.
 *
 * Two sources, the second with offsets. Everything lies in memory of just its size, so
 * that a step outside is seen by the address sanitizer.
 *
 *   unit bytes u8 | rows u8, units of a row u8, data bytes u8 for each source
 *   offsets of the second, rows + 1 of i64; the same once more, for the second step
 *   runs to the end: source u8, first u8, count u8 */
#include "fuzz.h"

#include "wire/cursor.h"

#include <stdlib.h>

enum { RUNS_MAX = 32, ROWS_MAX = 24 };

struct input {
    struct ds_rows sources[2];
    struct ds_run runs[RUNS_MAX];
    struct ds_column column;
    uint64_t row_count;
    int64_t *offsets; /* Of sources[1], */
    int64_t *later;   /* and what they are when the rows are copied. */
};

static void *
allocate(size_t bytes)
{
    void *memory = bytes == 0 ? NULL : malloc(bytes);
    DS_ASSERT(memory != NULL || bytes == 0);
    return memory;
}

static struct ds_rows
take_source(struct reader *reader)
{
    struct ds_rows rows = {.row_count = read_u8(reader) % ROWS_MAX};
    rows.row_units = read_u8(reader);
    rows.data.len = read_u8(reader);
    uint8_t *data = allocate(rows.data.len);
    for (size_t i = 0; i < rows.data.len; i++)
        data[i] = (uint8_t)i;
    rows.data.data = data;
    return rows;
}

static int64_t *
take_offsets(struct reader *reader, uint64_t row_count)
{
    int64_t *offsets = allocate((row_count + 1) * sizeof *offsets);
    for (uint64_t i = 0; i <= row_count; i++)
        offsets[i] = (int64_t)read_u64(reader);
    return offsets;
}

static void
take_runs(struct reader *reader, struct input *input)
{
    size_t count = 0;
    while (count < RUNS_MAX && reader_left(reader) >= 3) {
        struct ds_run *run = &input->runs[count++];
        run->source = read_u8(reader);
        run->first = read_u8(reader);
        run->count = read_u8(reader);
        input->row_count += run->count;
    }
    input->column.runs = input->runs;
    input->column.run_count = count;
}

static void
input_init(struct input *input, struct reader *reader)
{
    *input = (struct input){.column.unit_bytes = read_u8(reader)};
    input->sources[0] = take_source(reader);
    input->sources[1] = take_source(reader);
    input->offsets = take_offsets(reader, input->sources[1].row_count);
    input->later = take_offsets(reader, input->sources[1].row_count);
    input->sources[1].offsets = input->offsets;
    input->column.sources = input->sources;
    input->column.source_count = 2;
    take_runs(reader, input);
}

static void
input_fini(struct input *input)
{
    for (size_t i = 0; i < 2; i++)
        free((void *)(uintptr_t)input->sources[i].data.data);
    free(input->offsets);
    free(input->later);
}

static void
check_failure(enum ds_status status, const struct ds_error *err)
{
    DS_ASSERT(status == DS_INVALID || status == DS_CORRUPT);
    DS_ASSERT(err->status == status);
    DS_ASSERT(err->message[0] != '\0');
}

/* Accepted offsets begin with 0, never fall, and promise bytes that are there. */
static void
gather(struct input *input, int64_t *offsets, bool keeps)
{
    struct ds_error err = {0};
    enum ds_status status =
        ds_gather_offsets(&input->column, offsets, (size_t)input->row_count + 1, &err);
    if (status != DS_OK) {
        check_failure(status, &err);
        return;
    }
    DS_ASSERT(offsets[0] == 0);
    for (uint64_t i = 0; i < input->row_count; i++)
        DS_ASSERT(offsets[i] <= offsets[i + 1]);
    uint64_t bytes = (uint64_t)offsets[input->row_count] * input->column.unit_bytes;
    if (bytes > 1 << 20) /* Rows of one size, without so much data. */
        return;
    void *out = allocate(bytes);
    if (!keeps)
        input->sources[1].offsets = input->later;
    status = ds_gather_rows(&input->column, offsets, out, bytes, &err);
    if (status != DS_OK)
        check_failure(status, &err);
    free(out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reader reader = reader_of(data, size);
    struct input input;
    input_init(&input, &reader);
    int64_t *offsets = allocate((input.row_count + 1) * sizeof *offsets);
    gather(&input, offsets, true);
    gather(&input, offsets, false);
    free(offsets);
    input_fini(&input);
    return 0;
}
