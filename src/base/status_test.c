#include "base/status.h"

#include "test.h"

#include <errno.h>

TEST(failure_carries_its_text)
{
    struct ds_error err = {0};
    CHECK_STATUS(ds_fail(&err, DS_NOT_FOUND, "key '%s'", "k"), DS_NOT_FOUND);
    CHECK_INT(err.status, DS_NOT_FOUND);
    CHECK_TEXT(err.message, "key 'k'");
}

TEST(errno_decides_status_and_ends_the_text)
{
    struct ds_error err = {0};
    errno = ENOSPC;
    CHECK_STATUS(ds_fail_errno(&err, "write '%s'", "f"), DS_NO_MEMORY);
    CHECK_TEXT(err.message, "write 'f': No space left on device");
    CHECK_INT(errno, ENOSPC);
}

TEST(no_error_struct_is_fine)
{
    CHECK_STATUS(ds_fail(NULL, DS_IO, "x"), DS_IO);
}

TEST_MAIN(RUN(failure_carries_its_text), RUN(errno_decides_status_and_ends_the_text),
          RUN(no_error_struct_is_fine))
