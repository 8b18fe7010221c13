/* What is behind the public ds_client, and how the parts of the library make a call. */
#ifndef CLIENT_CLIENT_H
#define CLIENT_CLIENT_H

#include "client/credentials.h"
#include "client/mapping.h"
#include "client/pool.h"
#include "client/wait.h"
#include "wire/message.h"

#include <datasystem/datasystem.h>

/* Owner: the caller of ds_client_open(). `pool`, `mapping` and `is_member` are
 * guarded by the library's lock; the rest does not change after the open. */
struct ds_client {
    char *host;
    uint16_t port;
    char address[280]; /* "host:port", for messages. */
    bool shares_memory;
    bool verify; /* Compare checksums of what is in shared memory on every get. */
    uint32_t connect_timeout_ms;
    uint32_t request_timeout_ms;
    uint32_t room_wait_ms;
    uint16_t queue; /* Tag of the queue that its blocks are for; 0: none. */
    struct credentials credentials;
    int (*interrupted)(void *arg);
    void *interrupted_arg;

    struct pool pool;
    struct mapping *mapping; /* The current one; NULL before the first. */
    bool is_member;          /* Over TCP: has reserved something, so has a mapping. */
    char *socket_path;       /* Of the worker, as it told us; NULL: ask. Only the thread
                                that connects reads or changes it. */
};

struct wait client_wait(const struct ds_client *client, uint64_t ms);

/* ---- Connecting (connect.c) ---- */

/* One more connection, greeted: finds the worker, tells it who we are, and takes over
 * its memory if that is new to us. To be called by one thread at a time
 * (pool.connecting). DS_IO          nobody is there DS_NOT_READY   somebody is, and
 * went away again: try again DS_MISMATCH, DS_FULL, ... its answer, or ours DS_TIMEOUT,
 * DS_INTERRUPTED without a text */
DS_MUST_USE enum ds_status
client_connect(struct ds_client *client, const struct wait *wait, struct channel **out,
               struct ds_error *err);

/* Ask at host:port whether we share memory with that worker (then client->socket_path
 * is set) or talk through TCP. Results as above. */
DS_MUST_USE enum ds_status
client_discover(struct ds_client *client, const struct wait *wait, bool *out_shared,
                struct ds_error *err);

/* Tell the worker, without waiting for an answer, that what is unsealed will never be
 * sealed. Not over TCP. */
void client_give_up_unsealed(struct mapping *mapping);

/* Give our place at the worker back: we use nothing of its memory any more. Waits up to
 * 250 ms for it to have done so. */
void client_leave(const struct ds_client *client, const struct mapping *mapping);

/* The same of a mapping of shared memory whose client is gone; waits for nothing. */
void client_leave_unheard(const struct mapping *mapping);

/* ---- Calling (call.c) ---- */

/* Before the client is freed: take in late replies, then drop every channel. Lock held.
 */
void client_drop_channels(struct ds_client *client);

/* A reply whose channel is still ours. Borrowed. */
struct reply {
    struct channel *channel;
    struct ds_slice body;
    struct mapping *mapping; /* What it speaks of; NULL: over TCP, by no member. */
    const struct wait *wait;
};

/* Makes sense of a reply with status DS_OK. DS_IO means that the connection broke, or
 * that the reply is void: the request is repeated. Outputs are written only on DS_OK.
 */
typedef enum ds_status (*reply_fn)(void *arg, const struct reply *reply,
                                   struct ds_error *err);

struct request {
    enum message_type type;
    struct writer *body;     /* Borrowed; NULL: empty. */
    struct ds_slice payload; /* Borrowed. */
    struct mapping *mapping; /* Its refs are of this memory, which must still be the
                                worker's; NULL: of none. */
    uint64_t
        wait_until_ms; /* Its body has a wait_ms: what is left until then; 0: none. */
    reply_fn on_reply; /* NULL: the body does not matter. */
    void *arg;
};

/* One request and its reply, over as many connections as it takes. */
DS_MUST_USE enum ds_status
client_call(struct ds_client *client, const struct request *request,
            const struct wait *wait, struct ds_error *err);

/* Of a request that reserves room: until when it stands in line at the worker (0: not at
 * all), and how long the call may take then. */
uint64_t client_room_until_ms(uint32_t room_wait_ms);
struct wait client_room_wait(const struct ds_client *client, uint32_t room_wait_ms);

/* ---- Rules of arguments (key.c) ---- */

DS_MUST_USE enum ds_status
check_client(const struct ds_client *client, struct ds_error *err);
/* Every key a legal one, for calls that make objects. */
DS_MUST_USE enum ds_status
check_new_keys(const struct ds_slice *keys, size_t count, struct ds_error *err);
/* Keys to look for: an illegal one of legal length just is not there. */
DS_MUST_USE enum ds_status check_known_keys(const struct ds_slice *keys, size_t count,
                                            size_t count_max, struct ds_error *err);
DS_MUST_USE enum ds_status
check_set_options(const struct ds_set_options *options, struct ds_error *err);

/* ---- Objects, for block.c as well ---- */

/* In object.c: the reply of CREATE and BLOCK_CREATE becomes buffers. */
struct creation {
    const uint64_t *sizes;
    size_t count;
    struct ds_set_options options;
    bool is_block;
    const struct ds_block_sizes *blocks; /* Whose parts they are; NULL: one block's. */
    struct ds_buffer **out;
};
DS_MUST_USE enum ds_status
creation_on_reply(void *creation, const struct reply *reply, struct ds_error *err);
/* Asks the worker, whatever it has lent us. The arguments were checked. */
DS_MUST_USE enum ds_status
create_by_request(struct ds_client *client, const struct ds_slice *keys,
                  const uint64_t *sizes, size_t count,
                  const struct ds_set_options *options, struct ds_buffer **out,
                  struct ds_error *err);
/* Worth asking the worker to lend such room. */
bool is_lendable(const struct ds_client *client, uint64_t size);
/* A block's only part over what is lent to us; if nothing is, *out is left alone. */
DS_MUST_USE enum ds_status
create_lent_block(struct ds_client *client, uint64_t size, struct ds_buffer **out,
                  struct ds_error *err);
/* In block.c: one block, by asking the worker, as above. */
DS_MUST_USE enum ds_status
block_create_by_request(struct ds_client *client, const uint64_t *sizes, size_t count,
                        struct ds_buffer **out, struct ds_error *err);
/* In seal.c. */
DS_MUST_USE enum ds_status
seal_all(struct ds_client *client, struct ds_buffer *const *buffers, size_t count,
         struct ds_error *err);
DS_MUST_USE enum ds_status
check_sealable(struct ds_buffer *const *buffers, size_t count, bool is_block,
               struct ds_error *err);

/* In lookup.c: opens what is there, pinned or fetched; the rest of `out` is NULL.
 * DS_NOT_FOUND if nothing is. `flags` as in struct lookup. */
DS_MUST_USE enum ds_status
lookup_keys(struct ds_client *client, const struct ds_slice *keys, size_t count,
            uint32_t flags, uint32_t wait_ms, struct ds_buffer **out,
            struct ds_error *err);

/* Wire names of requests, for messages: "SEAL". */
const char *request_name(enum message_type type);

#endif
