#include "wire/etcd.h"

#include "base/slice.h"
#include "test.h"

#include <stdio.h>
#include <string.h>

static void
check_body(const struct writer *writer, const char *expected)
{
    CHECK(!writer->failed);
    CHECK_INT(writer->len, strlen(expected));
    CHECK(memcmp(writer->data, expected, writer->len) == 0);
}

TEST(questions_are_what_etcds_gateway_takes)
{
    AUTO_WRITER(range);
    etcd_encode_range(&range, "/a");
    check_body(&range, "{\"key\":\"L2E=\"}");
    AUTO_WRITER(grant);
    etcd_encode_grant(&grant, 5);
    check_body(&grant, "{\"TTL\":\"5\"}");
    AUTO_WRITER(keep);
    etcd_encode_lease(&keep, INT64_MAX);
    check_body(&keep, "{\"ID\":\"9223372036854775807\"}");
    AUTO_WRITER(login);
    etcd_encode_login(&login, "me", "a\"b");
    check_body(&login, "{\"name\":\"me\",\"password\":\"a\\\"b\"}");
    AUTO_WRITER(claim);
    etcd_encode_claim(&claim, "/a", "v", 7, "/b");
    check_body(
        &claim,
        "{\"compare\":[{\"key\":\"L2E=\",\"target\":\"CREATE\",\"result\":\"EQUAL\","
        "\"create_revision\":\"0\"}],\"success\":[{\"request_put\":{\"key\":\"L2E=\","
        "\"value\":\"dg==\",\"lease\":\"7\"}},{\"request_range\":{\"key\":\"L2I=\"}}],"
        "\"failure\":[{\"request_range\":{\"key\":\"L2E=\"}}]}");
    AUTO_WRITER(put);
    etcd_encode_put_as_owner(&put, "/a", 7, "/b", "v");
    check_body(
        &put,
        "{\"compare\":[{\"key\":\"L2E=\",\"target\":\"LEASE\",\"result\":\"EQUAL\","
        "\"lease\":\"7\"}],\"success\":[{\"request_put\":{\"key\":\"L2I=\","
        "\"value\":\"dg==\"}}]}");
    AUTO_WRITER(gone);
    etcd_encode_remove(&gone, "/a", 9);
    check_body(
        &gone,
        "{\"compare\":[{\"key\":\"L2E=\",\"target\":\"MOD\",\"result\":\"EQUAL\","
        "\"mod_revision\":\"9\"}],\"success\":[{\"request_delete_range\":{\"key\":"
        "\"L2E=\"}}]}");
}

TEST(values_are_read)
{
    struct etcd_value value;
    CHECK(etcd_decode_range(
        slice_of_text(
            "{\"header\":{},\"kvs\":[{\"key\":\"L2E=\",\"value\":\"MTIgMw==\","
            "\"mod_revision\":\"41\"}],\"count\":\"1\"}"),
        &value));
    CHECK(value.found);
    CHECK_TEXT(value.text, "12 3");
    CHECK_INT(value.revision, 41);
    CHECK(etcd_decode_range(slice_of_text("{\"header\":{}}"), &value));
    CHECK(!value.found);
}

TEST(what_is_no_value_is_refused)
{
    static const char *const bodies[] = {
        "",
        "null",
        "[]",
        "{}", /* Other servers answer so, too. */
        "{\"header\":{},\"kvs\":[{\"value\":\"***\"}]}",
        "{\"header\":{},\"kvs\":[{\"value\":7}]}",
        "{\"header\":{},\"kvs\":[{\"value\":\"YQBi\"}]}", /* "a\0b" */
        "{\"header\":{},\"kvs\":[{\"mod_revision\":\"7x\"}]}",
        "{\"header\":{},\"kvs\":[7]}",
        "{\"header\":{},\"kvs\":[{},{}]}",
    };
    struct etcd_value value;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
        CHECK(!etcd_decode_range(slice_of_text(bodies[i]), &value));
    char longest[2048];
    int used = snprintf(longest, sizeof longest,
                        "{\"header\":{},\"kvs\":[{\"value\":\"%0*d\"}]}", 1200, 0);
    CHECK(used > 1200);
    CHECK(!etcd_decode_range(slice_of_text(longest), &value));
}

TEST(a_transaction_tells_whether_its_condition_held)
{
    struct etcd_value value;
    bool held;
    CHECK(etcd_decode_txn(
        slice_of_text("{\"header\":{},\"succeeded\":true,\"responses\":["
                      "{\"response_put\":{\"header\":{}}},"
                      "{\"response_range\":{\"kvs\":[{\"value\":\"dg==\"}]}}]}"),
        &held, &value));
    CHECK(held && value.found);
    CHECK_TEXT(value.text, "v");
    CHECK(etcd_decode_txn(
        slice_of_text("{\"header\":{},\"responses\":[{\"response_range\":{}}]}"), &held,
        &value));
    CHECK(!held && !value.found);
    CHECK(!etcd_decode_txn(slice_of_text("{\"succeeded\":true}"), &held, &value));
}

TEST(leases_are_read_also_out_of_a_stream)
{
    int64_t lease, ttl_s;
    CHECK(etcd_decode_lease(
        slice_of_text("{\"header\":{},\"ID\":\"7587\",\"TTL\":\"5\"}"), &lease,
        &ttl_s));
    CHECK(lease == 7587 && ttl_s == 5);
    CHECK(etcd_decode_lease(
        slice_of_text("{\"result\":{\"header\":{},\"ID\":\"7587\"}}\n"), &lease,
        &ttl_s));
    CHECK(lease == 7587 && ttl_s == 0); /* It has ended. */
    CHECK(!etcd_decode_lease(slice_of_text("{\"TTL\":\"5\"}"), &lease, &ttl_s));
}

TEST(tokens_and_errors_fit_into_a_line)
{
    char token[ETCD_TOKEN_BYTES_MAX + 1], reason[64];
    CHECK(etcd_decode_token(slice_of_text("{\"token\":\"ab.7\"}"), token));
    CHECK_TEXT(token, "ab.7");
    CHECK(!etcd_decode_token(slice_of_text("{\"token\":\"a\\r\\nb: c\"}"), token));
    CHECK(!etcd_decode_token(slice_of_text("{}"), token));
    CHECK(etcd_decode_error(
        slice_of_text("{\"error\":\"x\",\"message\":\"not \\\"here\\\"\\n\"}"), reason,
        sizeof reason));
    CHECK_TEXT(reason, "not ?here??");
    CHECK(!etcd_decode_error(slice_of_text("<html>"), reason, sizeof reason));
}

TEST_MAIN(RUN(questions_are_what_etcds_gateway_takes), RUN(values_are_read),
          RUN(what_is_no_value_is_refused),
          RUN(a_transaction_tells_whether_its_condition_held),
          RUN(leases_are_read_also_out_of_a_stream),
          RUN(tokens_and_errors_fit_into_a_line))
