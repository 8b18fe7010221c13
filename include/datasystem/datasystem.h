/* datasystem: a shared-memory object store, one worker per node.
 *
 * A program opens a client, which talks to the worker of its node. Objects are immutable
 * runs of bytes; they live in one arena of shared memory that worker and clients map, so
 * writing an object is one copy into place and reading it is none.
 *
 * Conventions of every function here
 *   Blocking    Any call may talk to the worker and then blocks at most `timeout_ms` (or
 *               the client's request timeout where a call has no parameter of its own).
 *               A lost connection is re-established within that time and the request
 *               repeated. What is created, sealed or published takes effect once; a
 *               ds_put() of a small value or over TCP, a ds_delete() and a ds_expire()
 *               whose answer was lost may take effect again, over what others did with
 *               the same keys in between.
 *   Errors      The result is an enum ds_status; `err`, which may be NULL, says why.
 *               Outputs are written only on DS_OK.
 *   Ownership   struct ds_slice borrows until the call returns. Buffers belong to the
 *               caller until ds_buffer_release().
 *   Threads     A client may be used from any number of threads at once, a buffer by one
 *               thread at a time.
 *   fork        A child must not use buffers for writing that it inherited; what it
 *               inherited for reading stays right. The client opens a connection of its
 *               own on first use in the child.
 *   Signals     No handlers are installed. See `interrupted` below for waiting.
 */
#ifndef DATASYSTEM_DATASYSTEM_H
#define DATASYSTEM_DATASYSTEM_H

#include <datasystem/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DS_API __attribute__((visibility("default")))

#define DS_VERSION         "1.0.0.dev0"
#define DS_KEY_BYTES_MAX   1024   /* Longest key. */
#define DS_BATCH_KEYS_MAX  10000  /* Most keys in one call, */
#define DS_EXIST_KEYS_MAX  100000 /* except ds_exist(). */
#define DS_BLOCK_PARTS_MAX 4096   /* Most parts of one block. */
#define DS_PORT_DEFAULT    31501

/* Borrowed bytes. */
struct ds_slice {
    const void *data;
    size_t len;
};

/* ---- Client -------------------------------------------------------------------
 *
 *      ds_client_open ──► [connected] ◄──► [reconnecting] ── ds_client_close ──► gone
 *
 * Owner: the caller. ds_client_close() ends every lease that is left; the memory of
 * buffers still held stays mapped and right until each is released. */
struct ds_client;

struct ds_client_options {
    size_t struct_bytes;         /* sizeof(struct ds_client_options): lets it grow. */
    const char *host;            /* NULL: environment DATASYSTEM_HOST. */
    uint16_t port;               /* 0: environment DATASYSTEM_PORT. */
    uint32_t connect_timeout_ms; /* 0: 9000. */
    uint32_t request_timeout_ms; /* 0: as connect_timeout_ms. */
    bool no_shared_memory;       /* Send all bytes through the socket. */
    bool verify; /* Compare checksums on every get, in shared memory too:
                                    reads all bytes. Or environment DATASYSTEM_VERIFY=1. */

    /* Called every 50 ms, and on EINTR, in the thread that waits inside a call; a
     * non-zero answer ends that call with DS_INTERRUPTED. NULL: wait on. */
    int (*interrupted)(void *arg);
    void *interrupted_arg;

    /* How long ds_create() and ds_block_create() wait in the worker's line when there is
     * no room, on top of request_timeout_ms; 0: DS_FULL at once. There is no "for ever". */
    uint32_t room_wait_ms;

    /* Name of the queue that blocks made here are for, as ds_queue_place() says it; NULL:
     * none. By it any worker finds the controller that knows about a block whose client
     * has died. */
    const char *queue;

    /* What the cluster's key file says, without white space at its end: proven to a worker
     * to which we connect over TCP, and it to us. At least 32 bytes; copied. Empty: that of
     * the file which the environment's DATASYSTEM_AUTH_KEY_FILE names, if it does. A worker
     * on this host that runs as our user asks for none. What follows the proof is
     * encrypted if the worker wants it (--encrypt_connections). */
    struct ds_slice auth_secret;
};

/* Connect to the worker at host:port, by its Unix socket and shared memory when it is on
 * this machine and belongs to this user, else through TCP. Blocks up to
 * connect_timeout_ms. `options` is copied.
 *
 *   DS_INVALID    no host or port given or in the environment, or a bad value
 *   DS_IO         nobody answers there
 *   DS_MISMATCH   the worker speaks another layout; both versions are named
 *   DS_FULL       --max_client_num clients share its memory already; the text names the
 *                 process that has most of them: close clients there
 *   DS_TIMEOUT    it did not answer in time */
DS_API DS_MUST_USE enum ds_status
ds_client_open(const struct ds_client_options *options, struct ds_client **out,
               struct ds_error *err);

/* Accepts NULL. No other thread may be inside a call. The worker has the client's place
 * (of --max_client_num) back when this returns: blocks up to 250 ms for its word. While
 * buffers are held, their client keeps the place; the last release then gives it back,
 * without waiting. */
DS_API void ds_client_close(struct ds_client *client);

/* Ask the worker whether it serves. DS_OK, or why not. */
DS_API DS_MUST_USE enum ds_status
ds_client_ping(struct ds_client *client, uint32_t timeout_ms, struct ds_error *err);

/* True when bytes travel through shared memory. */
DS_API bool ds_client_uses_shared_memory(const struct ds_client *client);

/* A JSON object of counters and sizes of the worker, terminated, to be free()d by the
 * caller. Names and units: docs/operations.md. */
DS_API DS_MUST_USE enum ds_status
ds_client_stats(struct ds_client *client, char **out_json, struct ds_error *err);

/* Who keeps room from being free: a JSON array of the up to 32 clients that hold most,
 * terminated, to be free()d by the caller. The worker walks its whole table for it: some
 * 20 ms for a million objects. Names and units: docs/operations.md. */
DS_API DS_MUST_USE enum ds_status
ds_client_holders(struct ds_client *client, char **out_json, struct ds_error *err);

/* Who belongs to the cluster, asked of a client of the metastore: a JSON object with the
 * epoch (0: the metastore was started again and waits for its members) and the nodes,
 * each with its address, its ids, and the ranges of key positions that it owns.
 * Terminated, to be free()d by the caller. DS_IO where no metastore is. */
DS_API DS_MUST_USE enum ds_status
ds_client_members(struct ds_client *client, char **out_json, struct ds_error *err);

/* A worker leaves its cluster: what only it has is moved to another member first, then it
 * ends. DS_LEAVE_BEGIN returns at once; ask again to hear how far it is. A JSON object,
 * terminated, to be free()d by the caller: `state` is "nothing" (there is nobody to
 * move it to: the worker stays, and may be ended; or nothing to move: it takes nothing new,
 * and ends by itself within seconds if nobody ends it), "moving", "moved" (it ends by
 * itself within seconds) or "staying", with the `reason` if it was to leave;
 * `to`, and `moved_objects`, `objects`, `moved_bytes`, `bytes`. */
enum ds_leave_action { DS_LEAVE_ASK, DS_LEAVE_BEGIN, DS_LEAVE_CANCEL };
DS_API DS_MUST_USE enum ds_status
ds_client_leave(struct ds_client *client, enum ds_leave_action action, char **out_json,
                struct ds_error *err);

/* Where a key lies on the ring of positions 0 to 2^32 - 1 that the nodes share. */
DS_API uint32_t ds_key_position(struct ds_slice key);

/* ---- Buffers -------------------------------------------------------------------
 *
 * The right to touch an object's bytes. While it is held, the bytes neither move nor get
 * reused, even if the object is overwritten or deleted or the worker dies.
 *
 *      ds_create ──► [writable] ── ds_seal ──► [read-only] ── ds_buffer_release ──► gone
 *                        └── ds_buffer_release ──► gone; the object never existed
 *      ds_get    ──► [read-only]
 *
 * Over TCP a buffer is memory of this process. The worker keeps room for what is
 * writable, and the seal sends the bytes: after a seal that failed they may still be on
 * their way, so try again with the same bytes or release the buffer. The death of this
 * process is then noticed by its silence (--client_dead_timeout_s of the worker). */
struct ds_buffer;

/* First byte; 64-byte aligned in shared memory, page-aligned for parts of a page or more
 * that were created so. Writable until sealed; the checksum of what is written through
 * this pointer is computed at the seal, or later by the worker. */
DS_API void *ds_buffer_data(struct ds_buffer *buffer);
DS_API uint64_t ds_buffer_size(const struct ds_buffer *buffer);
DS_API bool ds_buffer_is_sealed(const struct ds_buffer *buffer);

/* Fill the first `bytes` bytes of a writable buffer. Filled as a whole, and by nothing
 * else, it has its checksum at once: the bytes are hashed on their way.
 *   DS_INVALID        no buffer, no bytes, or sealed already
 *   DS_OUT_OF_RANGE   no bytes, or more than the buffer has */
DS_API DS_MUST_USE enum ds_status
ds_buffer_write(struct ds_buffer *buffer, const void *from, uint64_t bytes,
                struct ds_error *err);

/* One more holder of the same bytes; returns `buffer`. */
DS_API struct ds_buffer *ds_buffer_ref(struct ds_buffer *buffer);

/* As memcpy(), into a buffer or out of one; large copies bypass the caches, which makes
 * them up to 1.6 times as fast. */
DS_API void ds_copy(void *to, const void *from, uint64_t bytes);

/* End this holder's right; the last one frees it. Accepts NULL. Never blocks. May be
 * called after ds_client_close(). */
DS_API void ds_buffer_release(struct ds_buffer *buffer);

/* A private, writable (copy-on-write) mapping of a sealed buffer's bytes: the caller may
 * change it and nobody sees that. Each is a mapping of its own, also where the same
 * bytes are in view already. Worth it from about 1 MiB.
 *
 *   DS_UNSUPPORTED   the bytes are not in a shared memory file of small pages; copy them
 *   DS_NO_MEMORY     the process has too many mappings (half of vm.max_map_count, at most
 *                    32,768, are for views), or no address space; copy the bytes */
DS_API DS_MUST_USE enum ds_status
ds_view_map(struct ds_buffer *buffer, void **out_data, struct ds_error *err);

/* End a view. The buffer is held until its mapping is gone, which a thread of the library
 * sees to; where much waits for it (256 views or 256 MiB), or no client is open, this call
 * does. That thread is started when it is first needed, takes no signals and ends with the
 * last client. */
DS_API void ds_view_unmap(struct ds_buffer *buffer, void *data);

/* Wait until every view that this process ended so far is gone and its buffer released.
 * Before telling another process that there is room. */
DS_API void ds_view_settle(void);

/* ---- Objects by key --------------------------------------------------------------
 *
 * A key is 1 to DS_KEY_BYTES_MAX bytes of [a-zA-Z0-9.\-_!@#%^*()+=:;]. A value has at
 * least one byte. Setting a key replaces its object at once for every later get; readers
 * of the old bytes keep them. */
enum ds_write_mode {
    DS_NONE_L2_CACHE = 0,
    DS_WRITE_THROUGH_L2_CACHE = 1,
    DS_WRITE_BACK_L2_CACHE = 2,
    DS_NONE_L2_CACHE_EVICT = 3,
    DS_WRITE_BACK_L2_CACHE_EVICT = 4,
};

struct ds_set_options {
    uint32_t ttl_seconds; /* 0: never expires. */
    bool only_if_absent;  /* Keep an existing value; that is success, not an error. */
    enum ds_write_mode write_mode;
};

/* DS_OK if `key` is a legal key, else DS_INVALID with the text users know. */
DS_API DS_MUST_USE enum ds_status
ds_key_check(struct ds_slice key, struct ds_error *err);

/* Store a copy of `value` under `key`. `options` may be NULL.
 *   DS_INVALID   key or value breaks the rules above, or the mode is not available
 *   DS_FULL      no room; the text has sizes and the remedy
 *   DS_TIMEOUT, DS_IO, DS_INTERRUPTED */
DS_API DS_MUST_USE enum ds_status
ds_put(struct ds_client *client, struct ds_slice key, struct ds_slice value,
       const struct ds_set_options *options, struct ds_error *err);

/* Reserve `count` objects, private to the caller, to be filled in place and published by
 * ds_seal(). All or nothing. out[i] belongs to the caller.
 *   as ds_put() */
DS_API DS_MUST_USE enum ds_status
ds_create(struct ds_client *client, const struct ds_slice *keys, const uint64_t *sizes,
          size_t count, const struct ds_set_options *options, struct ds_buffer **out,
          struct ds_error *err);

/* Publish: from the moment this returns DS_OK every get sees these bytes. Each object
 * appears at once and whole; the batch is not one transaction. The buffers stay valid
 * and turn read-only.
 *   DS_INVALID   a buffer is already sealed, or not from ds_create()
 *   DS_IO        the worker came back without its memory; the objects are gone */
DS_API DS_MUST_USE enum ds_status
ds_seal(struct ds_client *client, struct ds_buffer *const *buffers, size_t count,
        struct ds_error *err);

/* Look up `count` keys; out[i] is a buffer to release, or NULL where there is none. Waits
 * up to `wait_ms` for missing ones to appear. DS_OK if at least one is there.
 *   DS_NOT_FOUND   none of the keys exists (out is all NULL)
 *   DS_INVALID     count 0 or over DS_BATCH_KEYS_MAX, or an empty key
 *   DS_CORRUPT     bytes are damaged (compared over TCP, and with `verify`); the text has
 *                  the key and both checksums. Nothing is returned */
DS_API DS_MUST_USE enum ds_status
ds_get(struct ds_client *client, const struct ds_slice *keys, size_t count,
       uint32_t wait_ms, struct ds_buffer **out, struct ds_error *err);

/* Bytes [offset, offset + size) of one object as a buffer of their own. size 0: up to
 * the end.
 *   DS_OUT_OF_RANGE   the range is not inside the object
 *   DS_NOT_FOUND */
DS_API DS_MUST_USE enum ds_status
ds_get_range(struct ds_client *client, struct ds_slice key, uint64_t offset,
             uint64_t size, uint32_t wait_ms, struct ds_buffer **out,
             struct ds_error *err);

/* Forget the objects. A key that is not there is success. */
DS_API DS_MUST_USE enum ds_status
ds_delete(struct ds_client *client, const struct ds_slice *keys, size_t count,
          struct ds_error *err);

/* out[i] tells whether keys[i] exists. Up to DS_EXIST_KEYS_MAX keys. */
DS_API DS_MUST_USE enum ds_status
ds_exist(struct ds_client *client, const struct ds_slice *keys, size_t count, bool *out,
         struct ds_error *err);

/* Let the objects expire `ttl_seconds` from now; 0: never. out_found[i] is false where
 * the key does not exist; none existing is DS_NOT_FOUND. */
DS_API DS_MUST_USE enum ds_status
ds_expire(struct ds_client *client, const struct ds_slice *keys, size_t count,
          uint32_t ttl_seconds, bool *out_found, struct ds_error *err);

/* ---- Blocks -----------------------------------------------------------------------
 *
 * What the queue stores: one immutable set of parts under an id that the worker issues.
 * The id says where and when the block was born and never names other bytes; it is known
 * when the block is sealed. A sealed block is provisional until the queue's controller
 * has adopted it; the blocks of a client that died or was closed in between are given up
 * by agreement of worker and controller. */
struct ds_block_id {
    uint8_t bytes[16]; /* {node 32 | arena incarnation 32 | counter 64}, little endian;
                      the counter begins with 16 bits that its queue has. */
};

/* Reserve a block of `count` parts (1 to DS_BLOCK_PARTS_MAX) of sizes[i] >= 1 bytes;
 * parts of a page or more are page-aligned. Without a message, mostly, for one part of a
 * size that was sealed before.
 *   DS_FULL, DS_INVALID, DS_TIMEOUT, DS_IO, DS_INTERRUPTED as ds_create() */
DS_API DS_MUST_USE enum ds_status
ds_block_create(struct ds_client *client, const uint64_t *sizes, size_t count,
                struct ds_buffer **out, struct ds_error *err);

/* The parts of one block that is to be reserved. Borrowed. */
struct ds_block_sizes {
    const uint64_t *sizes; /* Each at least 1. */
    size_t count;          /* 1 to DS_BLOCK_PARTS_MAX. */
};

/* Reserve all blocks of one put in one step: all of them, or none. Waits up to
 * room_wait_ms in the worker's line where there is no room for them all (0: DS_FULL at
 * once), instead of the time in the client's options. `out` gets the parts of the first
 * block, then of the second, up to DS_BATCH_KEYS_MAX; each block is sealed by itself.
 *   errors as ds_block_create() */
DS_API DS_MUST_USE enum ds_status
ds_blocks_create(struct ds_client *client, const struct ds_block_sizes *blocks,
                 size_t block_count, uint32_t room_wait_ms, struct ds_buffer **out,
                 struct ds_error *err);

/* Publish all parts of one block at once; provisional. Errors as ds_seal(); after one,
 * releasing the parts gives the block up, whether it was sealed or not. */
DS_API DS_MUST_USE enum ds_status
ds_block_seal(struct ds_client *client, struct ds_buffer *const *parts, size_t count,
              struct ds_block_id *out_id, struct ds_error *err);

/* Open `count` parts of blocks: part[i] of ids[i]; out[i] is NULL where the block is
 * gone. DS_NOT_FOUND if all are. DS_FULL if one is on another node, and the client's has no
 * room for a copy now. Up to DS_BATCH_KEYS_MAX. */
DS_API DS_MUST_USE enum ds_status
ds_block_get(struct ds_client *client, const struct ds_block_id *ids,
             const uint32_t *parts, size_t count, struct ds_buffer **out,
             struct ds_error *err);

/* Delete whole blocks, sealed or not. One that is gone is success. Blocks of a queue are
 * deleted by its controller; this is for a block whose put failed. */
DS_API DS_MUST_USE enum ds_status
ds_block_delete(struct ds_client *client, const struct ds_block_id *ids, size_t count,
                struct ds_error *err);

/* ---- Gathering --------------------------------------------------------------------
 *
 * Rows that lie here and there -> one column: how a get of the queue puts its result
 * together. Plain computation, without a client; it does not block. What is read may be
 * written by others at the same time: each offset is copied out, checked, then used, so
 * that no byte outside of the given ranges is ever touched. */

/* Rows, one after the other, counted in units: elements, or steps of the dimension in
 * which they differ. Borrowed. */
struct ds_rows {
    struct ds_slice data;
    const void *offsets; /* row_count + 1 of int64: where each row begins, in units.
                            NULL: each row has row_units. */
    uint64_t row_count;
    uint64_t row_units;
};

/* Rows [first, first + count) of sources[source]. */
struct ds_run {
    uint64_t source;
    uint64_t first;
    uint64_t count;
};

/* What to gather: the rows of the runs, in their order. Borrowed. */
struct ds_column {
    const struct ds_rows *sources;
    size_t source_count;
    const struct ds_run *runs;
    size_t run_count;
    uint64_t unit_bytes;
};

/* Where each row of the result begins, in units, from 0 on; out_offsets has room for
 * `offset_count`, which is one more than the column has rows. What it holds after an
 * error is anything.
 *   DS_INVALID   a run of rows that its source does not have, another number of rows
 *                than there is room for, or more bytes than 2^63 - 1
 *   DS_CORRUPT   offsets that fall, or that do not fit the data */
DS_API DS_MUST_USE enum ds_status
ds_gather_offsets(const struct ds_column *column, int64_t *out_offsets,
                  size_t offset_count, struct ds_error *err);

/* The rows, one after the other; they are exactly `out_bytes` long. `offsets` is what
 * ds_gather_offsets() made of the same column; NULL where no source has offsets.
 * Results as above. */
DS_API DS_MUST_USE enum ds_status
ds_gather_rows(const struct ds_column *column, const int64_t *offsets, void *out,
               uint64_t out_bytes, struct ds_error *err);

/* ---- Queue ------------------------------------------------------------------------
 *
 * A connection to a transfer_queue_controller. Requests and replies are MessagePack;
 * docs/queue_protocol.md has every operation. */
struct ds_queue;

#define DS_QUEUE_ADDRESS_MAX 255 /* Bytes of a name or address, without the 0 byte. */

struct ds_queue_options {
    size_t struct_bytes;
    const char *address;         /* "unix:/path/to/socket" or "host:port" */
    uint32_t connect_timeout_ms; /* 0: 5000. */

    /* The worker that is asked where the queue is now, when nobody is at its address any
     * more; NULL: it is nowhere then. */
    const char *worker_host;
    uint16_t worker_port;

    int (*interrupted)(void *arg); /* As in ds_client_options. */
    void *interrupted_arg;
    struct ds_slice auth_secret; /* Likewise, for the controller at a TCP address. */

    /* Up to DS_QUEUE_ADDRESS_MAX bytes: the queue has this name, so that it is found also
     * where another controller has gone on with it before it is opened; NULL: any queue. */
    const char *name;
};

/* DS_IO        nobody, or another queue, is there, nor anywhere that the worker knows of
 * DS_TIMEOUT   no answer within connect_timeout_ms
 * DS_INVALID   an option, which the text names
 * DS_NO_MEMORY, DS_MISMATCH, DS_NOT_AUTHORIZED */
DS_API DS_MUST_USE enum ds_status
ds_queue_open(const struct ds_queue_options *options, struct ds_queue **out,
              struct ds_error *err);
DS_API void ds_queue_close(struct ds_queue *queue);

/* What its controller said last of the queue; "": nothing. Never blocks. */
struct ds_queue_place {
    char name[DS_QUEUE_ADDRESS_MAX + 1];
    char tcp_address[DS_QUEUE_ADDRESS_MAX + 1]; /* Where other nodes reach it. */
};
DS_API void ds_queue_place(struct ds_queue *queue, struct ds_queue_place *out);

/* Send `request`, wait for its reply: *out_reply is malloc()ed, to be free()d. If the
 * connection breaks, because the controller crashed and is started again, the request is
 * repeated, and takes effect once all the same, also by a controller that goes on with the
 * queue at another address.
 *   DS_IO        nobody serves the queue any more: neither at its address, where now
 *                perhaps another one is, nor as far as the worker knows
 *   DS_TIMEOUT   no answer within timeout_ms; the request may have taken effect
 *   DS_INVALID   the request is over 256 MiB */
DS_API DS_MUST_USE enum ds_status
ds_queue_call(struct ds_queue *queue, struct ds_slice request, uint32_t timeout_ms,
              void **out_reply, size_t *out_reply_bytes, struct ds_error *err);

#ifdef __cplusplus
}
#endif
#endif
