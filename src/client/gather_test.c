#include "test.h"

#include <datasystem/datasystem.h>

/* Two sources: "aabbccdd" in four rows of 2, and rows of 1, 0, 3 and 2 elements. */
static const int64_t ragged_offsets[] = {0, 1, 1, 4, 6};

static struct ds_rows
even_rows(void)
{
    return (struct ds_rows){
        .data = {.data = "aabbccdd", .len = 8}, .row_count = 4, .row_units = 2};
}

static struct ds_rows
ragged_rows(void)
{
    return (struct ds_rows){.data = {.data = "xyyyzz", .len = 6},
                            .offsets = ragged_offsets,
                            .row_count = 4};
}

struct fixture {
    struct ds_rows sources[2];
    struct ds_run runs[3];
    struct ds_column column;
    int64_t offsets[8];
    char out[32];
    struct ds_error err;
};

/* Row 3 of the even ones, rows 2 to 3 of the ragged ones, row 0 of the even ones. */
static void
fixture_init(struct fixture *f)
{
    *f = (struct fixture){
        .sources = {even_rows(), ragged_rows()},
        .runs = {{0, 3, 1}, {1, 2, 2}, {0, 0, 1}},
    };
    f->column = (struct ds_column){.sources = f->sources,
                                   .source_count = 2,
                                   .runs = f->runs,
                                   .run_count = 3,
                                   .unit_bytes = 1};
}

TEST(rows_of_several_sources_follow_each_other)
{
    struct fixture f;
    fixture_init(&f);
    CHECK_OK(ds_gather_offsets(&f.column, f.offsets, 5, &f.err));
    const int64_t expected[] = {0, 2, 5, 7, 9};
    assert_memory_equal(f.offsets, expected, sizeof expected);
    CHECK_OK(ds_gather_rows(&f.column, f.offsets, f.out, 9, &f.err));
    CHECK_TEXT(f.out, "ddyyyzzaa");
}

TEST(rows_of_one_size_need_no_offsets)
{
    struct fixture f;
    fixture_init(&f);
    f.runs[1] = (struct ds_run){0, 1, 2};
    CHECK_OK(ds_gather_rows(&f.column, NULL, f.out, 8, &f.err));
    CHECK_TEXT(f.out, "ddbbccaa");
}

TEST(units_may_be_of_many_bytes_or_of_none)
{
    struct fixture f;
    fixture_init(&f);
    f.sources[0].row_units = 1;
    f.column.unit_bytes = 2;
    f.column.run_count = 1;
    CHECK_OK(ds_gather_rows(&f.column, NULL, f.out, 2, &f.err));
    CHECK_TEXT(f.out, "dd");
    f.column.unit_bytes = 0;
    CHECK_OK(ds_gather_rows(&f.column, NULL, NULL, 0, &f.err));
}

TEST(no_rows_are_a_column_too)
{
    struct fixture f;
    fixture_init(&f);
    f.column.run_count = 0;
    CHECK_OK(ds_gather_offsets(&f.column, f.offsets, 1, &f.err));
    CHECK_INT(f.offsets[0], 0);
    CHECK_OK(ds_gather_rows(&f.column, f.offsets, f.out, 0, &f.err));
}

TEST(a_run_of_rows_that_are_not_there_is_refused)
{
    struct fixture f;
    fixture_init(&f);
    f.runs[2] = (struct ds_run){0, 1, 4};
    CHECK_STATUS(ds_gather_offsets(&f.column, f.offsets, 8, &f.err), DS_INVALID);
    CHECK_CONTAINS(f.err.message, "no rows [1, +4) in source 0");
    f.runs[2] = (struct ds_run){2, 0, 1};
    CHECK_STATUS(ds_gather_rows(&f.column, NULL, f.out, 9, &f.err), DS_INVALID);
    f.runs[2] = (struct ds_run){0, 2, UINT64_MAX};
    CHECK_STATUS(ds_gather_rows(&f.column, NULL, f.out, 9, &f.err), DS_INVALID);
}

TEST(room_of_another_size_is_refused)
{
    struct fixture f;
    fixture_init(&f);
    CHECK_STATUS(ds_gather_offsets(&f.column, f.offsets, 4, &f.err), DS_INVALID);
    CHECK_CONTAINS(f.err.message, "over 3 rows");
    CHECK_STATUS(ds_gather_offsets(&f.column, f.offsets, 6, &f.err), DS_INVALID);
    CHECK_CONTAINS(f.err.message, "only 4 rows, not 5");
    CHECK_OK(ds_gather_offsets(&f.column, f.offsets, 5, &f.err));
    CHECK_STATUS(ds_gather_rows(&f.column, f.offsets, f.out, 8, &f.err), DS_INVALID);
    CHECK_CONTAINS(f.err.message, "over 8 bytes");
    CHECK_STATUS(ds_gather_rows(&f.column, f.offsets, f.out, 10, &f.err), DS_INVALID);
    CHECK_CONTAINS(f.err.message, "only 9 bytes, not 10");
}

/* Rows that the header promises, in a block that has less. */
TEST(rows_outside_of_the_data_are_refused)
{
    struct fixture f;
    fixture_init(&f);
    f.sources[0].data.len = 7;
    CHECK_STATUS(ds_gather_rows(&f.column, NULL, f.out, 9, &f.err), DS_INVALID);
    f.sources[0].data.len = 8;
    f.sources[0].row_units = UINT64_MAX / 2;
    CHECK_STATUS(ds_gather_rows(&f.column, NULL, f.out, 9, &f.err), DS_INVALID);
    CHECK_STATUS(ds_gather_offsets(&f.column, f.offsets, 5, &f.err), DS_INVALID);
    CHECK_CONTAINS(f.err.message, "at most 2^63 - 1 bytes");
}

static enum ds_status
with_offsets(const int64_t offsets[5])
{
    struct fixture f;
    fixture_init(&f);
    f.sources[1].offsets = offsets;
    f.runs[0] = (struct ds_run){1, 0, 2};
    return ds_gather_offsets(&f.column, f.offsets, 6, NULL);
}

TEST(damaged_offsets_are_refused)
{
    CHECK_OK(with_offsets((int64_t[]){0, 1, 1, 4, 6}));
    CHECK_STATUS(with_offsets((int64_t[]){1, 1, 1, 4, 6}), DS_CORRUPT);
    CHECK_STATUS(with_offsets((int64_t[]){0, 1, 1, 4, 7}), DS_CORRUPT);
    CHECK_STATUS(with_offsets((int64_t[]){0, 1, 1, 4, 5}), DS_CORRUPT);
    CHECK_STATUS(with_offsets((int64_t[]){0, 1, 1, 7, 6}), DS_CORRUPT);
    CHECK_STATUS(with_offsets((int64_t[]){0, 2, 1, 4, 6}), DS_CORRUPT);
    CHECK_STATUS(with_offsets((int64_t[]){0, 1, -1, 4, 6}), DS_CORRUPT);
    CHECK_STATUS(with_offsets((int64_t[]){0, 1, 1, INT64_MAX, 6}), DS_CORRUPT);
    CHECK_STATUS(with_offsets((int64_t[]){INT64_MIN, 1, 1, 4, 6}), DS_CORRUPT);
}

/* Another client may write to a block that it must not write to, at any time. */
TEST(offsets_that_change_in_between_touch_nothing_outside)
{
    struct fixture f;
    fixture_init(&f);
    int64_t shared[] = {0, 1, 1, 4, 6};
    f.sources[1].offsets = shared;
    CHECK_OK(ds_gather_offsets(&f.column, f.offsets, 5, &f.err));
    shared[2] = 2; /* The run still ends within the data only if it began at 1. */
    CHECK_STATUS(ds_gather_rows(&f.column, f.offsets, f.out, 9, &f.err), DS_CORRUPT);
    shared[2] = -1;
    CHECK_STATUS(ds_gather_rows(&f.column, f.offsets, f.out, 9, &f.err), DS_CORRUPT);
    shared[2] = INT64_MAX;
    CHECK_STATUS(ds_gather_rows(&f.column, f.offsets, f.out, 9, &f.err), DS_CORRUPT);
}

TEST(missing_places_are_refused)
{
    struct fixture f;
    fixture_init(&f);
    CHECK_STATUS(ds_gather_offsets(NULL, f.offsets, 5, &f.err), DS_INVALID);
    CHECK_STATUS(ds_gather_offsets(&f.column, f.offsets, 0, &f.err), DS_INVALID);
    CHECK_STATUS(ds_gather_rows(&f.column, f.offsets, NULL, 9, &f.err), DS_INVALID);
}

TEST_MAIN(RUN(rows_of_several_sources_follow_each_other),
          RUN(rows_of_one_size_need_no_offsets),
          RUN(units_may_be_of_many_bytes_or_of_none), RUN(no_rows_are_a_column_too),
          RUN(a_run_of_rows_that_are_not_there_is_refused),
          RUN(room_of_another_size_is_refused),
          RUN(rows_outside_of_the_data_are_refused), RUN(damaged_offsets_are_refused),
          RUN(offsets_that_change_in_between_touch_nothing_outside),
          RUN(missing_places_are_refused))
