#include "wire/block_id.h"

#include "base/slice.h"
#include "test.h"
#include "wire/message.h"

#include <stdio.h>
#include <string.h>

static const struct block_birth birth = {0x01020304, 0xa1b2c3d4, 0xbeef};

TEST(an_id_says_where_its_block_was_born_and_of_which_queue_it_is)
{
    struct ds_block_id id = wire_block_id(birth, wire_block_counter(4095));
    for (int i = 0; i < 3; i++) {
        struct block_birth read = wire_block_birth(&id);
        CHECK_INT(read.node, birth.node);
        CHECK_INT(read.incarnation, birth.incarnation);
        CHECK_INT(read.queue, birth.queue);
        id = wire_block_id_after(id, UINT32_MAX);
    }
}

/* As they are issued: one by one, and from a new start after each restart. */
TEST(no_id_comes_twice)
{
    struct ds_block_id first = wire_block_id(birth, wire_block_counter(3));
    struct ds_block_id later = wire_block_id(birth, wire_block_counter(3) + 7);
    struct ds_block_id after = wire_block_id_after(first, 7);
    CHECK(memcmp(&later, &after, sizeof later) == 0);
    for (int restarts = 0; restarts < 3; restarts++)
        CHECK(wire_block_counter(restarts) + (UINT64_C(1) << 36) ==
              wire_block_counter(restarts + 1));
}

TEST(a_queue_without_a_name_has_no_tag_and_others_have)
{
    char name[16];
    CHECK_INT(wire_queue_tag(slice_of_text("")), 0);
    for (int i = 0; i < 200000; i++) { /* Some have a hash that ends in 16 zeros. */
        snprintf(name, sizeof name, "queue %d", i);
        CHECK(wire_queue_tag(slice_of_text(name)) != 0);
    }
    CHECK(wire_queue_tag(slice_of_text("a")) != wire_queue_tag(slice_of_text("b")));
}

TEST(block_keys_are_never_user_keys)
{
    uint8_t key[BLOCK_KEY_BYTES];
    struct block_birth printable = {0x41414141, 0x41414141, 0x4141};
    wire_block_key(wire_block_id(printable, 0x414141414141), DS_BLOCK_PARTS_MAX - 1,
                   key);
    CHECK_INT(key[BLOCK_KEY_BYTES - 1], 0);
    CHECK_INT(key[BLOCK_KEY_BYTES - 2], 0);
}

TEST(objects_have_names_that_are_neither_of_blocks_nor_of_users)
{
    struct object_name name = {0x41414141, 0x42424242, 0x7fffffff, 0x4343434343434343};
    struct object_name read;
    uint8_t key[BLOCK_KEY_BYTES];
    wire_object_key(&name, key);
    CHECK(wire_object_name(slice(key, sizeof key), &read));
    CHECK(object_name_equal(&name, &read));
    CHECK(!wire_is_block_key(slice(key, sizeof key)));
    CHECK(!wire_user_key_is_legal(slice(key, sizeof key)));
    CHECK(!wire_object_name(slice(key, sizeof key - 1), &read));
    wire_block_key(wire_block_id((struct block_birth){1, 2, 3}, 4), 5, key);
    CHECK(!wire_object_name(slice(key, sizeof key), &read));
}

TEST_MAIN(RUN(objects_have_names_that_are_neither_of_blocks_nor_of_users),
          RUN(an_id_says_where_its_block_was_born_and_of_which_queue_it_is),
          RUN(no_id_comes_twice),
          RUN(a_queue_without_a_name_has_no_tag_and_others_have),
          RUN(block_keys_are_never_user_keys))
