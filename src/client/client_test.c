/* Opening, closing, waiting and interrupting. */
#include "client/testing.h"

#include "fake_peer.h"
#include "os/clock.h"
#include "store/layout.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

static struct worker_process worker;

static int
group_setup(void **state)
{
    (void)state;
    worker_start(&worker, 64);
    return 0;
}

static int
group_teardown(void **state)
{
    (void)state;
    worker_stop(&worker);
    return 0;
}

static enum ds_status
try_open(const char *host, uint16_t port, struct ds_error *err)
{
    struct ds_client_options options = {.struct_bytes = sizeof options,
                                        .host = host,
                                        .port = port,
                                        .connect_timeout_ms = 600};
    struct ds_client *client = NULL;
    enum ds_status status = ds_client_open(&options, &client, err);
    ds_client_close(client);
    return status;
}

TEST(nobody_at_the_address_is_told_at_once)
{
    struct ds_error err = {0};
    uint64_t before = clock_monotonic_ms();
    CHECK_STATUS(try_open("127.0.0.1", 1, &err), DS_IO);
    CHECK_CONTAINS(err.message, "127.0.0.1:1");
    CHECK(clock_monotonic_ms() - before < 400);
}

TEST(no_address_gets_the_text_that_users_know)
{
    struct ds_error err = {0};
    unsetenv("DATASYSTEM_HOST");
    unsetenv("DATASYSTEM_PORT");
    CHECK_STATUS(try_open(NULL, 0, &err), DS_INVALID);
    CHECK_TEXT(err.message, "ConnectOptions was not configured with a host and port or "
                            "serviceDiscovery.");
}

TEST(the_address_comes_from_the_environment)
{
    char port[8];
    struct ds_error err = {0};
    snprintf(port, sizeof port, "%u", (unsigned)worker.port);
    setenv("DATASYSTEM_HOST", "127.0.0.1", 1);
    setenv("DATASYSTEM_PORT", port, 1);
    CHECK_OK(try_open(NULL, 0, NULL));
    setenv("DATASYSTEM_PORT", "many", 1);
    CHECK_STATUS(try_open(NULL, 0, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "DATASYSTEM_PORT");
    unsetenv("DATASYSTEM_HOST");
    unsetenv("DATASYSTEM_PORT");
}

TEST(too_short_a_timeout_is_refused)
{
    struct ds_error err = {0};
    struct ds_client *client = NULL;
    struct ds_client_options options = {.struct_bytes = sizeof options,
                                        .host = "127.0.0.1",
                                        .port = worker.port,
                                        .connect_timeout_ms = 499};
    CHECK_STATUS(ds_client_open(&options, &client, &err), DS_INVALID);
    CHECK_TEXT(err.message, "The connectTimeoutMs(499) should be greater than or equal "
                            "to 500 milliseconds.");
}

static bool
from_the_future(struct fake_peer *peer, int fd, const struct frame_header *header,
                struct ds_slice body, struct ds_slice payload)
{
    (void)peer;
    (void)body;
    (void)payload;
    AUTO_WRITER(writer);
    struct discovered message = {.layout_version = LAYOUT_VERSION + 77,
                                 .protocol_version = PROTOCOL_VERSION,
                                 .version = slice_of_text("9.9.9")};
    encode_discovered(&writer, &message);
    return fake_reply(fd, header, DS_OK, slice(writer.data, writer.len),
                      (struct ds_slice){0});
}

TEST(another_layout_is_refused_and_both_versions_are_named)
{
    struct fake_peer peer;
    struct ds_error err = {0};
    fake_peer_start_tcp(&peer, from_the_future);
    CHECK_STATUS(try_open("127.0.0.1", peer.port, &err), DS_MISMATCH);
    CHECK_CONTAINS(err.message, "9.9.9");
    CHECK_CONTAINS(err.message, DS_VERSION);
    CHECK_CONTAINS(err.message, "layout 81");
    CHECK_CONTAINS(err.message, "layout 4,");
    fake_peer_stop(&peer);
}

static bool
silent(struct fake_peer *peer, int fd, const struct frame_header *header,
       struct ds_slice body, struct ds_slice payload)
{
    (void)peer;
    (void)fd;
    (void)header;
    (void)body;
    (void)payload;
    return true;
}

TEST(a_peer_that_says_nothing_ends_the_open_in_time)
{
    struct fake_peer peer;
    struct ds_error err = {0};
    fake_peer_start_tcp(&peer, silent);
    uint64_t before = clock_monotonic_ms();
    CHECK_STATUS(try_open("127.0.0.1", peer.port, &err), DS_TIMEOUT);
    CHECK_CONTAINS(err.message, "127.0.0.1:");
    CHECK(clock_monotonic_ms() - before < 1200);
    fake_peer_stop(&peer);
}

static bool
not_a_worker(struct fake_peer *peer, int fd, const struct frame_header *header,
             struct ds_slice body, struct ds_slice payload)
{
    (void)peer;
    (void)body;
    (void)payload;
    return fake_reply(fd, header, DS_OK, slice_of_text("hm"), (struct ds_slice){0});
}

TEST(something_else_at_the_address_is_no_worker)
{
    struct fake_peer peer;
    struct ds_error err = {0};
    fake_peer_start_tcp(&peer, not_a_worker);
    CHECK_STATUS(try_open("127.0.0.1", peer.port, &err), DS_IO);
    CHECK_CONTAINS(err.message, "not a datasystem_worker");
    fake_peer_stop(&peer);
}

/* More often than the worker has places for clients. */
TEST(a_process_may_open_and_close_any_number_of_times)
{
    for (int i = 0; i < 250; i++) {
        struct ds_client *client = open_client(&worker, false);
        ds_client_close(client);
    }
    struct ds_client *client = open_client(&worker, false);
    CHECK_INT(worker_stat(client, "clients"), 1);
    ds_client_close(client);
}

TEST(a_buffer_outlives_its_client)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *buffer = NULL;
    put_text(client, "heirloom", "still here");
    CHECK_OK(get_one(client, "heirloom", 0, &buffer, NULL));
    ds_client_close(client);
    client = open_client(&worker, false);
    struct ds_slice key = slice_of_text("heirloom");
    CHECK_OK(ds_delete(client, &key, 1, NULL));
    CHECK(buffer_says(buffer, "still here"));
    CHECK_INT(worker_stat(client, "objects_deleted_but_held"), 1);
    ds_buffer_release(buffer);
    CHECK_OK(ds_client_ping(client, 0, NULL));
    ds_client_close(client);
}

/* Waits for a number of the worker's to become what it should. */
static void
expect_stat(struct ds_client *client, const char *name, uint64_t expected)
{
    for (int i = 0; i < 100 && worker_stat(client, name) != expected; i++)
        usleep(20000);
    CHECK_INT(worker_stat(client, name), expected);
}

TEST(what_is_released_unsealed_is_given_up_with_the_next_request)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *buffer = create_one(client, "half-done", 5000);
    CHECK_INT(worker_stat(client, "objects_unsealed"), 1);
    ds_buffer_release(buffer);
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
    ds_client_close(client);
}

TEST(closing_gives_up_what_is_unsealed_also_while_it_is_held)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_client *other = open_client(&worker, false);
    struct ds_error err = {0};
    struct ds_buffer *held = create_one(client, "held", 5000);
    struct ds_buffer *dropped = create_one(client, "dropped", 5000);
    ds_buffer_release(dropped);
    ds_client_close(client);
    expect_stat(other, "objects_unsealed", 0);
    memset(ds_buffer_data(held), 1, 5000); /* Nobody else's bytes. */
    CHECK_STATUS(ds_seal(other, &held, 1, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "closed");
    ds_buffer_release(held);
    expect_stat(other, "memory_deleted_but_held_bytes", 0);
    ds_client_close(other);
}

struct waiting {
    struct ds_client *client;
    enum ds_status status;
};

static void *
wait_for_nothing(void *arg)
{
    struct waiting *waiting = arg;
    struct ds_buffer *buffer = NULL;
    waiting->status = get_one(waiting->client, "never", 700, &buffer, NULL);
    return NULL;
}

TEST(a_waiting_call_stops_no_other)
{
    struct waiting waiting = {.client = open_client(&worker, false)};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, wait_for_nothing, &waiting) == 0);
    usleep(100000);
    uint64_t before = clock_monotonic_ms();
    put_text(waiting.client, "meanwhile", "x");
    check_value(waiting.client, "meanwhile", "x");
    CHECK(clock_monotonic_ms() - before < 300);
    pthread_join(thread, NULL);
    CHECK_INT(waiting.status, DS_NOT_FOUND);
    ds_client_close(waiting.client);
}

struct stopper {
    uint64_t stop_at_ms;
};

static int
stop_in_time(void *arg)
{
    const struct stopper *stopper = arg;
    return clock_monotonic_ms() >= stopper->stop_at_ms;
}

TEST(the_hook_ends_a_wait_within_100_ms)
{
    struct stopper stopper = {.stop_at_ms = UINT64_MAX};
    struct ds_client_options options = {.struct_bytes = sizeof options,
                                        .host = "127.0.0.1",
                                        .port = worker.port,
                                        .interrupted = stop_in_time,
                                        .interrupted_arg = &stopper};
    struct ds_client *client = NULL;
    struct ds_buffer *buffer = NULL;
    struct ds_error err = {0};
    CHECK_OK(ds_client_open(&options, &client, NULL));
    stopper.stop_at_ms = clock_monotonic_ms() + 120;
    CHECK_STATUS(get_one(client, "never", 20000, &buffer, &err), DS_INTERRUPTED);
    CHECK(clock_monotonic_ms() < stopper.stop_at_ms + 100);
    stopper.stop_at_ms = UINT64_MAX;
    put_text(client, "after", "goes on");
    check_value(client, "after", "goes on");
    ds_client_close(client);
}

TEST(calls_without_a_client_say_so)
{
    struct ds_error err = {0};
    CHECK_STATUS(ds_client_ping(NULL, 0, &err), DS_NOT_READY);
    CHECK_TEXT(err.message, "The client has not been initialized yet");
    CHECK(!ds_client_uses_shared_memory(NULL));
}

enum { THREADS = 6, ROUNDS = 200 };

struct hammer {
    pthread_t thread;
    struct ds_client *client;
    int number;
};

/* Values differ in length, so a torn or swapped one is seen. */
static void *
hammer(void *arg)
{
    struct hammer *self = arg;
    char key[32];
    char value[64];
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(key, sizeof key, "thread-%d-%d", self->number, i % 7);
        snprintf(value, sizeof value, "%d by %d %.*s", i, self->number, i % 20,
                 "....................");
        put_text(self->client, key, value);
        check_value(self->client, key, value);
        put_text(self->client, "contended", "same for all");
        check_value(self->client, "contended", "same for all");
        ds_buffer_release(create_one(self->client, key, 100));
    }
    return NULL;
}

TEST(many_threads_share_one_client)
{
    struct hammer hammers[THREADS];
    struct ds_client *client = open_client(&worker, false);
    for (int i = 0; i < THREADS; i++) {
        hammers[i] = (struct hammer){.client = client, .number = i};
        CHECK(pthread_create(&hammers[i].thread, NULL, hammer, &hammers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(hammers[i].thread, NULL);
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
    CHECK_INT(worker_stat(client, "pins"), 0);
    ds_client_close(client);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(nobody_at_the_address_is_told_at_once),
        RUN(no_address_gets_the_text_that_users_know),
        RUN(the_address_comes_from_the_environment),
        RUN(too_short_a_timeout_is_refused),
        RUN(another_layout_is_refused_and_both_versions_are_named),
        RUN(a_peer_that_says_nothing_ends_the_open_in_time),
        RUN(something_else_at_the_address_is_no_worker),
        RUN(a_process_may_open_and_close_any_number_of_times),
        RUN(a_buffer_outlives_its_client),
        RUN(what_is_released_unsealed_is_given_up_with_the_next_request),
        RUN(closing_gives_up_what_is_unsealed_also_while_it_is_held),
        RUN(a_waiting_call_stops_no_other),
        RUN(the_hook_ends_a_wait_within_100_ms),
        RUN(calls_without_a_client_say_so),
        RUN(many_threads_share_one_client),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
