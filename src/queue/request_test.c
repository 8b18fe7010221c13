#include "queue/request.h"

#include "queue/test_text.h"

#include "wire/msgpack.h"

#include "base/slice.h"
#include "test.h"

#include <string.h>

static enum ds_status
decode_text(const char *text, struct ds_error *err)
{
    AUTO_WRITER(bytes);
    AUTO_QUEUE_REQUEST(request);
    text_to_msgpack(text, &bytes);
    return queue_request_decode(slice(bytes.data, bytes.len), &request, err);
}

/* The request is refused with a text that contains `part`. */
static void
check_refused(const char *text, const char *part)
{
    struct ds_error err = {0};
    CHECK_STATUS(decode_text(text, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, part);
}

TEST(a_put_is_decoded_whole)
{
    AUTO_WRITER(bytes);
    AUTO_QUEUE_REQUEST(request);
    struct ds_error err = {0};
    text_to_msgpack("['kv_put','p',['a','b'],[[@7],'y',['x'],[9],[]],[{'t':1},nil]]",
                    &bytes);
    CHECK_OK(queue_request_decode(slice(bytes.data, bytes.len), &request, &err));
    CHECK_INT(request.operation, QUEUE_KV_PUT);
    CHECK(slice_equal(request.partition, slice_of_text("p")));
    CHECK_INT(request.keys.count, 2);
    CHECK(slice_equal(request.keys.items[1], slice_of_text("b")));
    struct ds_block_id id = test_block_id(7);
    CHECK(request.has_blocks);
    CHECK_INT(request.blocks.count, 1);
    CHECK(memcmp(&request.blocks.ids[0], &id, sizeof id) == 0);
    CHECK_INT(request.blocks.ends[0], 2);
    CHECK(slice_equal(request.blocks.backend, slice_of_text("y")));
    CHECK_INT(request.blocks.fields.count, 1);
    CHECK_INT(request.blocks.column_bytes[0], 9);
    CHECK_INT(request.tags.count, 2);
    CHECK(slice_equal(request.tags.items[0], slice("\x81\xa1t\x01", 4)));
    CHECK_INT(request.tags.items[1].len, 0);
}

TEST(what_is_wrong_is_named)
{
    check_refused("7", "not a MessagePack array");
    check_refused("[]", "not a MessagePack array");
    check_refused("['nope']", "unknown operation 'nope'");
    check_refused("['kv_put','p']", "kv_put: takes 4 arguments, not 1");
    check_refused("['kv_put',1,['a'],nil,nil]", "the partition is not a text");
    check_refused("['kv_put','p','a',nil,nil]", "keys are not an array");
    check_refused("['kv_put','p',['a',1],nil,nil]", "a key is not a text");
    check_refused("['kv_put','p',[''],nil,nil]", "a key is empty");
    check_refused("['kv_put','p',['a'],7,nil]", "the blocks are not");
    check_refused("['kv_put','p',['a'],[[<id>],'y',['x'],[1],[]],nil]", "not 16 bytes");
    check_refused("['kv_put','p',['a'],[[@1],7,['x'],[1],[]],nil]",
                  "the backend is not");
    check_refused("['kv_put','p',['a'],[[@1],'y',[],[],[]],nil]",
                  "the block has no fields");
    check_refused("['kv_put','p',['a'],[[@1],'y',['x'],[],[]],nil]",
                  "one size per block");
    check_refused("['kv_put','p',['a'],[[@1],'y',['x'],['8'],[]],nil]",
                  "plausible number");
    check_refused(
        "['kv_put','p',['a'],[[@1],'y',['x','z'],[1,72057594037927935],[]],nil]",
        "plausible number");
    check_refused("['kv_put','p',['a'],[[],'y',['x'],[],[]],nil]",
                  "1 to 1024 block ids");
    check_refused("['kv_put','p',['a','b'],[[@1,@1],'y',['x'],[1,1],[1]],nil]",
                  "names a block twice");
    check_refused("['kv_put','p',['a','b'],[[@1,@2],'y',['x'],[1,1],[]],nil]",
                  "one first row per further block");
    check_refused("['kv_put','p',['a','b'],[[@1,@2],'y',['x'],[1,1],[0]],nil]",
                  "do not ascend");
    check_refused("['kv_put','p',['a','b'],[[@1,@2],'y',['x'],[1,1],[2]],nil]",
                  "do not ascend");
    check_refused("['kv_put','p',['a','b','c'],[[@1,@2,@3],'y',['x'],[1,1,1],[1,1]],"
                  "nil]",
                  "do not ascend");
    check_refused("['kv_put','p',['a'],nil,[7]]", "a tag is not a well-formed map");
    check_refused("['kv_put','p',['a'],nil,7]", "tags are neither nil nor an array");
    check_refused("['kv_get','p',['a'],'x']", "selected fields are not an array");
    check_refused("['config_set','text']", "malformed");
    check_refused("['config_get',nil]", "malformed");
}

TEST(a_key_has_at_most_64_kib)
{
    AUTO_WRITER(bytes);
    AUTO_QUEUE_REQUEST(request);
    struct ds_error err = {0};
    static char key[QUEUE_NAME_BYTES_MAX + 1];
    memset(key, 'k', sizeof key);
    msgpack_write_array(&bytes, 3);
    msgpack_write_str(&bytes, slice_of_text("kv_clear"));
    msgpack_write_str(&bytes, slice_of_text("p"));
    msgpack_write_array(&bytes, 1);
    size_t before_key = bytes.len;
    msgpack_write_str(&bytes, slice(key, QUEUE_NAME_BYTES_MAX));
    CHECK_OK(queue_request_decode(slice(bytes.data, bytes.len), &request, &err));
    queue_request_fini(&request);
    bytes.len = before_key;
    msgpack_write_str(&bytes, slice(key, sizeof key));
    CHECK_STATUS(queue_request_decode(slice(bytes.data, bytes.len), &request, &err),
                 DS_INVALID);
    CHECK_CONTAINS(err.message, "a key is 65537 bytes long; at most 65536 are allowed");
}

TEST(keys_must_be_utf8)
{
    AUTO_QUEUE_REQUEST(request);
    struct ds_error err = {0};
    const char bytes[] = "\x93\xa8kv_clear\xa1p\x91\xa1\xff";
    CHECK_STATUS(queue_request_decode(slice(bytes, sizeof bytes - 1), &request, &err),
                 DS_INVALID);
    CHECK_CONTAINS(err.message, "UTF-8");
}

TEST(trailing_bytes_are_refused)
{
    AUTO_QUEUE_REQUEST(request);
    struct ds_error err = {0};
    const char bytes[] = "\x91\xa5stats\xc0";
    CHECK_STATUS(queue_request_decode(slice(bytes, sizeof bytes - 1), &request, &err),
                 DS_INVALID);
}

/* Decodes a copy of exactly this size, so that the address sanitizer sees a step too
 * far. */
static enum ds_status
decode_exactly(const uint8_t *bytes, size_t len)
{
    AUTO_WRITER(copy);
    AUTO_QUEUE_REQUEST(request);
    struct ds_error err = {0};
    write_bytes(&copy, slice(bytes, len));
    return queue_request_decode(slice(copy.data, len), &request, &err);
}

static const char whole_put[] =
    "['kv_put','part',['a','bb'],[[@7],'y',['x','yy'],[9,300],[]],"
    "[{'t':[1,{'u':nil}]},nil]]";

/* Exhaustive over the cuts of one put. */
TEST(a_truncated_request_is_refused)
{
    AUTO_WRITER(bytes);
    text_to_msgpack(whole_put, &bytes);
    CHECK_OK(decode_exactly(bytes.data, bytes.len));
    for (size_t len = 0; len < bytes.len; len++)
        CHECK_STATUS(decode_exactly(bytes.data, len), DS_INVALID);
}

/* A few bytes of a good request changed at random: no crash, and some still decode. */
TEST(damaged_requests_do_no_harm)
{
    AUTO_WRITER(bytes);
    uint64_t seed = 3;
    size_t decoded = 0;
    for (int round = 0; round < 50000; round++) {
        writer_clear(&bytes);
        text_to_msgpack(whole_put, &bytes);
        for (uint64_t i = test_random(&seed) % 4; i > 0; i--)
            bytes.data[test_random(&seed) % bytes.len] = (uint8_t)test_random(&seed);
        decoded += decode_exactly(bytes.data, bytes.len) == DS_OK;
    }
    CHECK(decoded > 1000);
    CHECK(decoded < 45000);
}

TEST(random_bytes_do_no_harm)
{
    uint64_t seed = 5;
    for (int round = 0; round < 50000; round++) {
        uint8_t bytes[32];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)test_random(&seed);
        CHECK_STATUS(decode_exactly(bytes, test_random(&seed) % sizeof bytes),
                     DS_INVALID);
    }
}

TEST_MAIN(RUN(a_put_is_decoded_whole), RUN(what_is_wrong_is_named),
          RUN(a_key_has_at_most_64_kib), RUN(keys_must_be_utf8),
          RUN(trailing_bytes_are_refused), RUN(a_truncated_request_is_refused),
          RUN(damaged_requests_do_no_harm), RUN(random_bytes_do_no_harm))
