#include "wire/msgpack.h"

#include "base/slice.h"
#include "test.h"

#include <string.h>

static struct reader
reader_of_writer(const struct writer *writer)
{
    CHECK(!writer->failed);
    return reader_of(writer->data, writer->len);
}

/* Whether these bytes are exactly one value. */
static bool
is_value(const char *bytes, size_t len)
{
    struct reader reader = reader_of(bytes, len);
    msgpack_skip(&reader);
    return reader_done(&reader);
}

static void
check_uint_comes_back(uint64_t value, size_t encoded_bytes)
{
    AUTO_WRITER(writer);
    msgpack_write_uint(&writer, value);
    CHECK_INT(writer.len, encoded_bytes);
    struct reader reader = reader_of_writer(&writer);
    CHECK(msgpack_read_uint(&reader) == value);
    CHECK(reader_done(&reader));
}

TEST(numbers_come_back_in_their_shortest_form)
{
    check_uint_comes_back(0, 1);
    check_uint_comes_back(127, 1);
    check_uint_comes_back(128, 2);
    check_uint_comes_back(255, 2);
    check_uint_comes_back(256, 3);
    check_uint_comes_back(65535, 3);
    check_uint_comes_back(65536, 5);
    check_uint_comes_back(UINT32_MAX, 5);
    check_uint_comes_back((uint64_t)UINT32_MAX + 1, 9);
    check_uint_comes_back(UINT64_MAX, 9);
}

static void
check_bytes_come_back(size_t len)
{
    static char text[70000];
    memset(text, 'x', sizeof text);
    AUTO_WRITER(writer);
    msgpack_write_str(&writer, slice(text, len));
    msgpack_write_bin(&writer, slice(text, len));
    struct reader reader = reader_of_writer(&writer);
    CHECK(slice_equal(msgpack_read_str(&reader), slice(text, len)));
    CHECK(slice_equal(msgpack_read_bin(&reader), slice(text, len)));
    CHECK(reader_done(&reader));
}

TEST(texts_and_bytes_of_every_length_class_come_back)
{
    check_bytes_come_back(0);
    check_bytes_come_back(31);
    check_bytes_come_back(32);
    check_bytes_come_back(255);
    check_bytes_come_back(256);
    check_bytes_come_back(65535);
    check_bytes_come_back(65536);
}

static void
check_container_comes_back(size_t count)
{
    AUTO_WRITER(writer);
    msgpack_write_array(&writer, count);
    for (size_t i = 0; i < count; i++)
        msgpack_write_nil(&writer);
    msgpack_write_map(&writer, count);
    for (size_t i = 0; i < 2 * count; i++)
        msgpack_write_uint(&writer, i & 0x7f);
    struct reader reader = reader_of_writer(&writer);
    CHECK_INT(msgpack_read_array(&reader), count);
    for (size_t i = 0; i < count; i++)
        CHECK(msgpack_read_nil(&reader));
    CHECK_INT(msgpack_read_map(&reader), count);
}

TEST(arrays_and_maps_of_every_size_class_come_back)
{
    check_container_comes_back(0);
    check_container_comes_back(15);
    check_container_comes_back(16);
    check_container_comes_back(65535);
    check_container_comes_back(65536);
}

TEST(a_late_count_is_patched_in)
{
    AUTO_WRITER(writer);
    size_t mark = msgpack_begin_array(&writer);
    msgpack_write_uint(&writer, 7);
    msgpack_write_uint(&writer, 8);
    msgpack_end_array(&writer, mark, 2);
    struct reader reader = reader_of_writer(&writer);
    CHECK_INT(msgpack_read_array(&reader), 2);
    CHECK_INT(msgpack_read_uint(&reader), 7);
    CHECK_INT(msgpack_read_uint(&reader), 8);
    CHECK(reader_done(&reader));
}

/* {"a": [1, -1, 1.5, true], "b": {"c": bin}} then 7. */
TEST(one_value_is_cut_out_as_it_stands)
{
    const char bytes[] = "\x82\xa1"
                         "a\x94\x01\xff\xcb\x3f\xf8\0\0\0\0\0\0\xc3\xa1"
                         "b\x81\xa1"
                         "c\xc4\x02\x80\x81\x07";
    struct reader reader = reader_of(bytes, sizeof bytes - 1);
    struct ds_slice raw = msgpack_read_raw(&reader);
    CHECK_INT(raw.len, sizeof bytes - 2);
    CHECK(raw.data == bytes);
    CHECK_INT(msgpack_read_uint(&reader), 7);
    CHECK(reader_done(&reader));
}

TEST(every_form_of_the_format_can_be_skipped)
{
    CHECK(is_value("\xc0", 1));
    CHECK(is_value("\xc2", 1));
    CHECK(is_value("\xc7\x02\x05xx", 5));
    CHECK(is_value("\xc8\x00\x02\x05xx", 6));
    CHECK(is_value("\xc9\x00\x00\x00\x02\x05xx", 8));
    CHECK(is_value("\xca\0\0\0\0", 5));
    CHECK(is_value("\xd0\x80", 2));
    CHECK(is_value("\xd1\x80\0", 3));
    CHECK(is_value("\xd2\x80\0\0\0", 5));
    CHECK(is_value("\xd3\x80\0\0\0\0\0\0\0", 9));
    CHECK(is_value("\xd4\x05x", 3));
    CHECK(is_value("\xd5\x05xx", 4));
    CHECK(is_value("\xd6\x05xxxx", 6));
    CHECK(is_value("\xd7\x05xxxxxxxx", 10));
    CHECK(is_value("\xd8\x05xxxxxxxxxxxxxxxx", 18));
}

TEST(the_unused_first_byte_is_refused)
{
    CHECK(!is_value("\xc1", 1));
}

TEST(a_signed_form_of_a_positive_number_is_accepted)
{
    struct reader reader = reader_of("\xd0\x05", 2);
    CHECK_INT(msgpack_read_uint(&reader), 5);
    CHECK(reader_done(&reader));
}

TEST(a_negative_number_is_no_uint)
{
    struct reader small = reader_of("\xff", 1);
    CHECK_INT(msgpack_read_uint(&small), 0);
    CHECK(!reader_ok(&small));
    struct reader wide = reader_of("\xd1\xff\xff", 3);
    CHECK_INT(msgpack_read_uint(&wide), 0);
    CHECK(!reader_ok(&wide));
}

TEST(another_type_than_asked_for_fails)
{
    struct reader reader = reader_of("\xa1x", 2);
    CHECK_INT(msgpack_read_array(&reader), 0);
    CHECK(!reader_ok(&reader));
    CHECK_INT(msgpack_peek(&reader), MSGPACK_NONE);
}

/* A count may size memory, so it must be backed by bytes. */
TEST(a_count_beyond_the_input_is_refused)
{
    struct reader array = reader_of("\xdd\xff\xff\xff\xff\xc0", 6);
    CHECK_INT(msgpack_read_array(&array), 0);
    CHECK(!reader_ok(&array));
    struct reader map = reader_of("\x82\xc0\xc0\xc0", 4);
    CHECK_INT(msgpack_read_map(&map), 0);
    CHECK(!reader_ok(&map));
    CHECK(!is_value("\xdd\xff\xff\xff\xff\xc0", 6));
}

TEST(text_must_be_utf8)
{
    CHECK(is_value("\xa4\xf0\x9f\x98\x80", 5)); /* An emoji. */
    CHECK(is_value("\xa2\xc3\xa9", 3));
    CHECK(!is_value("\xa1\xff", 2));
    CHECK(!is_value("\xa2\xc0\x80", 3));         /* Overlong. */
    CHECK(!is_value("\xa3\xed\xa0\x80", 4));     /* A surrogate. */
    CHECK(!is_value("\xa4\xf4\x90\x80\x80", 5)); /* Beyond U+10FFFF. */
    CHECK(!is_value("\xa1\xc3", 2));             /* Cut off. */
    CHECK(!is_value("\xa3\xe2\x82x", 4));
}

TEST(a_map_or_array_is_no_key)
{
    CHECK(is_value("\x81\x01\x90", 3));
    CHECK(!is_value("\x81\x90\x01", 3));
    CHECK(!is_value("\x81\x80\x01", 3));
    CHECK(is_value("\x82\x01\x80\x02\x80", 5));
    CHECK(!is_value("\x82\x01\x01\x80\x02", 5));
}

TEST(nesting_ends_at_the_limit)
{
    char bytes[MSGPACK_DEPTH_MAX + 2];
    memset(bytes, 0x91, sizeof bytes);
    bytes[MSGPACK_DEPTH_MAX] = 0x01;
    CHECK(is_value(bytes, MSGPACK_DEPTH_MAX + 1));
    bytes[MSGPACK_DEPTH_MAX] = (char)0x91;
    bytes[MSGPACK_DEPTH_MAX + 1] = 0x01;
    CHECK(!is_value(bytes, MSGPACK_DEPTH_MAX + 2));
}

/* Exhaustive over the cuts of one message: a prefix is never a value. */
TEST(a_truncated_value_is_refused)
{
    const char bytes[] = "\x82\xa1"
                         "a\x92\x01\xcd\x01\x02\xa1"
                         "b\xc4\x02xy";
    CHECK(is_value(bytes, sizeof bytes - 1));
    for (size_t len = 0; len < sizeof bytes - 1; len++)
        CHECK(!is_value(bytes, len));
}

/* Random bytes neither crash nor read past the end (the sanitizers watch). */
TEST(random_bytes_do_no_harm)
{
    uint64_t seed = 1;
    size_t values = 0;
    for (int round = 0; round < 20000; round++) {
        char bytes[24];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (char)test_random(&seed);
        struct reader reader = reader_of(bytes, sizeof bytes);
        while (reader_left(&reader) > 0 && reader_ok(&reader))
            msgpack_skip(&reader);
        values += reader_done(&reader);
    }
    CHECK(values > 0);
}

TEST_MAIN(RUN(numbers_come_back_in_their_shortest_form),
          RUN(texts_and_bytes_of_every_length_class_come_back),
          RUN(arrays_and_maps_of_every_size_class_come_back),
          RUN(a_late_count_is_patched_in), RUN(one_value_is_cut_out_as_it_stands),
          RUN(every_form_of_the_format_can_be_skipped),
          RUN(the_unused_first_byte_is_refused),
          RUN(a_signed_form_of_a_positive_number_is_accepted),
          RUN(a_negative_number_is_no_uint), RUN(another_type_than_asked_for_fails),
          RUN(a_count_beyond_the_input_is_refused), RUN(text_must_be_utf8),
          RUN(a_map_or_array_is_no_key), RUN(nesting_ends_at_the_limit),
          RUN(a_truncated_value_is_refused), RUN(random_bytes_do_no_harm))
