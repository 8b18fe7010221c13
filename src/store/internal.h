/* What the files of the store share. Only src/store includes this.
 *
 *   store.c     create, seal, find, delete     clients.c   regions and their objects
 *   lease.c     room that is lent to clients   recover.c   store_open()
 *   reclaim.c   dead objects to free memory    check.c     store_check()
 *   inspect.c   views, stats, iteration        no_room.c   the text of DS_FULL
 *   holders.c   who keeps room                evict.c     what may go for others
 *   table.c     buckets, slots, keys           checksum.c  those of what is sealed */
#ifndef STORE_INTERNAL_H
#define STORE_INTERNAL_H

#include "store/arena.h"
#include "store/expiry.h"
#include "store/holds.h"
#include "store/pins.h"
#include "store/store.h"
#include "store/table.h"
#include "store/unit_map.h"

/* Generations from here on are damage, or a slot that has been used up: it rests. */
#define GENERATION_MAX (1ull << 55)

/* An object that waits for its owner: WRITING, or SEALED and provisional. */
struct pending {
    uint32_t slot;
    uint32_t client;
    uint32_t sequence;
    bool kept; /* Only inside store_client_keep_only(). */
};

/* Deleted objects whose extents may still be pinned. */
struct limbo {
    uint32_t *slots; /* Room for every slot, untouched until used. */
    uint32_t count;
    uint64_t bytes;
    uint32_t count_after_scan; /* What the last scan had to keep. */
    uint64_t bytes_after_scan;
    uint64_t pins_seen;    /* By the last scan. */
    struct unit_map marks; /* All clear, except during a scan. */
};

/* Everything here is private and can be rebuilt from the table.
 *
 * Invariants: every slot below slots_used is in exactly one of the free list (FREE),
 * `pending` (WRITING), a chain of the table (SEALED), `limbo` (DEAD) or resting; a
 * provisional SEALED slot is in `pending` as well. `link` of a slot is the next free
 * slot (FREE), or its index in `pending`. Owner: loop thread. */
struct store {
    struct table table;
    struct pins pins;
    struct arena *arena;
    uint64_t huge_page_bytes;
    uint64_t version; /* Of the latest seal. */

    uint32_t *link;     /* By slot. */
    uint32_t free_slot; /* First of the free list, or SLOT_NONE. */
    uint32_t free_count;
    uint32_t resting_count;

    struct pending *pending;
    uint32_t pending_count;
    struct expiry expiry;
    struct limbo limbo;
    struct holds holds;

    uint64_t sealed_count;    /* Of which */
    uint64_t unchecked_count; /* so many have no checksum, */
    uint64_t copy_count;      /* are copies, */
    uint64_t evictable_count; /* or may go otherwise. */
    uint32_t evict_cursor;    /* Where the next search for those begins. */
    uint64_t writing_count;   /* Lent ones included, of which there are */
    uint64_t lent_count;      /* so many, */
    uint64_t lent_bytes;      /* with so much room. */
    uint64_t mutations;       /* For checking builds. */
};

/* ---- store.c ---- */

/* Alignment that follows from the size; see store.h. */
uint64_t store_alignment(const struct store *store, uint64_t size);

/* WRITING or SEALED becomes DEAD: out of every list, into limbo. */
void object_die(struct store *store, uint32_t index);

void pending_add(struct store *store, uint32_t index);
void pending_remove(struct store *store, uint32_t index);

/* Reserve room only if there is some without looking for what could be reclaimed. */
bool create_without_effort(struct store *store, const struct create_request *request,
                           struct object_view *out);

/* ---- lease.c ---- */

/* A WRITING slot without a key begins or ceases to be so. */
void lent_add(struct store *store, const struct slot *slot);
void lent_remove(struct store *store, const struct slot *slot);

/* ---- clients.c ---- */

/* The creator of a provisional part is gone: it is nobody's, before the region gets a
 * new owner. `pending` is its entry. */
void pending_orphan(struct store *store, struct pending *pending);

/* Is this a region in use, or 0? */
bool client_is_known(const struct store *store, uint32_t client);

/* ---- reclaim.c ---- */

/* Where its extent begins, in units of the arena: what a pin names. */
static inline uint64_t
slot_unit(const struct slot *slot)
{
    return place_offset(slot->place) / EXTENT_UNIT_BYTES;
}

bool limbo_init(struct store *store);
void limbo_fini(struct store *store);
void limbo_add(struct store *store, uint32_t index);

/* Free the dead extents that nobody pins or holds. Returns how many. */
uint64_t limbo_reclaim(struct store *store);

/* End what is lent and not being written to now (no pin), and reclaim. */
void limbo_take_back(struct store *store);

/* The same, when enough has died since the last time to be worth a scan of the pins. */
void limbo_reclaim_if_due(struct store *store);

/* Marks, for a look at the pins before anything dies: mark some slots, clear those that
 * are pinned or held, and take what is left back. */
void limbo_mark(struct store *store, uint32_t index);
void limbo_unmark_pinned(struct store *store);
bool limbo_take_mark(struct store *store, uint32_t index);

/* Make a FREE slot available. */
void free_slot_push(struct store *store, uint32_t index);

/* ---- evict.c ---- */

/* Ends, and reclaims, objects with this flag that nobody pins: `bytes` of them if there
 * are so many within the next few. False if there is none. */
bool evict(struct store *store, enum slot_flags flag, uint64_t bytes);

/* A sealed object begins (1) or ends (-1). */
void evictable_count(struct store *store, const struct slot *slot, int change);

/* ---- recover.c ---- */

/* Out of use, with a word that no reader ever saw. The extent is not touched: it is
 * nobody's, or belongs to the slots that claim it. */
void slot_drop(struct store *store, uint32_t index);

/* ---- inspect.c ---- */

void view_of(const struct store *store, uint32_t index, struct object_view *out);

/* Has no key: only what is lent to a client, or was and came to nothing. */
static inline bool
slot_is_lent(const struct slot *slot)
{
    return place_key_bytes(slot->place) == 0;
}

static inline bool
slot_is_provisional(const struct slot *slot)
{
    return (place_flags(slot->place) & SLOT_FLAG_PROVISIONAL) != 0;
}

static inline bool
slot_has_checksum(const struct slot *slot)
{
    return (place_flags(slot->place) & SLOT_FLAG_CHECKSUM) != 0;
}

static inline bool
slot_has_expired(const struct slot *slot, uint64_t now_ds)
{
    return slot->expires_ds != 0 && slot->expires_ds <= now_ds;
}

/* ---- check.c ---- */

/* After a mutation: store_check() in checking builds, always while the table is small,
 * else now and then. */
void store_checkpoint(struct store *store);

#endif
