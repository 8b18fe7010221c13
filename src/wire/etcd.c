#include "wire/etcd.h"

#include "base/numeric.h"
#include "base/slice.h"

#include <inttypes.h>
#include <jansson.h>
#include <sodium/utils.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BASE64_BYTES_MAX = 1024, NUMBER_BYTES = 24 };

/* ---- Encoding ---- */

/* Takes `json`; NULL: out of memory. */
static void
write_json(struct writer *writer, json_t *json)
{
    char *text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);
    if (text == NULL)
        writer->failed = true;
    else
        write_bytes(writer, slice_of_text(text));
    free(text);
    json_decref(json);
}

struct base64 {
    char text[BASE64_BYTES_MAX];
};

/* Keys and values of ours are shorter than what fits. */
static struct base64
base64_of(const char *text)
{
    struct base64 out;
    sodium_bin2base64(out.text, sizeof out.text, (const unsigned char *)text,
                      min_u64(strlen(text), BASE64_BYTES_MAX / 2),
                      sodium_base64_VARIANT_ORIGINAL);
    return out;
}

struct number {
    char text[NUMBER_BYTES];
};

static struct number
number_of(int64_t value)
{
    struct number out;
    snprintf(out.text, sizeof out.text, "%" PRId64, value);
    return out;
}

void
etcd_encode_login(struct writer *writer, const char *user, const char *password)
{
    write_json(writer, json_pack("{s:s, s:s}", "name", user, "password", password));
}

void
etcd_encode_range(struct writer *writer, const char *key)
{
    write_json(writer, json_pack("{s:s}", "key", base64_of(key).text));
}

void
etcd_encode_grant(struct writer *writer, uint32_t ttl_s)
{
    write_json(writer, json_pack("{s:s}", "TTL", number_of(ttl_s).text));
}

void
etcd_encode_lease(struct writer *writer, int64_t lease)
{
    write_json(writer, json_pack("{s:s}", "ID", number_of(lease).text));
}

void
etcd_encode_claim(struct writer *writer, const char *key, const char *value,
                  int64_t lease, const char *other)
{
    struct base64 key64 = base64_of(key), value64 = base64_of(value);
    write_json(writer,
               json_pack("{s:[{s:s, s:s, s:s, s:s}],"
                         " s:[{s:{s:s, s:s, s:s}}, {s:{s:s}}],"
                         " s:[{s:{s:s}}]}",
                         "compare", "key", key64.text, "target", "CREATE", "result",
                         "EQUAL", "create_revision", "0", /* There is none. */
                         "success", "request_put", "key", key64.text, "value",
                         value64.text, "lease", number_of(lease).text, "request_range",
                         "key", base64_of(other).text, "failure", "request_range",
                         "key", key64.text));
}

void
etcd_encode_put_as_owner(struct writer *writer, const char *key, int64_t lease,
                         const char *other, const char *value)
{
    write_json(writer,
               json_pack("{s:[{s:s, s:s, s:s, s:s}], s:[{s:{s:s, s:s}}]}", "compare",
                         "key", base64_of(key).text, "target", "LEASE", "result",
                         "EQUAL", "lease", number_of(lease).text, "success",
                         "request_put", "key", base64_of(other).text, "value",
                         base64_of(value).text));
}

void
etcd_encode_remove(struct writer *writer, const char *key, int64_t revision)
{
    struct base64 key64 = base64_of(key);
    write_json(writer, json_pack("{s:[{s:s, s:s, s:s, s:s}], s:[{s:{s:s}}]}", "compare",
                                 "key", key64.text, "target", "MOD", "result", "EQUAL",
                                 "mod_revision", number_of(revision).text, "success",
                                 "request_delete_range", "key", key64.text));
}

/* ---- Decoding ---- */

/* NULL: it is no JSON object. Nesting is bounded by the library. */
static json_t *
parse(struct ds_slice body)
{
    json_t *json = json_loadb(body.data, body.len, 0, NULL);
    if (json_is_object(json))
        return json;
    json_decref(json);
    return NULL;
}

/* A number, as text or as such; what is 0 is left out. */
static bool
read_number(const json_t *object, const char *name, int64_t *out)
{
    const json_t *field = json_object_get(object, name);
    *out = 0;
    if (field == NULL)
        return true;
    if (json_is_integer(field)) {
        *out = json_integer_value(field);
        return true;
    }
    const char *text = json_string_value(field);
    char rest;
    return text != NULL && sscanf(text, "%" SCNd64 "%c", out, &rest) == 1;
}

static bool
read_value(const json_t *pair, struct etcd_value *out)
{
    size_t bytes = 0;
    const char *text = json_string_value(json_object_get(pair, "value"));
    *out = (struct etcd_value){.found = true};
    if (!json_is_object(pair) || !read_number(pair, "mod_revision", &out->revision))
        return false;
    if (text == NULL)
        return json_object_get(pair, "value") == NULL; /* It is empty. */
    if (sodium_base642bin((unsigned char *)out->text, ETCD_VALUE_BYTES_MAX, text,
                          strlen(text), NULL, &bytes, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0)
        return false;
    out->text[bytes] = '\0';
    return strlen(out->text) == bytes;
}

/* Of an answer to a range, which is one by itself or a part of a transaction's. */
static bool
read_range(const json_t *range, struct etcd_value *out)
{
    const json_t *pairs = json_object_get(range, "kvs");
    *out = (struct etcd_value){0};
    if (pairs == NULL)
        return true;
    return json_array_size(pairs) == 1 && read_value(json_array_get(pairs, 0), out);
}

bool
etcd_decode_range(struct ds_slice body, struct etcd_value *out)
{
    json_t *json = parse(body);
    bool is_one = json != NULL && json_is_object(json_object_get(json, "header")) &&
                  read_range(json, out);
    json_decref(json);
    return is_one;
}

bool
etcd_decode_txn(struct ds_slice body, bool *out_held, struct etcd_value *out)
{
    json_t *json = parse(body);
    const json_t *parts = json_object_get(json, "responses");
    bool is_one = json != NULL && json_is_object(json_object_get(json, "header"));
    *out_held = json_is_true(json_object_get(json, "succeeded"));
    *out = (struct etcd_value){0};
    for (size_t i = 0; is_one && i < json_array_size(parts); i++) {
        const json_t *range =
            json_object_get(json_array_get(parts, i), "response_range");
        if (range == NULL)
            continue;
        is_one = read_range(range, out);
        break;
    }
    json_decref(json);
    return is_one;
}

bool
etcd_decode_lease(struct ds_slice body, int64_t *out_lease, int64_t *out_ttl_s)
{
    json_t *json = parse(body);
    const json_t *result = json_object_get(json, "result"); /* Of a stream. */
    const json_t *lease = result != NULL ? result : json;
    bool is_one = lease != NULL && json_object_get(lease, "ID") != NULL &&
                  read_number(lease, "ID", out_lease) &&
                  read_number(lease, "TTL", out_ttl_s);
    json_decref(json);
    return is_one;
}

static bool
read_text(const json_t *object, const char *name, char *out, size_t out_bytes)
{
    const char *text = json_string_value(json_object_get(object, name));
    if (text == NULL || strlen(text) >= out_bytes)
        return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

bool
etcd_decode_token(struct ds_slice body, char out[ETCD_TOKEN_BYTES_MAX + 1])
{
    json_t *json = parse(body);
    bool is_one = read_text(json, "token", out, ETCD_TOKEN_BYTES_MAX + 1);
    json_decref(json);
    for (size_t i = 0; is_one && out[i] != '\0'; i++)
        is_one = out[i] > ' ' && out[i] < 0x7f; /* It becomes a header's line. */
    return is_one;
}

bool
etcd_decode_error(struct ds_slice body, char *out, size_t out_bytes)
{
    json_t *json = parse(body);
    bool is_one = read_text(json, "message", out, out_bytes) ||
                  read_text(json, "error", out, out_bytes);
    json_decref(json);
    for (size_t i = 0; is_one && out[i] != '\0'; i++) {
        if (out[i] < ' ' || out[i] == '"' || out[i] == 0x7f)
            out[i] = '?'; /* It becomes a part of a line of the log. */
    }
    return is_one;
}
