#include "wire/bindings.h"

#include "base/slice.h"
#include "test.h"

#include <string.h>

static uint8_t bytes[KEY_VALUE_BYTES_MAX + 1];

static struct ds_slice
body_of(const struct writer *writer)
{
    return slice(writer->data, writer->len);
}

static const struct wire_answer with_value = {
    .answer = KEY_YES,
    .object = {.node = 4, .incarnation = 5, .slot = 6, .generation = 7},
    .value = {.data = bytes, .len = 300},
    .checksum = 99,
};

/* One answer alone is a message. */
static bool
is_an_answer(struct wire_answer answer)
{
    struct answer_list list;
    AUTO_WRITER(w);
    encode_answers_begin(&w, 1);
    encode_answer(&w, &answer);
    return decode_answers(body_of(&w), &list);
}

TEST(answers_come_back_with_their_values)
{
    AUTO_WRITER(w);
    struct answer_list list;
    struct wire_answer got;
    memset(bytes, 3, sizeof bytes);
    encode_answers_begin(&w, 2);
    encode_answer(&w, &with_value);
    encode_answer(&w, &(struct wire_answer){.answer = KEY_MOVED, .ttl_ds = 8});
    CHECK(decode_answers(body_of(&w), &list));
    CHECK(next_answer(&list, &got));
    CHECK_INT(got.answer, KEY_YES);
    CHECK(object_name_equal(&got.object, &with_value.object));
    CHECK(slice_equal(got.value, with_value.value));
    CHECK_INT(got.checksum, 99);
    CHECK(next_answer(&list, &got));
    CHECK_INT(got.answer, KEY_MOVED);
    CHECK_INT(got.ttl_ds, 8);
    CHECK_INT(got.value.len, 0);
    CHECK(!next_answer(&list, &got));
}

TEST(answers_that_are_cut_short_are_refused)
{
    AUTO_WRITER(w);
    struct answer_list list;
    encode_answers_begin(&w, 2);
    encode_answer(&w, &with_value);
    encode_answer(&w, &with_value);
    for (size_t len = 0; len < w.len; len++)
        CHECK(!decode_answers(slice(w.data, len), &list));
    write_u8(&w, 0);
    CHECK(!decode_answers(body_of(&w), &list));
    patch_u32(&w, 0, UINT32_MAX);
    CHECK(!decode_answers(body_of(&w), &list));
}

TEST(a_value_is_small_and_of_an_object_that_is_there)
{
    struct wire_answer answer = with_value;
    answer.value.len = KEY_VALUE_BYTES_MAX;
    CHECK(is_an_answer(answer));
    answer.value.len++;
    CHECK(!is_an_answer(answer));
    answer = with_value;
    answer.answer = KEY_LOST;
    CHECK(!is_an_answer(answer));
    answer = with_value;
    answer.object.node = 0;
    CHECK(!is_an_answer(answer));
}

/* Nothing follows where the answer says that a value does. */
TEST(an_empty_value_is_refused)
{
    AUTO_WRITER(w);
    struct answer_list list;
    struct wire_answer answer = with_value;
    answer.value.len = 1;
    encode_answers_begin(&w, 1);
    encode_answer(&w, &answer);
    CHECK(decode_answers(body_of(&w), &list));
    w.len -= 3; /* The length, and the byte. */
    write_u16(&w, 0);
    CHECK(!decode_answers(body_of(&w), &list));
}

TEST(only_who_looks_for_keys_wants_their_values)
{
    struct key_orders got, sent = {.order = KEY_FIND,
                                   .wait_ms = 7,
                                   .from = 9,
                                   .restarts = 5,
                                   .epoch = 11,
                                   .wants_values = true};
    AUTO_WRITER(w);
    encode_key_orders_begin(&w, &sent);
    CHECK(decode_key_orders(body_of(&w), &got));
    CHECK(got.wants_values);
    CHECK_INT(got.wait_ms, 7);
    CHECK_INT(got.from, 9);
    CHECK_INT(got.restarts, 5);
    CHECK_INT(got.epoch, 11);
    w.data[24] = 2; /* Where it says so. */
    CHECK(!decode_key_orders(body_of(&w), &got));
    writer_clear(&w);
    sent.order = KEY_BIND;
    encode_key_orders_begin(&w, &sent);
    CHECK(!decode_key_orders(body_of(&w), &got));
}

/* A report that says who belonged to one epoch: these two. */
static bool
is_a_report(struct past_member first, struct past_member second, uint32_t count)
{
    AUTO_WRITER(lost);
    AUTO_WRITER(w);
    struct key_report got;
    encode_past_epoch_begin(&lost, count);
    encode_past_member(&lost, &first);
    encode_past_member(&lost, &second);
    struct key_report report = {.node = 4, .lost = slice(lost.data, lost.len)};
    encode_key_report_begin(&w, &report);
    return decode_key_report(body_of(&w), &got);
}

TEST(who_belonged_to_an_epoch_is_in_the_order_of_their_nodes)
{
    struct past_member low = {3, 9, true, false}, high = {5, 8, false, false};
    CHECK(is_a_report(low, high, 2));
    CHECK(!is_a_report(high, low, 2));
    CHECK(!is_a_report(low, low, 2));
    CHECK(!is_a_report(low, high, 1));
    CHECK(!is_a_report(low, high, 3));
    CHECK(!is_a_report(low, high, UINT32_MAX));
}

TEST_MAIN(RUN(who_belonged_to_an_epoch_is_in_the_order_of_their_nodes),
          RUN(answers_come_back_with_their_values),
          RUN(answers_that_are_cut_short_are_refused),
          RUN(a_value_is_small_and_of_an_object_that_is_there),
          RUN(an_empty_value_is_refused),
          RUN(only_who_looks_for_keys_wants_their_values))
