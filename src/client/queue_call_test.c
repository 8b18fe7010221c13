#include "fake_peer.h"

#include "base/slice.h"
#include "test.h"

#include <datasystem/datasystem.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TIMEOUT_MS = 5000, SLOW_MS = 300 };

/* Of the last call that the controller saw; `lock` is for both. Connections have a thread
 * each. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct queue_call last_call;
static int deaths_left;

static struct queue_call
get_last_call(void)
{
    pthread_mutex_lock(&lock);
    struct queue_call last = last_call;
    pthread_mutex_unlock(&lock);
    return last;
}

static void
set_deaths_left(int deaths)
{
    pthread_mutex_lock(&lock);
    deaths_left = deaths;
    pthread_mutex_unlock(&lock);
}

/* Whether this call is the last one again; it is the last from now on. */
static bool
note_call(const struct queue_call *call)
{
    pthread_mutex_lock(&lock);
    bool is_repeat =
        call->client == last_call.client && call->number == last_call.number;
    last_call = *call;
    pthread_mutex_unlock(&lock);
    return is_repeat;
}

static bool
has_to_die(void)
{
    pthread_mutex_lock(&lock);
    bool dies = deaths_left > 0;
    deaths_left -= dies;
    pthread_mutex_unlock(&lock);
    return dies;
}

/* HELLO is welcome; a call comes back as it is, but for some words. */
static bool
controller(struct fake_peer *peer, int fd, const struct frame_header *header,
           struct ds_slice body, struct ds_slice payload)
{
    (void)peer;
    struct ds_slice none = {0};
    struct hello hello;
    AUTO_WRITER(place);
    encode_queue_place(&place, &(struct queue_place){0});
    if (header->type == MESSAGE_HELLO)
        return decode_hello(body, &hello) && hello.client == 0 && hello.flags == 0 &&
               fake_reply(fd, header, DS_OK, slice(place.data, place.len), none);
    struct queue_call who;
    if (header->type != MESSAGE_QUEUE_CALL || !decode_queue_call(body, &who))
        return false;
    bool is_repeat = note_call(&who);
    if (slice_equal(payload, slice_of_text("die")))
        return false;
    if (slice_equal(payload, slice_of_text("die some times"))) {
        if (has_to_die())
            return false;
        if (!is_repeat)
            return fake_reply(fd, header, DS_INVALID, slice_of_text("new"), none);
    }
    if (slice_equal(payload, slice_of_text("unknown")))
        return fake_reply(fd, header, DS_NOT_FOUND,
                          slice_of_text("keys or partition were not found!"), none);
    if (slice_equal(payload, slice_of_text("slow")))
        usleep(SLOW_MS * 1000);
    return fake_reply(fd, header, DS_OK, none, payload);
}

static struct ds_queue *
open_queue(const struct fake_peer *peer)
{
    struct ds_queue_options options = {.struct_bytes = sizeof options,
                                       .address = peer->address};
    struct ds_queue *queue = NULL;
    CHECK_OK(ds_queue_open(&options, &queue, NULL));
    return queue;
}

static enum ds_status
call(struct ds_queue *queue, const char *request, uint32_t timeout_ms,
     struct ds_error *err)
{
    void *reply = NULL;
    size_t bytes = 0;
    enum ds_status status =
        ds_queue_call(queue, slice_of_text(request), timeout_ms, &reply, &bytes, err);
    if (status == DS_OK)
        CHECK(slice_equal(slice(reply, bytes), slice_of_text(request)));
    free(reply);
    return status;
}

TEST(a_call_brings_back_the_controllers_bytes)
{
    struct fake_peer peer;
    fake_peer_start_unix(&peer, controller);
    struct ds_queue *queue = open_queue(&peer);
    CHECK_OK(call(queue, "one", TIMEOUT_MS, NULL));
    CHECK_OK(call(queue, "two", TIMEOUT_MS, NULL));
    CHECK_INT(fake_peer_accepted(&peer), 1);
    ds_queue_close(queue);
    fake_peer_stop(&peer);
}

/* Larger than any socket buffer, both ways. */
TEST(a_large_request_and_reply_arrive_whole)
{
    struct fake_peer peer;
    fake_peer_start_unix(&peer, controller);
    struct ds_queue *queue = open_queue(&peer);
    size_t bytes = 8 << 20;
    char *request = malloc(bytes);
    uint64_t seed = 1;
    for (size_t i = 0; i < bytes; i++)
        request[i] = (char)test_random(&seed);
    void *reply = NULL;
    size_t reply_bytes = 0;
    CHECK_OK(ds_queue_call(queue, slice(request, bytes), TIMEOUT_MS, &reply,
                           &reply_bytes, NULL));
    CHECK(slice_equal(slice(reply, reply_bytes), slice(request, bytes)));
    free(reply);
    free(request);
    ds_queue_close(queue);
    fake_peer_stop(&peer);
}

TEST(the_controllers_error_is_passed_on_word_for_word)
{
    struct fake_peer peer;
    struct ds_error err = {0};
    fake_peer_start_unix(&peer, controller);
    struct ds_queue *queue = open_queue(&peer);
    CHECK_STATUS(call(queue, "unknown", TIMEOUT_MS, &err), DS_NOT_FOUND);
    CHECK_TEXT(err.message, "keys or partition were not found!");
    CHECK_OK(call(queue, "one", TIMEOUT_MS, NULL));
    ds_queue_close(queue);
    fake_peer_stop(&peer);
}

TEST(a_controller_that_dies_in_every_call_is_named)
{
    struct fake_peer peer;
    struct ds_error err = {0};
    fake_peer_start_unix(&peer, controller);
    struct ds_queue *queue = open_queue(&peer);
    CHECK_STATUS(call(queue, "die", 200, &err), DS_TIMEOUT);
    CHECK_CONTAINS(err.message, peer.address);
    ds_queue_close(queue);
    fake_peer_stop(&peer);
}

/* The same number says that it is the same request. */
TEST(a_call_that_a_crash_cut_short_is_repeated_under_its_number)
{
    struct fake_peer peer;
    struct ds_error err = {0};
    fake_peer_start_unix(&peer, controller);
    struct ds_queue *queue = open_queue(&peer);
    set_deaths_left(3);
    CHECK_OK(call(queue, "die some times", TIMEOUT_MS, &err));
    CHECK_INT(err.status, DS_OK);
    CHECK_INT(fake_peer_accepted(&peer), 4);
    struct queue_call first = get_last_call();
    CHECK_OK(call(queue, "one", TIMEOUT_MS, NULL));
    struct queue_call second = get_last_call();
    CHECK_INT(second.client, first.client);
    CHECK_INT(second.number, first.number + 1);
    ds_queue_close(queue);
    fake_peer_stop(&peer);
}

TEST(a_connection_that_ended_while_idle_is_replaced_without_an_error)
{
    struct fake_peer peer;
    fake_peer_start_unix(&peer, controller);
    struct ds_queue *queue = open_queue(&peer);
    CHECK_OK(call(queue, "one", TIMEOUT_MS, NULL));
    fake_peer_drop_connections(&peer);
    CHECK_OK(call(queue, "two", TIMEOUT_MS, NULL));
    CHECK_INT(fake_peer_accepted(&peer), 2);
    ds_queue_close(queue);
    fake_peer_stop(&peer);
}

TEST(nobody_at_the_address_is_told_at_once)
{
    struct fake_peer peer;
    struct ds_error err = {0};
    fake_peer_start_unix(&peer, controller);
    struct ds_queue *queue = open_queue(&peer);
    fake_peer_stop(&peer);
    CHECK_STATUS(call(queue, "one", TIMEOUT_MS, &err), DS_IO);
    CHECK_CONTAINS(err.message, peer.address);
    ds_queue_close(queue);
}

/* The late answer to the first call must not become the answer to another. */
TEST(a_reply_that_comes_too_late_is_thrown_away)
{
    struct fake_peer peer;
    struct ds_error err = {0};
    fake_peer_start_unix(&peer, controller);
    struct ds_queue *queue = open_queue(&peer);
    CHECK_STATUS(call(queue, "slow", 50, &err), DS_TIMEOUT);
    CHECK_CONTAINS(err.message, peer.address);
    CHECK_OK(call(queue, "one", TIMEOUT_MS, NULL));
    usleep(2 * SLOW_MS * 1000);
    CHECK_OK(call(queue, "two", TIMEOUT_MS, NULL));
    CHECK_OK(call(queue, "three", TIMEOUT_MS, NULL));
    CHECK_INT(fake_peer_accepted(&peer), 2);
    ds_queue_close(queue);
    fake_peer_stop(&peer);
}

static int
stop_at_once(void *arg)
{
    int *asked = arg;
    return ++*asked > 0;
}

TEST(the_hook_ends_a_call)
{
    struct fake_peer peer;
    struct ds_error err = {0};
    int asked = 0;
    fake_peer_start_unix(&peer, controller);
    struct ds_queue *queue = NULL;
    struct ds_queue_options options = {.struct_bytes = sizeof options,
                                       .address = peer.address,
                                       .interrupted = stop_at_once,
                                       .interrupted_arg = &asked};
    CHECK_OK(ds_queue_open(&options, &queue, NULL));
    CHECK_STATUS(call(queue, "slow", TIMEOUT_MS, &err), DS_INTERRUPTED);
    CHECK_INT(asked, 1);
    ds_queue_close(queue);
    fake_peer_stop(&peer);
}

TEST(arguments_are_checked)
{
    struct ds_error err = {0};
    struct ds_queue *queue = NULL;
    struct ds_queue_options options = {.struct_bytes = sizeof options,
                                       .address = "tcp://somewhere"};
    CHECK_STATUS(ds_queue_open(&options, &queue, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "unix:/path/to/socket");
    options.struct_bytes = 8;
    CHECK_STATUS(ds_queue_open(&options, &queue, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "struct_bytes");
    CHECK(queue == NULL);
}

TEST_MAIN(RUN(a_call_brings_back_the_controllers_bytes),
          RUN(a_large_request_and_reply_arrive_whole),
          RUN(the_controllers_error_is_passed_on_word_for_word),
          RUN(a_controller_that_dies_in_every_call_is_named),
          RUN(a_call_that_a_crash_cut_short_is_repeated_under_its_number),
          RUN(a_connection_that_ended_while_idle_is_replaced_without_an_error),
          RUN(nobody_at_the_address_is_told_at_once),
          RUN(a_reply_that_comes_too_late_is_thrown_away), RUN(the_hook_ends_a_call),
          RUN(arguments_are_checked))
