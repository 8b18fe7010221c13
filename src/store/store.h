/* The object store of one node: table + arena + pins, as one deterministic machine.
 *
 * Pure: memory, time and randomness are arguments. The worker's loop thread owns it and
 * calls it; nothing here blocks, logs or knows a socket. The table is the only truth: a
 * process that stops anywhere leaves a table from which store_recover() rebuilds the
 * rest, accepting both sides of every half-done operation.
 *
 * Alignment of an extent follows from its size, so that recovery needs no extra field:
 * up to 2 KiB it is 64 bytes, beyond that a page, and from the size of a huge page up,
 * where the arena has such, a huge page. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <datasystem/datasystem.h>

#include "store/arena.h"
#include "store/layout.h"

#include <stdbool.h>
#include <stdint.h>

struct store;

struct store_geometry {
    uint64_t arena_bytes;
    uint64_t slot_count;
    uint64_t bucket_count;
    uint64_t key_heap_bytes;
    uint32_t region_count;     /* Most clients at once. */
    uint32_t words_per_region; /* Most extents one client can hold at once. */
};

/* Table and pins sized for an arena: one slot per KiB of it, at least 1 Mi. */
struct store_geometry
store_geometry_default(uint64_t arena_bytes, uint32_t clients_max);
uint64_t store_table_bytes(const struct store_geometry *geometry);
uint64_t store_pins_bytes(const struct store_geometry *geometry);

struct store_memory {
    void *table; /* store_table_bytes(), zeroed when new. */
    uint64_t table_bytes;
    void *pins; /* store_pins_bytes(), zeroed when new. */
    uint64_t pins_bytes;
    /* Of the arena's file; 0: not known, the header is believed. */
    uint64_t arena_bytes;
};

/* Write headers into new, zeroed memory. `node` and `incarnation` name it for ever. */
void
store_format(const struct store_memory *memory, const struct store_geometry *geometry,
             uint32_t node, uint32_t incarnation, uint64_t huge_page_bytes);

/* What recovery found. */
struct store_recovery {
    uint64_t sealed;
    uint64_t writing;
    uint64_t dead;
    /* Extents that two slots claimed; all of them gone. */
    uint64_t dropped_overlapping;
    uint64_t dropped_damaged;    /* Slots whose fields cannot be right. */
    uint64_t dropped_superseded; /* Older of two sealed objects of one key. */
};

/* Open formatted memory: fresh or left behind by a worker that stopped anywhere.
 * `memory` is borrowed until store_close(); `now_ds` is CLOCK_BOOTTIME in tenths of a
 * second.
 *   DS_MISMATCH   magic, version, slot size or geometry is not this build's */
DS_MUST_USE enum ds_status
store_open(const struct store_memory *memory, uint64_t now_ds, struct store **out,
           struct store_recovery *report, struct ds_error *err);
void store_close(struct store *store);

/* Arena bytes [0, populated) exist now. */
void store_set_populated(struct store *store, uint64_t populated_bytes);

/* Until then, in tenths of a second of CLOCK_BOOTTIME, readers may believe the table about
 * users' keys: nobody changes them elsewhere. LEASE_NEVER_ENDS: there is no elsewhere. 0 in
 * a new table. */
void store_set_lease(struct store *store, uint64_t until_ds);

/* What is in the table is as of this epoch of the cluster's members (its header has it). */
void store_set_known_epoch(struct store *store, uint64_t epoch);

/* ---- Objects ---- */

/* Names one slot in one life; stale ones are recognised. */
struct object_ref {
    uint32_t slot;
    uint64_t generation;
};

struct object_view {
    struct object_ref ref;
    uint64_t commit; /* The word that a reader must still see after pinning. */
    uint64_t offset;
    uint64_t size;
    uint64_t version;
    uint64_t checksum;
    uint32_t expires_ds; /* 0: never. */
    uint8_t flags;
};

struct create_request {
    struct ds_slice key; /* Any bytes, 1 to DS_KEY_BYTES_MAX; rules are the caller's. */
    uint64_t size;
    uint32_t client; /* Region number + 1, or 0. */
    uint32_t sequence;
    uint8_t flags; /* enum slot_flags */
};

/* Reserve room: a WRITING slot that no lookup finds.
 *   DS_FULL   "Shared memory no space in arena: ..." or the table is full; the text has
 *             sizes and the remedy. Expired and unpinned dead objects were reclaimed
 *             before giving up, and unpinned copies and evictable objects are gone. */
DS_MUST_USE enum ds_status
store_create(struct store *store, const struct create_request *request, uint64_t now_ds,
             struct object_view *out, struct ds_error *err);

/* Room for what a client will create next: as much as a value of `size` takes, without
 * a key. False if there is none to spare (most of the arena is used) or `size` is over
 * LEASE_BYTES_MAX. What is lent and not pinned is taken back before anybody hears
 * DS_FULL: the lender pins it, and looks at its commit word, before writing to it. */
#define LEASE_BYTES_MAX (1ull << 20)
bool store_lend(struct store *store, uint64_t size, uint32_t client, uint32_t sequence,
                struct object_view *out);

/* Gives what was lent to `client` its key, its flags, and a size that takes the same
 * room. Said again, or of an object that was created with this key and size, it changes
 * nothing; of anything that is not WRITING neither, its seal tells.
 *   DS_INVALID   another key or room   DS_FULL   no room for the key */
struct name_request {
    struct object_ref ref;
    uint32_t client;
    struct ds_slice key;
    uint64_t size;
    uint8_t flags; /* Of enum slot_flags. */
};
DS_MUST_USE enum ds_status
store_name(struct store *store, const struct name_request *request,
           struct ds_error *err);

struct seal_request {
    struct object_ref ref;
    uint32_t expires_ds; /* Tenths of a second of CLOCK_BOOTTIME; 0: never. */
    bool only_if_absent; /* An existing object wins; the new one is aborted. */
    bool has_checksum;
    uint64_t checksum;
};

/* Publish; an object of the same key dies in the same step. Sealing again is success,
 * as is sealing what was sealed and then overwritten or deleted. DS_INVALID   `ref`
 * never named a WRITING slot of this client's */
DS_MUST_USE enum ds_status
store_seal(struct store *store, const struct seal_request *request, uint64_t now_ds,
           struct ds_error *err);

/* Give up an object that is unsealed, or a block part that is sealed and provisional.
 * Unknown, or sealed for good: nothing happens. */
void store_abort(struct store *store, struct object_ref ref);

/* Abort every unsealed object that one request of a client made. */
void store_abort_request(struct store *store, uint32_t client, uint32_t sequence);

/* A live (SEALED, not expired) object; false if there is none. */
bool store_find(struct store *store, struct ds_slice key, uint64_t now_ds,
                struct object_view *out);

/* The object in a slot's current life, whatever its state. False if FREE or out of
 * range. */
bool store_inspect(const struct store *store, uint32_t slot, struct object_view *out,
                   enum slot_state *out_state);

/* The unsealed object that `ref` names and `client` (region number + 1) reserved; false
 * if there is none. */
bool store_find_writing(const struct store *store, struct object_ref ref,
                        uint32_t client, struct object_view *out);

/* The key of a slot that is not FREE (empty: lent); borrowed from the table, or from `buffer`
 * (DS_KEY_BYTES_MAX). */
struct ds_slice store_key(const struct store *store, uint32_t slot, uint8_t *buffer);

/* The request that made the live object under `key`; false if none. Lets the caller
 * recognise a repeat. */
bool store_find_creator(struct store *store, struct ds_slice key, uint64_t now_ds,
                        uint32_t *out_client, uint32_t *out_sequence);

/* True if there was one. Its bytes stay until the last pin goes. */
bool store_delete(struct store *store, struct ds_slice key, uint64_t now_ds);

/* False if there is none. 0: never expires. */
bool store_set_expiry(struct store *store, struct ds_slice key, uint32_t expires_ds,
                      uint64_t now_ds);

/* Clear SLOT_FLAG_PROVISIONAL. False if there is no such object. */
bool store_adopt(struct store *store, struct ds_slice key, uint64_t now_ds);

/* Of its flags COPY and PROVISIONAL those in `flags` are set from now on, the other is not:
 * what was another node's becomes ours, and back. False if there is no such object. */
bool store_set_kind(struct store *store, struct ds_slice key, uint8_t flags,
                    uint64_t now_ds);

/* The checksum of a sealed object that has none yet. False if `ref` is not one (any
 * more): then nothing changes. */
bool store_set_checksum(struct store *store, struct object_ref ref, uint64_t checksum);

/* A sealed object without a checksum, if there is one among the next `slots_max` slots
 * from *cursor on, which moves on behind what was looked at, and around. */
bool store_next_without_checksum(const struct store *store, uint32_t *cursor,
                                 uint32_t slots_max, struct object_view *out);

/* Keep an extent while the worker itself sends from it (a pin of its own). Counted. */
void store_hold(struct store *store, const struct object_view *view);
void store_unhold(struct store *store, uint64_t offset);

/* ---- Housekeeping ---- */

/* Expire what is due, then free dead extents that nobody pins. Call every 100 ms and
 * when room is short. Returns the number of extents freed. */
uint64_t store_tick(struct store *store, uint64_t now_ds);

/* Earliest expiry in tenths of a second, 0 if none. */
uint64_t store_next_expiry(const struct store *store);

/* ---- Clients: regions of the pins file ---- */

struct client_identity {
    uint32_t pid; /* 0: not visible. */
    uint64_t pid_start_time;
    uint64_t token; /* Random. */
    bool has_mark;  /* Lives as long as a mark, which is the worker's to look for. */
};

/* Takes a free region. DS_FULL: "Client number upper to the limit". */
DS_MUST_USE enum ds_status
store_client_add(struct store *store, const struct client_identity *identity,
                 uint32_t *out_region, struct ds_error *err);

/* False if the region is free. */
bool store_client_get(const struct store *store, uint32_t region,
                      struct client_identity *out);

/* Its owner has mapped the region (pin_announce()), so it may have pins, now or soon. */
bool store_client_has_mapped(const struct store *store, uint32_t region);

/* Its owner is dead: abort what it was writing, make its provisional parts nobody's,
 * drop its pins, free the region. */
void store_client_remove(struct store *store, uint32_t region);

/* Abort every unsealed object of the region that is not among `keep`. For a client that
 * came back and said what it still holds. */
void store_client_keep_only(struct store *store, uint32_t region,
                            const struct object_ref *keep, size_t keep_count);

/* Pin for region `to` (fresh) all that region `from` has pinned now. */
void store_client_copy_pins(struct store *store, uint32_t from, uint32_t to);

/* For each provisional block part whose creator is `client` (region number + 1), or, if
 * that is 0, a client that was removed; the key is borrowed. */
typedef void (*store_orphan_fn)(struct ds_slice key, void *arg);
void store_client_provisional(struct store *store, uint32_t client, store_orphan_fn fn,
                              void *arg);

/* For each live object: kind of iteration for dumps and purges; fn must not mutate. */
typedef void (*store_object_fn)(const struct object_view *view, struct ds_slice key,
                                void *arg);
void store_each(struct store *store, store_object_fn fn, void *arg);

/* What one client keeps from being free, in room of the arena. */
struct store_holder {
    struct client_identity identity;
    uint64_t pinned; /* Extents, each once, */
    uint64_t pinned_bytes;
    uint64_t dead; /* of which so many are of deleted objects. */
    uint64_t dead_bytes;
    uint64_t unsealed; /* Reserved to be filled; pinned as well where it is mapped. */
    uint64_t unsealed_bytes;
};
/* The `max` clients that keep most from being free, and then those that pin most. Walks
 * the table, and of the pins 65,536; `only_dead`: of pinned extents those of deleted
 * objects alone, without a walk. Returns how many; 0 also when out of memory. */
size_t store_holders(struct store *store, bool only_dead, struct store_holder *out,
                     size_t max);

struct store_stats {
    struct arena_stats arena;
    uint64_t objects; /* SEALED. */
    uint64_t objects_without_checksum;
    uint64_t copies;    /* Of what other nodes have, */
    uint64_t evictable; /* and what its writer allowed to go. */
    uint64_t writing;
    uint64_t lent; /* Not in `writing`, their bytes not in what the arena has used. */
    uint64_t dead; /* Deleted, but pinned. */
    uint64_t dead_bytes;
    uint64_t slots_total;
    uint64_t clients;
    uint64_t pins;
};
void store_stats(const struct store *store, struct store_stats *out);

const struct table_header *store_header(const struct store *store);

/* Walk table, arena and keys; assert that they agree. */
void store_check(struct store *store);

/* Test builds stop here, after every store to shared memory, to simulate a crash at
 * that point. NULL in production. */
typedef void (*store_step_fn)(const char *step, void *arg);
void store_set_step_hook(store_step_fn fn, void *arg);

#endif
