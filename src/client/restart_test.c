/* What a client lives through: its worker killed, stopped for a while, or replaced. */
#include "client/testing_each.h"

#include "client/client.h"
#include "os/clock.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

TEST(a_sealed_object_survives_the_worker)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *held = NULL;
    put_text(client, "survivor", "alive");
    CHECK_OK(get_one(client, "survivor", 0, &held, NULL));
    worker_kill_child(&worker);
    check_value(client, "survivor", "alive");
    CHECK(buffer_says(held, "alive"));
    ds_buffer_release(held);
    ds_client_close(client);
}

/* The client says what it still holds, and the rest is given up. */
TEST(an_unsealed_object_survives_the_worker_if_it_is_still_held)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *kept = create_one(client, "kept", 5);
    struct ds_buffer *dropped = create_one(client, "dropped", 5);
    memcpy(ds_buffer_data(kept), "bytes", 5);
    worker_kill_child(&worker);
    ds_buffer_release(dropped);
    CHECK_OK(ds_seal(client, &kept, 1, NULL));
    check_value(client, "kept", "bytes");
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
    ds_buffer_release(kept);
    ds_client_close(client);
}

TEST(a_tcp_client_reconnects)
{
    struct ds_client *client = open_client(&worker, true);
    put_text(client, "before", "x");
    worker_kill_child(&worker);
    put_text(client, "after", "y");
    check_value(client, "before", "x");
    check_value(client, "after", "y");
    ds_client_close(client);
}

TEST(what_a_tcp_client_has_not_sealed_survives_the_worker_if_it_is_still_held)
{
    struct ds_client *client = open_client(&worker, true);
    const uint64_t sizes[2] = {5, 1 << 20};
    struct ds_block_id id;
    struct ds_buffer *parts[2];
    struct ds_buffer *dropped = create_one(client, "dropped", 5);
    CHECK_OK(ds_block_create(client, sizes, 2, parts, NULL));
    for (int i = 0; i < 2; i++)
        memset(ds_buffer_data(parts[i]), 'x', sizes[i]);
    worker_kill_child(&worker);
    ds_buffer_release(dropped);
    CHECK_OK(ds_block_seal(client, parts, 2, &id, NULL));
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
    for (uint32_t i = 0; i < 2; i++) {
        struct ds_buffer *got = NULL;
        CHECK_OK(ds_block_get(client, &id, &i, 1, &got, NULL));
        CHECK_INT(ds_buffer_size(got), sizes[i]);
        CHECK(memcmp(ds_buffer_data(got), ds_buffer_data(parts[i]), sizes[i]) == 0);
        ds_buffer_release(got);
        ds_buffer_release(parts[i]);
    }
    ds_client_close(client);
}

TEST(another_worker_at_the_address_has_nothing_that_a_tcp_client_reserved)
{
    struct ds_client *client = open_client(&worker, true);
    struct ds_buffer *unsealed = create_one(client, "unsealed", 9);
    struct ds_error err = {0};
    worker_replace(&worker, 64);
    CHECK_STATUS(ds_seal(client, &unsealed, 1, &err), DS_IO);
    CHECK_CONTAINS(err.message, "came back without its memory");
    ds_buffer_release(unsealed);
    put_text(client, "new", "new bytes");
    check_value(client, "new", "new bytes");
    ds_client_close(client);
}

struct waiting {
    struct ds_client *client;
    struct ds_buffer *buffer;
    uint32_t wait_ms;
    enum ds_status status;
};

static void *
wait_for_key(void *arg)
{
    struct waiting *waiting = arg;
    waiting->status =
        get_one(waiting->client, "late", waiting->wait_ms, &waiting->buffer, NULL);
    return NULL;
}

TEST(a_waiting_get_waits_on_over_a_restart)
{
    struct waiting waiting = {.client = open_client(&worker, false), .wait_ms = 15000};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, wait_for_key, &waiting) == 0);
    usleep(100000);
    worker_kill_child(&worker);
    put_text(waiting.client, "late", "arrived");
    pthread_join(thread, NULL);
    CHECK_INT(waiting.status, DS_OK);
    CHECK(buffer_says(waiting.buffer, "arrived"));
    ds_buffer_release(waiting.buffer);
    ds_client_close(waiting.client);
}

TEST(another_worker_at_the_address_means_new_memory)
{
    struct ds_client *client = open_client(&worker, false);
    struct ds_buffer *held = NULL;
    struct ds_error err = {0};
    put_text(client, "old", "old bytes");
    CHECK_OK(get_one(client, "old", 0, &held, NULL));
    struct ds_buffer *unsealed = create_one(client, "unsealed", 9);
    worker_replace(&worker, 64);

    CHECK_STATUS(ds_seal(client, &unsealed, 1, &err), DS_IO);
    CHECK_CONTAINS(err.message, "came back without its memory");
    CHECK_CONTAINS(err.message, "127.0.0.1:");
    put_text(client, "new", "new bytes");
    check_value(client, "new", "new bytes");
    CHECK(buffer_says(held, "old bytes"));
    memset(ds_buffer_data(unsealed), 'x', 9);
    check_value(client, "new", "new bytes");
    ds_buffer_release(unsealed);
    ds_buffer_release(held);
    ds_client_close(client);
}

static struct ds_client *
open_impatient_by(bool no_shared_memory, uint32_t request_timeout_ms)
{
    struct ds_client_options options = {.struct_bytes = sizeof options,
                                        .host = "127.0.0.1",
                                        .port = worker.port,
                                        .request_timeout_ms = request_timeout_ms,
                                        .no_shared_memory = no_shared_memory};
    struct ds_client *client = NULL;
    CHECK_OK(ds_client_open(&options, &client, NULL));
    return client;
}

static struct ds_client *
open_impatient(uint32_t request_timeout_ms)
{
    return open_impatient_by(false, request_timeout_ms);
}

/* The worker answers a create that nobody waits for any more. */
static void
check_late_reply(struct ds_client *client)
{
    struct ds_error err = {0};
    struct ds_slice key = slice_of_text("late");
    uint64_t size = 5000;
    struct ds_buffer *buffer = create_one(client, "first", size);
    ds_buffer_release(buffer);
    CHECK_OK(ds_client_ping(client, 2000, NULL));
    pid_t child = worker_child(&worker);
    CHECK(kill(child, SIGSTOP) == 0);
    CHECK_STATUS(ds_create(client, &key, &size, 1, NULL, &buffer, &err), DS_TIMEOUT);
    CHECK_CONTAINS(err.message, "did not answer CREATE");
    CHECK(kill(child, SIGCONT) == 0);
    usleep(200000);
    CHECK_OK(ds_client_ping(client, 2000, NULL));
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
    CHECK_INT(worker_stat(client, "creates_total"), 2);
    CHECK_INT(worker_stat(client, "connections"), 1);
    ds_client_close(client);
}

TEST(what_a_late_reply_reserved_is_given_up)
{
    check_late_reply(open_impatient_by(false, 300));
}

TEST(what_a_late_reply_reserved_over_tcp_is_given_up)
{
    check_late_reply(open_impatient_by(true, 300));
}

TEST(a_create_in_flight_when_the_worker_dies_reserves_nothing)
{
    struct ds_client *client = open_impatient(100);
    struct ds_buffer *held = create_one(client, "held", 5);
    struct ds_slice key = slice_of_text("late");
    uint64_t size = 5000;
    struct ds_buffer *buffer = NULL;
    pid_t child = worker_child(&worker);
    CHECK(kill(child, SIGSTOP) == 0);
    CHECK_STATUS(ds_create(client, &key, &size, 1, NULL, &buffer, NULL), DS_TIMEOUT);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK_OK(ds_client_ping(client, 8000, NULL));
    CHECK_INT(worker_stat(client, "objects_unsealed"), 1);
    memcpy(ds_buffer_data(held), "12345", 5);
    CHECK_OK(ds_seal(client, &held, 1, NULL));
    check_value(client, "held", "12345");
    ds_buffer_release(held);
    ds_client_close(client);
}

/* More replies are owed than connections are kept for: some are closed, and nobody will
 * ever read what they reserved. */
TEST(nothing_stays_reserved_when_many_creates_time_out)
{
    enum { CONNECTIONS = 12 };
    struct ds_client *client = open_impatient(100);
    struct waiting waiting[CONNECTIONS];
    pthread_t threads[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++) {
        waiting[i] = (struct waiting){.client = client, .wait_ms = 1500};
        CHECK(pthread_create(&threads[i], NULL, wait_for_key, &waiting[i]) == 0);
    }
    for (int i = 0; i < CONNECTIONS; i++)
        pthread_join(threads[i], NULL);
    struct ds_buffer *held = create_one(client, "held", 5);
    CHECK(worker_stat(client, "connections") >= CONNECTIONS);

    struct ds_slice key = slice_of_text("never");
    uint64_t size = 5000;
    struct ds_buffer *buffer = NULL;
    pid_t child = worker_child(&worker);
    CHECK(kill(child, SIGSTOP) == 0);
    for (int i = 0; i < CONNECTIONS; i++)
        CHECK_STATUS(ds_create(client, &key, &size, 1, NULL, &buffer, NULL),
                     DS_TIMEOUT);
    CHECK(kill(child, SIGCONT) == 0);
    usleep(200000);
    CHECK_OK(ds_client_ping(client, 2000, NULL));
    CHECK(worker_stat(client, "creates_total") > 8 + 1);
    CHECK_INT(worker_stat(client, "objects_unsealed"), 1);
    CHECK_OK(ds_seal(client, &held, 1, NULL));
    ds_buffer_release(held);
    ds_client_close(client);
}

/* A second connection of the client, greeted with what it holds: nothing. */
static struct channel *
greet_again(const struct mapping *mapping, const struct wait *wait)
{
    struct channel *channel = NULL;
    struct hello hello = {
        .layout_version = LAYOUT_VERSION,
        .protocol_version = PROTOCOL_VERSION,
        .flags = HELLO_SHARED_MEMORY | HELLO_RESUME,
        .client = mapping->client,
        .token = mapping->token,
        .incarnation = mapping->incarnation,
    };
    AUTO_WRITER(writer);
    encode_hello(&writer, &hello, NULL, 0);
    struct outgoing message = {.type = MESSAGE_HELLO,
                               .body = slice(writer.data, writer.len)};
    CHECK_OK(channel_connect_unix(mapping->place, &channel, NULL));
    CHECK_OK(channel_call(channel, &message, wait, NULL));
    CHECK_INT(channel->reply.status, DS_OK);
    return channel;
}

/* What the worker still receives on another connection is not held by anybody, and yet
 * must not be given up. */
TEST(a_value_half_way_to_the_worker_survives_a_resume)
{
    struct ds_client *client = open_client(&worker, false);
    struct wait wait = {.deadline_ms = clock_monotonic_ms() + 10000};
    struct channel *first = greet_again(client->mapping, &wait);
    AUTO_WRITER(body);
    encode_put(&body, &(struct put){.key = slice_of_text("halved")});
    struct frame_header header = {.type = MESSAGE_PUT,
                                  .sequence = 77,
                                  .body_bytes = (uint32_t)body.len,
                                  .payload_bytes = 8};
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_encode(&header, bytes);
    CHECK_INT(send(first->fd, bytes, sizeof bytes, 0), sizeof bytes);
    CHECK_INT(send(first->fd, body.data, body.len, 0), body.len);
    CHECK_INT(send(first->fd, "half", 4, 0), 4);
    CHECK_INT(worker_stat(client, "objects_unsealed"), 1);

    struct channel *second = greet_again(client->mapping, &wait);
    CHECK_INT(send(first->fd, "done", 4, 0), 4);
    struct ds_buffer *buffer = NULL;
    CHECK_OK(get_one(client, "halved", 5000, &buffer, NULL));
    CHECK(buffer_says(buffer, "halfdone"));
    ds_buffer_release(buffer);
    channel_destroy(first);
    channel_destroy(second);
    ds_client_close(client);
}

static struct ds_client *
open_and_lose_worker(uint32_t timeout_ms)
{
    struct worker_process other;
    worker_start(&other, 64);
    struct ds_client_options options = {.struct_bytes = sizeof options,
                                        .host = "127.0.0.1",
                                        .port = other.port,
                                        .request_timeout_ms = timeout_ms};
    struct ds_client *lonely = NULL;
    CHECK_OK(ds_client_open(&options, &lonely, NULL));
    worker_stop(&other);
    return lonely;
}

TEST(a_worker_that_is_gone_for_good_is_not_waited_for)
{
    struct ds_client *client = open_impatient(600);
    struct ds_client *lonely = open_and_lose_worker(60000);
    struct ds_error err = {0};
    uint64_t before = clock_monotonic_ms();
    CHECK_STATUS(ds_put(lonely, slice_of_text("k"), slice_of_text("v"), NULL, &err),
                 DS_IO);
    CHECK(clock_monotonic_ms() - before < 15000);
    CHECK_CONTAINS(err.message, "and with it the objects that it held");
    ds_client_close(lonely);
    ds_client_close(client);
}

TEST(a_worker_that_stays_away_is_named_within_the_timeout)
{
    struct ds_client *client = open_impatient(600);
    struct ds_client *lonely = open_and_lose_worker(600);
    struct ds_error err = {0};
    uint64_t before = clock_monotonic_ms();
    CHECK_STATUS(ds_put(lonely, slice_of_text("k"), slice_of_text("v"), NULL, &err),
                 DS_IO);
    CHECK(clock_monotonic_ms() - before < 1500);
    CHECK_CONTAINS(err.message, "127.0.0.1:");
    CHECK_CONTAINS(err.message, "is datasystem_worker running there?");
    ds_client_close(lonely);
    ds_client_close(client);
}

/* Its first trouble, for the test to tell: a check of a thread's own ends the process
 * without a word. */
struct writer_thread {
    pthread_t thread;
    struct ds_client *client;
    int number;
    int puts;
    const char *failed; /* NULL: nothing has. */
    struct ds_error err;
};

static _Atomic bool stop_writing;

static bool
write_and_check_one(struct writer_thread *self, const char *key, struct ds_slice value)
{
    struct ds_buffer *buffer = NULL;
    self->failed = "put";
    if (ds_put(self->client, slice_of_text(key), value, NULL, &self->err) != DS_OK)
        return false;
    self->failed = "get";
    if (get_one(self->client, key, 0, &buffer, &self->err) != DS_OK)
        return false;
    self->failed = "value";
    struct ds_slice found = slice(ds_buffer_data(buffer), ds_buffer_size(buffer));
    bool is_right = slice_equal(found, value);
    ds_buffer_release(buffer);
    if (is_right)
        self->failed = NULL;
    return is_right;
}

/* Every put that returns is there, whatever happens to the worker in between. */
static void *
write_and_check(void *arg)
{
    struct writer_thread *self = arg;
    static char value[4][40000];
    char *bytes = value[self->number];
    char key[32];
    snprintf(key, sizeof key, "writer-%d", self->number);
    bool is_right = true;
    while (!stop_writing && is_right) {
        size_t len = self->puts % 2 == 0 ? sizeof value[0] : 100;
        memset(bytes, 'a' + self->puts % 26, len);
        is_right = write_and_check_one(self, key, slice(bytes, len));
        self->puts++;
    }
    return NULL;
}

TEST(puts_under_load_survive_kills)
{
    enum { WRITERS = 4, KILLS = 3 };
    struct writer_thread writers[WRITERS];
    struct ds_client *client = open_client(&worker, false);
    stop_writing = false;
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer_thread){.client = client, .number = i};
        CHECK(pthread_create(&writers[i].thread, NULL, write_and_check, &writers[i]) ==
              0);
    }
    for (int i = 0; i < KILLS; i++) {
        usleep(400000);
        worker_kill_child(&worker);
    }
    usleep(600000);
    stop_writing = true;
    for (int i = 0; i < WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
    for (int i = 0; i < WRITERS; i++) {
        CHECK_TEXT(writers[i].err.message, "");
        CHECK_TEXT(writers[i].failed == NULL ? "" : writers[i].failed, "");
        CHECK(writers[i].puts > 10);
    }
    CHECK_INT(worker_stat(client, "objects_unsealed"), 0);
    CHECK_INT(worker_stat(client, "objects"), WRITERS);
    ds_client_close(client);
}

TEST_MAIN(
    EACH(a_sealed_object_survives_the_worker),
    EACH(an_unsealed_object_survives_the_worker_if_it_is_still_held),
    EACH(a_tcp_client_reconnects),
    EACH(what_a_tcp_client_has_not_sealed_survives_the_worker_if_it_is_still_held),
    EACH(another_worker_at_the_address_has_nothing_that_a_tcp_client_reserved),
    EACH(a_waiting_get_waits_on_over_a_restart),
    EACH(another_worker_at_the_address_means_new_memory),
    EACH(what_a_late_reply_reserved_is_given_up),
    EACH(what_a_late_reply_reserved_over_tcp_is_given_up),
    EACH(a_create_in_flight_when_the_worker_dies_reserves_nothing),
    EACH(nothing_stays_reserved_when_many_creates_time_out),
    EACH(a_value_half_way_to_the_worker_survives_a_resume),
    EACH(a_worker_that_is_gone_for_good_is_not_waited_for),
    EACH(a_worker_that_stays_away_is_named_within_the_timeout),
    EACH(puts_under_load_survive_kills))
