#include "queue/replies.h"

#include "base/slice.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

static void
keep(struct replies *replies, uint64_t client, uint64_t number, const char *reply)
{
    struct request_id id = {client, number};
    CHECK(replies_reserve(replies, id));
    replies_keep(replies, id, slice_of_text(reply));
}

static enum reply_found
find(const struct replies *replies, uint64_t client, uint64_t number,
     struct ds_slice *out)
{
    return replies_find(replies, (struct request_id){client, number}, out);
}

TEST(the_last_reply_comes_again)
{
    AUTO(replies) struct replies *replies = NULL;
    CHECK_OK(replies_create(&replies, NULL));
    struct ds_slice reply;
    CHECK_INT(find(replies, 1, 1, &reply), REPLY_UNKNOWN);
    keep(replies, 1, 1, "one");
    keep(replies, 2, 9, "two");
    CHECK_INT(find(replies, 1, 1, &reply), REPLY_KEPT);
    CHECK(slice_equal(reply, slice_of_text("one")));
    CHECK_INT(find(replies, 2, 9, &reply), REPLY_KEPT);
    CHECK(slice_equal(reply, slice_of_text("two")));
    CHECK_INT(find(replies, 1, 2, &reply), REPLY_UNKNOWN);
    CHECK_INT(find(replies, 3, 1, &reply), REPLY_UNKNOWN);
}

TEST(a_copy_of_an_older_request_is_too_late)
{
    AUTO(replies) struct replies *replies = NULL;
    CHECK_OK(replies_create(&replies, NULL));
    struct ds_slice reply;
    keep(replies, 1, 5, "five");
    keep(replies, 1, 7, ""); /* Nothing worth keeping, but seen. */
    CHECK_INT(find(replies, 1, 5, &reply), REPLY_TOO_LATE);
    CHECK_INT(find(replies, 1, 6, &reply), REPLY_TOO_LATE);
    CHECK_INT(find(replies, 1, 7, &reply), REPLY_UNKNOWN);
}

TEST(who_does_not_say_who_it_is_is_not_remembered)
{
    AUTO(replies) struct replies *replies = NULL;
    CHECK_OK(replies_create(&replies, NULL));
    struct ds_slice reply;
    keep(replies, 0, 0, "x");
    CHECK_INT(find(replies, 0, 0, &reply), REPLY_UNKNOWN);
    CHECK_INT(replies_count(replies), 0);
}

TEST(the_least_recently_seen_are_forgotten)
{
    AUTO(replies) struct replies *replies = NULL;
    CHECK_OK(replies_create(&replies, NULL));
    struct ds_slice reply;
    for (uint64_t client = 1; client <= REPLIES_CLIENTS_MAX; client++)
        keep(replies, client, 1, "x");
    keep(replies, 1, 2, "again");
    keep(replies, REPLIES_CLIENTS_MAX + 1, 1, "one too many");
    CHECK_INT(replies_count(replies), REPLIES_CLIENTS_MAX);
    CHECK_INT(find(replies, 1, 2, &reply), REPLY_KEPT);
    CHECK_INT(find(replies, 2, 1, &reply), REPLY_UNKNOWN);
    CHECK_INT(find(replies, 3, 1, &reply), REPLY_KEPT);
}

TEST(large_replies_are_bounded)
{
    AUTO(replies) struct replies *replies = NULL;
    CHECK_OK(replies_create(&replies, NULL));
    struct ds_slice reply;
    enum { COUNT = REPLIES_BYTES_MAX / REPLIES_ONE_BYTES_MAX };
    char *bytes = calloc(1, REPLIES_ONE_BYTES_MAX + 1);
    CHECK(bytes != NULL);
    for (uint64_t client = 1; client <= COUNT + 1; client++) {
        struct request_id id = {client, 1};
        CHECK(replies_reserve(replies, id));
        replies_keep(replies, id, slice(bytes, REPLIES_ONE_BYTES_MAX));
    }
    CHECK_INT(find(replies, 1, 1, &reply), REPLY_UNKNOWN);
    CHECK_INT(find(replies, 2, 1, &reply), REPLY_KEPT);
    CHECK_INT(replies_count(replies), COUNT);
    struct request_id last = {2, 2};
    CHECK(replies_reserve(replies, last));
    replies_keep(replies, last, slice(bytes, REPLIES_ONE_BYTES_MAX + 1));
    CHECK_INT(find(replies, 2, 2, &reply), REPLY_UNKNOWN);
    CHECK_INT(find(replies, 2, 1, &reply), REPLY_TOO_LATE);
    free(bytes);
}

TEST_MAIN(RUN(the_last_reply_comes_again), RUN(a_copy_of_an_older_request_is_too_late),
          RUN(who_does_not_say_who_it_is_is_not_remembered),
          RUN(the_least_recently_seen_are_forgotten), RUN(large_replies_are_bounded))
