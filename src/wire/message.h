/* The messages between a client and a worker, as structs and as bytes. Pure.
 *
 * encode_x() appends to a writer; decode_x() reads a whole body and answers false if it
 * is not exactly one x. What a decoded struct points at is borrowed from the body.
 * Lists of unbounded length are not turned into arrays: the struct keeps a reader
 * positioned at the first element, already checked to the end, and next_x() steps
 * through it.
 *
 *   type          request                 reply
 *   AUTH_*        see wire/auth.h
 *   DISCOVER      (empty)                 discovered
 *   HELLO         hello                   welcome, on a Unix socket with descriptors;
 *                                         from a controller: queue_place
 *   PING          (empty)                 (empty)
 *   CREATE        create                  created
 *   BLOCK_CREATE  block_create            created
 *   SEAL          seal                    (empty)
 *   PUBLISH       publish                 created: no or one extent for the next, and
 *                                         the id to use should that become a block
 *   ABORT         refs                    (empty)
 *   LOOKUP        lookup                  found
 *   FETCH         lookup                  fetched, payload: the values one after another
 *   EXIST         keys                    flags
 *   DELETE        keys                    flags (1: was there)
 *   EXPIRE        expire                  flags (1: was there)
 *   STATS         (empty)                 JSON text
 *   HOLDERS       (empty)                 JSON text
 *   PUT           put, payload: value     (empty)
 *   BLOCK_DELETE  block_ids               (empty)
 *   BLOCK_ADOPT   block_ids               flags (1: was there)
 *   ORPHANS       (empty)                 block_ids; parked until there is one
 *   ORPHANS_FOUND orphans_found           (empty); to the worker that their controller
 *                                         is connected to
 *   FORK_CLAIM    hello of who forks      (empty), with 1 descriptor
 *   FILL          fill, payload: bytes    (empty)
 *   QUEUE_SERVE   queue_place             (empty); from a controller, to its worker
 *   QUEUE_FIND    queue_place             queue_place
 *   MEMBER_RENEW  member_renew            member_list; parked until it is another one
 *   MEMBERS       (empty)                 JSON text
 *   KEY_*         see wire/bindings.h
 *   LEAVE, TAKE_* see wire/leaving.h
 *   QUEUE_CALL    queue_call or nothing, payload: MessagePack; the same comes back
 */
#ifndef WIRE_MESSAGE_H
#define WIRE_MESSAGE_H

#include "wire/block_id.h"
#include "wire/cursor.h"
#include "wire/frame.h"

/* ---- DISCOVER: what a TCP client learns before it decides how to connect ---- */

struct discovered {
    uint32_t layout_version;
    uint32_t protocol_version;
    uint32_t uid;
    uint32_t pid;
    struct ds_slice boot_id; /* /proc/sys/kernel/random/boot_id, to tell the host. */
    struct ds_slice socket_path; /* Absolute path of the Unix socket. */
    struct ds_slice version;     /* Of the software, for messages. */
    struct ds_slice owner; /* Who started it, as given by --owner; may be empty. */
};
void encode_discovered(struct writer *writer, const struct discovered *message);
bool decode_discovered(struct ds_slice body, struct discovered *out);

/* ---- HELLO ---- */

struct wire_ref {
    uint32_t slot;
    uint64_t generation;
};

/* XXH3 of an object, if its writer computed it. */
struct wire_checksum {
    bool known;
    uint64_t value;
};

struct ref_list {
    uint32_t count;
    struct reader at;
};
bool next_ref(struct ref_list *list, struct wire_ref *out);

/* Known region 0 means a new client. A client that comes back names its region (number
 * + 1) and token, and with `resume` the unsealed objects that it still holds; all
 * others of the region are aborted. Without `resume` it joins with one more connection.
 */
enum hello_flags {
    HELLO_SHARED_MEMORY = 1 << 0, /* Wants the memory files. */
    HELLO_RESUME = 1 << 1,
    HELLO_MEMBER = 1 << 2, /* Wants a number without them, to reserve objects. */
    HELLO_LEAVE = 1 << 3, /* Known client: it holds nothing any more and gives its place
                              back. Answered with an empty body; the connection is no
                              client's. */
};
struct hello {
    uint32_t layout_version;
    uint32_t protocol_version;
    uint32_t flags;
    uint32_t client; /* 0: new. */
    uint64_t token;
    uint32_t incarnation; /* Of the arena that the client has mapped; 0: none. */
    uint16_t queue;       /* Tag of the queue that its blocks are of; 0: none. */
    /* With `resume`: grows each time that the client says what it holds. One that
     * comes after a later one says nothing any more. */
    uint64_t epoch;
    struct ref_list holding;
};
void encode_hello(struct writer *writer, const struct hello *message,
                  const struct wire_ref *holding, size_t holding_count);
bool decode_hello(struct ds_slice body, struct hello *out);

struct welcome {
    uint32_t node;
    uint32_t incarnation;
    uint32_t client; /* Region number + 1; 0: none was wanted. */
    uint64_t token;
    uint64_t arena_bytes;
    uint64_t table_bytes;
    uint64_t pins_offset; /* Of this client's region in the pins file. */
    uint64_t pins_bytes;
    uint64_t huge_page_bytes;
};
void encode_welcome(struct writer *writer, const struct welcome *message);
bool decode_welcome(struct ds_slice body, struct welcome *out);

/* The descriptors of a welcome are arena, table and pins, and, for a client whose pid
 * the worker cannot see, a mark: the client lives as long as it is open anywhere. The
 * one that answers a FORK_CLAIM is a mark, too: so long the worker keeps a copy of the
 * client's pins. */
enum { WELCOME_FDS_MIN = 3, WELCOME_FDS_MAX = 4 };

/* ---- CREATE, FILL, SEAL, PUBLISH, ABORT ---- */

/* More in one request is DS_INVALID: their reply would not fit into a frame. */
#define CREATE_OBJECTS_MAX 500000u
#define LOOKUP_KEYS_MAX    350000u

struct sized_key_list {
    uint32_t count;
    struct reader at;
};
bool next_sized_key(struct sized_key_list *list, struct ds_slice *out_key,
                    uint64_t *out_size);

/* Where there is no room, a request that reserves some waits in line for up to wait_ms.
 * Both begin with it. */
struct create {
    uint32_t wait_ms;
    uint8_t write_mode;
    struct sized_key_list objects;
};
void encode_create(struct writer *writer, uint32_t wait_ms, uint8_t write_mode,
                   const struct ds_slice *keys, const uint64_t *sizes, size_t count);
bool decode_create(struct ds_slice body, struct create *out);

struct size_list {
    uint32_t count;
    struct reader at;
};
bool next_size(struct size_list *list, uint64_t *out);
/* Sizes of a block's parts. A 0 among them begins another block: all blocks of a request
 * are reserved in one step, and their ids follow each other. */
struct block_create {
    uint32_t wait_ms;
    struct size_list sizes;
};
void encode_block_create(struct writer *writer, uint32_t wait_ms, const uint64_t *sizes,
                         size_t count);
bool decode_block_create(struct ds_slice body, struct block_create *out);

struct wire_extent {
    struct wire_ref ref;
    uint64_t offset; /* In the arena. */
};

struct created {
    struct ds_block_id block; /* The first; of no use after CREATE. */
    uint32_t count;
    struct reader at;
};
/* begin, then one append per object. */
void
encode_created_begin(struct writer *writer, struct ds_block_id block, uint32_t count);
void encode_created_extent(struct writer *writer, struct wire_extent extent);
bool decode_created(struct ds_slice body, struct created *out);
bool next_extent(struct created *list, struct wire_extent *out);

/* Bytes for an object that its client reserved and cannot reach: [offset, offset +
 * payload). Said again, it changes nothing. */
struct fill {
    struct wire_ref ref;
    uint64_t offset;   /* In the object. */
    uint64_t checksum; /* Of the payload; the worker compares. */
};
void encode_fill(struct writer *writer, const struct fill *message);
bool decode_fill(struct ds_slice body, struct fill *out);

struct wire_filled {
    struct wire_ref ref;
    struct wire_checksum checksum;
};
struct filled_list {
    uint32_t count;
    struct reader at;
};
bool next_filled(struct filled_list *list, struct wire_filled *out);

struct seal {
    uint32_t ttl_seconds;
    bool only_if_absent;
    struct filled_list objects;
};
void encode_seal(struct writer *writer, uint32_t ttl_seconds, bool only_if_absent,
                 const struct wire_filled *objects, size_t count);
bool decode_seal(struct ds_slice body, struct seal *out);

/* Seals one object, which gets its key and its size only now if it was lent: reserved
 * for whatever its client would write next. Asks to be lent another. */
struct publish {
    uint32_t ttl_seconds;
    bool only_if_absent;
    struct wire_ref ref;
    uint64_t size; /* Takes up as much room as what was lent, see extent_bytes(). */
    uint64_t lend_bytes; /* Size of the next; 0: none is wanted. */
    struct wire_checksum checksum;
    struct ds_slice key;
};
void encode_publish(struct writer *writer, const struct publish *message);
bool decode_publish(struct ds_slice body, struct publish *out);

void encode_refs(struct writer *writer, const struct wire_ref *refs, size_t count);
bool decode_refs(struct ds_slice body, struct ref_list *out);

/* ---- Keys ---- */

/* 1 to DS_KEY_BYTES_MAX bytes of the charset of user keys (datasystem.h). */
bool wire_user_key_is_legal(struct ds_slice key);

struct key_list {
    uint32_t count;
    struct reader at;
};
bool next_key(struct key_list *list, struct ds_slice *out);
void encode_keys(struct writer *writer, const struct ds_slice *keys, size_t count);
bool decode_keys(struct ds_slice body, struct key_list *out);

enum lookup_flags {
    LOOKUP_BLOCKS = 1 << 0, /* Keys are block part keys: see wire_block_key(). */
    LOOKUP_RANGE = 1 << 1,  /* FETCH by a worker: what the range has beyond a value is
                               cut off; a checksum of the whole is enough. */
    LOOKUP_PROVISIONAL = 1 << 2, /* TAKE: no controller has adopted them yet. */
    LOOKUP_RELAY = 1 << 3, /* FETCH of one by a worker: it may be told to ask another
                                    one that has got it already, or is about to. */
};

/* A worker, by its arena. */
struct wire_place {
    uint32_t node; /* 0: none. */
    uint32_t incarnation;
};
struct lookup {
    uint32_t flags;
    uint32_t wait_ms;
    uint64_t range_offset;   /* FETCH: first byte wanted of each value, */
    uint64_t range_bytes;    /* and how many; 0: to the end. */
    struct wire_place asker; /* With LOOKUP_RELAY. */
    struct key_list keys;
};
void encode_lookup(struct writer *writer, const struct lookup *message,
                   const struct ds_slice *keys, size_t count);
bool decode_lookup(struct ds_slice body, struct lookup *out);

struct wire_object {
    bool found;
    uint32_t slot;
    uint64_t commit;
    uint64_t offset;
    uint64_t size;
};
struct found {
    uint32_t count;
    struct reader at;
};
void encode_found_begin(struct writer *writer, uint32_t count);
void encode_found_object(struct writer *writer, const struct wire_object *object);
bool decode_found(struct ds_slice body, struct found *out);
bool next_object(struct found *list, struct wire_object *out);

/* What FETCH sends of an object. */
struct wire_value {
    bool found;
    uint64_t size;              /* Of what is sent, */
    uint64_t total;             /* and of the object. */
    uint64_t checksum;          /* Of what is sent; who gets it compares. */
    struct wire_checksum whole; /* Of the object. Known, and LOOKUP_RANGE: it takes the
                                   place of `checksum`, which is 0. */
    /* If not none, no bytes are sent: it is to be asked there. */
    struct wire_place relay;
};
struct fetched {
    uint32_t count;
    struct reader at;
};
void encode_fetched_begin(struct writer *writer, uint32_t count);
void encode_fetched_value(struct writer *writer, const struct wire_value *value);
bool decode_fetched(struct ds_slice body, struct fetched *out);
bool next_value(struct fetched *list, struct wire_value *out);

struct expire {
    uint32_t ttl_seconds;
    struct key_list keys;
};
void encode_expire(struct writer *writer, uint32_t ttl_seconds,
                   const struct ds_slice *keys, size_t count);
bool decode_expire(struct ds_slice body, struct expire *out);

struct put {
    uint32_t ttl_seconds;
    bool only_if_absent;
    uint8_t write_mode;
    struct wire_checksum checksum; /* Of the payload; the worker compares. */
    struct ds_slice key;
};
void encode_put(struct writer *writer, const struct put *message);
bool decode_put(struct ds_slice body, struct put *out);

/* One byte per element; the body itself. */
void encode_flags_begin(struct writer *writer, uint32_t count);
bool decode_flags(struct ds_slice body, uint32_t *out_count, const uint8_t **out_flags);

/* ---- Blocks ---- */

struct block_id_list {
    uint32_t count;
    struct reader at;
};
bool next_block_id(struct block_id_list *list, struct ds_block_id *out);
void
encode_block_ids(struct writer *writer, const struct ds_block_id *ids, size_t count);
bool decode_block_ids(struct ds_slice body, struct block_id_list *out);

/* Orphans of the sender's node, for the controller of their queue, or for any. */
struct orphans_found {
    bool is_anybodys;
    struct block_id_list ids;
};
void encode_orphans_found(struct writer *writer, bool is_anybodys,
                          const struct ds_block_id *ids, size_t count);
bool decode_orphans_found(struct ds_slice body, struct orphans_found *out);

/* ---- Queues ---- */

/* The queue of this name is served at these addresses, which look as in ds_queue_options:
 * `address` for who is on the controller's node, `tcp_address` for everybody; empty: at
 * none. A queue that was given no name has an empty one; who looks for a queue says no
 * address. */
struct queue_place {
    struct ds_slice name;        /* Up to QUEUE_PLACE_NAME_MAX, */
    struct ds_slice address;     /* QUEUE_PLACE_ADDRESS_MAX, */
    struct ds_slice tcp_address; /* QUEUE_PLACE_ADDRESS_MAX; no byte of them is 0. */
    uint64_t term;               /* Of its controllers one after the other; 0: asked. */
};
enum { QUEUE_PLACE_NAME_MAX = 255, QUEUE_PLACE_ADDRESS_MAX = 255 };
enum { QUEUE_TERM_FIRST = 1 };
#define QUEUE_TERM_ENDED UINT64_MAX /* The queue has ended, and none follows. */
void encode_queue_place(struct writer *writer, const struct queue_place *message);
bool decode_queue_place(struct ds_slice body, struct queue_place *out);

/* ---- Membership ---- */

struct wire_member {
    uint32_t node;
    uint32_t incarnation;
    uint32_t restarts; /* Of its process; what was only in that one's memory is gone. */
    /* The epoch since which it has belonged without a gap; in a renewal, as far as it was
     * told, or 0. */
    uint64_t since;
    struct ds_slice address; /* "host:port" of printable ASCII without '"' and '\\', */
    struct ds_slice queues;  /* Places of the queues whose controllers it has, encoded
                                one behind the other; u16 bytes. */
    struct ds_slice arenas;  /* Whose blocks it took over, likewise: wire/leaving.h. */
};
enum { MEMBER_ADDRESS_BYTES_MAX = 280 }; /* not longer than this. */

/* Steps through `queues` of a decoded member. */
bool next_member_queue(struct ds_slice *queues, struct queue_place *out);

enum member_flags {
    MEMBER_LEAVES = 1 << 0, /* It belongs no longer. */
};

/* A worker belongs to the cluster for another lease. The reply comes at once if the list
 * is another one than the worker knows, else when it has changed or after wait_ms. A
 * second request takes the place of one that still waits, which is not answered then. */
struct member_renew {
    struct wire_member who;
    uint32_t flags;
    uint64_t epoch;   /* Of the members that it was told last, */
    uint64_t version; /* of what else is said of them, */
    uint32_t count;   /* and how many others they were; 0: it was told nothing. */
    uint32_t wait_ms;
    struct ds_slice cluster_name;
};
void encode_member_renew(struct writer *writer, const struct member_renew *message);
bool decode_member_renew(struct ds_slice body, struct member_renew *out);

struct member_list {
    uint64_t epoch;    /* Of who belongs; 0: it is not known yet. */
    uint64_t version;  /* Of the list. Both as in the request: it is empty, as nothing
                          is new. */
    uint32_t lease_ms; /* From when the renewal was sent. */
    uint32_t lapse_ms; /* From now: then nobody serves any more who is no member, */
    uint32_t away_ms;  /* and nobody comes back with what it had. */
    uint32_t count;
    struct reader at;
};
/* `count` calls of encode_member() follow, in the order of their nodes. */
void encode_member_list_begin(struct writer *writer, const struct member_list *message);
void encode_member(struct writer *writer, const struct wire_member *member);
bool decode_member_list(struct ds_slice body, struct member_list *out);
bool next_member(struct member_list *list, struct wire_member *out);

/* ---- Requests to a controller ---- */

/* The body of a QUEUE_CALL, or nothing. `number` grows with every request of `client`,
 * and is the same when a request is repeated because its answer was lost. */
struct queue_call {
    uint64_t client; /* Random. */
    uint64_t number;
};
enum { QUEUE_CALL_BYTES = 16 };
void encode_queue_call(struct writer *writer, const struct queue_call *message);
bool decode_queue_call(struct ds_slice body, struct queue_call *out);

#endif
