/* Puts of one value by one message. */
#include "client/testing_each.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { BYTES = 100000 };

static struct ds_buffer *
create_filled(struct ds_client *client, const char *key, uint64_t size, char fill)
{
    struct ds_buffer *buffer = create_one(client, key, size);
    memset(ds_buffer_data(buffer), fill, size);
    return buffer;
}

static void
put_filled(struct ds_client *client, const char *key, uint64_t size, char fill)
{
    struct ds_buffer *buffer = create_filled(client, key, size, fill);
    CHECK_OK(ds_seal(client, &buffer, 1, NULL));
    ds_buffer_release(buffer);
}

static void
check_filled(struct ds_client *client, const char *key, uint64_t size, char fill)
{
    struct ds_buffer *buffer = NULL;
    CHECK_OK(get_one(client, key, 0, &buffer, NULL));
    CHECK_INT(ds_buffer_size(buffer), size);
    const char *bytes = ds_buffer_data(buffer);
    for (uint64_t i = 0; i < size; i++)
        CHECK(bytes[i] == fill);
    ds_buffer_release(buffer);
}

static uint64_t
requests_of(struct ds_client *client)
{
    return worker_stat(client, "requests_total");
}

TEST(puts_of_one_size_are_one_request_each)
{
    struct ds_client *client = open_client(&worker, false);
    put_filled(client, "first", BYTES, 'f');
    uint64_t before = requests_of(client);
    put_filled(client, "a", BYTES, 'a');
    put_filled(client, "b", BYTES - 1000, 'b'); /* As many pages. */
    put_filled(client, "a", BYTES, 'c');
    CHECK_INT(requests_of(client) - before, 3 + 1);
    check_filled(client, "first", BYTES, 'f');
    check_filled(client, "a", BYTES, 'c');
    check_filled(client, "b", BYTES - 1000, 'b');
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
    ds_client_close(client);
}

TEST(options_of_a_put_hold_for_lent_room)
{
    struct ds_client *client = open_client(&worker, false);
    put_filled(client, "a", BYTES, 'a');
    struct ds_set_options options = {.only_if_absent = true};
    struct ds_slice key = slice_of_text("a");
    uint64_t size = BYTES;
    struct ds_buffer *buffer = NULL;
    CHECK_OK(ds_create(client, &key, &size, 1, &options, &buffer, NULL));
    memset(ds_buffer_data(buffer), 'b', BYTES);
    CHECK_OK(ds_seal(client, &buffer, 1, NULL));
    CHECK_STATUS(ds_seal(client, &buffer, 1, NULL), DS_INVALID);
    ds_buffer_release(buffer);
    check_filled(client, "a", BYTES, 'a');
    ds_client_close(client);
}

TEST(a_buffer_that_is_dropped_never_existed)
{
    struct ds_client *client = open_client(&worker, false);
    put_filled(client, "a", BYTES, 'a');
    ds_buffer_release(create_one(client, "dropped", BYTES));
    put_filled(client, "b", BYTES, 'b');
    struct ds_slice key = slice_of_text("dropped");
    bool there = true;
    CHECK_OK(ds_exist(client, &key, 1, &there, NULL));
    CHECK(!there);
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
    ds_client_close(client);
}

/* One message each: those with a key of their own, and the rest together. */
TEST(buffers_made_one_by_one_are_sealed_together)
{
    struct ds_client *client = open_client(&worker, false);
    static const char *const keys[] = {"a", "b", "c", "d", "e", "f"};
    enum { COUNT = sizeof keys / sizeof keys[0] };
    struct ds_buffer *buffers[COUNT];
    for (int i = 0; i < 3; i++)
        put_filled(client, "first", BYTES, 'f');
    for (int i = 0; i < COUNT; i++)
        buffers[i] = create_filled(client, keys[i], BYTES, keys[i][0]);
    CHECK_OK(ds_seal(client, buffers, COUNT, NULL));
    for (int i = 0; i < COUNT; i++) {
        check_filled(client, keys[i], BYTES, keys[i][0]);
        ds_buffer_release(buffers[i]);
    }
    ds_client_close(client);
}

TEST(lent_room_is_taken_back_for_what_needs_it)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_client *other = open_client(&worker, false);
    enum { MIB = 1 << 20 };
    put_filled(client, "a", MIB, 'a');
    CHECK_INT(worker_stat(client, "objects_lent"), 1);
    ds_buffer_release(create_one(other, "rest", 63 * MIB)); /* Of 64. */
    CHECK_INT(worker_stat(client, "objects_lent"), 0);
    (void)worker_stat(other, "objects_lent"); /* Gives the rest up. */
    put_filled(client, "b", MIB, 'b');
    check_filled(client, "a", MIB, 'a');
    check_filled(client, "b", MIB, 'b');
    ds_client_close(other);
    ds_client_close(client);
}

static struct ds_block_id
put_block(struct ds_client *client, uint64_t size, char fill)
{
    struct ds_block_id id;
    struct ds_buffer *part = NULL;
    CHECK_OK(ds_block_create(client, &size, 1, &part, NULL));
    memset(ds_buffer_data(part), fill, size);
    CHECK_OK(ds_block_seal(client, &part, 1, &id, NULL));
    ds_buffer_release(part);
    return id;
}

static void
check_block(struct ds_client *client, struct ds_block_id id, uint64_t size, char fill)
{
    struct ds_buffer *got = NULL;
    uint32_t part = 0;
    CHECK_OK(ds_block_get(client, &id, &part, 1, &got, NULL));
    CHECK_INT(ds_buffer_size(got), size);
    const char *bytes = ds_buffer_data(got);
    for (uint64_t i = 0; i < size; i++)
        CHECK(bytes[i] == fill);
    ds_buffer_release(got);
}

TEST(blocks_of_one_part_and_size_are_one_request_each)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_block_id ids[4];
    ids[0] = put_block(client, BYTES, 'a');
    uint64_t before = requests_of(client);
    ids[1] = put_block(client, BYTES, 'b');
    ids[2] = put_block(client, BYTES - 1000, 'c'); /* As many pages. */
    put_filled(client, "between", BYTES, 'o');
    ids[3] = put_block(client, BYTES, 'd');
    CHECK_INT(requests_of(client) - before, 4 + 1);
    for (int i = 0; i < 4; i++)
        check_block(client, ids[i], i == 2 ? BYTES - 1000 : BYTES, (char)('a' + i));
    check_filled(client, "between", BYTES, 'o');
    CHECK_INT(worker_stat(client, "objects"), 5);
    CHECK_OK(ds_block_delete(client, ids, 4, NULL));
    CHECK_INT(worker_stat(client, "objects"), 1);
    ds_client_close(client);
}

/* Its id would name memory that is gone. */
TEST(a_block_that_is_being_filled_goes_to_the_worker_that_is_there)
{
    struct ds_client *client = open_client(&worker, false);
    (void)put_block(client, BYTES, 'a');
    uint64_t size = BYTES;
    struct ds_block_id id;
    struct ds_buffer *part = NULL;
    CHECK_OK(ds_block_create(client, &size, 1, &part, NULL));
    memset(ds_buffer_data(part), 'b', BYTES);
    worker_replace(&worker, 64);
    CHECK_OK(ds_block_seal(client, &part, 1, &id, NULL));
    ds_buffer_release(part);
    check_block(client, id, BYTES, 'b');
    ds_client_close(client);
}

TEST(blocks_that_are_dropped_never_existed)
{
    struct ds_client *client = open_client(&worker, false);
    (void)put_block(client, BYTES, 'a');
    uint64_t size = BYTES;
    for (int i = 0; i < 3; i++) {
        struct ds_buffer *part = NULL;
        CHECK_OK(ds_block_create(client, &size, 1, &part, NULL));
        ds_buffer_release(part);
    }
    CHECK_OK(ds_client_ping(client, 0, NULL)); /* The next request says so. */
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
    CHECK_INT(worker_stat(client, "objects"), 1);
    ds_client_close(client);
}

TEST(leases_follow_the_sizes_that_are_put)
{
    struct ds_client *client = open_client(&worker, false);
    for (uint64_t size = 20000; size <= 60000; size += 10000)
        put_filled(client, "past", size, 'p');
    CHECK_INT(worker_stat(client, "objects_lent"), 4);
    for (int i = 0; i < 20; i++)
        put_filled(client, "a", BYTES, 'a');
    CHECK_INT(worker_stat(client, "objects_lent"), 1);
    uint64_t before = requests_of(client);
    put_filled(client, "a", BYTES, 'b');
    CHECK_INT(requests_of(client) - before, 1 + 1);
    check_filled(client, "a", BYTES, 'b');
    ds_client_close(client);
}

TEST(what_is_being_filled_survives_a_restart)
{
    struct ds_client *client = open_client(&worker, false);
    put_filled(client, "a", BYTES, 'a');
    struct ds_buffer *buffer = create_filled(client, "b", BYTES, 'b');
    worker_kill_child(&worker);
    CHECK_OK(ds_seal(client, &buffer, 1, NULL));
    ds_buffer_release(buffer);
    put_filled(client, "c", BYTES, 'c');
    check_filled(client, "a", BYTES, 'a');
    check_filled(client, "b", BYTES, 'b');
    check_filled(client, "c", BYTES, 'c');
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
    ds_client_close(client);
}

TEST(what_is_being_filled_goes_to_the_worker_that_is_there)
{
    struct ds_client *client = open_client(&worker, false);
    put_filled(client, "a", BYTES, 'a');
    struct ds_buffer *buffer = create_filled(client, "b", BYTES, 'b');
    worker_replace(&worker, 64);
    CHECK_OK(ds_seal(client, &buffer, 1, NULL));
    check_filled(client, "b", BYTES, 'b');
    ds_buffer_release(buffer);
    ds_client_close(client);
}

TEST(a_closed_client_gives_what_was_lent_back)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_client *other = open_client(&worker, false);
    struct ds_buffer *held = NULL;
    put_filled(client, "a", BYTES, 'a');
    CHECK_OK(get_one(client, "a", 0, &held, NULL));
    ds_client_close(client);
    ds_buffer_release(held);
    for (int i = 0; i < 500 && worker_stat(other, "objects_lent") > 0; i++)
        usleep(10000);
    CHECK_INT(worker_stat(other, "objects_lent"), 0);
    ds_client_close(other);
}

struct putter {
    struct ds_client *client;
    int number;
};

static void *
put_many(void *arg)
{
    const struct putter *putter = arg;
    for (int i = 0; i < 200; i++) {
        char key[16];
        uint64_t size = (uint64_t)(1 + (i + putter->number) % 3) * 20000;
        snprintf(key, sizeof key, "%d_%d", putter->number, i % 5);
        put_filled(putter->client, key, size, (char)('a' + i % 26));
        check_filled(putter->client, key, size, (char)('a' + i % 26));
    }
    return NULL;
}

TEST(threads_put_side_by_side)
{
    enum { THREADS = 6 };
    struct ds_client *client = open_client(&worker, false);
    struct putter putters[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        putters[i] = (struct putter){.client = client, .number = i};
        CHECK_INT(pthread_create(&threads[i], NULL, put_many, &putters[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
    CHECK_INT(worker_stat(client, "objects"), THREADS * 5);
    ds_client_close(client);
}

TEST_MAIN(EACH(puts_of_one_size_are_one_request_each),
          EACH(options_of_a_put_hold_for_lent_room),
          EACH(a_buffer_that_is_dropped_never_existed),
          EACH(buffers_made_one_by_one_are_sealed_together),
          EACH(lent_room_is_taken_back_for_what_needs_it),
          EACH(blocks_of_one_part_and_size_are_one_request_each),
          EACH(a_block_that_is_being_filled_goes_to_the_worker_that_is_there),
          EACH(blocks_that_are_dropped_never_existed),
          EACH(leases_follow_the_sizes_that_are_put),
          EACH(what_is_being_filled_survives_a_restart),
          EACH(what_is_being_filled_goes_to_the_worker_that_is_there),
          EACH(a_closed_client_gives_what_was_lent_back),
          EACH(threads_put_side_by_side))
