/* Finding the worker and introducing ourselves.
 *
 *      TCP: DISCOVER ──► same machine and user?
 *               ├── yes ──► Unix socket: HELLO ──► memory
 *               └── no ───► TCP: HELLO; bytes travel by PUT, FILL and FETCH
 *
 * A client that comes back says HELLO with its number and token. A worker that was
 * restarted then wants to know first what the client still holds: HELLO with `resume`.
 */
#include "client/client.h"

#include "base/auto.h"
#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "os/boot_id.h"
#include "os/clock.h"
#include "os/sockets.h"
#include "os/tcp_peer.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    GREETINGS_MAX = 4,   /* Tries of one connection to agree on who we are. */
    LEAVE_WAIT_MS = 250, /* A worker that hangs does not hold up a close for longer. */
};

static enum ds_status
fail_refused(const struct ds_client *client, const char *why, struct ds_error *err)
{
    return ds_fail(err, DS_NOT_AUTHORIZED, "the worker at %s refuses us: %s",
                   client->address, why);
}

/* The worker's answer is a refusal. */
static enum ds_status
fail_answer(const struct ds_client *client, const struct channel *channel,
            struct ds_error *err)
{
    struct ds_error reason = {0};
    enum ds_status status = channel_fail_reply(channel, &reason);
    return status == DS_NOT_AUTHORIZED ? fail_refused(client, reason.message, err)
                                       : ds_fail(err, status, "%s", reason.message);
}

/* Somebody was there; what happened after that is worth another try. */
static enum ds_status
fail_later(enum ds_status status, const struct ds_error *reason, struct ds_error *err)
{
    if (status == DS_IO)
        return ds_fail(err, DS_NOT_READY, "%s", reason->message);
    if (reason->status != DS_OK)
        return ds_fail(err, status, "%s", reason->message);
    return status;
}

static enum ds_status
greet(struct channel *channel, const struct outgoing *message, const struct wait *wait,
      struct ds_error *err)
{
    struct ds_error reason = {0};
    enum ds_status status = channel_call(channel, message, wait, &reason);
    return status == DS_OK ? DS_OK : fail_later(status, &reason, err);
}

/* ---- DISCOVER ---- */

static bool
is_on_this_machine(const struct discovered *worker)
{
    char ours[BOOT_ID_BYTES];
    return boot_id_get(ours) && slice_equal(slice_of_text(ours), worker->boot_id);
}

static enum ds_status
check_versions(const struct ds_client *client, const struct discovered *worker,
               struct ds_error *err)
{
    if (worker->layout_version == LAYOUT_VERSION &&
        worker->protocol_version == PROTOCOL_VERSION)
        return DS_OK;
    return ds_fail(
        err, DS_MISMATCH,
        "the worker at %s (version %.*s) speaks layout %u, protocol %u; this "
        "library (version %s) speaks layout %u, protocol %u. Install the same "
        "version on both sides",
        client->address, (int)worker->version.len, (const char *)worker->version.data,
        worker->layout_version, worker->protocol_version, DS_VERSION, LAYOUT_VERSION,
        PROTOCOL_VERSION);
}

/* Replaces client->socket_path. */
static enum ds_status
remember_socket(struct ds_client *client, struct ds_slice path, struct ds_error *err)
{
    char *copy = strndup(path.data, path.len);
    if (copy == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a socket's path");
    library_lock();
    free(client->socket_path);
    client->socket_path = copy;
    library_unlock();
    return DS_OK;
}

static enum ds_status
read_discovered(struct ds_client *client, const struct channel *channel,
                bool *out_shared, struct ds_error *err)
{
    DS_ASSERT(channel != NULL);
    struct discovered worker;
    if (channel->reply.status != DS_OK)
        return fail_answer(client, channel, err);
    if (!decode_discovered(channel_body(channel), &worker))
        return ds_fail(err, DS_IO, "what answers at %s is not a datasystem_worker",
                       client->address);
    enum ds_status status = check_versions(client, &worker, err);
    if (status != DS_OK)
        return status;
    bool shared = worker.uid == geteuid() && worker.socket_path.len > 0 &&
                  is_on_this_machine(&worker);
    if (shared)
        status = remember_socket(client, worker.socket_path, err);
    if (status == DS_OK)
        *out_shared = shared;
    return status;
}

static enum ds_status
prove_key(const struct ds_client *client, struct channel *channel,
          const struct wait *wait, struct ds_error *err)
{
    struct ds_error reason = {0};
    enum ds_status status =
        credentials_prove(&client->credentials, channel, wait, &reason);
    if (status == DS_NOT_AUTHORIZED)
        return fail_refused(client, reason.message, err);
    return status == DS_OK ? DS_OK : fail_later(status, &reason, err);
}

static enum ds_status
connect_tcp(const struct ds_client *client, const struct wait *wait,
            struct channel **out, struct ds_error *err)
{
    struct ds_error reason = {0};
    enum ds_status status =
        channel_connect_tcp(client->host, client->port, wait, out, &reason);
    if (status == DS_IO)
        return ds_fail(err, DS_IO, "nobody answers at %s: %s", client->address,
                       reason.message);
    if (reason.status != DS_OK)
        return ds_fail(err, status, "%s", reason.message);
    if (status != DS_OK)
        return status;
    if (tcp_peer_check_listener((*out)->fd, &reason) != DS_OK)
        status = ds_fail(err, DS_INVALID,
                         "the worker at %s belongs to another user: %s; start one of "
                         "your own at another port",
                         client->address, reason.message);
    else
        status = prove_key(client, *out, wait, err);
    if (status != DS_OK)
        channel_destroy(TAKE(*out));
    return status;
}

enum ds_status
client_discover(struct ds_client *client, const struct wait *wait, bool *out_shared,
                struct ds_error *err)
{
    struct channel *channel = NULL;
    enum ds_status status = connect_tcp(client, wait, &channel, err);
    if (status != DS_OK)
        return status;
    struct outgoing message = {.type = MESSAGE_DISCOVER};
    status = greet(channel, &message, wait, err);
    if (status == DS_OK)
        status = read_discovered(client, channel, out_shared, err);
    channel_destroy(channel);
    return status;
}

/* ---- HELLO over TCP, by no member ---- */

static enum ds_status
say_hello(struct channel *channel, const struct hello *hello,
          const struct wire_ref *holding, size_t holding_count, const struct wait *wait,
          struct ds_error *err)
{
    AUTO_WRITER(writer);
    encode_hello(&writer, hello, holding, holding_count);
    if (writer.failed)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for HELLO");
    struct outgoing message = {.type = MESSAGE_HELLO,
                               .body = slice(writer.data, writer.len)};
    return greet(channel, &message, wait, err);
}

static enum ds_status
hello_tcp(const struct ds_client *client, struct channel *channel,
          const struct wait *wait, struct ds_error *err)
{
    DS_ASSERT(channel != NULL);
    struct hello hello = {.layout_version = LAYOUT_VERSION,
                          .protocol_version = PROTOCOL_VERSION};
    enum ds_status status = say_hello(channel, &hello, NULL, 0, wait, err);
    if (status == DS_OK && channel->reply.status != DS_OK)
        status = fail_answer(client, channel, err);
    return status;
}

/* ---- HELLO of a member: over the Unix socket, or over TCP to reserve objects ---- */

/* Who we say we are: what the client knows now. */
struct introduction {
    uint32_t flags;
    uint16_t queue;
    struct mapping *mapping; /* Counted; NULL: nobody that the worker knows. */
    bool resume;             /* We say what we hold. */
};

static void
introduce(struct ds_client *client, struct introduction *out)
{
    library_lock();
    struct mapping *mapping = client->mapping;
    if (mapping != NULL && mapping->inherited) {
        client->mapping = NULL;
        mapping_unref(mapping);
        mapping = NULL;
    }
    *out = (struct introduction){.flags = client->shares_memory ? HELLO_SHARED_MEMORY
                                                                : HELLO_MEMBER,
                                 .queue = client->queue};
    if (mapping != NULL) {
        out->mapping = mapping_ref(mapping);
        out->resume = mapping->resume_needed;
    }
    library_unlock();
}

/* From here on we are nobody. */
static void
introduction_fini(struct introduction *introduction)
{
    library_lock();
    mapping_unref(TAKE(introduction->mapping));
    library_unlock();
    introduction->resume = false;
}

/* What we hold, for a `resume`; connections of the client that are busy are of an
 * earlier epoch from here on. */
static enum ds_status
snapshot(struct mapping *mapping, struct wire_ref **out, size_t *out_count,
         uint64_t *out_epoch, struct ds_error *err)
{
    library_lock();
    bool done = mapping_begin_epoch(mapping, out, out_count, out_epoch);
    library_unlock();
    return done ? DS_OK : ds_fail(err, DS_NO_MEMORY, "out of memory for HELLO");
}

static enum ds_status
hello_once(struct channel *channel, const struct introduction *who,
           const struct wait *wait, struct ds_error *err)
{
    struct wire_ref *holding = NULL;
    size_t holding_count = 0;
    uint64_t epoch = 0;
    enum ds_status status = DS_OK;
    DS_ASSERT(!who->resume || who->mapping != NULL);
    if (who->resume)
        status = snapshot(who->mapping, &holding, &holding_count, &epoch, err);
    if (status != DS_OK)
        return status;
    struct hello hello = {
        .layout_version = LAYOUT_VERSION,
        .protocol_version = PROTOCOL_VERSION,
        .flags = who->flags | (who->resume ? HELLO_RESUME : 0u),
        .queue = who->queue,
        .epoch = epoch,
    };
    if (who->mapping != NULL) {
        hello.client = who->mapping->client;
        hello.token = who->mapping->token;
        hello.incarnation = who->mapping->incarnation;
    }
    status = say_hello(channel, &hello, holding, holding_count, wait, err);
    free(holding);
    bool told = status == DS_OK && channel->reply.status == DS_OK;
    if (who->resume && !told) {
        library_lock();
        who->mapping->resume_needed = true;
        library_unlock();
    }
    return status;
}

static enum ds_status
open_mapping(const struct ds_client *client, struct channel *channel,
             const struct welcome *welcome, struct mapping **out, struct ds_error *err)
{
    int fds[CHANNEL_FDS_MAX];
    if (!client->shares_memory)
        return mapping_open_remote(welcome, client->address, out, err);
    static_assert((int)CHANNEL_FDS_MAX == (int)WELCOME_FDS_MAX, "room for a welcome");
    if (!channel_take_fds(channel, WELCOME_FDS_MIN, fds))
        return ds_fail(err, DS_IO, "the worker at %s sent no memory files",
                       client->address);
    return mapping_open(welcome, client->socket_path, fds, out, err);
}

/* The worker has a memory that we do not know yet (or we have a new number in it). */
static enum ds_status
take_over_memory(struct ds_client *client, struct channel *channel,
                 const struct welcome *welcome, struct ds_error *err)
{
    struct mapping *mapping;
    enum ds_status status = open_mapping(client, channel, welcome, &mapping, err);
    if (status != DS_OK)
        return status;
    library_lock();
    mapping_unref(client->mapping);
    client->mapping = mapping;
    channel->mapping = mapping_ref(mapping);
    channel->epoch = mapping->epoch;
    library_unlock();
    return DS_OK;
}

static bool
is_known(const struct mapping *mapping, const struct welcome *welcome)
{
    return mapping != NULL && mapping->incarnation == welcome->incarnation &&
           mapping->client == welcome->client && mapping->token == welcome->token;
}

static enum ds_status
be_welcomed(struct ds_client *client, struct channel *channel,
            const struct introduction *who, struct ds_error *err)
{
    struct welcome welcome;
    if (!decode_welcome(channel_body(channel), &welcome) || welcome.client == 0)
        return ds_fail(err, DS_IO, "the worker at %s sent a malformed greeting",
                       client->address);
    if (!is_known(who->mapping, &welcome))
        return take_over_memory(client, channel, &welcome, err);
    DS_ASSERT(who->mapping != NULL);
    channel_close_fds(channel);
    library_lock();
    channel->mapping = mapping_ref(who->mapping);
    channel->epoch = who->mapping->epoch;
    library_unlock();
    return DS_OK;
}

/* The worker answers NOT_READY to a client that it remembers from before its restart,
 * until that client has said what it holds, and NOT_FOUND to one that it does not know.
 */
static enum ds_status
hello_known(struct ds_client *client, struct channel *channel, struct introduction *who,
            const struct wait *wait, struct ds_error *err)
{
    for (int i = 0; i < GREETINGS_MAX; i++) {
        enum ds_status status = hello_once(channel, who, wait, err);
        if (status != DS_OK)
            return status;
        if (channel->reply.status == DS_OK)
            return be_welcomed(client, channel, who, err);
        if (who->mapping == NULL)
            break;
        if (channel->reply.status == DS_NOT_READY && !who->resume)
            who->resume = true;
        else if (channel->reply.status == DS_NOT_FOUND)
            introduction_fini(who);
        else
            break;
    }
    return fail_answer(client, channel, err);
}

static enum ds_status
hello_member(struct ds_client *client, struct channel *channel, const struct wait *wait,
             struct ds_error *err)
{
    DS_ASSERT(channel != NULL);
    struct introduction who;
    introduce(client, &who);
    enum ds_status status = hello_known(client, channel, &who, wait, err);
    introduction_fini(&who);
    return status;
}

static enum ds_status
check_owner(const struct ds_client *client, const struct channel *channel,
            struct ds_error *err)
{
    uid_t user = 0;
    enum ds_status status = socket_peer_user(channel->fd, &user, err);
    if (status != DS_OK || user == geteuid())
        return status;
    return ds_fail(err, DS_INVALID,
                   "the socket of the worker at %s belongs to user %u, not to us (%u)",
                   client->address, (unsigned)user, (unsigned)geteuid());
}

static void
forget_socket(struct ds_client *client)
{
    library_lock();
    free(client->socket_path);
    client->socket_path = NULL;
    library_unlock();
}

static enum ds_status
connect_shared(struct ds_client *client, const struct wait *wait, struct channel **out,
               struct ds_error *err)
{
    bool shared = true;
    enum ds_status status = DS_OK;
    if (client->socket_path == NULL)
        status = client_discover(client, wait, &shared, err);
    if (status == DS_OK && !shared)
        status = ds_fail(err, DS_IO, "another worker than before answers at %s",
                         client->address);
    if (status != DS_OK)
        return status;
    struct channel *channel = NULL;
    struct ds_error reason = {0};
    status = channel_connect_unix(client->socket_path, &channel, &reason);
    if (status != DS_OK) {
        forget_socket(client);
        return ds_fail(err, status == DS_TIMEOUT ? DS_NOT_READY : status, "%s",
                       reason.message);
    }
    status = check_owner(client, channel, err);
    if (status == DS_OK)
        status = hello_member(client, channel, wait, err);
    if (status == DS_OK)
        *out = channel;
    else
        channel_destroy(channel);
    return status;
}

static bool
wants_number(const struct ds_client *client)
{
    library_lock();
    bool wants = client->is_member;
    library_unlock();
    return wants;
}

enum ds_status
client_connect(struct ds_client *client, const struct wait *wait, struct channel **out,
               struct ds_error *err)
{
    if (client->shares_memory)
        return connect_shared(client, wait, out, err);
    struct channel *channel = NULL;
    enum ds_status status = connect_tcp(client, wait, &channel, err);
    if (status != DS_OK)
        return status;
    status = wants_number(client) ? hello_member(client, channel, wait, err)
                                  : hello_tcp(client, channel, wait, err);
    if (status == DS_OK)
        *out = channel;
    else
        channel_destroy(channel);
    return status;
}

/* ---- Leaving ---- */

/* One more HELLO in the mapping's name, which holds nothing. */
static bool
say_last_word(struct channel *channel, const struct mapping *mapping, uint32_t flags,
              uint64_t epoch)
{
    struct hello hello = {
        .layout_version = LAYOUT_VERSION,
        .protocol_version = PROTOCOL_VERSION,
        .flags =
            flags | (mapping_is_remote(mapping) ? HELLO_MEMBER : HELLO_SHARED_MEMORY),
        .client = mapping->client,
        .token = mapping->token,
        .incarnation = mapping->incarnation,
        .epoch = epoch,
    };
    AUTO_WRITER(writer);
    encode_hello(&writer, &hello, NULL, 0);
    struct outgoing message = {.type = MESSAGE_HELLO,
                               .body = slice(writer.data, writer.len)};
    struct wait now = {0};
    return !writer.failed && channel_send(channel, &message, &now, NULL) == DS_OK;
}

/* Its answer is of no interest. */
void
client_give_up_unsealed(struct mapping *mapping)
{
    struct channel *channel = NULL;
    if (channel_connect_unix(mapping->place, &channel, NULL) != DS_OK)
        return;
    library_lock();
    uint64_t epoch = ++mapping->epoch;
    library_unlock();
    if (say_last_word(channel, mapping, HELLO_RESUME, epoch)) {
        library_lock();
        mapping->abort_count = 0;
        library_unlock();
    }
    channel_destroy(channel);
}

/* The worker reads what was sent, also when it comes back from a restart later than we
 * wait. */
void
client_leave(const struct ds_client *client, const struct mapping *mapping)
{
    struct channel *channel = NULL;
    struct wait wait = {.deadline_ms = clock_monotonic_ms() + LEAVE_WAIT_MS};
    enum ds_status status = mapping_is_remote(mapping)
                                ? connect_tcp(client, &wait, &channel, NULL)
                                : channel_connect_unix(mapping->place, &channel, NULL);
    if (status == DS_OK && say_last_word(channel, mapping, HELLO_LEAVE, 0))
        status = channel_receive(channel, &wait, NULL);
    if (status != DS_OK)
        log_debug("client leave unanswered worker=%s client=%u", client->address,
                  mapping->client);
    channel_destroy(channel);
}

void
client_leave_unheard(const struct mapping *mapping)
{
    struct channel *channel = NULL;
    if (channel_connect_unix(mapping->place, &channel, NULL) == DS_OK)
        (void)say_last_word(channel, mapping, HELLO_LEAVE, 0);
    channel_destroy(channel);
}
