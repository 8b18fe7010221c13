/* What the tests of the worker share: a worker in this process, whose loop the test
 * turns, and callers that speak to it through its real sockets.
 *
 * A caller of this process turns the loop while it waits. One in a forked child has no
 * fixture and just waits: there the parent must turn the loop. */
#ifndef WORKER_FIXTURE_H
#define WORKER_FIXTURE_H

#include "base/slice.h"
#include "os/clock.h"
#include "test.h"
#include "wire/message.h"
#include "worker/client.h"
#include "worker/session.h"
#include "worker/worker.h"

enum { FIXTURE_WAIT_MS = 20000 };

struct fixture {
    char folder[TEST_FOLDER_BYTES];
    char address[32];
    char metastore[32];
    struct worker_flags flags;
    struct resources resources;
    struct worker worker;
    int closed_lines; /* Log lines about connections that closed or were refused. */
    char last_line[256];
};

/* A worker with an arena of so many MiB; it also serves a metastore's port. */
void fixture_open(struct fixture *fixture, int arena_mb);
void fixture_close(struct fixture *fixture);
#define FIXTURE(name, arena_mb)                                  \
    __attribute__((cleanup(fixture_close))) struct fixture name; \
    fixture_open(&name, arena_mb)

/* The worker stops without a word to anybody, and the next one takes over. */
void fixture_stop(struct fixture *fixture);
void fixture_start_again(struct fixture *fixture);

/* It asks the metastore, its own, for who belongs. */
void fixture_join_cluster(struct fixture *fixture);

/* One turn of the loop, of 10 ms at most. */
void turn(struct fixture *fixture);

/* Turns the loop until `condition` holds. */
#define RUN_UNTIL(fixture, condition)                                   \
    do {                                                                \
        uint64_t deadline_ms_ = clock_monotonic_ms() + FIXTURE_WAIT_MS; \
        while (!(condition)) {                                          \
            CHECK(clock_monotonic_ms() < deadline_ms_);                 \
            turn(fixture);                                              \
        }                                                               \
    } while (0)

struct store_stats stats_of(const struct fixture *fixture);

/* ---- Callers ---- */

enum { CALLER_FDS_MAX = 4 };

struct caller {
    struct fixture *fixture; /* NULL in a forked child. */
    int fd;
    bool closed; /* By the worker. */
    uint32_t sequence;
    struct frame_header reply;
    uint8_t *body;           /* Of the last reply. */
    uint8_t *payload;        /* Its beginning. */
    int fds[CALLER_FDS_MAX]; /* That came with it; closed with the next one. */
    size_t fd_count;
    struct welcome welcome;
    uint16_t queue; /* Of its blocks; to be set before it says HELLO, */
    uint64_t epoch; /* as is this. */
};

void caller_open(struct caller *caller, struct fixture *fixture);
void caller_open_tcp(struct caller *caller, struct fixture *fixture, const char *at);

/* A caller of the metastore that has said HELLO. */
void caller_open_metastore(struct caller *caller, struct fixture *fixture);

/* In a child: the caller of a process of its own, at the worker's socket. */
void caller_open_in_child(struct caller *caller, const struct fixture *fixture);
void caller_close(struct caller *caller);
#define CALLER(name, fixture)                                  \
    __attribute__((cleanup(caller_close))) struct caller name; \
    caller_open(&name, fixture)

/* Sends as many bytes as the worker takes before it closes. */
void caller_send_bytes(struct caller *caller, const void *data, size_t bytes);
void caller_send_fds(struct caller *caller, enum message_type type, const int *fds,
                     size_t fd_count);
void caller_send(struct caller *caller, enum message_type type, struct ds_slice body);

/* Waits for the reply to any request; false if the worker closes instead. */
bool caller_receive(struct caller *caller);

/* Waits for the reply, which is that error, with these words in its text. */
void
caller_receive_error(struct caller *caller, enum ds_status status, const char *words);

/* The worker has said something, or closed: caller_receive() would not wait. */
bool caller_is_told(const struct caller *caller);

/* Sends, receives, and checks that this is the reply. */
enum ds_status
caller_call(struct caller *caller, enum message_type type, struct ds_slice body);

/* The worker closes the connection, which is one line in the log. */
void check_closed(struct caller *caller);

struct ds_slice body_of(const struct caller *caller);
struct ds_slice bytes_of(const struct writer *writer);

/* ---- Requests ---- */

/* As a new client with shared memory, or one without that only wants a number. */
void say_hello(struct caller *caller);
void say_hello_as_member(struct caller *caller);

/* As the client that `welcome` was said to. */
enum ds_status
say_hello_again(struct caller *caller, const struct welcome *welcome,
                const struct wire_ref *holding, size_t holding_count, uint32_t flags);

/* The client that `welcome` was said to gives its place back. `flags`: of what kind it
 * is. */
enum ds_status
call_leave(struct caller *caller, const struct welcome *welcome, uint32_t flags);

enum ds_status call_create(struct caller *caller, const char *key, uint64_t size,
                           struct wire_extent *out);
enum ds_status call_block_create(struct caller *caller, uint64_t size,
                                 struct ds_block_id *out_id, struct wire_ref *out_ref);
enum ds_status call_seal(struct caller *caller, struct wire_ref ref);

/* Sends a FILL of so many bytes, but only the first `sent_bytes` of them. Its checksum is
 * right, but for the bits that are set in fill.checksum. */
void send_fill(struct caller *caller, struct fill fill, const void *data, size_t bytes,
               size_t sent_bytes);
enum ds_status
call_fill(struct caller *caller, struct fill fill, const void *data, size_t bytes);
enum ds_status call_delete(struct caller *caller, const char *key);

/* Creates and seals. */
struct wire_extent put(struct caller *caller, const char *key, uint64_t size);

void send_create(struct caller *caller, const char *key, uint64_t size);
void send_lookup(struct caller *caller, const char *const *keys, size_t count,
                 uint32_t wait_ms);

/* How many objects of the last reply, which is one to a lookup, were found. */
size_t found_of(const struct caller *caller);

/* As the client that `welcome` was said to: pins `extent`, lets go of it. */
void pin(struct fixture *fixture, const struct welcome *welcome, uint32_t word,
         struct wire_extent extent);
void unpin(struct fixture *fixture, const struct welcome *welcome, uint32_t word);

#endif
