#include "queue/row.h"

#include "base/slice.h"
#include "test.h"

static void
take(struct index_pool *pool, uint32_t count, uint32_t first)
{
    CHECK(index_pool_reserve(pool, count));
    for (uint32_t i = 0; i < count; i++)
        CHECK_INT(index_pool_take(pool), first + i);
}

static void
give(struct index_pool *pool, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        index_pool_give(pool, first + i);
}

/* The order that users' tests pin: 0..31, 32..47, then after the first 32 are cleared
 * 64 more are 0..31 and 48..79. */
TEST(indexes_are_reused_before_new_ones_are_made)
{
    struct index_pool pool = {0};
    take(&pool, 32, 0);
    take(&pool, 16, 32);
    give(&pool, 0, 32);
    CHECK(index_pool_reserve(&pool, 64));
    take(&pool, 32, 0);
    take(&pool, 32, 48);
    index_pool_fini(&pool);
}

TEST(the_first_index_given_back_is_the_first_to_come_again)
{
    struct index_pool pool = {0};
    take(&pool, 300, 0);
    index_pool_give(&pool, 200);
    index_pool_give(&pool, 7);
    index_pool_give(&pool, 299);
    take(&pool, 1, 200);
    index_pool_give(&pool, 3);
    take(&pool, 1, 7);
    take(&pool, 1, 299);
    take(&pool, 1, 3);
    take(&pool, 1, 300);
    index_pool_fini(&pool);
}

/* The ring is full and begins in its middle when it grows. */
TEST(growing_keeps_the_order)
{
    struct index_pool pool = {0};
    take(&pool, 256, 0);
    give(&pool, 0, 256);
    take(&pool, 100, 0);
    give(&pool, 0, 100);
    CHECK(index_pool_reserve(&pool, 1000));
    take(&pool, 156, 100);
    take(&pool, 100, 0);
    take(&pool, 744, 256);
    index_pool_fini(&pool);
}

TEST(a_row_keeps_its_entries_when_they_outgrow_it)
{
    struct row *row = row_create(slice_of_text("key"));
    for (uint32_t i = 0; i < 9; i++) {
        CHECK(row_reserve_entry(row));
        row->entries[row->entry_count++] = (struct entry){.row = i, .fields = {i + 1}};
    }
    for (uint32_t i = 0; i < 9; i++)
        CHECK_INT(row->entries[i].row, i);
    CHECK(slice_equal(row_key(row), slice_of_text("key")));
    row_destroy(row);
}

TEST_MAIN(RUN(indexes_are_reused_before_new_ones_are_made),
          RUN(the_first_index_given_back_is_the_first_to_come_again),
          RUN(growing_keeps_the_order),
          RUN(a_row_keeps_its_entries_when_they_outgrow_it))
