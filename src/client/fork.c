#include "client/fork.h"

#include "base/check.h"
#include "base/slice.h"
#include "client/client.h"
#include "client/janitor.h"
#include "os/clock.h"
#include "os/sockets.h"

#include <pthread.h>

enum { CLAIM_TIMEOUT_MS = 250 }; /* A fork is not held up for longer. */

/* ---- The claim ---- */

static bool
ask_for_claim(struct channel *channel, const struct mapping *mapping,
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
    struct outgoing claim = {.type = MESSAGE_FORK_CLAIM,
                             .sequence = library_next_sequence(),
                             .body = slice(writer.data, writer.len)};
    return !writer.failed && channel_call(channel, &claim, wait, NULL) == DS_OK &&
           channel->reply.status == DS_OK;
}

/* A descriptor that keeps a copy of our pins alive by being open, or -1. */
static int
claim_pins(const struct mapping *mapping, const struct wait *wait)
{
    struct channel *channel = NULL;
    int fds[CHANNEL_FDS_MAX] = {-1};
    if (channel_connect_unix(mapping->place, &channel, NULL) == DS_OK &&
        ask_for_claim(channel, mapping, wait))
        (void)channel_take_fds(channel, 1, fds);
    channel_destroy(channel);
    return fds[0];
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
        int mark = claim_pins(mapping, &wait);
        library_lock();
        mapping->fork_mark = mark;
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
        socket_close(mapping->fork_mark);
        mapping->fork_mark = -1;
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
        if (mapping->fork_mark >= 0) {
            mapping->claim_mark = mapping->fork_mark;
            mapping->fork_mark = -1;
        }
        socket_close(mapping->life_mark); /* The parent's life is not ours. */
        mapping->life_mark = -1;
        mapping->inherited = true;
    }
    janitor_after_fork_in_child();
    library_after_fork_in_child();
}

void
fork_install(void)
{
    int result = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    DS_ASSERT(result == 0);
}
