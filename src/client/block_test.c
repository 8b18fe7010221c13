/* Blocks against a real worker, through shared memory and through TCP. */
#include "base/check.h"
#include "client/client.h"
#include "client/testing_both.h"

#include <string.h>
#include <unistd.h>

enum { PARTS = 3 };
static const uint64_t sizes[PARTS] = {100, 4096, 1 << 20};

static struct ds_block_id
store_block(uint8_t fill)
{
    struct ds_block_id id;
    struct ds_buffer *parts[PARTS];
    CHECK_OK(ds_block_create(client, sizes, PARTS, parts, NULL));
    for (int i = 0; i < PARTS; i++)
        memset(ds_buffer_data(parts[i]), fill + i, sizes[i]);
    CHECK_OK(ds_block_seal(client, parts, PARTS, &id, NULL));
    for (int i = 0; i < PARTS; i++)
        ds_buffer_release(parts[i]);
    return id;
}

TEST(parts_of_several_blocks_come_back_in_the_order_asked_for)
{
    struct ds_block_id a = store_block(10);
    struct ds_block_id b = store_block(20);
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
}

TEST(parts_of_a_page_or_more_are_page_aligned)
{
    struct ds_buffer *parts[PARTS];
    CHECK_OK(ds_block_create(client, sizes, PARTS, parts, NULL));
    CHECK_INT((uintptr_t)ds_buffer_data(parts[0]) % 64, 0);
    CHECK_INT((uintptr_t)ds_buffer_data(parts[1]) % 4096, 0);
    CHECK_INT((uintptr_t)ds_buffer_data(parts[2]) % 4096, 0);
    for (int i = 0; i < PARTS; i++)
        ds_buffer_release(parts[i]);
}

TEST(a_deleted_block_is_gone_but_held_parts_stay)
{
    struct ds_block_id ids[] = {store_block(30), store_block(40)};
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
}

TEST(block_and_object_seals_are_not_mixed)
{
    struct ds_error err = {0};
    struct ds_block_id id;
    struct ds_buffer *part = NULL;
    CHECK_OK(ds_block_create(client, sizes, 1, &part, NULL));
    CHECK_STATUS(ds_seal(client, &part, 1, &err), DS_INVALID);
    struct ds_buffer *object = create_one(client, "object", 10);
    CHECK_STATUS(ds_block_seal(client, &object, 1, &id, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "ds_seal()");
    ds_buffer_release(object);
    ds_buffer_release(part);
}

TEST(bad_blocks_are_refused)
{
    struct ds_error err = {0};
    struct ds_block_id id = {0};
    struct ds_buffer *part = NULL;
    uint64_t none = 0;
    uint32_t number = DS_BLOCK_PARTS_MAX;
    CHECK_STATUS(ds_block_create(client, sizes, 0, &part, &err), DS_INVALID);
    CHECK_STATUS(ds_block_create(client, &none, 1, &part, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "part 0");
    CHECK_STATUS(ds_block_get(client, &id, &number, 1, &part, &err), DS_INVALID);
}

TEST(a_block_that_was_never_sealed_leaves_nothing)
{
    struct ds_buffer *parts[PARTS];
    CHECK_OK(ds_block_create(client, sizes, PARTS, parts, NULL));
    CHECK_INT(worker_stat(client, "objects_unsealed"), PARTS);
    for (int i = 0; i < PARTS; i++)
        ds_buffer_release(parts[i]);
    CHECK_OK(ds_client_ping(client, 0, NULL)); /* The next request says so. */
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
}

TEST(what_is_unsealed_when_its_client_closes_is_given_up)
{
    struct ds_block_id id;
    struct ds_buffer *parts[PARTS];
    struct ds_error err = {0};
    CHECK_OK(ds_block_create(client, sizes, PARTS, parts, NULL));
    ds_client_close(client);
    client = open_client(&worker, true);
    for (int i = 0; i < 500 && worker_stat(client, "objects_unsealed") > 0; i++)
        usleep(10000);
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
    CHECK_STATUS(ds_block_seal(client, parts, PARTS, &id, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "was closed");
    for (int i = 0; i < PARTS; i++)
        ds_buffer_release(parts[i]);
}

TEST(several_blocks_are_reserved_in_one_step_and_sealed_one_by_one)
{
    const uint64_t first[] = {100, 70000}, second[] = {7}, third[] = {5000, 1, 9};
    const struct ds_block_sizes blocks[] = {{first, 2}, {second, 1}, {third, 3}};
    struct ds_buffer *parts[6];
    struct ds_block_id ids[3];
    uint64_t creates = worker_stat(client, "creates_total");
    CHECK_OK(ds_blocks_create(client, blocks, 3, 0, parts, NULL));
    CHECK_INT(worker_stat(client, "creates_total") - creates, 6);
    for (int i = 0; i < 6; i++)
        memset(ds_buffer_data(parts[i]), 'a' + i, ds_buffer_size(parts[i]));
    CHECK_OK(ds_block_seal(client, parts + 3, 3, &ids[2], NULL));
    CHECK_OK(ds_block_seal(client, parts, 2, &ids[0], NULL));
    CHECK_OK(ds_block_seal(client, parts + 2, 1, &ids[1], NULL));
    for (int i = 0; i < 6; i++)
        ds_buffer_release(parts[i]);

    const struct ds_block_id asked[] = {ids[0], ids[0], ids[1], ids[2], ids[2], ids[2]};
    static const uint32_t numbers[] = {0, 1, 0, 0, 1, 2};
    static const uint64_t all_sizes[] = {100, 70000, 7, 5000, 1, 9};
    CHECK_OK(ds_block_get(client, asked, numbers, 6, parts, NULL));
    for (int i = 0; i < 6; i++) {
        CHECK_INT(ds_buffer_size(parts[i]), all_sizes[i]);
        CHECK_INT(*(char *)ds_buffer_data(parts[i]), 'a' + i);
        ds_buffer_release(parts[i]);
    }
    CHECK_OK(ds_block_delete(client, ids, 3, NULL));
}

TEST(of_several_blocks_that_do_not_fit_together_none_is_reserved)
{
    struct ds_error err = {0};
    const uint64_t half[] = {32 << 20, 4096}; /* Of the arena of 64 MiB. */
    const struct ds_block_sizes blocks[] = {{half, 1}, {half, 2}};
    struct ds_buffer *parts[3];
    CHECK_STATUS(ds_blocks_create(client, blocks, 2, 0, parts, &err), DS_FULL);
    CHECK_CONTAINS(err.message, "Shared memory no space in arena");
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
    CHECK_OK(ds_blocks_create(client, blocks, 1, 0, parts, &err));
    ds_buffer_release(parts[0]);
}

TEST(bad_lists_of_blocks_are_refused)
{
    struct ds_error err = {0};
    const uint64_t sizes_of[] = {8, 0};
    struct ds_buffer *parts[2];
    struct ds_block_sizes blocks[] = {{sizes_of, 1}, {sizes_of, 2}};
    CHECK_STATUS(ds_blocks_create(client, blocks, 2, 0, parts, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "part 1 of the block is empty");
    blocks[1].count = 0;
    CHECK_STATUS(ds_blocks_create(client, blocks, 2, 0, parts, &err), DS_INVALID);
    CHECK_STATUS(ds_blocks_create(client, blocks, 0, 0, parts, &err), DS_INVALID);
    CHECK_STATUS(ds_blocks_create(client, NULL, 1, 0, parts, &err), DS_INVALID);
    CHECK_STATUS(ds_blocks_create(client, blocks, 1, 0, NULL, &err), DS_INVALID);
}

TEST(a_block_larger_than_the_arena_is_refused_at_once)
{
    struct ds_error err = {0};
    struct ds_buffer *parts[2];
    const uint64_t too_much[2] = {1 << 20, 1ull << 30};
    CHECK_STATUS(ds_block_create(client, too_much, 2, parts, &err), DS_FULL);
    CHECK_CONTAINS(err.message, "Shared memory no space in arena");
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
}

/* ---- One client over TCP, one with shared memory ---- */

/* Over TCP the larger part travels in more than one piece. */
enum { SMALL_BYTES = 1001, LARGE_BYTES = (20 << 20) + 3 };
static const uint64_t mixed_sizes[2] = {SMALL_BYTES, LARGE_BYTES};

static void
fill(uint8_t *bytes, uint64_t count, uint64_t seed)
{
    for (uint64_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)((i * 7 + i / 251) ^ seed);
}

static struct ds_block_id
write_block(struct ds_client *writer, uint64_t seed)
{
    struct ds_block_id id;
    struct ds_buffer *parts[2];
    CHECK_OK(ds_block_create(writer, mixed_sizes, 2, parts, NULL));
    for (int i = 0; i < 2; i++)
        fill(ds_buffer_data(parts[i]), mixed_sizes[i], seed);
    CHECK_OK(ds_block_seal(writer, parts, 2, &id, NULL));
    for (int i = 0; i < 2; i++) {
        CHECK(ds_buffer_is_sealed(parts[i]));
        ds_buffer_release(parts[i]);
    }
    return id;
}

static void
check_block(struct ds_client *reader, struct ds_block_id id, uint64_t seed)
{
    struct ds_block_id ids[2] = {id, id};
    const uint32_t numbers[2] = {0, 1};
    struct ds_buffer *parts[2];
    uint8_t *wanted = malloc(LARGE_BYTES);
    DS_ASSERT(wanted != NULL);
    fill(wanted, LARGE_BYTES, seed);
    CHECK_OK(ds_block_get(reader, ids, numbers, 2, parts, NULL));
    for (int i = 0; i < 2; i++) {
        CHECK_INT(ds_buffer_size(parts[i]), mixed_sizes[i]);
        CHECK(memcmp(ds_buffer_data(parts[i]), wanted, mixed_sizes[i]) == 0);
        ds_buffer_release(parts[i]);
    }
    free(wanted);
}

TEST(clients_with_and_without_shared_memory_read_each_others_blocks)
{
    struct ds_client *other = open_client(&worker, false);
    struct ds_block_id ids[2] = {write_block(client, 1), write_block(other, 2)};
    for (uint64_t i = 0; i < 2; i++) {
        check_block(client, ids[i], i + 1);
        check_block(other, ids[i], i + 1);
    }
    CHECK_OK(ds_block_delete(client, ids, 2, NULL));
    CHECK_INT(worker_stat(other, "objects_unsealed"), 0);
    ds_client_close(other);
}

/* Most clients over TCP only read: they do not use up the worker's client numbers. */
TEST(a_client_over_tcp_takes_a_number_when_it_first_reserves)
{
    put_text(client, "key", "value");
    check_value(client, "key", "value");
    CHECK(client->mapping == NULL);
    (void)store_block(50);
    CHECK(client->mapping != NULL);
    uint64_t clients = worker_stat(client, "clients");
    (void)store_block(60);
    CHECK_INT(worker_stat(client, "clients"), clients);
    CHECK_INT(worker_stat(client, "connections"), 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(parts_of_several_blocks_come_back_in_the_order_asked_for),
        SHARED(parts_of_a_page_or_more_are_page_aligned),
        BOTH(a_deleted_block_is_gone_but_held_parts_stay),
        BOTH(block_and_object_seals_are_not_mixed),
        BOTH(bad_blocks_are_refused),
        BOTH(a_block_that_was_never_sealed_leaves_nothing),
        BOTH(what_is_unsealed_when_its_client_closes_is_given_up),
        BOTH(several_blocks_are_reserved_in_one_step_and_sealed_one_by_one),
        BOTH(of_several_blocks_that_do_not_fit_together_none_is_reserved),
        BOTH(bad_lists_of_blocks_are_refused),
        BOTH(a_block_larger_than_the_arena_is_refused_at_once),
        TCP(clients_with_and_without_shared_memory_read_each_others_blocks),
        TCP(a_client_over_tcp_takes_a_number_when_it_first_reserves),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
