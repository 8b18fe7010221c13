/* Blocks against a real worker. */
#include "client/testing.h"

#include <string.h>

static struct worker_process worker;

static int
group_setup(void **state)
{
    (void)state;
    worker_start(&worker, 64);
    return 0;
}

static int
group_teardown(void **state)
{
    (void)state;
    worker_stop(&worker);
    return 0;
}

enum { PARTS = 3 };
static const uint64_t sizes[PARTS] = {100, 4096, 1 << 20};

static struct ds_block_id
store_block(struct ds_client *client, uint8_t fill)
{
    struct ds_block_id id;
    struct ds_buffer *parts[PARTS];
    CHECK_OK(ds_block_create(client, sizes, PARTS, &id, parts, NULL));
    for (int i = 0; i < PARTS; i++)
        memset(ds_buffer_data(parts[i]), fill + i, sizes[i]);
    CHECK_OK(ds_block_seal(client, parts, PARTS, NULL));
    for (int i = 0; i < PARTS; i++)
        ds_buffer_release(parts[i]);
    return id;
}

TEST(parts_of_several_blocks_come_back_in_the_order_asked_for)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_block_id a = store_block(client, 10);
    struct ds_block_id b = store_block(client, 20);
    struct ds_block_id ids[] = {b, a, b};
    uint32_t wanted[] = {2, 1, 0};
    struct ds_buffer *got[3];
    CHECK_OK(ds_block_get(client, ids, wanted, 3, got, NULL));
    uint8_t first[] = {22, 11, 20};
    for (int i = 0; i < 3; i++) {
        CHECK_INT(ds_buffer_size(got[i]), sizes[wanted[i]]);
        const uint8_t *bytes = ds_buffer_data(got[i]);
        CHECK(bytes[0] == first[i] && bytes[sizes[wanted[i]] - 1] == first[i]);
        ds_buffer_release(got[i]);
    }
    ds_client_close(client);
}

TEST(parts_of_a_page_or_more_are_page_aligned)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_block_id id;
    struct ds_buffer *parts[PARTS];
    CHECK_OK(ds_block_create(client, sizes, PARTS, &id, parts, NULL));
    CHECK_INT((uintptr_t)ds_buffer_data(parts[0]) % 64, 0);
    CHECK_INT((uintptr_t)ds_buffer_data(parts[1]) % 4096, 0);
    CHECK_INT((uintptr_t)ds_buffer_data(parts[2]) % 4096, 0);
    for (int i = 0; i < PARTS; i++)
        ds_buffer_release(parts[i]);
    ds_client_close(client);
}

TEST(a_deleted_block_is_gone_but_held_parts_stay)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_block_id ids[] = {store_block(client, 30), store_block(client, 40)};
    uint32_t part = 1;
    uint32_t wanted[] = {1, 1};
    struct ds_buffer *held = NULL;
    struct ds_buffer *got[2];
    CHECK_OK(ds_block_get(client, ids, &part, 1, &held, NULL));
    CHECK_OK(ds_block_delete(client, ids, 1, NULL));
    CHECK_OK(ds_block_delete(client, ids, 1, NULL));
    CHECK_OK(ds_block_get(client, ids, wanted, 2, got, NULL));
    CHECK(got[0] == NULL && got[1] != NULL);
    CHECK_INT(*(uint8_t *)ds_buffer_data(held), 31);
    ds_buffer_release(got[1]);
    ds_buffer_release(held);
    CHECK_STATUS(ds_block_get(client, ids, &part, 1, got, NULL), DS_NOT_FOUND);
    ds_client_close(client);
}

TEST(block_and_object_seals_are_not_mixed)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_error err = {0};
    struct ds_block_id id;
    struct ds_buffer *part = NULL;
    CHECK_OK(ds_block_create(client, sizes, 1, &id, &part, NULL));
    CHECK_STATUS(ds_seal(client, &part, 1, &err), DS_INVALID);
    struct ds_buffer *object = create_one(client, "object", 10);
    CHECK_STATUS(ds_block_seal(client, &object, 1, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "ds_seal()");
    ds_buffer_release(object);
    ds_buffer_release(part);
    ds_client_close(client);
}

TEST(bad_blocks_are_refused)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_error err = {0};
    struct ds_block_id id = {0};
    struct ds_buffer *part = NULL;
    uint64_t none = 0;
    uint32_t number = DS_BLOCK_PARTS_MAX;
    CHECK_STATUS(ds_block_create(client, sizes, 0, &id, &part, &err), DS_INVALID);
    CHECK_STATUS(ds_block_create(client, &none, 1, &id, &part, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "part 0");
    CHECK_STATUS(ds_block_get(client, &id, &number, 1, &part, &err), DS_INVALID);
    ds_client_close(client);
}

TEST(blocks_over_tcp_are_refused_with_the_reason)
{
    struct ds_client *client = open_client(&worker, true);
    struct ds_error err = {0};
    struct ds_block_id id;
    struct ds_buffer *part = NULL;
    CHECK_STATUS(ds_block_create(client, sizes, 1, &id, &part, &err), DS_UNSUPPORTED);
    CHECK_CONTAINS(err.message, "shared memory");
    ds_client_close(client);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(parts_of_several_blocks_come_back_in_the_order_asked_for),
        RUN(parts_of_a_page_or_more_are_page_aligned),
        RUN(a_deleted_block_is_gone_but_held_parts_stay),
        RUN(block_and_object_seals_are_not_mixed),
        RUN(bad_blocks_are_refused),
        RUN(blocks_over_tcp_are_refused_with_the_reason),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
