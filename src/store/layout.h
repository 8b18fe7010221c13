/* The shared-memory layout: what worker and clients agree on, byte for byte.
 *
 * Three memory files, all held by the supervisor so that they survive the worker:
 *
 *   arena   the bytes of the objects. Nothing in it is ever trusted as metadata.
 *   table   header | bucket heads | slots | key heap. Written by the worker only.
 *   pins    header | one region per client. Written by clients, distrusted by us.
 *
 *   table file                              pins file
 *   +--------------------+ 0                +--------------------+ 0
 *   | table_header       |                  | pins_header        |
 *   +--------------------+ buckets_off      +--------------------+ 65536
 *   | uint32 heads[]     |                  | client region 0    |
 *   +--------------------+ slots_off        |   pin_region       |
 *   | struct slot[]      |                  |   uint64 words[]   |
 *   +--------------------+ key_heap_off     +--------------------+
 *   | keys over 20 bytes |                  | client region 1 ...|
 *   +--------------------+                  +--------------------+
 *
 * Both files are sparse: a page costs memory once it is written. A client maps only its
 * own region of the pins, so regions begin at multiples of the largest page that a kernel
 * may have (4, 16 or 64 KiB on aarch64). Changing anything here means a new
 * LAYOUT_VERSION; a client of another version is refused before it maps. */
#ifndef STORE_LAYOUT_H
#define STORE_LAYOUT_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define LAYOUT_VERSION        4u
#define TABLE_MAGIC           0x454c424154534431u /* "1DSTABLE" read as bytes. */
#define PINS_MAGIC            0x20534e4950534431u /* "1DSPINS " */
#define EXTENT_UNIT_BYTES     64u
#define EXTENT_CELL_BYTES_MAX 2048u
#define EXTENT_PAGE_BYTES     4096u
#define MAP_UNIT_BYTES        65536u /* A multiple of every page size. */
#define PINS_HEADER_BYTES     MAP_UNIT_BYTES
#define KEY_INLINE_BYTES      20u
#define SLOT_NONE             UINT32_MAX
#define LEASE_NEVER_ENDS      UINT64_MAX

/* Processes share these words: a lock inside one process would guard nothing. */
static_assert(ATOMIC_INT_LOCK_FREE == 2, "32-bit atomics need no lock");
static_assert(ATOMIC_LONG_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2,
              "64-bit atomics need no lock");

/* Life of a slot. Every change is one release store of its commit word
 * {generation 56 | state 8}; the generation grows by one on WRITING and on DEAD, so a
 * word that a reader saw once never comes back.
 *
 *   FREE ─create─► WRITING ─seal─► SEALED ─overwrite, delete, expire─► DEAD ─► FREE
 *                     └──────────abort, owner died──────────────────────┘
 *
 * DEAD keeps the extent: it is freed, and the slot with it, once no pin names it. A slot
 * without a key is lent: WRITING for what its client will create next, or given up
 * before it got a key. */
enum slot_state { SLOT_FREE = 0, SLOT_WRITING = 1, SLOT_SEALED = 2, SLOT_DEAD = 3 };

static inline uint64_t
commit_word(uint64_t generation, enum slot_state state)
{
    return generation << 8 | (uint64_t)state;
}

static inline uint64_t
commit_generation(uint64_t word)
{
    return word >> 8;
}

static inline enum slot_state
commit_state(uint64_t word)
{
    return (enum slot_state)(word & 0xff);
}

enum slot_flags {
    SLOT_FLAG_BLOCK = 1 << 0,       /* A part of a queue's block, not a user key. */
    SLOT_FLAG_PROVISIONAL = 1 << 1, /* A block part that no controller adopted yet. */
    SLOT_FLAG_EVICTABLE = 1 << 2,   /* NONE_L2_CACHE_EVICT: may go for others. */
    SLOT_FLAG_CHECKSUM = 1 << 3,    /* `checksum` is set. */
    SLOT_FLAG_COPY = 1 << 4,        /* Of what another node has: goes first. */
};

/* A bucket's head is the number of its first slot plus 1, so that the zeroes of a new
 * file are empty buckets. The bucket of a key is XXH3_64bits(key) & (bucket_count - 1);
 * newer objects stand in front. */

/* One object. All fields but `commit` and `next` are written while the slot is FREE or
 * WRITING, or (flags, expires, client) are only read by the worker. `client` of what
 * waits for its owner (WRITING, or provisional) is 0 or a region in use: a provisional
 * part whose creator died is nobody's before the region is another's. Shared: atomics
 * only. */
struct slot {
    _Atomic uint64_t commit;
    uint32_t tag;          /* Upper half of the key's hash; the bucket is the lower. */
    _Atomic uint32_t next; /* Next slot of the bucket's chain, or SLOT_NONE. */
    uint64_t place;        /* {offset / 64, 40 bits | flags 8 | key bytes 16}. */
    uint64_t size;         /* Bytes of the value; at least 1. */
    uint64_t version;      /* Grows with every seal of this arena; newer wins. */
    uint64_t checksum;     /* XXH3 of the value, if flagged. */
    uint32_t expires_ds;   /* Tenths of a second of CLOCK_BOOTTIME; 0: never. */
    uint32_t client;   /* Creator: region number in the pins file, plus 1; 0: none. */
    uint32_t sequence; /* The creator's request number: makes a repeat harmless. */
    uint8_t key[KEY_INLINE_BYTES]; /* The key, or where it is: see key_heap_place. */
};
static_assert(sizeof(struct slot) == 80, "slot layout");
static_assert(offsetof(struct slot, next) == 12, "slot layout");
static_assert(offsetof(struct slot, place) == 16, "slot layout");
static_assert(offsetof(struct slot, size) == 24, "slot layout");
static_assert(offsetof(struct slot, version) == 32, "slot layout");
static_assert(offsetof(struct slot, checksum) == 40, "slot layout");
static_assert(offsetof(struct slot, expires_ds) == 48, "slot layout");
static_assert(offsetof(struct slot, client) == 52, "slot layout");
static_assert(offsetof(struct slot, sequence) == 56, "slot layout");
static_assert(offsetof(struct slot, key) == 60, "slot layout");

/* In slot.key when the key is longer than KEY_INLINE_BYTES: its offset in the key heap,
 * stored with memcpy() since it is not aligned. */
typedef uint64_t key_heap_place;

/* Room that `size` >= 1 bytes take up in the arena: objects up to 2 KiB are rounded to
 * cells, larger ones to pages. Sizes with the same room can stand in for one another. */
static inline uint64_t
extent_bytes(uint64_t size)
{
    uint64_t unit =
        size <= EXTENT_CELL_BYTES_MAX ? EXTENT_UNIT_BYTES : EXTENT_PAGE_BYTES;
    return (size + unit - 1) & ~(unit - 1);
}

static inline uint64_t
place_pack(uint64_t offset, uint8_t flags, uint16_t key_bytes)
{
    return (offset / EXTENT_UNIT_BYTES) << 24 | (uint64_t)flags << 16 | key_bytes;
}

static inline uint64_t
place_offset(uint64_t place)
{
    return (place >> 24) * EXTENT_UNIT_BYTES;
}

static inline uint8_t
place_flags(uint64_t place)
{
    return (uint8_t)(place >> 16);
}

static inline uint16_t
place_key_bytes(uint64_t place)
{
    return (uint16_t)place;
}

/* First bytes of the table file; fixed once written, but for the atomic words. */
struct table_header {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t slot_bytes;
    uint64_t file_bytes;
    uint64_t arena_bytes;
    uint32_t node;         /* First 4 bytes of every block id born here. */
    uint32_t incarnation;  /* New and random for every new arena. */
    uint64_t bucket_count; /* A power of two. */
    uint64_t slot_count;
    uint64_t buckets_off;
    uint64_t slots_off;
    uint64_t key_heap_off;
    uint64_t key_heap_bytes;
    uint64_t huge_page_bytes;    /* 0: the arena has small pages. */
    _Atomic uint64_t slots_used; /* Slots ever used: the rest is untouched memory. */
    _Atomic uint64_t populated;  /* Arena bytes backed by memory, from 0 up. */
    _Atomic uint64_t
        lease_until;        /* Until then the table says what users' keys are: tenths
                                     of a second of CLOCK_BOOTTIME, or LEASE_NEVER_ENDS. */
    _Atomic uint64_t epoch; /* Odd while a worker makes the chains anew. */
    _Atomic uint64_t known_epoch; /* Of its cluster's members; 0: none yet. */
    uint64_t reserved[13];
};
static_assert(sizeof(struct table_header) == 240, "table header layout");

/* First bytes of the pins file; region 0 begins at PINS_HEADER_BYTES. */
struct pins_header {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t region_count;
    uint64_t region_bytes; /* A multiple of MAP_UNIT_BYTES. */
    uint32_t words_per_region;
    uint32_t reserved_word;
    uint64_t incarnation; /* Of the arena whose extents the words name. */
    uint64_t reserved[11];
};
static_assert(sizeof(struct pins_header) == 128, "pins header layout");

enum pin_region_state {
    PIN_REGION_FREE = 0,
    PIN_REGION_USED = 1,
    PIN_REGION_MARKED = 2, /* In use as long as a mark says so: worker/client.h. */
};

/* One client's pins. The worker writes the identity; the client writes the words and
 * `words_used`. A word is 0 or {extent offset / 64} + 1. */
struct pin_region {
    _Atomic uint32_t state;
    uint32_t pid;            /* As the worker sees it; 0: owner not visible. */
    uint64_t pid_start_time; /* Field 22 of /proc/PID/stat: tells a reused pid. */
    uint64_t token;          /* Random; a client proves with it that it is the owner. */
    _Atomic uint64_t words_used; /* No word at or past this index was ever set. */
    uint64_t reserved[4];
    _Atomic uint64_t words[];
};
static_assert(sizeof(struct pin_region) == 64, "pin region layout");

static inline uint64_t
pin_word(uint64_t extent_offset)
{
    return extent_offset / EXTENT_UNIT_BYTES + 1;
}

#endif
