/* Opening and closing a client, and asking the worker about itself. */
#include "client/client.h"

#include "base/auto.h"
#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "client/buffer.h"
#include "client/janitor.h"
#include "meta/ring.h"
#include "os/clock.h"
#include "wire/leaving.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    CONNECT_TIMEOUT_MS = 9000,
    CONNECT_TIMEOUT_MS_MIN = 500,
    RETRY_MS = 20,
};

DEFINE_AUTO(client, struct ds_client, ds_client_close)

struct wait
client_wait(const struct ds_client *client, uint64_t ms)
{
    return (struct wait){.deadline_ms = clock_monotonic_ms() + ms,
                         .interrupted = client->interrupted,
                         .interrupted_arg = client->interrupted_arg};
}

uint64_t
client_room_until_ms(uint32_t room_wait_ms)
{
    return room_wait_ms == 0 ? 0 : clock_monotonic_ms() + room_wait_ms;
}

struct wait
client_room_wait(const struct ds_client *client, uint32_t room_wait_ms)
{
    return client_wait(client, (uint64_t)client->request_timeout_ms + room_wait_ms);
}

/* ---- Options ---- */

/* A host as given, without the brackets of an IPv6 address. */
static enum ds_status
set_host(struct ds_client *client, const char *host, struct ds_error *err)
{
    size_t len = strlen(host);
    bool bracketed = len > 2 && host[0] == '[' && host[len - 1] == ']';
    client->host = bracketed ? strndup(host + 1, len - 2) : strdup(host);
    if (client->host == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a client");
    const char *format =
        strchr(client->host, ':') != NULL ? "[%.255s]:%u" : "%.255s:%u";
    (void)snprintf(client->address, sizeof client->address, format, client->host,
                   (unsigned)client->port);
    return DS_OK;
}

static enum ds_status
port_from_environment(uint16_t *out, struct ds_error *err)
{
    const char *text = getenv("DATASYSTEM_PORT");
    if (text == NULL || text[0] == '\0')
        return DS_OK;
    char *end;
    unsigned long port = strtoul(text, &end, 10);
    if (*end != '\0' || text[0] == '-' || port == 0 || port > UINT16_MAX)
        return ds_fail(err, DS_INVALID,
                       "DATASYSTEM_PORT is '%s': not a port number from 1 to 65535",
                       text);
    *out = (uint16_t)port;
    return DS_OK;
}

static enum ds_status
set_address(struct ds_client *client, const struct ds_client_options *options,
            struct ds_error *err)
{
    const char *host = options->host;
    if (host == NULL || host[0] == '\0')
        host = getenv("DATASYSTEM_HOST");
    client->port = options->port;
    enum ds_status status = DS_OK;
    if (client->port == 0)
        status = port_from_environment(&client->port, err);
    if (status != DS_OK)
        return status;
    if (host == NULL || host[0] == '\0' || client->port == 0)
        return ds_fail(err, DS_INVALID,
                       "ConnectOptions was not configured with a host and port or "
                       "serviceDiscovery.");
    return set_host(client, host, err);
}

static bool
verify_from_environment(void)
{
    const char *text = getenv("DATASYSTEM_VERIFY");
    return text != NULL && text[0] != '\0' && strcmp(text, "0") != 0;
}

static enum ds_status
set_options(struct ds_client *client, const struct ds_client_options *options,
            struct ds_error *err)
{
    if (options == NULL || options->struct_bytes != sizeof *options)
        return ds_fail(
            err, DS_INVALID,
            "struct ds_client_options has %zu bytes in this library (version "
            "%s), not %zu; set struct_bytes, and build against its header",
            sizeof *options, DS_VERSION, options == NULL ? 0 : options->struct_bytes);
    uint32_t connect_ms = options->connect_timeout_ms;
    if (connect_ms == 0)
        connect_ms = CONNECT_TIMEOUT_MS;
    if (connect_ms < CONNECT_TIMEOUT_MS_MIN)
        return ds_fail(err, DS_INVALID,
                       "The connectTimeoutMs(%u) should be greater than or equal to %d "
                       "milliseconds.",
                       connect_ms, CONNECT_TIMEOUT_MS_MIN);
    client->connect_timeout_ms = connect_ms;
    client->request_timeout_ms =
        options->request_timeout_ms == 0 ? connect_ms : options->request_timeout_ms;
    client->room_wait_ms = options->room_wait_ms;
    client->queue =
        options->queue == NULL ? 0 : wire_queue_tag(slice_of_text(options->queue));
    client->verify = options->verify || verify_from_environment();
    client->interrupted = options->interrupted;
    client->interrupted_arg = options->interrupted_arg;
    enum ds_status status = set_address(client, options, err);
    return status == DS_OK
               ? credentials_open(options->auth_secret, &client->credentials, err)
               : status;
}

/* ---- Opening ---- */

/* Once from the beginning: which way, then the first connection. */
static enum ds_status
open_once(struct ds_client *client, bool may_share, const struct wait *wait,
          struct channel **out, struct ds_error *err)
{
    bool shared = false;
    enum ds_status status = DS_OK;
    if (may_share)
        status = client_discover(client, wait, &shared, err);
    if (status != DS_OK)
        return status;
    client->shares_memory = shared;
    if (!shared)
        return client_connect(client, wait, out, err);
    struct ds_error reason = {0};
    status = client_connect(client, wait, out, &reason);
    if (status == DS_IO) {
        /* Its socket is not in our file system, as in a container of its own. */
        log_debug("client no shared memory worker=%s reason=\"%s\"", client->address,
                  reason.message);
        client->shares_memory = false;
        return client_connect(client, wait, out, err);
    }
    return reason.status == DS_OK ? status : ds_fail(err, status, "%s", reason.message);
}

static enum ds_status
fail_open(const struct ds_client *client, enum ds_status status,
          const struct ds_error *last, struct ds_error *err)
{
    if (status == DS_INTERRUPTED)
        return ds_fail(err, status, "interrupted while connecting to the worker at %s",
                       client->address);
    if (status != DS_TIMEOUT)
        return ds_fail(err, status, "%s", last->message);
    return ds_fail(err, DS_TIMEOUT,
                   "the worker at %s did not let us in within %u ms%s%s",
                   client->address, client->connect_timeout_ms,
                   last->status == DS_OK ? "" : ": ", last->message);
}

/* Somebody who listens but does not serve yet is waited for; nobody is not. */
static enum ds_status
open_first_channel(struct ds_client *client, bool may_share, struct channel **out,
                   struct ds_error *err)
{
    struct wait wait = client_wait(client, client->connect_timeout_ms);
    struct ds_error last = {0};
    for (;;) {
        struct ds_error now = {0};
        enum ds_status status = open_once(client, may_share, &wait, out, &now);
        if (now.status != DS_OK)
            last = now;
        if (status == DS_NOT_READY)
            status = wait_sleep(&wait, RETRY_MS);
        else if (status == DS_OK)
            return DS_OK;
        if (status != DS_OK)
            return fail_open(client, status, &last, err);
    }
}

enum ds_status
ds_client_open(const struct ds_client_options *options, struct ds_client **out,
               struct ds_error *err)
{
    if (out == NULL)
        return ds_fail(err, DS_INVALID, "no place for the client");
    library_init();
    AUTO(client) struct ds_client *client = calloc(1, sizeof *client);
    if (client == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a client");
    library_lock();
    pool_init(&client->pool);
    library_unlock();
    enum ds_status status = set_options(client, options, err);
    struct channel *channel = NULL;
    if (status == DS_OK)
        status = open_first_channel(client, !options->no_shared_memory, &channel, err);
    if (status != DS_OK)
        return status;
    library_lock();
    pool_add(&client->pool, channel);
    pool_give_back(&client->pool, channel);
    library_unlock();
    *out = TAKE(client);
    return DS_OK;
}

/* ---- Closing ---- */

/* Nothing of the worker's memory is in use here. Over TCP nothing ever is. */
static bool
may_leave(const struct mapping *mapping)
{
    return mapping != NULL && !mapping->inherited &&
           (mapping->holders == 1 || mapping_is_remote(mapping));
}

static bool
leaves_unsealed(const struct mapping *mapping)
{
    return mapping != NULL && !mapping->inherited && !mapping->left &&
           (mapping->resume_needed || mapping->abort_count > 0);
}

void
ds_client_close(struct ds_client *client)
{
    if (client == NULL)
        return;
    janitor_settle(); /* What it still holds would keep the client's place. */
    library_lock();
    client_drop_channels(client);
    struct mapping *mapping = TAKE(client->mapping);
    if (mapping != NULL && !mapping->inherited)
        buffers_abandon(mapping);
    bool leaves = may_leave(mapping);
    if (leaves)
        mapping->left = true;
    bool unsealed = leaves_unsealed(mapping);
    library_unlock();
    if (leaves)
        client_leave(client, mapping);
    else if (unsealed)
        client_give_up_unsealed(mapping);
    library_lock();
    pool_fini(&client->pool);
    mapping_unref(mapping);
    library_unlock();
    janitor_end_if_unused();
    free(client->socket_path);
    auth_key_wipe(&client->credentials.key);
    free(client->host);
    free(client);
}

/* ---- Asking ---- */

bool
ds_client_uses_shared_memory(const struct ds_client *client)
{
    return client != NULL && client->shares_memory;
}

enum ds_status
ds_client_ping(struct ds_client *client, uint32_t timeout_ms, struct ds_error *err)
{
    enum ds_status status = check_client(client, err);
    if (status != DS_OK)
        return status;
    struct wait wait =
        client_wait(client, timeout_ms == 0 ? client->request_timeout_ms : timeout_ms);
    struct request request = {.type = MESSAGE_PING};
    return client_call(client, &request, &wait, err);
}

static enum ds_status
copy_text(void *arg, const struct reply *reply, struct ds_error *err)
{
    char **out = arg;
    char *text = malloc(reply->body.len + 1);
    if (text == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for the worker's answer");
    memcpy(text, reply->body.data, reply->body.len);
    text[reply->body.len] = '\0';
    *out = text;
    return DS_OK;
}

static enum ds_status
ask(struct ds_client *client, enum message_type type, struct writer *body,
    char **out_json, struct ds_error *err)
{
    enum ds_status status = check_client(client, err);
    if (status != DS_OK)
        return status;
    if (out_json == NULL)
        return ds_fail(err, DS_INVALID, "no place for the answer");
    struct wait wait = client_wait(client, client->request_timeout_ms);
    struct request request = {
        .type = type, .body = body, .on_reply = copy_text, .arg = out_json};
    return client_call(client, &request, &wait, err);
}

enum ds_status
ds_client_stats(struct ds_client *client, char **out_json, struct ds_error *err)
{
    return ask(client, MESSAGE_STATS, NULL, out_json, err);
}

enum ds_status
ds_client_holders(struct ds_client *client, char **out_json, struct ds_error *err)
{
    return ask(client, MESSAGE_HOLDERS, NULL, out_json, err);
}

enum ds_status
ds_client_members(struct ds_client *client, char **out_json, struct ds_error *err)
{
    return ask(client, MESSAGE_MEMBERS, NULL, out_json, err);
}

enum ds_status
ds_client_leave(struct ds_client *client, enum ds_leave_action action, char **out_json,
                struct ds_error *err)
{
    static_assert((int)DS_LEAVE_CANCEL == (int)LEAVE_CANCEL, "actions");
    AUTO_WRITER(body);
    if ((int)action < 0 || action > DS_LEAVE_CANCEL)
        return ds_fail(err, DS_INVALID, "no such action: %d", (int)action);
    encode_leave(&body, (enum leave_action)action);
    if (body.failed)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for a request");
    return ask(client, MESSAGE_LEAVE, &body, out_json, err);
}

uint32_t
ds_key_position(struct ds_slice key)
{
    return ring_position(key);
}
