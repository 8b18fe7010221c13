/* Calls to a transfer_queue_controller: MessagePack in, MessagePack out.
 *
 *      lane ──► number the request ──► [send, receive] ── answer ──► caller
 *                                        ▲      └── the connection broke: again, with
 *                                        └────────── the same number, until the deadline
 *
 * The controller remembers the last answer of each lane, so asking again is safe however
 * far the first try came. Nobody at the address, or another queue, ends a call at once: a
 * controller that crashed has a supervisor that keeps its socket, so then that one is gone
 * as well. Unless the worker knows of one that goes on with our queue somewhere else, or
 * says that there may be one soon (worker/takeover.h). */
#include "client/credentials.h"
#include "client/library.h"
#include "client/pool.h"

#include "base/auto.h"
#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "client/janitor.h"
#include "client/lanes.h"
#include "client/queue_place.h"
#include "os/clock.h"
#include "os/sockets.h"
#include "os/tcp_peer.h"
#include "store/layout.h"
#include "wire/message.h"

#include <datasystem/datasystem.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    REST_MS_MIN = 10, /* Between tries, from the second on; doubles up to */
    REST_MS_MAX = 200,
    CONNECT_TIMEOUT_MS = 5000,
    RECONNECT_MS = 2000, /* When it may be at another address by now. */
    TAKEOVER_MS = 30000, /* For so long somebody may go on with the queue. */
    SILENT_MS = 4000,    /* Then a host that does not even answer the kernel is gone. */
    RETRY_MS = 20,
    REQUEST_BYTES_MAX = 256 << 20,
};

/* Owner: the caller of ds_queue_open(). What is up to `address` is guarded by the
 * library's lock; the rest does not change. */
struct ds_queue {
    struct pool pool;
    struct lanes lanes;
    char name[QUEUE_PLACE_NAME_MAX + 1]; /* As its controller said. */
    bool is_named;    /* It has said it, perhaps "", or we knew it. */
    bool was_greeted; /* A controller has said where it is. */
    char address[QUEUE_PLACE_ADDRESS_MAX + 1];
    char tcp_address[QUEUE_PLACE_ADDRESS_MAX + 1]; /* Likewise. */

    char *worker_host; /* Owned; NULL: no worker is asked. */
    uint16_t worker_port;
    uint32_t connect_timeout_ms;
    struct credentials credentials;
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

/* One try of a call. */
struct trial {
    const struct wait *wait;
    char address[QUEUE_PLACE_ADDRESS_MAX + 1]; /* Where it was made. */
    bool again;     /* The connection broke, and with it whatever was under way. */
    bool is_absent; /* The queue is not there. */
    bool may_move;  /* We can look where else it is. */
    bool is_mute;   /* It is there, and cannot answer now. */
    struct ds_error broken; /* How the connection did, if `again`. */
};

/* The text for any way in which a channel may fail us. */
static enum ds_status
fail_trial(const struct trial *trial, enum ds_status status,
           const struct ds_error *reason, struct ds_error *err)
{
    if (status == DS_INTERRUPTED)
        return ds_fail(err, status,
                       "interrupted while waiting for the controller at %s",
                       trial->address);
    if (status == DS_TIMEOUT && trial->again)
        return ds_fail(err, status,
                       "the controller at %s did not answer in time; the last try: %s",
                       trial->address, trial->broken.message);
    if (status == DS_TIMEOUT)
        return ds_fail(err, status, "the controller at %s did not answer in time",
                       trial->address);
    if (status == DS_NOT_AUTHORIZED)
        return ds_fail(err, status, "the controller at %s refuses us: %s",
                       trial->address, reason->message);
    if (status == DS_IO)
        return ds_fail(err, status,
                       "the controller at %s is gone (%s); start a new queue with init",
                       trial->address, reason->message);
    return ds_fail(err, status, "%s", reason->message);
}

/* ---- Connecting ---- */

/* The first controller names the queue; one of another queue is not ours. */
static bool
is_ours(struct ds_queue *queue, const struct queue_place *place)
{
    library_lock();
    bool ours =
        !queue->is_named || slice_equal(slice_of_text(queue->name), place->name);
    if (!queue->is_named)
        memcpy(queue->name, place->name.data, place->name.len);
    queue->is_named = true;
    if (ours) {
        memcpy(queue->tcp_address, place->tcp_address.data, place->tcp_address.len);
        queue->tcp_address[place->tcp_address.len] = '\0';
        queue->was_greeted = true;
    }
    library_unlock();
    return ours;
}

static enum ds_status
check_user(const struct channel *channel, const struct queue_address *place,
           struct ds_error *err)
{
    if (place->path == NULL)
        return tcp_peer_check_listener(channel->fd, err);
    uid_t user = 0;
    enum ds_status status = socket_peer_user(channel->fd, &user, err);
    if (status != DS_OK || user == geteuid())
        return status;
    return ds_fail(err, DS_INVALID,
                   "the socket unix:%s belongs to user %u, not to us (%u)", place->path,
                   (unsigned)user, (unsigned)geteuid());
}

static enum ds_status
greet(struct ds_queue *queue, struct channel *channel, struct trial *trial,
      const struct wait *wait, struct ds_error *err)
{
    struct hello hello = {.layout_version = LAYOUT_VERSION,
                          .protocol_version = PROTOCOL_VERSION};
    AUTO_WRITER(writer);
    encode_hello(&writer, &hello, NULL, 0);
    if (writer.failed)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for HELLO");
    struct outgoing message = {.type = MESSAGE_HELLO,
                               .body = slice(writer.data, writer.len)};
    enum ds_status status = channel_call(channel, &message, wait, err);
    trial->again = status == DS_IO || status == DS_TIMEOUT;
    if (status != DS_OK)
        return status;
    if (channel->reply.status == DS_NOT_READY) { /* Another may have its place. */
        trial->is_absent = trial->is_mute = true;
        (void)channel_fail_reply(channel, err);
        err->status = DS_IO;
        return DS_IO;
    }
    if (channel->reply.status != DS_OK)
        return channel_fail_reply(channel, err);
    struct queue_place place;
    if (!decode_queue_place(channel_body(channel), &place))
        return ds_fail(err, DS_INVALID, "%s is no controller's: malformed HELLO",
                       trial->address);
    trial->is_absent = !is_ours(queue, &place);
    return trial->is_absent ? ds_fail(err, DS_IO, "another queue is there") : DS_OK;
}

static enum ds_status
prove_key(const struct ds_queue *queue, struct channel *channel, struct trial *trial,
          const struct wait *wait, struct ds_error *err)
{
    enum ds_status status = credentials_prove(&queue->credentials, channel, wait, err);
    trial->again = status == DS_IO || status == DS_TIMEOUT;
    return status;
}

/* A full backlog is a controller that is busy: it is waited for. */
static enum ds_status
connect_patiently(const struct queue_address *place, const struct wait *wait,
                  struct channel **out, struct ds_error *err)
{
    if (place->path == NULL) {
        enum ds_status status =
            channel_connect_tcp(place->host, place->port, wait, out, err);
        if (status == DS_OK)
            socket_expect_life((*out)->fd, SILENT_MS);
        return status;
    }
    for (;;) {
        enum ds_status status = channel_connect_unix(place->path, out, err);
        if (status != DS_TIMEOUT)
            return status;
        status = wait_sleep(wait, RETRY_MS);
        if (status != DS_OK)
            return status;
    }
}

static enum ds_status
connect_queue(struct ds_queue *queue, struct trial *trial, struct channel **out,
              struct ds_error *err)
{
    struct channel *channel = NULL;
    uint64_t connect_ms = queue->connect_timeout_ms;
    if (trial->may_move)
        connect_ms = min_u64(connect_ms, RECONNECT_MS);
    struct wait bounded = queue_wait(queue, connect_ms);
    if (trial->wait->deadline_ms < bounded.deadline_ms)
        bounded.deadline_ms = trial->wait->deadline_ms;
    struct ds_error reason = {0};
    struct queue_address place;
    bool is_place = queue_address_parse(trial->address, &place);
    DS_ASSERT(is_place);
    enum ds_status status = connect_patiently(&place, &bounded, &channel, &reason);
    trial->is_absent = status == DS_IO || (status == DS_TIMEOUT && place.path == NULL);
    if (status == DS_OK)
        status = check_user(channel, &place, &reason);
    if (status == DS_OK && place.path == NULL)
        status = prove_key(queue, channel, trial, &bounded, &reason);
    if (status == DS_OK)
        status = greet(queue, channel, trial, &bounded, &reason);
    if (status != DS_OK) {
        channel_destroy(channel);
        return fail_trial(trial, status, &reason, err);
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
take_channel(struct ds_queue *queue, struct trial *trial, struct channel **out,
             struct ds_error *err)
{
    library_lock();
    tidy(queue);
    memcpy(trial->address, queue->address, sizeof trial->address);
    trial->may_move =
        queue->is_named && queue->name[0] != '\0' && queue->worker_host != NULL;
    *out = pool_take(&queue->pool);
    library_unlock();
    return *out != NULL ? DS_OK : connect_queue(queue, trial, out, err);
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

/* Where an answer goes. */
struct answer {
    void *data;
    size_t bytes;
};

static enum ds_status
try_call(struct ds_queue *queue, const struct outgoing *message, struct trial *trial,
         struct answer *out, struct ds_error *err)
{
    struct channel *channel = NULL;
    enum ds_status status = take_channel(queue, trial, &channel, err);
    if (status != DS_OK)
        return status;
    DS_ASSERT(channel != NULL);
    struct ds_error reason = {0};
    bool refused = false;
    status = channel_call(channel, message, trial->wait, &reason);
    if (status == DS_OK && channel->reply.status != DS_OK) {
        refused = true;
        status = channel_fail_reply(channel, err);
    } else if (status == DS_OK) {
        status = take_payload(channel, trial->wait, &out->data, &out->bytes, &reason);
    }
    trial->again = !refused && status == DS_IO;
    trial->broken = reason;
    leave_channel(queue, channel, refused ? DS_OK : status);
    if (status == DS_OK || refused)
        return status;
    return fail_trial(trial, status, &reason, err);
}

/* Where else the queue is. */
enum whereabouts {
    NOWHERE,
    ELSEWHERE,
    NOBODY_KNOWS, /* But somebody may go on with it. */
};

/* The queue was not where `trial` was made. */
static enum whereabouts
find_again(struct ds_queue *queue, const struct trial *trial)
{
    char name[sizeof queue->name], address[sizeof queue->address];
    struct queue_address place;
    library_lock();
    /* What is reached on its node alone, nobody goes on with elsewhere. */
    bool is_for_all = queue->tcp_address[0] != '\0' || !queue->was_greeted;
    bool is_found =
        strcmp(queue->address, trial->address) != 0; /* By another thread. */
    memcpy(name, queue->name, sizeof name);
    library_unlock();
    if (is_found)
        return ELSEWHERE;
    uint32_t left_ms = wait_left_ms(trial->wait);
    if (!trial->may_move || left_ms == 0)
        return trial->is_mute ? NOBODY_KNOWS : NOWHERE;
    struct ds_client_options worker = {
        .struct_bytes = sizeof worker,
        .host = queue->worker_host,
        .port = queue->worker_port,
        .connect_timeout_ms = (uint32_t)min_u64(left_ms, queue->connect_timeout_ms),
        .interrupted = queue->interrupted,
        .interrupted_arg = queue->interrupted_arg};
    bool may_come = false;
    enum ds_status status = queue_place_find(&worker, name, address, &may_come, NULL);
    if (status != DS_OK || !queue_address_parse(address, &place) ||
        strcmp(address, trial->address) == 0)
        return (may_come && is_for_all) || trial->is_mute ? NOBODY_KNOWS : NOWHERE;
    library_lock();
    memcpy(queue->address, address, sizeof address);
    library_unlock();
    return ELSEWHERE;
}

/* Tries until there is an answer, nobody is there, or the time is up. */
static enum ds_status
call_again_and_again(struct ds_queue *queue, const struct outgoing *message,
                     const struct wait *wait, struct answer *out, struct ds_error *err)
{
    uint32_t rest_ms = 0;
    uint64_t hopeless_ms = 0;
    for (;;) {
        struct trial trial = {.wait = wait};
        enum ds_status status = try_call(queue, message, &trial, out, err);
        enum whereabouts where = NOWHERE;
        if (!trial.again && trial.is_absent)
            where = find_again(queue, &trial);
        if (!trial.again && where == NOWHERE)
            return status;
        uint64_t now_ms = clock_monotonic_ms();
        if (trial.again || where == ELSEWHERE)
            hopeless_ms = 0;
        else if (hopeless_ms == 0)
            hopeless_ms = now_ms + TAKEOVER_MS;
        else if (now_ms >= hopeless_ms)
            return status;
        status =
            rest_ms > 0 || wait_left_ms(wait) == 0 ? wait_sleep(wait, rest_ms) : DS_OK;
        if (status != DS_OK)
            return fail_trial(&trial, status, NULL, err);
        rest_ms =
            rest_ms == 0 ? REST_MS_MIN : (uint32_t)min_u64(2 * rest_ms, REST_MS_MAX);
    }
}

static enum ds_status
call_in_lane(struct ds_queue *queue, struct lane *lane, struct ds_slice request,
             const struct wait *wait, struct answer *out, struct ds_error *err)
{
    struct queue_call who = {lane->client, ++lane->last_number};
    AUTO_WRITER(body);
    encode_queue_call(&body, &who);
    if (body.failed)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a request");
    struct outgoing message = {.type = MESSAGE_QUEUE_CALL,
                               .sequence = library_next_sequence(),
                               .body = slice(body.data, body.len),
                               .payload = request};
    return call_again_and_again(queue, &message, wait, out, err);
}

enum ds_status
ds_queue_call(struct ds_queue *queue, struct ds_slice request, uint32_t timeout_ms,
              void **out_reply, size_t *out_reply_bytes, struct ds_error *err)
{
    enum ds_status status = check_call(queue, request, out_reply, out_reply_bytes, err);
    if (status != DS_OK)
        return status;
    struct wait wait = queue_wait(queue, timeout_ms);
    struct lane *lane = lanes_take(&queue->lanes);
    if (lane == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a request");
    struct answer answer = {0};
    struct ds_error reason = {0}; /* *err stays untouched when a later try succeeds. */
    status = call_in_lane(queue, lane, request, &wait, &answer, &reason);
    lanes_leave(&queue->lanes, lane);
    if (status != DS_OK)
        return ds_fail(err, status, "%s", reason.message);
    *out_reply = answer.data;
    *out_reply_bytes = answer.bytes;
    return DS_OK;
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
    struct queue_address place;
    if (options->address == NULL ||
        strlen(options->address) > QUEUE_PLACE_ADDRESS_MAX ||
        !queue_address_parse(options->address, &place))
        return ds_fail(err, DS_INVALID,
                       "'%s' is not the address of a controller, which looks like "
                       "unix:/path/to/socket or host:port",
                       options->address == NULL ? "" : options->address);
    return DS_OK;
}

/* Somebody is there, or was found somewhere else. */
static enum ds_status
connect_first(struct ds_queue *queue, struct ds_error *err)
{
    struct wait wait = queue_wait(queue, queue->connect_timeout_ms);
    struct ds_error reason = {0};
    for (;;) {
        struct trial trial = {.wait = &wait};
        struct channel *channel = NULL;
        enum ds_status status = take_channel(queue, &trial, &channel, &reason);
        if (status == DS_OK) {
            DS_ASSERT(channel != NULL);
            leave_channel(queue, channel, DS_OK);
            return DS_OK;
        }
        enum whereabouts where = NOWHERE;
        if (trial.is_absent)
            where = find_again(queue, &trial);
        bool goes_on = where == ELSEWHERE || (where == NOBODY_KNOWS &&
                                              wait_sleep(&wait, REST_MS_MAX) == DS_OK);
        if (!goes_on || wait_left_ms(&wait) == 0)
            return ds_fail(err, status, "%s", reason.message);
    }
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
    if (options->name != NULL && strlen(options->name) > QUEUE_PLACE_NAME_MAX)
        return ds_fail(err, DS_INVALID, "the name of the queue has more than %d bytes",
                       QUEUE_PLACE_NAME_MAX);
    library_init();
    AUTO(queue) struct ds_queue *queue = calloc(1, sizeof *queue);
    if (queue == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a queue");
    lanes_init(&queue->lanes);
    library_lock();
    pool_init(&queue->pool);
    library_unlock();
    status = credentials_open(options->auth_secret, &queue->credentials, err);
    if (status != DS_OK)
        return status;
    memcpy(queue->address, options->address, strlen(options->address));
    if (options->worker_host != NULL) {
        queue->worker_host = strdup(options->worker_host);
        if (queue->worker_host == NULL)
            return ds_fail(err, DS_NO_MEMORY, "out of memory for a queue");
    }
    queue->worker_port = options->worker_port;
    queue->connect_timeout_ms = options->connect_timeout_ms == 0
                                    ? CONNECT_TIMEOUT_MS
                                    : options->connect_timeout_ms;
    queue->interrupted = options->interrupted;
    queue->interrupted_arg = options->interrupted_arg;
    if (options->name != NULL) {
        memcpy(queue->name, options->name, strlen(options->name));
        queue->is_named = true;
    }
    status = connect_first(queue, err);
    if (status != DS_OK)
        return status;
    *out = TAKE(queue);
    return DS_OK;
}

void
ds_queue_place(struct ds_queue *queue, struct ds_queue_place *out)
{
    static_assert(sizeof queue->name == sizeof out->name, "room for the name");
    library_lock();
    memcpy(out->name, queue->name, sizeof queue->name);
    memcpy(out->tcp_address, queue->tcp_address, sizeof queue->tcp_address);
    library_unlock();
}

void
ds_queue_close(struct ds_queue *queue)
{
    if (queue == NULL)
        return;
    library_lock();
    pool_fini(&queue->pool);
    lanes_fini(&queue->lanes);
    library_unlock();
    janitor_end_if_unused();
    auth_key_wipe(&queue->credentials.key);
    free(queue->worker_host);
    free(queue);
}
