/* Store a value, read it in place, wait for one that somebody else stores, delete.
 *
 *      cc hello.c $(pkg-config --cflags --libs datasystem) -pthread -o hello
 *      dscli start -w --worker_address 127.0.0.1:31501
 *      ./hello 127.0.0.1 31501
 */
#include <datasystem/datasystem.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct ds_slice
text(const char *words)
{
    return (struct ds_slice){.data = words, .len = strlen(words)};
}

static void
must(enum ds_status status, const struct ds_error *err)
{
    if (status == DS_OK)
        return;
    fprintf(stderr, "hello: %s\n", err->message);
    exit(EXIT_FAILURE);
}

static struct ds_client *
connect_to(const char *host, uint16_t port)
{
    struct ds_error err = {0};
    struct ds_client *client = NULL;
    struct ds_client_options options = {
        .struct_bytes = sizeof options, .host = host, .port = port};
    must(ds_client_open(&options, &client, &err), &err);
    return client;
}

static void
print_value(struct ds_client *client, const char *key, uint32_t wait_ms)
{
    struct ds_error err = {0};
    struct ds_buffer *buffer = NULL;
    struct ds_slice name = text(key);
    must(ds_get(client, &name, 1, wait_ms, &buffer, &err), &err);
    printf("%s = %.*s\n", key, (int)ds_buffer_size(buffer),
           (const char *)ds_buffer_data(buffer));
    ds_buffer_release(buffer); /* Until here the bytes neither move nor change. */
}

/* Fills an object in place, and publishes it. */
static void *
store_later(void *arg)
{
    struct ds_client *client = arg;
    struct ds_error err = {0};
    struct ds_buffer *buffer = NULL;
    struct ds_slice key = text("later");
    const char *words = "worth the wait";
    uint64_t size = strlen(words);
    usleep(200000);
    must(ds_create(client, &key, &size, 1, NULL, &buffer, &err), &err);
    memcpy(ds_buffer_data(buffer), words, size);
    must(ds_seal(client, &buffer, 1, &err), &err);
    ds_buffer_release(buffer);
    return NULL;
}

int
main(int argc, char **argv)
{
    const char *host = argc > 1 ? argv[1] : "127.0.0.1";
    int port = argc > 2 ? atoi(argv[2]) : DS_PORT_DEFAULT;
    struct ds_client *client = connect_to(host, (uint16_t)port);
    printf("connected through %s\n",
           ds_client_uses_shared_memory(client) ? "shared memory" : "TCP");

    struct ds_error err = {0};
    must(ds_put(client, text("hello"), text("world"), NULL, &err), &err);
    print_value(client, "hello", 0);

    pthread_t other;
    if (pthread_create(&other, NULL, store_later, client) != 0)
        return EXIT_FAILURE;
    print_value(client, "later", 5000);
    pthread_join(other, NULL);

    struct ds_slice keys[] = {text("hello"), text("later")};
    bool exists[2];
    must(ds_delete(client, keys, 2, &err), &err);
    must(ds_exist(client, keys, 2, exists, &err), &err);
    printf("deleted: %s\n", exists[0] || exists[1] ? "no" : "yes");
    ds_client_close(client);
    return EXIT_SUCCESS;
}
