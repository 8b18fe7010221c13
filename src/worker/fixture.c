#include "worker/fixture.h"

#include "base/check.h"
#include "base/log.h"
#include "os/checksum.h"
#include "os/files.h"
#include "os/sockets.h"
#include "worker/membership.h"

#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* libuv opens two descriptors with the first loop and keeps them: not the test's leak.
 */
__attribute__((constructor)) static void
warm_up(void)
{
    uv_loop_t loop;
    if (uv_loop_init(&loop) != 0 || uv_loop_close(&loop) != 0)
        abort();
}

/* ---- The worker ---- */

static void
count_closed(enum log_level level, const char *line, void *arg)
{
    struct fixture *fixture = arg;
    (void)level;
    if (strncmp(line, "worker connection", 17) != 0)
        return;
    fixture->closed_lines++;
    snprintf(fixture->last_line, sizeof fixture->last_line, "%s", line);
}

void
fixture_open(struct fixture *fixture, int arena_mb)
{
    struct ds_error err = {0};
    char arena[16];
    *fixture = (struct fixture){0};
    test_make_folder(fixture->folder);
    snprintf(fixture->address, sizeof fixture->address, "127.0.0.1:%u",
             (unsigned)test_free_port());
    snprintf(fixture->metastore, sizeof fixture->metastore, "127.0.0.1:%u",
             (unsigned)test_free_port());
    snprintf(arena, sizeof arena, "%d", arena_mb);
    char *arguments[] = {(char[]){"datasystem_worker"},
                         (char[]){"--worker_address"},
                         fixture->address,
                         (char[]){"--datasystem_home_dir"},
                         fixture->folder,
                         (char[]){"--shared_memory_size_mb"},
                         arena,
                         (char[]){"--start_metastore_service=true"},
                         (char[]){"--metastore_address"},
                         fixture->metastore,
                         (char[]){"--client_dead_timeout_s=3"}};
    CHECK_OK(flags_parse(sizeof arguments / sizeof arguments[0], arguments,
                         &fixture->flags, &err));
    CHECK_OK(resources_resolve(&fixture->flags, &fixture->resources, &err));
    CHECK_OK(resources_open(&fixture->flags, &fixture->resources, &err));
    log_set_sink(count_closed, fixture, LOG_INFO);
    CHECK_OK(
        worker_open(&fixture->worker, &fixture->flags, &fixture->resources, 0, &err));
}

void
fixture_stop(struct fixture *fixture)
{
    worker_close(&fixture->worker);
}

void
fixture_start_again(struct fixture *fixture)
{
    struct ds_error err = {0};
    CHECK_OK(
        worker_open(&fixture->worker, &fixture->flags, &fixture->resources, 1, &err));
}

static void
on_joined(struct worker *worker)
{
    (void)worker;
}

void
fixture_join_cluster(struct fixture *fixture)
{
    struct worker *worker = &fixture->worker;
    CHECK_OK(membership_open(worker, on_joined, &worker->membership, NULL));
}

void
fixture_close(struct fixture *fixture)
{
    store_check(fixture->worker.store);
    worker_close(&fixture->worker);
    resources_close(&fixture->resources);
    log_set_sink(NULL, NULL, LOG_NONE);
    test_remove_folder(fixture->folder);
}

void
turn(struct fixture *fixture)
{
    struct pollfd watched = {.fd = uv_backend_fd(&fixture->worker.loop),
                             .events = POLLIN};
    uv_run(&fixture->worker.loop, UV_RUN_NOWAIT);
    (void)poll(&watched, 1, 2);
    uv_run(&fixture->worker.loop, UV_RUN_NOWAIT);
}

struct store_stats
stats_of(const struct fixture *fixture)
{
    struct store_stats stats;
    store_stats(fixture->worker.store, &stats);
    return stats;
}

/* ---- Callers ---- */

void
caller_open(struct caller *caller, struct fixture *fixture)
{
    struct ds_error err = {0};
    *caller = (struct caller){.fixture = fixture};
    CHECK_OK(socket_connect_unix(fixture->resources.socket_path, &caller->fd, &err));
}

void
caller_open_tcp(struct caller *caller, struct fixture *fixture, const char *at)
{
    struct ds_error err = {0};
    char host[64];
    uint16_t port;
    *caller = (struct caller){.fixture = fixture};
    CHECK_OK(socket_parse_address(at, host, sizeof host, &port, &err));
    CHECK_OK(socket_connect_tcp(host, port, &caller->fd, &err));
}

void
caller_open_in_child(struct caller *caller, const struct fixture *fixture)
{
    *caller = (struct caller){.fixture = NULL};
    if (socket_connect_unix(fixture->resources.socket_path, &caller->fd, NULL) != DS_OK)
        _exit(EXIT_FAILURE);
}

static void
close_fds(struct caller *caller)
{
    for (size_t i = 0; i < caller->fd_count; i++)
        close(caller->fds[i]);
    caller->fd_count = 0;
}

void
caller_close(struct caller *caller)
{
    socket_close(caller->fd);
    close_fds(caller);
    free(caller->body);
    free(caller->payload);
    *caller = (struct caller){.fd = -1};
}

/* Lets the worker do something, or, in a child, waits until it did. */
static void
wait_for_worker(const struct caller *caller, short events)
{
    struct pollfd watched = {.fd = caller->fd, .events = events};
    if (caller->fixture != NULL)
        turn(caller->fixture);
    else if (poll(&watched, 1, FIXTURE_WAIT_MS) != 1)
        _exit(EXIT_FAILURE);
}

static void
send_with_fds(struct caller *caller, const void *data, size_t bytes, const int *fds,
              size_t fd_count)
{
    const uint8_t *at = data;
    while (bytes > 0 && !caller->closed) {
        struct iovec part = {.iov_base = (uint8_t *)(uintptr_t)at, .iov_len = bytes};
        ssize_t done = socket_send(caller->fd, &part, 1, fds, fd_count, NULL);
        caller->closed = done < 0;
        if (done > 0) {
            at += done;
            bytes -= (size_t)done;
            fd_count = 0;
        } else {
            wait_for_worker(caller, POLLOUT);
        }
    }
}

void
caller_send_bytes(struct caller *caller, const void *data, size_t bytes)
{
    send_with_fds(caller, data, bytes, NULL, 0);
}

static struct frame_header
next_header(struct caller *caller, enum message_type type, size_t body_bytes)
{
    return (struct frame_header){.type = type,
                                 .sequence = ++caller->sequence,
                                 .body_bytes = (uint32_t)body_bytes};
}

void
caller_send_fds(struct caller *caller, enum message_type type, const int *fds,
                size_t fd_count)
{
    struct frame_header header = next_header(caller, type, 0);
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_encode(&header, bytes);
    send_with_fds(caller, bytes, sizeof bytes, fds, fd_count);
}

void
caller_send(struct caller *caller, enum message_type type, struct ds_slice body)
{
    struct frame_header header = next_header(caller, type, body.len);
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_encode(&header, bytes);
    caller_send_bytes(caller, bytes, sizeof bytes);
    caller_send_bytes(caller, body.data, body.len);
}

bool
caller_is_told(const struct caller *caller)
{
    struct pollfd watched = {.fd = caller->fd, .events = POLLIN};
    return caller->closed || poll(&watched, 1, 0) > 0;
}

/* Exactly so many bytes; false if the worker closes first. */
static bool
receive(struct caller *caller, void *out, size_t bytes)
{
    uint8_t *at = out;
    uint64_t deadline_ms = clock_monotonic_ms() + FIXTURE_WAIT_MS;
    while (bytes > 0) {
        bool eof = false;
        size_t fd_count = 0;
        ssize_t got =
            socket_receive(caller->fd, at, bytes, &eof, caller->fds + caller->fd_count,
                           CALLER_FDS_MAX - caller->fd_count, &fd_count, NULL);
        caller->fd_count += fd_count;
        if (eof || got < 0) {
            caller->closed = true;
            return false;
        }
        at += got;
        bytes -= (size_t)got;
        if (got == 0)
            wait_for_worker(caller, POLLIN);
        CHECK(clock_monotonic_ms() < deadline_ms);
    }
    return true;
}

bool
caller_receive(struct caller *caller)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    close_fds(caller);
    if (!receive(caller, bytes, sizeof bytes))
        return false;
    CHECK(frame_decode(bytes, &caller->reply));
    free(caller->body);
    free(caller->payload);
    caller->body = malloc((size_t)caller->reply.body_bytes + 1);
    caller->payload = malloc(caller->reply.payload_bytes + 1);
    DS_ASSERT(caller->body != NULL);
    DS_ASSERT(caller->payload != NULL);
    caller->body[caller->reply.body_bytes] = '\0';
    return receive(caller, caller->body, caller->reply.body_bytes) &&
           receive(caller, caller->payload, caller->reply.payload_bytes);
}

void
caller_receive_error(struct caller *caller, enum ds_status status, const char *words)
{
    CHECK(caller_receive(caller));
    CHECK_INT(caller->reply.status, status);
    CHECK_CONTAINS((const char *)caller->body, words);
}

enum ds_status
caller_call(struct caller *caller, enum message_type type, struct ds_slice body)
{
    caller_send(caller, type, body);
    CHECK(caller_receive(caller));
    CHECK_INT(caller->reply.type, type);
    CHECK_INT(caller->reply.sequence, caller->sequence);
    return caller->reply.status;
}

void
check_closed(struct caller *caller)
{
    int lines = caller->fixture->closed_lines;
    CHECK(!caller_receive(caller));
    RUN_UNTIL(caller->fixture, caller->fixture->closed_lines > lines);
    turn(caller->fixture);
    CHECK_INT(caller->fixture->closed_lines, lines + 1);
}

struct ds_slice
body_of(const struct caller *caller)
{
    return slice(caller->body, caller->reply.body_bytes);
}

struct ds_slice
bytes_of(const struct writer *writer)
{
    return slice(writer->data, writer->len);
}

/* ---- Requests ---- */

enum ds_status
say_hello_again(struct caller *caller, const struct welcome *welcome,
                const struct wire_ref *holding, size_t holding_count, uint32_t flags)
{
    struct hello hello = {
        .layout_version = LAYOUT_VERSION,
        .protocol_version = PROTOCOL_VERSION,
        .flags = flags,
        .client = welcome->client,
        .token = welcome->token,
        .incarnation = welcome->incarnation,
        .queue = caller->queue,
        .epoch = caller->epoch,
    };
    AUTO_WRITER(body);
    encode_hello(&body, &hello, holding, holding_count);
    enum ds_status status = caller_call(caller, MESSAGE_HELLO, bytes_of(&body));
    if (status == DS_OK)
        CHECK(decode_welcome(body_of(caller), &caller->welcome));
    return status;
}

void
say_hello(struct caller *caller)
{
    struct welcome nobody = {0};
    CHECK_OK(say_hello_again(caller, &nobody, NULL, 0, HELLO_SHARED_MEMORY));
}

enum ds_status
call_leave(struct caller *caller, const struct welcome *welcome, uint32_t flags)
{
    struct hello hello = {
        .layout_version = LAYOUT_VERSION,
        .protocol_version = PROTOCOL_VERSION,
        .flags = flags | HELLO_LEAVE,
        .client = welcome->client,
        .token = welcome->token,
        .incarnation = welcome->incarnation,
    };
    AUTO_WRITER(body);
    encode_hello(&body, &hello, NULL, 0);
    return caller_call(caller, MESSAGE_HELLO, bytes_of(&body));
}

void
say_hello_as_member(struct caller *caller)
{
    struct welcome nobody = {0};
    CHECK_OK(say_hello_again(caller, &nobody, NULL, 0, HELLO_MEMBER));
}

void
send_create(struct caller *caller, const char *key, uint64_t size)
{
    struct ds_slice name = slice_of_text(key);
    AUTO_WRITER(body);
    encode_create(&body, 0, DS_NONE_L2_CACHE, &name, &size, 1);
    caller_send(caller, MESSAGE_CREATE, bytes_of(&body));
}

enum ds_status
call_create(struct caller *caller, const char *key, uint64_t size,
            struct wire_extent *out)
{
    struct created created;
    send_create(caller, key, size);
    CHECK(caller_receive(caller));
    if (caller->reply.status != DS_OK)
        return caller->reply.status;
    CHECK(decode_created(body_of(caller), &created));
    CHECK(next_extent(&created, out));
    return DS_OK;
}

enum ds_status
call_block_create(struct caller *caller, uint64_t size, struct ds_block_id *out_id,
                  struct wire_ref *out_ref)
{
    struct created created;
    struct wire_extent extent;
    AUTO_WRITER(body);
    encode_block_create(&body, 0, &size, 1);
    enum ds_status status = caller_call(caller, MESSAGE_BLOCK_CREATE, bytes_of(&body));
    if (status != DS_OK)
        return status;
    CHECK(decode_created(body_of(caller), &created));
    CHECK(next_extent(&created, &extent));
    *out_id = created.block;
    *out_ref = extent.ref;
    return DS_OK;
}

enum ds_status
call_seal(struct caller *caller, struct wire_ref ref)
{
    AUTO_WRITER(body);
    struct wire_filled object = {.ref = ref};
    encode_seal(&body, 0, false, &object, 1);
    return caller_call(caller, MESSAGE_SEAL, bytes_of(&body));
}

void
send_fill(struct caller *caller, struct fill fill, const void *data, size_t bytes,
          size_t sent_bytes)
{
    AUTO_WRITER(body);
    fill.checksum ^= checksum_of(data, bytes);
    encode_fill(&body, &fill);
    struct frame_header header = next_header(caller, MESSAGE_FILL, body.len);
    uint8_t head[FRAME_HEADER_BYTES];
    header.payload_bytes = bytes;
    frame_encode(&header, head);
    caller_send_bytes(caller, head, sizeof head);
    caller_send_bytes(caller, body.data, body.len);
    caller_send_bytes(caller, data, sent_bytes);
}

enum ds_status
call_fill(struct caller *caller, struct fill fill, const void *data, size_t bytes)
{
    send_fill(caller, fill, data, bytes, bytes);
    CHECK(caller_receive(caller));
    CHECK_INT(caller->reply.type, MESSAGE_FILL);
    return caller->reply.status;
}

enum ds_status
call_delete(struct caller *caller, const char *key)
{
    struct ds_slice name = slice_of_text(key);
    AUTO_WRITER(body);
    encode_keys(&body, &name, 1);
    return caller_call(caller, MESSAGE_DELETE, bytes_of(&body));
}

struct wire_extent
put(struct caller *caller, const char *key, uint64_t size)
{
    struct wire_extent extent = {0};
    CHECK_OK(call_create(caller, key, size, &extent));
    CHECK_OK(call_seal(caller, extent.ref));
    return extent;
}

void
send_lookup(struct caller *caller, const char *const *keys, size_t count,
            uint32_t wait_ms)
{
    struct lookup message = {.wait_ms = wait_ms};
    struct ds_slice *names = calloc(count + 1, sizeof *names);
    DS_ASSERT(names != NULL);
    for (size_t i = 0; i < count; i++)
        names[i] = slice_of_text(keys[i]);
    AUTO_WRITER(body);
    encode_lookup(&body, &message, names, count);
    free(names);
    caller_send(caller, MESSAGE_LOOKUP, bytes_of(&body));
}

size_t
found_of(const struct caller *caller)
{
    struct found list;
    struct wire_object object;
    size_t count = 0;
    CHECK_STATUS(caller->reply.status, DS_OK);
    CHECK(decode_found(body_of(caller), &list));
    while (next_object(&list, &object))
        count += object.found;
    return count;
}

static struct pin_region *
region_of(struct fixture *fixture, const struct welcome *welcome)
{
    uint8_t *pins = fixture->worker.memory.pins;
    return (struct pin_region *)(void *)(pins + welcome->pins_offset);
}

void
pin(struct fixture *fixture, const struct welcome *welcome, uint32_t word,
    struct wire_extent extent)
{
    struct pin_region *region = region_of(fixture, welcome);
    atomic_store(&region->words[word], pin_word(extent.offset));
    atomic_store(&region->words_used, word + 1);
}

void
unpin(struct fixture *fixture, const struct welcome *welcome, uint32_t word)
{
    atomic_store(&region_of(fixture, welcome)->words[word], 0);
}

void
caller_open_metastore(struct caller *caller, struct fixture *fixture)
{
    AUTO_WRITER(body);
    struct hello hello = {.layout_version = LAYOUT_VERSION,
                          .protocol_version = PROTOCOL_VERSION};
    encode_hello(&body, &hello, NULL, 0);
    caller_open_tcp(caller, fixture, fixture->metastore);
    CHECK_OK(caller_call(caller, MESSAGE_HELLO, bytes_of(&body)));
}
