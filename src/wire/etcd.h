/* What is said to etcd's HTTP gateway (its v3 API as JSON), and what it answers: pure.
 *
 * Keys and values are bytes, base64 in JSON; 64-bit numbers are JSON strings. Encoders
 * write a whole body, or turn the writer `failed` when out of memory. Decoders take any
 * bytes; false: that is no such answer. */
#ifndef WIRE_ETCD_H
#define WIRE_ETCD_H

#include "wire/cursor.h"

#include <stdbool.h>
#include <stdint.h>

enum { ETCD_VALUE_BYTES_MAX = 400, ETCD_TOKEN_BYTES_MAX = 4096 };

/* Where each request goes, behind "http://host:port". */
#define ETCD_LOGIN_PATH  "/v3/auth/authenticate"
#define ETCD_RANGE_PATH  "/v3/kv/range"
#define ETCD_TXN_PATH    "/v3/kv/txn"
#define ETCD_GRANT_PATH  "/v3/lease/grant"
#define ETCD_KEEP_PATH   "/v3/lease/keepalive"
#define ETCD_REVOKE_PATH "/v3/lease/revoke"

void etcd_encode_login(struct writer *writer, const char *user, const char *password);
void etcd_encode_range(struct writer *writer, const char *key);
void etcd_encode_grant(struct writer *writer, uint32_t ttl_s);

/* Of a lease: keep it, or revoke it. */
void etcd_encode_lease(struct writer *writer, int64_t lease);

/* If nobody has `key`: it gets `value`, for as long as the lease lasts. The answer has the
 * value of `other` then, and otherwise that of `key`. */
void etcd_encode_claim(struct writer *writer, const char *key, const char *value,
                       int64_t lease, const char *other);

/* If `key` is that of the lease: `other` gets `value`. */
void etcd_encode_put_as_owner(struct writer *writer, const char *key, int64_t lease,
                              const char *other, const char *value);

/* If `key` was not changed since `revision`: it goes. */
void etcd_encode_remove(struct writer *writer, const char *key, int64_t revision);

/* `found` is false where the key has no value; text is NUL-terminated. */
struct etcd_value {
    bool found;
    char text[ETCD_VALUE_BYTES_MAX + 1];
    int64_t revision; /* When it was last changed. */
};

bool etcd_decode_range(struct ds_slice body, struct etcd_value *out);

/* Of what a transaction did: whether its condition held, and the first value that it read. */
bool etcd_decode_txn(struct ds_slice body, bool *out_held, struct etcd_value *out);

/* Of GRANT and KEEP: the lease and its seconds, 0 when it has ended. */
bool etcd_decode_lease(struct ds_slice body, int64_t *out_lease, int64_t *out_ttl_s);

bool etcd_decode_token(struct ds_slice body, char out[ETCD_TOKEN_BYTES_MAX + 1]);

/* What etcd says is wrong, for an error text. False: it says nothing. */
bool etcd_decode_error(struct ds_slice body, char *out, size_t out_bytes);

#endif
