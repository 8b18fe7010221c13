/* One request and its reply: taking a connection, repeating over a lost one, and
 * leaving behind what was not waited for. */
#include "client/client.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "client/janitor.h"
#include "os/clock.h"

#include <stdlib.h>

enum {
    BACKOFF_MS_MIN = 5,
    BACKOFF_MS_MAX = 200,
    /* Nobody at the socket for so long: the supervisor, which has it open also while it
     * restarts the worker, is gone, and the memory with it. */
    ABSENCE_MS_MAX = 2000,
    LOOKUP_WAIT_OFFSET = 4, /* Of wait_ms in the body of a lookup, */
    CREATE_WAIT_OFFSET = 0, /* and of a request that reserves. */
};

const char *
request_name(enum message_type type)
{
    static const char *const names[MESSAGE_TYPE_COUNT] = {
        [MESSAGE_DISCOVER] = "DISCOVER",
        [MESSAGE_HELLO] = "HELLO",
        [MESSAGE_PING] = "PING",
        [MESSAGE_CREATE] = "CREATE",
        [MESSAGE_SEAL] = "SEAL",
        [MESSAGE_ABORT] = "ABORT",
        [MESSAGE_LOOKUP] = "LOOKUP",
        [MESSAGE_EXIST] = "EXIST",
        [MESSAGE_DELETE] = "DELETE",
        [MESSAGE_EXPIRE] = "EXPIRE",
        [MESSAGE_STATS] = "STATS",
        [MESSAGE_PUT] = "PUT",
        [MESSAGE_FETCH] = "FETCH",
        [MESSAGE_BLOCK_CREATE] = "BLOCK_CREATE",
        [MESSAGE_BLOCK_DELETE] = "BLOCK_DELETE",
        [MESSAGE_FORK_CLAIM] = "FORK_CLAIM",
        [MESSAGE_QUEUE_CALL] = "QUEUE_CALL",
        [MESSAGE_FILL] = "FILL",
        [MESSAGE_PUBLISH] = "PUBLISH",
        [MESSAGE_HOLDERS] = "HOLDERS",
        [MESSAGE_QUEUE_FIND] = "QUEUE_FIND",
        [MESSAGE_MEMBERS] = "MEMBERS",
    };
    const char *name = type < MESSAGE_TYPE_COUNT ? names[type] : NULL;
    return name == NULL ? "request" : name;
}

/* ---- Replies that nobody waits for ---- */

static bool
reserves(enum message_type type)
{
    return type == MESSAGE_CREATE || type == MESSAGE_BLOCK_CREATE ||
           type == MESSAGE_PUBLISH;
}

/* The channel ends while the worker may have reserved something for us. Lock held. */
static void
drop_channel(struct ds_client *client, struct channel *channel)
{
    if (channel->touched && channel->mapping != NULL &&
        reserves(channel->request.type) && channel->owed)
        channel->mapping->resume_needed = true;
    pool_drop(&client->pool, channel);
}

/* What a late reply reserved is given up. Lock held. */
static void
void_reservation(const struct channel *channel)
{
    struct created created;
    struct wire_extent extent;
    if (channel->mapping == NULL || channel->reply.status != DS_OK ||
        !reserves(channel->request.type))
        return;
    if (!decode_created(channel_body(channel), &created)) {
        channel->mapping->resume_needed = true;
        return;
    }
    while (next_extent(&created, &extent))
        mapping_abort_later(channel->mapping, extent.ref);
}

/* Lock held. */
static void
collect_late_replies(struct ds_client *client)
{
    LIST_FOREACH (link, &client->pool.channels) {
        struct channel *channel = CONTAINER_OF(link, struct channel, link);
        bool broken = false;
        if (channel->state != CHANNEL_DRAINING)
            continue;
        if (channel_drain(channel, &broken)) {
            void_reservation(channel);
            pool_give_back(&client->pool, channel);
        } else if (broken) {
            drop_channel(client, channel);
        }
    }
}

void
client_drop_channels(struct ds_client *client)
{
    collect_late_replies(client);
    LIST_FOREACH (link, &client->pool.channels)
        drop_channel(client, CONTAINER_OF(link, struct channel, link));
}

/* ---- Taking and leaving channels ---- */

/* It speaks of the current memory, or of none where none is needed. Lock held. */
static bool
is_current(const struct ds_client *client, const struct channel *channel)
{
    bool lacks_number = client->is_member && channel->mapping == NULL;
    return channel->mapping == client->mapping && !lacks_number;
}

/* An idle channel that is current. Lock held. */
static struct channel *
take_idle(struct ds_client *client)
{
    collect_late_replies(client);
    if (client->mapping != NULL && client->mapping->resume_needed)
        return NULL; /* The next connection begins by saying what we hold. */
    struct channel *channel = pool_take(&client->pool);
    while (channel != NULL && !is_current(client, channel)) {
        drop_channel(client, channel);
        channel = pool_take(&client->pool);
    }
    if (channel != NULL && channel->mapping != NULL)
        channel->epoch = channel->mapping->epoch;
    return channel;
}

/* Waits while another thread connects; *out is NULL when it is our turn to. */
static enum ds_status
take_or_connect(struct ds_client *client, const struct wait *wait, struct channel **out)
{
    enum ds_status status = DS_OK;
    library_lock();
    while ((*out = take_idle(client)) == NULL && client->pool.connecting) {
        library_wait((uint32_t)min_u64(wait_left_ms(wait), WAIT_SLICE_MS));
        library_unlock();
        if (wait_is_interrupted(wait))
            status = DS_INTERRUPTED;
        else if (wait_left_ms(wait) == 0)
            status = DS_TIMEOUT;
        library_lock();
        if (status != DS_OK)
            break;
    }
    if (status != DS_OK && *out == NULL) {
        library_unlock();
        return status;
    }
    if (*out == NULL)
        client->pool.connecting = true;
    library_unlock();
    return DS_OK;
}

static enum ds_status
take_channel(struct ds_client *client, const struct wait *wait, struct channel **out,
             struct ds_error *err)
{
    enum ds_status status = take_or_connect(client, wait, out);
    if (status != DS_OK || *out != NULL)
        return status;
    status = client_connect(client, wait, out, err);
    library_lock();
    client->pool.connecting = false;
    if (status == DS_OK)
        pool_add(&client->pool, *out);
    library_wake();
    library_unlock();
    return status;
}

/* The call is over; `status` says how. */
static void
leave_channel(struct ds_client *client, struct channel *channel, enum ds_status status)
{
    library_lock();
    bool half_sent = channel->touched && !channel->owed && channel->input_len == 0;
    if (status == DS_IO) {
        drop_channel(client, channel);
        pool_drop_broken(&client->pool);
    } else if (channel->owed) {
        struct channel *excess = pool_leave_draining(&client->pool, channel);
        if (excess != NULL)
            drop_channel(client, excess);
    } else if (half_sent) {
        drop_channel(client, channel);
    } else {
        pool_give_back(&client->pool, channel);
    }
    library_unlock();
}

/* ---- One attempt ---- */

/* First let go what nobody wants. */
static enum ds_status
flush_aborts(struct channel *channel, const struct wait *wait, struct ds_error *err)
{
    struct mapping *mapping = channel->mapping;
    if (mapping == NULL)
        return DS_OK;
    size_t count = 0;
    library_lock();
    struct wire_ref *refs = mapping_take_aborts(mapping, &count);
    library_unlock();
    if (refs == NULL)
        return DS_OK;
    AUTO_WRITER(writer);
    encode_refs(&writer, refs, count);
    struct outgoing message = {.type = MESSAGE_ABORT,
                               .sequence = library_next_sequence(),
                               .body = slice(writer.data, writer.len)};
    enum ds_status status = writer.failed
                                ? ds_fail(err, DS_NO_MEMORY, "out of memory for ABORT")
                                : channel_call(channel, &message, wait, err);
    if (status != DS_OK) {
        library_lock();
        for (size_t i = 0; i < count; i++)
            mapping_abort_later(mapping, refs[i]);
        library_unlock();
    }
    free(refs);
    return status;
}

static enum ds_status
fail_memory_changed(const struct ds_client *client, struct ds_error *err)
{
    if (!client->shares_memory)
        return ds_fail(err, DS_IO,
                       "the worker at %s came back without its memory, or gave this "
                       "client up after a long silence: objects that were created and "
                       "not sealed are gone; create them again",
                       client->address);
    return ds_fail(err, DS_IO,
                   "the worker at %s came back without its memory: objects that were "
                   "created and not sealed are gone; create them again",
                   client->address);
}

/* Answers with the worker's own error, or what on_reply makes of its reply. */
static enum ds_status
take_reply(const struct request *request, struct channel *channel,
           const struct wait *wait, bool *out_answered, struct ds_error *err)
{
    if (channel->reply.status != DS_OK) {
        *out_answered = true;
        return channel_fail_reply(channel, err);
    }
    if (request->on_reply == NULL)
        return DS_OK;
    struct reply reply = {.channel = channel,
                          .body = channel_body(channel),
                          .mapping = channel->mapping,
                          .wait = wait};
    return request->on_reply(request->arg, &reply, err);
}

static void
set_wait_left(const struct request *request, const struct wait *wait)
{
    if (request->wait_until_ms == 0)
        return;
    struct wait left = {.deadline_ms =
                            min_u64(request->wait_until_ms, wait->deadline_ms)};
    size_t offset = reserves(request->type) ? CREATE_WAIT_OFFSET : LOOKUP_WAIT_OFFSET;
    patch_u32(request->body, offset, wait_left_ms(&left));
}

/* *out_answered: the worker itself said no, which is final whatever the status. */
static enum ds_status
attempt(struct ds_client *client, const struct request *request, uint32_t sequence,
        struct channel *channel, const struct wait *wait, bool *out_answered,
        struct ds_error *err)
{
    if (request->mapping != NULL && channel->mapping != request->mapping) {
        *out_answered = true;
        leave_channel(client, channel, DS_OK);
        return fail_memory_changed(client, err);
    }
    enum ds_status status = flush_aborts(channel, wait, err);
    if (status == DS_OK) {
        set_wait_left(request, wait);
        struct outgoing message = {
            .type = request->type, .sequence = sequence, .payload = request->payload};
        if (request->body != NULL)
            message.body = slice(request->body->data, request->body->len);
        status = channel_call(channel, &message, wait, err);
    }
    if (status == DS_OK)
        status = take_reply(request, channel, wait, out_answered, err);
    leave_channel(client, channel, *out_answered ? DS_OK : status);
    return status;
}

/* ---- Repeating ---- */

static uint32_t
next_pause(uint32_t pause)
{
    return pause == 0 ? BACKOFF_MS_MIN
                      : (uint32_t)min_u64(2ull * pause, BACKOFF_MS_MAX);
}

static enum ds_status
fail_waiting(const struct ds_client *client, const struct request *request,
             enum ds_status status, const struct ds_error *last, struct ds_error *err)
{
    const char *name = request_name(request->type);
    if (status == DS_INTERRUPTED)
        return ds_fail(err, status, "interrupted while waiting for %s at worker %s",
                       name, client->address);
    if (last->status != DS_OK)
        return ds_fail(err, DS_IO,
                       "the worker at %s is gone and did not come back in time (%s); "
                       "is datasystem_worker running there?",
                       client->address, last->message);
    return ds_fail(err, DS_TIMEOUT, "the worker at %s did not answer %s in time",
                   client->address, name);
}

static enum ds_status
fail_gone(const struct ds_client *client, const struct ds_error *last,
          struct ds_error *err)
{
    return ds_fail(err, DS_IO,
                   "the worker at %s is gone (%s), and with it the objects that it "
                   "held; start it again with dscli start",
                   client->address, last->message);
}

/* Takes a channel and tries once. *out_absent: nobody was there. */
static enum ds_status
try_once(struct ds_client *client, const struct request *request, uint32_t sequence,
         const struct wait *wait, bool *out_answered, bool *out_absent,
         struct ds_error *last)
{
    struct ds_error now = {0};
    struct channel *channel = NULL;
    enum ds_status status = take_channel(client, wait, &channel, &now);
    *out_absent = status == DS_IO;
    if (status == DS_OK) {
        *last = (struct ds_error){0}; /* There is somebody to talk to again. */
        status = attempt(client, request, sequence, channel, wait, out_answered, &now);
    }
    if (now.status != DS_OK)
        *last = now;
    return status;
}

static bool
is_lost(enum ds_status status)
{
    return status == DS_IO || status == DS_NOT_READY;
}

/* What is reserved needs an owner, whose death the worker notices. */
static void
become_member(struct ds_client *client)
{
    library_lock();
    client->is_member = true;
    library_unlock();
}

/* Over as many connections as it takes. Over TCP nobody may be there because of the
 * network, which can come back. */
static enum ds_status
try_until_answered(struct ds_client *client, const struct request *request,
                   const struct wait *wait, bool *out_answered, struct ds_error *last)
{
    uint32_t sequence = library_next_sequence();
    uint64_t absent_since_ms = 0;
    bool absent;
    *out_answered = false;
    enum ds_status status =
        try_once(client, request, sequence, wait, out_answered, &absent, last);
    /* The first loss is most often that of a connection that was idle too long. */
    for (uint32_t pause = 0; is_lost(status) && !*out_answered;
         pause = next_pause(pause)) {
        uint64_t now = clock_monotonic_ms();
        if (!absent)
            absent_since_ms = 0;
        else if (absent_since_ms == 0)
            absent_since_ms = now;
        else if (client->shares_memory && now - absent_since_ms >= ABSENCE_MS_MAX)
            return DS_IO;
        status = wait_sleep(wait, pause);
        if (status == DS_OK)
            status =
                try_once(client, request, sequence, wait, out_answered, &absent, last);
    }
    return status;
}

enum ds_status
client_call(struct ds_client *client, const struct request *request,
            const struct wait *wait, struct ds_error *err)
{
    if (request->body != NULL && request->body->failed)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for %s",
                       request_name(request->type));
    if (reserves(request->type) && !client->shares_memory)
        become_member(client);
    struct ds_error last = {0};
    uint64_t gone_before = janitor_gone_total();
    bool answered;
    enum ds_status status = try_until_answered(client, request, wait, &answered, &last);
    /* The views that the caller dropped before must be room for it now. */
    if (status == DS_FULL && answered) {
        janitor_settle();
        if (janitor_gone_total() != gone_before)
            status = try_until_answered(client, request, wait, &answered, &last);
    }
    if (status == DS_OK)
        return DS_OK;
    if (!answered && (status == DS_TIMEOUT || status == DS_INTERRUPTED))
        return fail_waiting(client, request, status, &last, err);
    if (!answered && status == DS_IO)
        return fail_gone(client, &last, err);
    return ds_fail(err, status, "%s", last.message);
}
