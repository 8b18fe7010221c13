/* What the client's tests share: shorthands for clients, keys and values. Included once
 * by each test file; not every file uses all of it. */
#ifndef CLIENT_TESTING_H
#define CLIENT_TESTING_H

#include "base/slice.h"
#include "test.h"
#include "worker_process.h"

#include <datasystem/datasystem.h>

#include <stdio.h>
#include <stdlib.h>

#define UNUSED __attribute__((unused))

UNUSED static struct ds_client *
open_client(const struct worker_process *worker, bool no_shared_memory)
{
    struct ds_client_options options = {
        .struct_bytes = sizeof options,
        .host = "127.0.0.1",
        .port = worker->port,
        .no_shared_memory = no_shared_memory,
    };
    struct ds_client *client = NULL;
    struct ds_error err = {0};
    if (ds_client_open(&options, &client, &err) != DS_OK)
        fprintf(stderr, "%s\n", err.message);
    CHECK(client != NULL);
    CHECK(ds_client_uses_shared_memory(client) == !no_shared_memory);
    return client;
}

UNUSED static void
put_text(struct ds_client *client, const char *key, const char *value)
{
    struct ds_error err = {0};
    enum ds_status status =
        ds_put(client, slice_of_text(key), slice_of_text(value), NULL, &err);
    CHECK_TEXT(err.message, "");
    CHECK_OK(status);
}

UNUSED static enum ds_status
get_one(struct ds_client *client, const char *key, uint32_t wait_ms,
        struct ds_buffer **out, struct ds_error *err)
{
    struct ds_slice name = slice_of_text(key);
    return ds_get(client, &name, 1, wait_ms, out, err);
}

UNUSED static bool
buffer_says(struct ds_buffer *buffer, const char *value)
{
    return slice_equal(slice(ds_buffer_data(buffer), ds_buffer_size(buffer)),
                       slice_of_text(value));
}

/* The value under `key`, as it is now. */
UNUSED static void
check_value(struct ds_client *client, const char *key, const char *value)
{
    struct ds_buffer *buffer = NULL;
    struct ds_error err = {0};
    enum ds_status status = get_one(client, key, 0, &buffer, &err);
    CHECK_TEXT(err.message, "");
    CHECK_OK(status);
    CHECK(ds_buffer_is_sealed(buffer));
    CHECK(buffer_says(buffer, value));
    ds_buffer_release(buffer);
}

UNUSED static struct ds_buffer *
create_one(struct ds_client *client, const char *key, uint64_t size)
{
    struct ds_slice name = slice_of_text(key);
    struct ds_buffer *buffer = NULL;
    CHECK_OK(ds_create(client, &name, &size, 1, NULL, &buffer, NULL));
    CHECK(!ds_buffer_is_sealed(buffer));
    CHECK_INT(ds_buffer_size(buffer), size);
    return buffer;
}

#endif
