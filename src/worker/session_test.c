#include "worker/session.h"

#include "base/check.h"
#include "worker/fixture.h"
#include "worker/worker.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static const struct welcome nobody;

/* ---- Greetings ---- */

TEST(memory_is_handed_out_on_the_unix_socket_only)
{
    FIXTURE(f, 64);
    struct caller tcp;
    caller_open_tcp(&tcp, &f, f.address);
    CHECK_STATUS(say_hello_again(&tcp, &nobody, NULL, 0, HELLO_SHARED_MEMORY),
                 DS_UNSUPPORTED);
    CHECK_CONTAINS((const char *)tcp.body, "on the Unix socket only");
    CHECK_OK(say_hello_again(&tcp, &nobody, NULL, 0, 0)); /* It may go on without. */
    CHECK_INT(tcp.welcome.client, 0);
    CHECK_OK(caller_call(&tcp, MESSAGE_PING, slice(NULL, 0)));
    send_create(&tcp, "a", 100);
    check_closed(&tcp);
    CHECK_CONTAINS(f.last_line, "CREATE by who is no member");
    caller_close(&tcp);
}

/* Pages have 64 KiB on some aarch64 kernels, and a mapping begins at a page. */
TEST(a_region_of_pins_can_be_mapped_whatever_the_page_size)
{
    FIXTURE(f, 64);
    CALLER(first, &f);
    CALLER(second, &f);
    say_hello(&first);
    say_hello(&second);
    CHECK(second.welcome.pins_offset != first.welcome.pins_offset);
    CHECK_INT(first.welcome.pins_offset % (64 << 10), 0);
    CHECK_INT(second.welcome.pins_offset % (64 << 10), 0);
    CHECK_INT(second.welcome.pins_bytes % (64 << 10), 0);
}

TEST(another_version_is_refused_by_name)
{
    FIXTURE(f, 64);
    CALLER(old, &f);
    struct hello hello = {.layout_version = 99, .protocol_version = PROTOCOL_VERSION};
    AUTO_WRITER(body);
    encode_hello(&body, &hello, NULL, 0);
    CHECK_STATUS(caller_call(&old, MESSAGE_HELLO, bytes_of(&body)), DS_MISMATCH);
    CHECK_CONTAINS((const char *)old.body, "client speaks layout 99");
    CHECK_CONTAINS((const char *)old.body, "Install the same version on both sides");
}

TEST(before_hello_there_is_only_discover)
{
    FIXTURE(f, 64);
    CALLER(early, &f);
    struct discovered discovered;
    CHECK_OK(caller_call(&early, MESSAGE_DISCOVER, slice(NULL, 0)));
    CHECK(decode_discovered(body_of(&early), &discovered));
    CHECK(slice_equal(discovered.socket_path, slice_of_text(f.resources.socket_path)));
    caller_send(&early, MESSAGE_PING, slice(NULL, 0));
    check_closed(&early);
    CHECK_CONTAINS(f.last_line, "a request out of turn");
}

TEST(hello_is_said_once)
{
    FIXTURE(f, 64);
    CALLER(twice, &f);
    say_hello(&twice);
    AUTO_WRITER(body);
    struct hello hello = {.layout_version = LAYOUT_VERSION,
                          .protocol_version = PROTOCOL_VERSION};
    encode_hello(&body, &hello, NULL, 0);
    caller_send(&twice, MESSAGE_HELLO, bytes_of(&body));
    check_closed(&twice);
    CHECK_CONTAINS(f.last_line, "a second HELLO");
}

TEST(the_metastores_port_has_no_objects)
{
    FIXTURE(f, 64);
    struct caller caller;
    caller_open_tcp(&caller, &f, f.metastore);
    CHECK_OK(say_hello_again(&caller, &nobody, NULL, 0, 0));
    CHECK_OK(caller_call(&caller, MESSAGE_STATS, slice(NULL, 0)));
    CHECK_CONTAINS((const char *)caller.body, "\"state\": \"HEALTHY\"");
    const char *const keys[] = {"a"};
    send_lookup(&caller, keys, 1, 0);
    check_closed(&caller);
    caller_close(&caller);
}

/* ---- Broken protocol: closed, with one line ---- */

/* Exhaustive over the types. A single byte is a body of none of them. */
TEST(a_malformed_body_of_any_type_closes_the_connection)
{
    FIXTURE(f, 64);
    int closed = 0;
    for (int type = 1; type < MESSAGE_TYPE_COUNT; type++) {
        CALLER(caller, &f);
        if (type != MESSAGE_DISCOVER && type != MESSAGE_HELLO)
            say_hello(&caller);
        caller_send(&caller, (enum message_type)type, slice("x", 1));
        check_closed(&caller);
        closed++;
    }
    CHECK_INT(f.worker.counters.protocol_errors, closed);
    CHECK_INT(f.closed_lines, closed);
}

TEST(descriptors_that_belong_to_nothing_close_the_connection)
{
    FIXTURE(f, 64);
    CALLER(caller, &f);
    int fds[4];
    for (int i = 0; i < 4; i++)
        fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    say_hello(&caller);
    caller_send_fds(&caller, MESSAGE_PING, fds, 4);
    check_closed(&caller);
    CHECK_CONTAINS(f.last_line, "descriptors with a request that has none");
    for (int i = 0; i < 4; i++)
        close(fds[i]);
}

TEST(a_payload_that_belongs_to_nothing_closes_the_connection)
{
    FIXTURE(f, 64);
    CALLER(caller, &f);
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header header = {.type = MESSAGE_PING, .payload_bytes = UINT64_MAX};
    frame_encode(&header, bytes);
    say_hello(&caller);
    caller_send_bytes(&caller, bytes, sizeof bytes);
    check_closed(&caller);
    CHECK_CONTAINS(f.last_line, "a payload out of turn");
}

/* ---- Silence ---- */

enum { SILENT = WORKER_UNPROVEN_MAX + 44 };

TEST(silent_connections_are_bounded_and_keep_nobody_out)
{
    FIXTURE(f, 64);
    CALLER(before, &f);
    say_hello(&before);
    struct caller *silent = calloc(SILENT, sizeof *silent);
    DS_ASSERT(silent != NULL);
    for (int i = 0; i < SILENT; i++) {
        caller_open(&silent[i], &f);
        turn(&f);
        CHECK(f.worker.unproven_count <= WORKER_UNPROVEN_MAX);
    }
    RUN_UNTIL(&f, f.closed_lines == SILENT - WORKER_UNPROVEN_MAX);
    CHECK_INT(f.worker.unproven_count, WORKER_UNPROVEN_MAX);
    CHECK(caller_is_told(&silent[0]));
    CHECK(!caller_is_told(&silent[SILENT - 1]));
    CHECK_CONTAINS(f.last_line, "too many connections have not said HELLO");

    CALLER(after, &f);
    say_hello(&after);
    CHECK_OK(caller_call(&before, MESSAGE_PING, slice(NULL, 0)));
    for (int i = 0; i < SILENT; i++)
        caller_close(&silent[i]);
    free(silent);
    RUN_UNTIL(&f, f.worker.session_count == 2);
    CHECK_INT(f.worker.unproven_count, 0);
}

/* ---- Sizes ---- */

/* Texts of the command line are as long as the user likes. */
TEST(stats_have_room_for_long_texts)
{
    FIXTURE(f, 64);
    CALLER(caller, &f);
    static char owner[80000];
    static char cluster[8000];
    memset(owner, '"', sizeof owner - 1);
    memset(cluster, '\n', sizeof cluster - 1);
    f.flags.owner = owner;
    f.flags.cluster_name = cluster;
    say_hello(&caller);
    CHECK_OK(caller_call(&caller, MESSAGE_STATS, slice(NULL, 0)));
    const char *text = (const char *)caller.body;
    CHECK_INT(text[0], '{');
    CHECK_INT(text[strlen(text) - 1], '}');
    CHECK_CONTAINS(text, "\"protocol_errors_total\": 0}");
    caller_send(&caller, MESSAGE_DISCOVER, slice(NULL, 0)); /* Has the owner, too. */
    CHECK(caller_receive(&caller));
    struct discovered discovered;
    CHECK(decode_discovered(body_of(&caller), &discovered));
    CHECK_INT(discovered.owner.len, 1024);
}

TEST_MAIN(RUN(memory_is_handed_out_on_the_unix_socket_only),
          RUN(a_region_of_pins_can_be_mapped_whatever_the_page_size),
          RUN(another_version_is_refused_by_name),
          RUN(before_hello_there_is_only_discover), RUN(hello_is_said_once),
          RUN(the_metastores_port_has_no_objects),
          RUN(a_malformed_body_of_any_type_closes_the_connection),
          RUN(descriptors_that_belong_to_nothing_close_the_connection),
          RUN(a_payload_that_belongs_to_nothing_closes_the_connection),
          RUN(silent_connections_are_bounded_and_keep_nobody_out),
          RUN(stats_have_room_for_long_texts))
