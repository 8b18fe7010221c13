/* What answers as if it were an etcd: any bytes are told from an answer, and what is taken
 * fits where it is put. */
#include "fuzz.h"

#include "wire/etcd.h"

#include <string.h>

static void
check_value(bool is_taken, const struct etcd_value *value)
{
    if (!is_taken)
        return;
    DS_ASSERT(memchr(value->text, '\0', sizeof value->text) != NULL);
    DS_ASSERT(value->found || value->text[0] == '\0');
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ds_slice body = slice(data, size);
    struct etcd_value value;
    bool held;
    int64_t lease, ttl_s;
    char text[ETCD_TOKEN_BYTES_MAX + 1];
    bool is_taken = etcd_decode_range(body, &value);
    check_value(is_taken, &value);
    is_taken = etcd_decode_txn(body, &held, &value);
    check_value(is_taken, &value);
    (void)etcd_decode_lease(body, &lease, &ttl_s);
    if (etcd_decode_token(body, text)) {
        DS_ASSERT(memchr(text, '\0', sizeof text) != NULL);
        DS_ASSERT(strpbrk(text, "\r\n ") == NULL);
    }
    if (etcd_decode_error(body, text, 40)) {
        DS_ASSERT(memchr(text, '\0', 40) != NULL);
        DS_ASSERT(strpbrk(text, "\r\n\"") == NULL);
    }
    return 0;
}
