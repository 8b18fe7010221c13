#include "client/fork.h"

#include "base/check.h"
#include "base/slice.h"
#include "client/client.h"
#include "os/clock.h"
#include "os/sockets.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

enum { CLAIM_TIMEOUT_MS = 250 }; /* A fork is not held up for longer. */

/* ---- The claim ---- */

/* Takes the read end along to the worker. */
static enum ds_status
send_claim(struct channel *channel, const struct mapping *mapping, int read_end,
           const struct wait *wait)
{
    struct hello hello = {
        .layout_version = LAYOUT_VERSION,
        .protocol_version = PROTOCOL_VERSION,
        .flags = HELLO_SHARED_MEMORY,
        .client = mapping->client,
        .token = mapping->token,
        .incarnation = mapping->incarnation,
    };
    AUTO_WRITER(writer);
    encode_hello(&writer, &hello, NULL, 0);
    struct outgoing greeting = {.type = MESSAGE_HELLO,
                                .body = slice(writer.data, writer.len)};
    if (writer.failed)
        return DS_NO_MEMORY;
    enum ds_status status = channel_call(channel, &greeting, wait, NULL);
    if (status != DS_OK || channel->reply.status != DS_OK)
        return DS_IO;
    struct outgoing claim = {.type = MESSAGE_FORK_CLAIM,
                             .sequence = library_next_sequence(),
                             .fds = &read_end,
                             .fd_count = 1};
    status = channel_call(channel, &claim, wait, NULL);
    return status == DS_OK ? channel->reply.status : status;
}

/* The write end of a pipe that keeps a copy of our pins alive, or -1. */
static int
claim_pins(const struct mapping *mapping, const struct wait *wait)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    struct channel *channel = NULL;
    enum ds_status status = channel_connect_unix(mapping->place, &channel, NULL);
    if (status == DS_OK)
        status = send_claim(channel, mapping, ends[0], wait);
    channel_destroy(channel);
    close(ends[0]);
    if (status == DS_OK)
        return ends[1];
    close(ends[1]);
    return -1;
}

/* A mapping with pins that has no claim for this fork yet; counted. */
static struct mapping *
next_to_claim(void)
{
    LIST_FOREACH (link, library_mappings()) {
        struct mapping *mapping = CONTAINER_OF(link, struct mapping, link);
        if (mapping->fork_state == FORK_UNASKED && !mapping->inherited &&
            pins_count(&mapping->pins) > 0) {
            mapping->fork_state = FORK_ASKED;
            return mapping_ref(mapping);
        }
    }
    return NULL;
}

/* ---- Handlers ---- */

static void
before_fork(void)
{
    struct wait wait = {.deadline_ms = clock_monotonic_ms() + CLAIM_TIMEOUT_MS};
    library_lock();
    struct mapping *mapping;
    while ((mapping = next_to_claim()) != NULL) {
        library_unlock();
        int pipe_end = claim_pins(mapping, &wait);
        library_lock();
        mapping->fork_pipe = pipe_end;
        mapping_unref(mapping);
    }
    library_unlock();
    library_before_fork();
}

static void
after_fork_in_parent(void)
{
    LIST_FOREACH (link, library_mappings()) {
        struct mapping *mapping = CONTAINER_OF(link, struct mapping, link);
        socket_close(mapping->fork_pipe);
        mapping->fork_pipe = -1;
        mapping->fork_state = FORK_UNASKED;
    }
    library_after_fork();
}

static void
after_fork_in_child(void)
{
    LIST_FOREACH (link, library_pools())
        pool_forget(CONTAINER_OF(link, struct pool, link));
    LIST_FOREACH (link, library_mappings()) {
        struct mapping *mapping = CONTAINER_OF(link, struct mapping, link);
        if (mapping->fork_pipe >= 0) {
            mapping->claim_pipe = mapping->fork_pipe;
            mapping->fork_pipe = -1;
        }
        mapping->inherited = true;
    }
    identities_forget();
    library_after_fork_in_child();
}

void
fork_install(void)
{
    int result = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    DS_ASSERT(result == 0);
}
