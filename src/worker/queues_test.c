#include "worker/queues.h"

#include "wire/journals.h"
#include "worker/fixture.h"
#include "worker/membership.h"

static enum ds_status
call_with_place(struct caller *caller, enum message_type type, const char *name,
                const char *address)
{
    AUTO_WRITER(body);
    encode_queue_place(&body, &(struct queue_place){.name = slice_of_text(name),
                                                    .address = slice_of_text(address)});
    return caller_call(caller, type, bytes_of(&body));
}

/* The request of a controller, which has no copies of its journal. */
static void
encode_serve(struct writer *body, const char *name, const char *address,
             const char *tcp_address)
{
    struct queue_place place = {.name = slice_of_text(name),
                                .address = slice_of_text(address),
                                .tcp_address = slice_of_text(tcp_address),
                                .term = QUEUE_TERM_FIRST};
    encode_queue_serve(body, &(struct queue_serve){.place = place});
}

static void
serve(struct caller *controller, const char *name, const char *address,
      const char *tcp_address)
{
    bool is_copied = true;
    AUTO_WRITER(body);
    encode_serve(&body, name, address, tcp_address);
    CHECK_OK(caller_call(controller, MESSAGE_QUEUE_SERVE, bytes_of(&body)));
    CHECK(decode_queue_served(body_of(controller), &is_copied));
    CHECK(!is_copied);
}

static void
controller_open(struct caller *controller, struct fixture *fixture, const char *name,
                const char *address)
{
    caller_open(controller, fixture);
    say_hello_as_member(controller);
    serve(controller, name, address, "");
}

static void
check_is_at(struct caller *client, const char *name, const char *address)
{
    struct queue_place place = {0};
    CHECK_OK(call_with_place(client, MESSAGE_QUEUE_FIND, name, ""));
    CHECK(decode_queue_place(body_of(client), &place));
    CHECK(slice_equal(place.name, slice_of_text(name)));
    CHECK(slice_equal(place.address, slice_of_text(address)));
}

TEST(a_queue_is_found_as_long_as_its_controller_is_connected)
{
    FIXTURE(f, 64);
    CALLER(client, &f);
    struct caller first, other;
    say_hello(&client);
    CHECK_STATUS(call_with_place(&client, MESSAGE_QUEUE_FIND, "train", ""),
                 DS_NOT_FOUND);
    controller_open(&first, &f, "train", "unix:/run/1.sock");
    controller_open(&other, &f, "eval", "unix:/run/2.sock");
    check_is_at(&client, "train", "unix:/run/1.sock");
    check_is_at(&client, "eval", "unix:/run/2.sock");
    caller_close(&first);
    RUN_UNTIL(&f, call_with_place(&client, MESSAGE_QUEUE_FIND, "train", "") ==
                      DS_NOT_FOUND);
    check_is_at(&client, "eval", "unix:/run/2.sock");
    caller_close(&other);
}

/* It may be on any of the nodes that are not known yet. */
TEST(of_no_queue_it_is_said_that_it_is_nowhere_before_it_is_known_who_belongs)
{
    FIXTURE(f, 64);
    CALLER(client, &f);
    AUTO_WRITER(body);
    say_hello(&client);
    encode_queue_place(&body, &(struct queue_place){.name = slice_of_text("train")});
    caller_send(&client, MESSAGE_QUEUE_FIND, bytes_of(&body));
    fixture_join_cluster(&f);
    CHECK(caller_receive(&client));
    CHECK_INT(client.reply.status, DS_NOT_READY);
    RUN_UNTIL(&f, call_with_place(&client, MESSAGE_QUEUE_FIND, "train", "") ==
                      DS_NOT_FOUND); /* The worker is alone. */
}

TEST(where_other_nodes_find_a_queue_is_said_too)
{
    FIXTURE(f, 64);
    CALLER(controller, &f);
    CALLER(client, &f);
    say_hello_as_member(&controller);
    say_hello(&client);
    struct queue_place place;
    serve(&controller, "train", "unix:/run/1.sock", "10.0.0.1:31600");
    CHECK_OK(call_with_place(&client, MESSAGE_QUEUE_FIND, "train", ""));
    CHECK(decode_queue_place(body_of(&client), &place));
    CHECK(slice_equal(place.address, slice_of_text("unix:/run/1.sock")));
    CHECK(slice_equal(place.tcp_address, slice_of_text("10.0.0.1:31600")));
}

/* The one before may not be seen to have gone yet. */
TEST(the_controller_that_came_last_is_the_one)
{
    FIXTURE(f, 64);
    CALLER(client, &f);
    struct caller first, second;
    say_hello(&client);
    controller_open(&first, &f, "train", "unix:/run/1.sock");
    controller_open(&second, &f, "train", "unix:/run/2.sock");
    check_is_at(&client, "train", "unix:/run/2.sock");
    caller_close(&first);
    turn(&f);
    check_is_at(&client, "train", "unix:/run/2.sock");
    caller_close(&second);
}

static void
check_is_refused(enum message_type type, const char *name, const char *address)
{
    FIXTURE(f, 64);
    CALLER(caller, &f);
    say_hello(&caller);
    AUTO_WRITER(body);
    struct queue_place place = {.name = slice_of_text(name),
                                .address = slice_of_text(address)};
    if (type == MESSAGE_QUEUE_SERVE)
        encode_serve(&body, name, address, "");
    else
        encode_queue_place(&body, &place);
    caller_send(&caller, type, bytes_of(&body));
    check_closed(&caller);
}

TEST(what_names_no_queue_ends_the_connection)
{
    check_is_refused(MESSAGE_QUEUE_SERVE, "", "unix:/run/1.sock");
    check_is_refused(MESSAGE_QUEUE_SERVE, "train", "");
    check_is_refused(MESSAGE_QUEUE_FIND, "", "");
    check_is_refused(MESSAGE_QUEUE_FIND, "train", "unix:/run/1.sock");
}

TEST_MAIN(RUN(a_queue_is_found_as_long_as_its_controller_is_connected),
          RUN(of_no_queue_it_is_said_that_it_is_nowhere_before_it_is_known_who_belongs),
          RUN(where_other_nodes_find_a_queue_is_said_too),
          RUN(the_controller_that_came_last_is_the_one),
          RUN(what_names_no_queue_ends_the_connection))
