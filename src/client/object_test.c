/* Objects by key against a real worker, through shared memory and through TCP. */
#include "client/testing_both.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

TEST(a_value_comes_back_as_it_was_put)
{
    put_text(client, "key", "value");
    check_value(client, "key", "value");
}

/* Too large to go along with the request. */
TEST(a_large_value_comes_back_byte_for_byte)
{
    size_t bytes = 3 << 20;
    uint8_t *value = malloc(bytes);
    uint64_t seed = 7;
    for (size_t i = 0; i < bytes; i++)
        value[i] = (uint8_t)test_random(&seed);
    struct ds_buffer *buffer = NULL;
    CHECK_OK(ds_put(client, slice_of_text("large"), slice(value, bytes), NULL, NULL));
    CHECK_OK(get_one(client, "large", 0, &buffer, NULL));
    CHECK(slice_equal(slice(ds_buffer_data(buffer), ds_buffer_size(buffer)),
                      slice(value, bytes)));
    ds_buffer_release(buffer);
    free(value);
}

TEST(a_reader_keeps_the_old_bytes_when_a_key_is_set_again)
{
    struct ds_buffer *old = NULL;
    put_text(client, "twice", "first");
    CHECK_OK(get_one(client, "twice", 0, &old, NULL));
    put_text(client, "twice", "second");
    check_value(client, "twice", "second");
    CHECK(buffer_says(old, "first"));
    ds_buffer_release(old);
}

TEST(a_missing_key_among_others_is_null)
{
    struct ds_slice keys[] = {slice_of_text("not-there"), slice_of_text("there")};
    struct ds_buffer *buffers[2];
    put_text(client, "there", "x");
    CHECK_OK(ds_get(client, keys, 2, 0, buffers, NULL));
    CHECK(buffers[0] == NULL);
    CHECK(buffer_says(buffers[1], "x"));
    ds_buffer_release(buffers[1]);
}

TEST(no_key_found_is_told_with_the_known_text)
{
    struct ds_error err = {0};
    struct ds_buffer *buffer = NULL;
    CHECK_STATUS(get_one(client, "nowhere", 0, &buffer, &err), DS_NOT_FOUND);
    CHECK_TEXT(err.message, "Cannot get objects from worker");
}

TEST(a_deleted_key_is_gone_and_deleting_again_is_success)
{
    struct ds_slice key = slice_of_text("doomed");
    bool exists = true;
    put_text(client, "doomed", "x");
    CHECK_OK(ds_delete(client, &key, 1, NULL));
    CHECK_OK(ds_exist(client, &key, 1, &exists, NULL));
    CHECK(!exists);
    CHECK_OK(ds_delete(client, &key, 1, NULL));
}

TEST(created_objects_appear_when_they_are_sealed)
{
    struct ds_slice keys[] = {slice_of_text("born-a"), slice_of_text("born-b")};
    uint64_t sizes[] = {1, 5000};
    struct ds_buffer *buffers[2];
    bool exists[2];
    CHECK_OK(ds_delete(client, keys, 2, NULL));
    CHECK_OK(ds_create(client, keys, sizes, 2, NULL, buffers, NULL));
    memset(ds_buffer_data(buffers[0]), 'a', 1);
    memset(ds_buffer_data(buffers[1]), 'b', 5000);
    CHECK_OK(ds_exist(client, keys, 2, exists, NULL));
    CHECK(!exists[0] && !exists[1]);
    CHECK_OK(ds_seal(client, buffers, 2, NULL));
    CHECK_OK(ds_exist(client, keys, 2, exists, NULL));
    CHECK(exists[0] && exists[1]);
    CHECK(ds_buffer_is_sealed(buffers[1]));
    check_value(client, "born-a", "a");

    struct ds_error err = {0};
    CHECK_STATUS(ds_seal(client, buffers, 1, &err), DS_INVALID);
    CHECK_TEXT(err.message, "Client object is already sealed");
    ds_buffer_release(buffers[0]);
    ds_buffer_release(buffers[1]);
}

TEST(only_if_absent_keeps_what_is_there)
{
    struct ds_set_options options = {.only_if_absent = true};
    put_text(client, "mine", "old");
    CHECK_OK(
        ds_put(client, slice_of_text("mine"), slice_of_text("new"), &options, NULL));
    check_value(client, "mine", "old");
}

TEST(a_key_expires_after_its_time)
{
    struct ds_set_options options = {.ttl_seconds = 1};
    struct ds_slice key = slice_of_text("brief");
    bool exists = false;
    CHECK_OK(ds_put(client, key, slice_of_text("x"), &options, NULL));
    CHECK_OK(ds_exist(client, &key, 1, &exists, NULL));
    CHECK(exists);
    usleep(1300000);
    CHECK_OK(ds_exist(client, &key, 1, &exists, NULL));
    CHECK(!exists);
}

TEST(expire_tells_which_keys_there_are)
{
    struct ds_slice keys[] = {slice_of_text("lasting"), slice_of_text("never-was")};
    struct ds_error err = {0};
    bool found[2] = {false, true};
    put_text(client, "lasting", "x");
    CHECK_OK(ds_expire(client, keys, 2, 100, found, NULL));
    CHECK(found[0] && !found[1]);
    CHECK_STATUS(ds_expire(client, keys + 1, 1, 100, found, &err), DS_NOT_FOUND);
}

TEST(a_range_is_a_buffer_of_its_own)
{
    struct ds_slice key = slice_of_text("ranged");
    struct ds_error err = {0};
    struct ds_buffer *buffer = NULL;
    put_text(client, "ranged", "0123456789");
    CHECK_OK(ds_get_range(client, key, 2, 3, 0, &buffer, NULL));
    CHECK(buffer_says(buffer, "234"));
    ds_buffer_release(buffer);
    CHECK_OK(ds_get_range(client, key, 7, 0, 0, &buffer, NULL));
    CHECK(buffer_says(buffer, "789"));
    ds_buffer_release(buffer);
    CHECK_STATUS(ds_get_range(client, key, 10, 0, 0, &buffer, &err), DS_OUT_OF_RANGE);
    CHECK_STATUS(ds_get_range(client, key, 8, 3, 0, &buffer, &err), DS_OUT_OF_RANGE);
    CHECK_CONTAINS(err.message, "10 bytes");
}

static void *
put_later(void *arg)
{
    usleep(150000);
    put_text(arg, "awaited", "here");
    return NULL;
}

TEST(a_waiting_get_ends_when_the_key_appears)
{
    pthread_t other;
    struct ds_buffer *buffer = NULL;
    struct ds_slice key = slice_of_text("awaited");
    CHECK_OK(ds_delete(client, &key, 1, NULL));
    CHECK(pthread_create(&other, NULL, put_later, client) == 0);
    CHECK_OK(get_one(client, "awaited", 8000, &buffer, NULL));
    CHECK(buffer_says(buffer, "here"));
    ds_buffer_release(buffer);
    pthread_join(other, NULL);
}

TEST(a_value_larger_than_the_arena_is_refused_at_once)
{
    struct ds_error err = {0};
    struct ds_slice key = slice_of_text("huge");
    struct ds_buffer *buffer = NULL;
    uint64_t size = 1ull << 30;
    CHECK_STATUS(ds_create(client, &key, &size, 1, NULL, &buffer, &err), DS_FULL);
    CHECK_CONTAINS(err.message, "Shared memory no space in arena");
    put_text(client, "small", "still works");
    check_value(client, "small", "still works");
}

TEST(bad_arguments_get_the_texts_that_users_know)
{
    struct ds_error err = {0};
    struct ds_buffer *buffer = NULL;
    struct ds_slice value = slice_of_text("x");
    CHECK_STATUS(ds_put(client, slice("", 0), value, NULL, &err), DS_INVALID);
    CHECK_TEXT(err.message, "The objectKey should not be empty.");
    CHECK_STATUS(ds_put(client, slice_of_text("a/b"), value, NULL, &err), DS_INVALID);
    CHECK_TEXT(
        err.message,
        "The key contains illegal char(s), allowed regex format: "
        "^[a-zA-Z0-9\\.\\-_!@#%\\^\\*\\(\\)\\+\\=\\:;]*$ or the length of key must "
        "be no more than 1024. Current key: a/b, length: 3.");
    CHECK_STATUS(ds_put(client, value, slice("", 0), NULL, &err), DS_INVALID);
    CHECK_TEXT(err.message, "The dataSize value should be bigger than zero.");
    CHECK_STATUS(ds_get(client, NULL, 0, 0, &buffer, &err), DS_INVALID);
    CHECK_TEXT(err.message, "The keys are empty");

    char *key = malloc(DS_KEY_BYTES_MAX + 1);
    memset(key, 'k', DS_KEY_BYTES_MAX + 1);
    struct ds_slice longest = slice(key, DS_KEY_BYTES_MAX);
    struct ds_slice too_long = slice(key, DS_KEY_BYTES_MAX + 1);
    CHECK_OK(ds_put(client, longest, value, NULL, NULL));
    CHECK_STATUS(ds_put(client, too_long, value, NULL, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "length: 1025.");
    CHECK_STATUS(ds_get(client, &too_long, 1, 0, &buffer, &err), DS_INVALID);
    free(key);
}

TEST(write_modes_that_need_a_second_level_are_refused)
{
    struct ds_error err = {0};
    struct ds_set_options options = {.write_mode = DS_WRITE_BACK_L2_CACHE};
    CHECK_STATUS(ds_put(client, slice_of_text("k"), slice_of_text("v"), &options, &err),
                 DS_INVALID);
    CHECK_TEXT(err.message,
               "The key is set to WRITE_THROUGH_L2_CACHE, WRITE_BACK_L2_CACHE or "
               "WRITE_BACK_L2_CACHE_EVICT, but L2_cache_type is set to none.");
    options.write_mode = DS_NONE_L2_CACHE_EVICT;
    CHECK_OK(ds_put(client, slice_of_text("k"), slice_of_text("v"), &options, NULL));
}

/* The largest batches of longest keys, which need more than one frame for exist. */
TEST(the_largest_batches_work_and_one_more_is_refused)
{
    size_t count = DS_EXIST_KEYS_MAX + 1;
    struct ds_slice *keys = calloc(count, sizeof *keys);
    bool *exists = calloc(count, sizeof *exists);
    char *text = malloc(count * 256);
    for (size_t i = 0; i < count; i++) {
        int len = snprintf(text + i * 256, 256, "%0250zu", i);
        keys[i] = slice(text + i * 256, (size_t)len);
    }
    struct ds_error err = {0};
    CHECK_OK(ds_put(client, keys[99999], slice_of_text("x"), NULL, NULL));
    CHECK_OK(ds_exist(client, keys, DS_EXIST_KEYS_MAX, exists, NULL));
    CHECK(exists[99999] && !exists[99998]);
    CHECK_STATUS(ds_exist(client, keys, count, exists, &err), DS_INVALID);
    CHECK_TEXT(err.message, "The objectKeys size exceed 100000.");
    CHECK_OK(ds_delete(client, keys, DS_BATCH_KEYS_MAX, NULL));
    CHECK_STATUS(ds_delete(client, keys, DS_BATCH_KEYS_MAX + 1, &err), DS_INVALID);
    CHECK_TEXT(err.message, "The objectKeys size exceed 10000.");
    free(text);
    free(exists);
    free(keys);
}

TEST(ten_thousand_objects_in_one_batch)
{
    static struct ds_slice keys[DS_BATCH_KEYS_MAX];
    static uint64_t sizes[DS_BATCH_KEYS_MAX];
    static struct ds_buffer *made[DS_BATCH_KEYS_MAX], *got[DS_BATCH_KEYS_MAX];
    static char text[DS_BATCH_KEYS_MAX][16];
    for (size_t i = 0; i < DS_BATCH_KEYS_MAX; i++) {
        keys[i] = slice(text[i], (size_t)snprintf(text[i], 16, "batch-%zu", i));
        sizes[i] = sizeof(uint64_t);
    }
    CHECK_OK(ds_create(client, keys, sizes, DS_BATCH_KEYS_MAX, NULL, made, NULL));
    for (uint64_t i = 0; i < DS_BATCH_KEYS_MAX; i++)
        memcpy(ds_buffer_data(made[i]), &i, sizeof i);
    CHECK_OK(ds_seal(client, made, DS_BATCH_KEYS_MAX, NULL));
    CHECK_OK(ds_get(client, keys, DS_BATCH_KEYS_MAX, 0, got, NULL));
    for (uint64_t i = 0; i < DS_BATCH_KEYS_MAX; i++) {
        CHECK(memcmp(ds_buffer_data(got[i]), &i, sizeof i) == 0);
        ds_buffer_release(got[i]);
        ds_buffer_release(made[i]);
    }
    CHECK_OK(ds_delete(client, keys, DS_BATCH_KEYS_MAX, NULL));
}

TEST(a_private_view_is_writable_and_nobody_else_sees_it)
{
    struct ds_buffer *buffer = NULL;
    void *view = NULL;
    put_text(client, "viewed", "original");
    CHECK_OK(get_one(client, "viewed", 0, &buffer, NULL));
    CHECK_OK(ds_view_map(buffer, &view, NULL));
    CHECK(memcmp(view, "original", 8) == 0);
    memcpy(view, "scribble", 8);
    CHECK(buffer_says(buffer, "original"));
    ds_buffer_release(buffer);
    check_value(client, "viewed", "original");
    CHECK(memcmp(view, "scribble", 8) == 0);
    ds_view_unmap(buffer, view);
}

TEST(there_is_no_private_view_over_tcp)
{
    struct ds_error err = {0};
    struct ds_buffer *buffer = NULL;
    void *view = NULL;
    put_text(client, "viewed", "original");
    CHECK_OK(get_one(client, "viewed", 0, &buffer, NULL));
    CHECK_STATUS(ds_view_map(buffer, &view, &err), DS_UNSUPPORTED);
    ds_buffer_release(buffer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(a_value_comes_back_as_it_was_put),
        BOTH(a_large_value_comes_back_byte_for_byte),
        BOTH(a_reader_keeps_the_old_bytes_when_a_key_is_set_again),
        BOTH(a_missing_key_among_others_is_null),
        BOTH(no_key_found_is_told_with_the_known_text),
        BOTH(a_deleted_key_is_gone_and_deleting_again_is_success),
        BOTH(created_objects_appear_when_they_are_sealed),
        BOTH(only_if_absent_keeps_what_is_there),
        BOTH(a_key_expires_after_its_time),
        BOTH(expire_tells_which_keys_there_are),
        BOTH(a_range_is_a_buffer_of_its_own),
        BOTH(a_waiting_get_ends_when_the_key_appears),
        BOTH(a_value_larger_than_the_arena_is_refused_at_once),
        BOTH(bad_arguments_get_the_texts_that_users_know),
        BOTH(write_modes_that_need_a_second_level_are_refused),
        BOTH(the_largest_batches_work_and_one_more_is_refused),
        SHARED(ten_thousand_objects_in_one_batch),
        SHARED(a_private_view_is_writable_and_nobody_else_sees_it),
        TCP(there_is_no_private_view_over_tcp),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
