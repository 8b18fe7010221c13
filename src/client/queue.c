/* Calls to a transfer_queue_controller: MessagePack in, MessagePack out. */
#include "client/channel.h"
#include "client/library.h"
#include "client/pool.h"

#include "base/auto.h"
#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"
#include "client/janitor.h"
#include "os/clock.h"
#include "os/sockets.h"
#include "store/layout.h"
#include "wire/message.h"

#include <datasystem/datasystem.h>

#include <stdlib.h>
#include <unistd.h>

enum {
    CONNECT_TIMEOUT_MS = 5000,
    RETRY_MS = 20,
    REQUEST_BYTES_MAX = 256 << 20,
};

/* Owner: the caller of ds_queue_open(). `pool` is guarded by the library's lock; the
 * rest does not change. */
struct ds_queue {
    struct pool pool;
    char *address;    /* As given, */
    const char *path; /* and the part after "unix:". */
    uint32_t connect_timeout_ms;
    int (*interrupted)(void *arg);
    void *interrupted_arg;
};

DEFINE_AUTO(queue, struct ds_queue, ds_queue_close)

static struct wait
queue_wait(const struct ds_queue *queue, uint64_t ms)
{
    return (struct wait){.deadline_ms = clock_monotonic_ms() + ms,
                         .interrupted = queue->interrupted,
                         .interrupted_arg = queue->interrupted_arg};
}

/* The text for any way in which a channel may fail us. */
static enum ds_status
fail_channel(const struct ds_queue *queue, enum ds_status status,
             const struct ds_error *reason, struct ds_error *err)
{
    if (status == DS_INTERRUPTED)
        return ds_fail(err, status,
                       "interrupted while waiting for the controller at %s",
                       queue->address);
    if (status == DS_TIMEOUT)
        return ds_fail(err, status, "the controller at %s did not answer in time",
                       queue->address);
    if (status == DS_IO)
        return ds_fail(err, status,
                       "the controller at %s is gone (%s); start a new queue with init",
                       queue->address, reason->message);
    return ds_fail(err, status, "%s", reason->message);
}

/* ---- Connecting ---- */

static enum ds_status
greet(const struct ds_queue *queue, struct channel *channel, const struct wait *wait,
      struct ds_error *err)
{
    uid_t user = 0;
    enum ds_status status = socket_peer_user(channel->fd, &user, err);
    if (status != DS_OK)
        return status;
    if (user != geteuid())
        return ds_fail(err, DS_INVALID,
                       "the socket %s belongs to user %u, not to us (%u)",
                       queue->address, (unsigned)user, (unsigned)geteuid());
    struct hello hello = {.layout_version = LAYOUT_VERSION,
                          .protocol_version = PROTOCOL_VERSION};
    AUTO_WRITER(writer);
    encode_hello(&writer, &hello, NULL, 0);
    if (writer.failed)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for HELLO");
    struct outgoing message = {.type = MESSAGE_HELLO,
                               .body = slice(writer.data, writer.len)};
    status = channel_call(channel, &message, wait, err);
    if (status == DS_OK && channel->reply.status != DS_OK)
        status = channel_fail_reply(channel, err);
    return status;
}

/* A full backlog is a controller that is busy: it is waited for. */
static enum ds_status
connect_patiently(const struct ds_queue *queue, const struct wait *wait,
                  struct channel **out, struct ds_error *err)
{
    for (;;) {
        enum ds_status status = channel_connect_unix(queue->path, out, err);
        if (status != DS_TIMEOUT)
            return status;
        status = wait_sleep(wait, RETRY_MS);
        if (status != DS_OK)
            return status;
    }
}

static enum ds_status
connect_queue(struct ds_queue *queue, const struct wait *wait, struct channel **out,
              struct ds_error *err)
{
    struct channel *channel = NULL;
    struct wait bounded = queue_wait(queue, queue->connect_timeout_ms);
    if (wait->deadline_ms < bounded.deadline_ms)
        bounded.deadline_ms = wait->deadline_ms;
    struct ds_error reason = {0};
    enum ds_status status = connect_patiently(queue, &bounded, &channel, &reason);
    if (status != DS_OK)
        return fail_channel(queue, status, &reason, err);
    status = greet(queue, channel, &bounded, &reason);
    if (status != DS_OK) {
        channel_destroy(channel);
        return fail_channel(queue, status, &reason, err);
    }
    library_lock();
    pool_add(&queue->pool, channel);
    library_unlock();
    *out = channel;
    return DS_OK;
}

/* Lock held. Late replies are read and thrown away. */
static void
tidy(struct ds_queue *queue)
{
    LIST_FOREACH (link, &queue->pool.channels) {
        struct channel *channel = CONTAINER_OF(link, struct channel, link);
        bool broken = false;
        if (channel->state != CHANNEL_DRAINING)
            continue;
        if (channel_drain(channel, &broken))
            pool_give_back(&queue->pool, channel);
        else if (broken)
            pool_drop(&queue->pool, channel);
    }
    pool_drop_broken(&queue->pool);
}

static enum ds_status
take_channel(struct ds_queue *queue, const struct wait *wait, struct channel **out,
             struct ds_error *err)
{
    library_lock();
    tidy(queue);
    *out = pool_take(&queue->pool);
    library_unlock();
    return *out != NULL ? DS_OK : connect_queue(queue, wait, out, err);
}

static void
leave_channel(struct ds_queue *queue, struct channel *channel, enum ds_status status)
{
    library_lock();
    bool half_sent = channel->touched && !channel->owed && channel->input_len == 0;
    struct channel *excess = NULL;
    if (status == DS_IO || half_sent)
        excess = channel;
    else if (channel->owed)
        excess = pool_leave_draining(&queue->pool, channel);
    else
        pool_give_back(&queue->pool, channel);
    if (excess != NULL)
        pool_drop(&queue->pool, excess);
    library_unlock();
}

/* ---- Calling ---- */

static enum ds_status
take_payload(struct channel *channel, const struct wait *wait, void **out,
             size_t *out_bytes, struct ds_error *err)
{
    uint64_t bytes = channel->reply.payload_bytes;
    void *data = malloc(bytes == 0 ? 1 : bytes);
    if (data == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a reply of %ju bytes",
                       (uintmax_t)bytes);
    enum ds_status status = channel_receive_payload(channel, data, bytes, wait, err);
    if (status != DS_OK) {
        free(data);
        return status;
    }
    *out = data;
    *out_bytes = (size_t)bytes;
    return DS_OK;
}

/* A request may have taken effect once any of it was sent, so it is repeated only if
 * nothing was: the connection had ended while it was idle. */
static enum ds_status
send_request(struct ds_queue *queue, const struct outgoing *message,
             const struct wait *wait, struct channel **out, struct ds_error *err)
{
    for (;;) {
        struct ds_error reason = {0};
        struct channel *channel = NULL;
        enum ds_status status = take_channel(queue, wait, &channel, err);
        if (status != DS_OK)
            return status;
        DS_ASSERT(channel != NULL);
        status = channel_send(channel, message, wait, &reason);
        if (status == DS_OK) {
            *out = channel;
            return DS_OK;
        }
        bool again = status == DS_IO && !channel->touched;
        leave_channel(queue, channel, status);
        if (!again)
            return fail_channel(queue, status, &reason, err);
    }
}

static enum ds_status
check_call(const struct ds_queue *queue, struct ds_slice request, void **out_reply,
           const size_t *out_reply_bytes, struct ds_error *err)
{
    if (queue == NULL || out_reply == NULL || out_reply_bytes == NULL)
        return ds_fail(err, DS_INVALID, "no queue, or no place for its reply");
    if (request.data == NULL || request.len == 0)
        return ds_fail(err, DS_INVALID, "the request is empty");
    if (request.len > REQUEST_BYTES_MAX)
        return ds_fail(err, DS_INVALID,
                       "the request has %zu bytes, over %d MiB; split the batch",
                       request.len, REQUEST_BYTES_MAX >> 20);
    return DS_OK;
}

enum ds_status
ds_queue_call(struct ds_queue *queue, struct ds_slice request, uint32_t timeout_ms,
              void **out_reply, size_t *out_reply_bytes, struct ds_error *err)
{
    enum ds_status status = check_call(queue, request, out_reply, out_reply_bytes, err);
    if (status != DS_OK)
        return status;
    struct wait wait = queue_wait(queue, timeout_ms);
    struct outgoing message = {.type = MESSAGE_QUEUE_CALL,
                               .sequence = library_next_sequence(),
                               .payload = request};
    struct channel *channel = NULL;
    status = send_request(queue, &message, &wait, &channel, err);
    if (status != DS_OK)
        return status;
    DS_ASSERT(channel != NULL);
    struct ds_error reason = {0};
    bool answered = false;
    status = channel_receive(channel, &wait, &reason);
    if (status == DS_OK && channel->reply.status != DS_OK) {
        answered = true;
        status = channel_fail_reply(channel, err);
    } else if (status == DS_OK) {
        status = take_payload(channel, &wait, out_reply, out_reply_bytes, &reason);
    }
    leave_channel(queue, channel, answered ? DS_OK : status);
    if (status == DS_OK || answered)
        return status;
    return fail_channel(queue, status, &reason, err);
}

/* ---- Opening and closing ---- */

static enum ds_status
check_options(const struct ds_queue_options *options, struct ds_error *err)
{
    if (options == NULL || options->struct_bytes != sizeof *options)
        return ds_fail(err, DS_INVALID,
                       "struct ds_queue_options has %zu bytes in this library (version "
                       "%s), not %zu; set struct_bytes, and build against its header",
                       sizeof *options, DS_VERSION,
                       options == NULL ? 0 : options->struct_bytes);
    if (options->address == NULL || strncmp(options->address, "unix:", 5) != 0 ||
        options->address[5] == '\0')
        return ds_fail(err, DS_INVALID,
                       "'%s' is not the address of a controller, which looks like "
                       "unix:/path/to/socket",
                       options->address == NULL ? "" : options->address);
    return DS_OK;
}

enum ds_status
ds_queue_open(const struct ds_queue_options *options, struct ds_queue **out,
              struct ds_error *err)
{
    if (out == NULL)
        return ds_fail(err, DS_INVALID, "no place for the queue");
    enum ds_status status = check_options(options, err);
    if (status != DS_OK)
        return status;
    library_init();
    AUTO(queue) struct ds_queue *queue = calloc(1, sizeof *queue);
    if (queue == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a queue");
    library_lock();
    pool_init(&queue->pool);
    library_unlock();
    queue->address = strdup(options->address);
    if (queue->address == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a queue");
    queue->path = queue->address + 5;
    queue->connect_timeout_ms = options->connect_timeout_ms == 0
                                    ? CONNECT_TIMEOUT_MS
                                    : options->connect_timeout_ms;
    queue->interrupted = options->interrupted;
    queue->interrupted_arg = options->interrupted_arg;
    struct wait wait = queue_wait(queue, queue->connect_timeout_ms);
    struct channel *channel = NULL;
    status = connect_queue(queue, &wait, &channel, err);
    if (status != DS_OK)
        return status;
    DS_ASSERT(channel != NULL);
    leave_channel(queue, channel, DS_OK);
    *out = TAKE(queue);
    return DS_OK;
}

void
ds_queue_close(struct ds_queue *queue)
{
    if (queue == NULL)
        return;
    library_lock();
    pool_fini(&queue->pool);
    library_unlock();
    janitor_end_if_unused();
    free(queue->address);
    free(queue);
}
