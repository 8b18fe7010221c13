#include "worker/populate.h"

#include "worker/fixture.h"

#include "base/status.h"
#include "os/memfile.h"

#include <stdatomic.h>

/* In place of the kernel, which refuses some times: linked with --wrap. */
static atomic_int refusals_left;
static atomic_int tries;

enum ds_status
__wrap_memfile_collapse(void *data, uint64_t bytes, struct ds_error *err);

enum ds_status
__wrap_memfile_collapse(void *data, uint64_t bytes, struct ds_error *err)
{
    (void)data;
    (void)bytes;
    atomic_fetch_add(&tries, 1);
    if (atomic_fetch_sub(&refusals_left, 1) > 0)
        return ds_fail(err, DS_TIMEOUT, "a page is in other use");
    return DS_OK;
}

/* The arena of one step, all populated. */
static void
start_with_huge_pages(struct fixture *fixture, int refusals)
{
    atomic_store(&refusals_left, refusals);
    atomic_store(&tries, 0);
    fixture_stop(fixture);
    fixture->flags.enable_thp = true;
    fixture_start_again(fixture);
}

TEST(a_page_that_is_in_other_use_is_tried_again)
{
    FIXTURE(f, 4);
    start_with_huge_pages(&f, 3);
    RUN_UNTIL(&f, atomic_load(&tries) == 4);
    for (int i = 0; i < 200; i++) /* Then it is done. */
        turn(&f);
    CHECK_INT(atomic_load(&tries), 4);
}

TEST_MAIN(RUN(a_page_that_is_in_other_use_is_tried_again))
