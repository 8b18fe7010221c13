#include "wire/message.h"

#include "base/slice.h"
#include "test.h"

#include <stdlib.h>

static struct ds_slice
body_of(const struct writer *writer)
{
    return slice(writer->data, writer->len);
}

TEST(create_comes_back_as_it_was)
{
    AUTO_WRITER(w);
    struct ds_slice keys[] = {slice_of_text("a"), slice_of_text("key-2")};
    uint64_t sizes[] = {1, UINT64_MAX};
    encode_create(&w, 700, 3, keys, sizes, 2);

    struct create message;
    CHECK(decode_create(body_of(&w), &message));
    CHECK_INT(message.write_mode, 3);
    CHECK_INT(message.objects.count, 2);
    struct ds_slice key;
    uint64_t size;
    CHECK(next_sized_key(&message.objects, &key, &size));
    CHECK(slice_equal(key, keys[0]) && size == 1);
    CHECK(next_sized_key(&message.objects, &key, &size));
    CHECK(slice_equal(key, keys[1]) && size == UINT64_MAX);
    CHECK(!next_sized_key(&message.objects, &key, &size));
}

TEST(hello_carries_what_the_client_holds)
{
    AUTO_WRITER(w);
    struct hello sent = {.layout_version = 1,
                         .protocol_version = 2,
                         .flags = HELLO_RESUME,
                         .client = 7,
                         .token = 8,
                         .incarnation = 9};
    struct wire_ref holding[] = {{.slot = 5, .generation = 1ull << 50}};
    encode_hello(&w, &sent, holding, 1);

    struct hello got;
    CHECK(decode_hello(body_of(&w), &got));
    CHECK_INT(got.client, 7);
    CHECK_INT(got.token, 8);
    struct wire_ref ref;
    CHECK(next_ref(&got.holding, &ref));
    CHECK(ref.slot == 5 && ref.generation == 1ull << 50);
    CHECK(!next_ref(&got.holding, &ref));
}

TEST(publish_comes_back_as_it_was_and_nothing_else_is_one)
{
    AUTO_WRITER(w);
    struct publish sent = {.ttl_seconds = 7,
                           .only_if_absent = true,
                           .ref = {.slot = 5, .generation = 1ull << 50},
                           .size = 1ull << 40,
                           .lend_bytes = 9,
                           .key = slice_of_text("key")};
    encode_publish(&w, &sent);
    struct publish got;
    CHECK(decode_publish(body_of(&w), &got));
    CHECK_INT(got.ttl_seconds, 7);
    CHECK(got.only_if_absent);
    CHECK(got.ref.slot == 5 && got.ref.generation == 1ull << 50);
    CHECK(got.size == 1ull << 40 && got.lend_bytes == 9);
    CHECK(slice_equal(got.key, sent.key));
    write_u8(&w, 0);
    CHECK(!decode_publish(body_of(&w), &got));
    CHECK(!decode_publish(slice(w.data, w.len - 2), &got));
}

TEST(fill_comes_back_as_it_was_and_nothing_else_is_one)
{
    AUTO_WRITER(w);
    struct fill sent = {.ref = {.slot = 5, .generation = 1ull << 50},
                        .offset = 1ull << 40};
    encode_fill(&w, &sent);

    struct fill got;
    CHECK(decode_fill(body_of(&w), &got));
    CHECK(got.ref.slot == 5 && got.ref.generation == 1ull << 50);
    CHECK(got.offset == 1ull << 40);
    for (size_t len = 0; len < w.len; len++)
        CHECK(!decode_fill(slice(w.data, len), &got));
    write_u8(&w, 0);
    CHECK(!decode_fill(body_of(&w), &got));
}

TEST(found_objects_come_back_in_order)
{
    AUTO_WRITER(w);
    encode_found_begin(&w, 2);
    struct wire_object sent = {
        .found = true, .slot = 1, .commit = 2, .offset = 64, .size = 3};
    encode_found_object(&w, &sent);
    encode_found_object(&w, &(struct wire_object){0});

    struct found list;
    CHECK(decode_found(body_of(&w), &list));
    struct wire_object got;
    CHECK(next_object(&list, &got));
    CHECK(got.found && got.offset == 64 && got.size == 3 && got.commit == 2);
    CHECK(next_object(&list, &got));
    CHECK(!got.found);
}

/* Every message that is cut short, or has a byte too many, is refused. */
TEST(truncated_messages_are_refused)
{
    AUTO_WRITER(w);
    struct ds_slice keys[] = {slice_of_text("abc"), slice_of_text("d")};
    struct lookup sent = {.wait_ms = 5};
    encode_lookup(&w, &sent, keys, 2);

    struct lookup got;
    CHECK(decode_lookup(body_of(&w), &got));
    for (size_t len = 0; len < w.len; len++)
        CHECK(!decode_lookup(slice(w.data, len), &got));
    write_u8(&w, 0);
    CHECK(!decode_lookup(body_of(&w), &got));
}

TEST(who_may_be_sent_on_says_who_it_is)
{
    AUTO_WRITER(w);
    struct ds_slice key = slice_of_text("abc");
    struct lookup sent = {.flags = LOOKUP_RELAY, .asker = {7, 9}};
    encode_lookup(&w, &sent, &key, 1);

    struct lookup got;
    CHECK(decode_lookup(body_of(&w), &got));
    CHECK(got.asker.node == 7 && got.asker.incarnation == 9);
    for (size_t len = 0; len < w.len; len++)
        CHECK(!decode_lookup(slice(w.data, len), &got));

    struct wire_value value = {.found = true, .total = 5, .relay = {8, 2}};
    struct fetched list;
    writer_clear(&w);
    encode_fetched_begin(&w, 1);
    encode_fetched_value(&w, &value);
    CHECK(decode_fetched(body_of(&w), &list));
    CHECK(next_value(&list, &value));
    CHECK(value.relay.node == 8 && value.relay.incarnation == 2);
}

TEST(a_count_without_elements_is_refused)
{
    AUTO_WRITER(w);
    write_u32(&w, UINT32_MAX);
    struct block_id_list ids;
    CHECK(!decode_block_ids(body_of(&w), &ids));
    struct ref_list refs;
    CHECK(!decode_refs(body_of(&w), &refs));
    struct key_list keys;
    CHECK(!decode_keys(body_of(&w), &keys));
}

TEST(frame_of_another_protocol_is_refused)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header sent = {.type = MESSAGE_PUT,
                                .sequence = 3,
                                .body_bytes = 10,
                                .payload_bytes = 1ull << 40};
    frame_encode(&sent, bytes);
    struct frame_header got;
    CHECK(frame_decode(bytes, &got));
    CHECK(got.type == MESSAGE_PUT && got.payload_bytes == 1ull << 40);
    bytes[0] ^= 1;
    CHECK(!frame_decode(bytes, &got));
    CHECK(!frame_decode((const uint8_t *)"GET / HTTP/1.1\r\nHost: xxx", &got));
}

TEST(a_huge_body_is_refused)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header sent = {.type = MESSAGE_PING};
    frame_encode(&sent, bytes);
    bytes[15] = 0xff; /* Top byte of body_bytes. */
    struct frame_header got;
    CHECK(!frame_decode(bytes, &got));
}

TEST(a_members_address_is_one_that_can_be_printed)
{
    static const char *const bad[] = {"", "a b:1", "a\"b:1", "a\\b:1", "a\n:1"};
    struct member_renew sent = {.who = {.node = 4,
                                        .incarnation = 5,
                                        .address = slice_of_text("10.0.0.1:31501")},
                                .flags = MEMBER_LEAVES,
                                .epoch = 7,
                                .count = 2,
                                .wait_ms = 300,
                                .cluster_name = slice_of_text("blue")};
    struct member_renew got;
    AUTO_WRITER(w);
    encode_member_renew(&w, &sent);
    CHECK(decode_member_renew(body_of(&w), &got));
    CHECK(got.who.node == 4 && got.who.incarnation == 5 && got.flags == MEMBER_LEAVES);
    CHECK(got.epoch == 7 && got.count == 2 && got.wait_ms == 300);
    CHECK(slice_equal(got.who.address, sent.who.address));
    CHECK(slice_equal(got.cluster_name, sent.cluster_name));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        AUTO_WRITER(other);
        sent.who.address = slice_of_text(bad[i]);
        encode_member_renew(&other, &sent);
        CHECK(!decode_member_renew(body_of(&other), &got));
    }
}

TEST(a_list_of_members_is_whole_or_refused)
{
    struct wire_member member = {
        .node = 4, .incarnation = 5, .address = slice_of_text("10.0.0.1:31501")};
    struct member_list list;
    struct wire_member got;
    AUTO_WRITER(w);
    struct member_list head = {.epoch = 9, .version = 5, .lease_ms = 1000, .count = 2};
    encode_member_list_begin(&w, &head);
    encode_member(&w, &member);
    CHECK(!decode_member_list(body_of(&w), &list));
    member.node = 5;
    encode_member(&w, &member);
    CHECK(decode_member_list(body_of(&w), &list));
    CHECK(list.epoch == 9 && list.version == 5);
    CHECK(list.lease_ms == 1000 && list.count == 2);
    CHECK(next_member(&list, &got) && got.node == 4);
    CHECK(next_member(&list, &got) && slice_equal(got.address, member.address));
    CHECK(!next_member(&list, &got));
    write_u8(&w, 0);
    CHECK(!decode_member_list(body_of(&w), &list));
}

/* Receivers look for a node by halves. */
TEST(members_come_in_the_order_of_their_nodes)
{
    static const uint32_t nodes[][2] = {{4, 5}, {5, 4}, {4, 4}};
    for (size_t i = 0; i < 3; i++) {
        struct member_list list = {.epoch = 9, .count = 2};
        struct wire_member member = {.address = slice_of_text("10.0.0.1:31501")};
        AUTO_WRITER(w);
        encode_member_list_begin(&w, &list);
        for (size_t j = 0; j < 2; j++) {
            member.node = nodes[i][j];
            encode_member(&w, &member);
        }
        CHECK_INT(decode_member_list(body_of(&w), &list), i == 0);
    }
}

TEST(a_member_says_which_queues_it_has)
{
    enum { FIRST_BYTES = 2 + 5 + 2 + 2 + 14 + 8 };
    static const char *const names[] = {"train", "eval"};
    struct ds_slice address = slice_of_text("10.0.0.1:31501"), rest;
    AUTO_WRITER(queues);
    for (int i = 0; i < 2; i++) {
        struct queue_place place = {.name = slice_of_text(names[i]),
                                    .tcp_address = slice_of_text("10.0.0.1:31600")};
        encode_queue_place(&queues, &place);
    }
    for (size_t len = 0; len <= queues.len; len++) {
        struct wire_member member = {
            .node = 4, .address = address, .queues = slice(queues.data, len)};
        struct queue_place place;
        struct member_list list = {.epoch = 9, .count = 1};
        AUTO_WRITER(w);
        encode_member_list_begin(&w, &list);
        encode_member(&w, &member);
        bool is_whole = len == 0 || len == FIRST_BYTES || len == queues.len;
        CHECK_INT(decode_member_list(body_of(&w), &list), is_whole);
        if (len < queues.len)
            continue;
        CHECK(next_member(&list, &member));
        rest = member.queues;
        for (int i = 0; i < 2; i++) {
            CHECK(next_member_queue(&rest, &place));
            CHECK(slice_equal(place.name, slice_of_text(names[i])));
            CHECK_INT(place.tcp_address.len, 14);
        }
        CHECK(!next_member_queue(&rest, &place));
    }
}

TEST_MAIN(RUN(a_member_says_which_queues_it_has),
          RUN(a_members_address_is_one_that_can_be_printed),
          RUN(a_list_of_members_is_whole_or_refused),
          RUN(members_come_in_the_order_of_their_nodes),
          RUN(create_comes_back_as_it_was), RUN(hello_carries_what_the_client_holds),
          RUN(fill_comes_back_as_it_was_and_nothing_else_is_one),
          RUN(publish_comes_back_as_it_was_and_nothing_else_is_one),
          RUN(found_objects_come_back_in_order), RUN(truncated_messages_are_refused),
          RUN(who_may_be_sent_on_says_who_it_is),
          RUN(a_count_without_elements_is_refused),
          RUN(frame_of_another_protocol_is_refused), RUN(a_huge_body_is_refused))
