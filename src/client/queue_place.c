#include "client/queue_place.h"

#include "base/auto.h"
#include "base/slice.h"
#include "base/status.h"
#include "client/client.h"
#include "os/files.h"
#include "os/sockets.h"

#include <string.h>

DEFINE_AUTO(client, struct ds_client, ds_client_close)

bool
queue_address_parse(const char *address, struct queue_address *out)
{
    *out = (struct queue_address){0};
    if (strncmp(address, "unix:", 5) != 0)
        return socket_parse_address(address, out->host, sizeof out->host, &out->port,
                                    NULL) == DS_OK;
    out->path = address + 5;
    return out->path[0] != '\0';
}

static void
copy_text(char *out, struct ds_slice text)
{
    memcpy(out, text.data, text.len);
    out[text.len] = '\0';
}

/* The worker may be on another machine, or see other files than we do. */
static bool
is_here(const char *address)
{
    return strncmp(address, "unix:", 5) == 0 && files_exists(address + 5);
}

struct found_place {
    char *address;
    bool has_tcp;
};

static enum ds_status
take_address(void *arg, const struct reply *reply, struct ds_error *err)
{
    struct found_place *found = arg;
    char *out = found->address;
    struct queue_place place;
    if (!decode_queue_place(reply->body, &place) ||
        (place.address.len == 0 && place.tcp_address.len == 0))
        return ds_fail(err, DS_CORRUPT, "the worker's answer is malformed");
    copy_text(out, place.address);
    found->has_tcp = place.tcp_address.len > 0;
    if (found->has_tcp && !is_here(out))
        copy_text(out, place.tcp_address);
    return DS_OK;
}

enum ds_status
queue_place_find(const struct ds_client_options *options, const char *name,
                 char out_address[QUEUE_PLACE_ADDRESS_MAX + 1], bool *out_may_move,
                 struct ds_error *err)
{
    struct ds_client_options plain = *options;
    *out_may_move = false;
    plain.no_shared_memory = true; /* Not worth a place among its clients. */
    AUTO(client) struct ds_client *client = NULL;
    enum ds_status status = ds_client_open(&plain, &client, err);
    if (status != DS_OK)
        return status;
    AUTO_WRITER(body);
    encode_queue_place(&body, &(struct queue_place){.name = slice_of_text(name)});
    struct wait wait = client_wait(client, client->request_timeout_ms);
    struct found_place found = {.address = out_address};
    struct request request = {.type = MESSAGE_QUEUE_FIND,
                              .body = &body,
                              .on_reply = take_address,
                              .arg = &found};
    status = client_call(client, &request, &wait, err);
    *out_may_move = found.has_tcp || status == DS_NOT_READY;
    return status;
}
