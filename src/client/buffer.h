/* The right to touch an object's bytes: the struct behind the public ds_buffer.
 *
 * In shared memory a buffer holds a pin of its extent from the moment that it exists,
 * also while it is unsealed: whatever the worker believes, nobody else gets these
 * bytes. */
#ifndef CLIENT_BUFFER_H
#define CLIENT_BUFFER_H

#include "client/mapping.h"

#include <datasystem/datasystem.h>

#include <stdatomic.h>

enum buffer_state {
    BUFFER_UNSEALED,
    BUFFER_SEALED,
    BUFFER_ABANDONED, /* Its client was closed before it was sealed. */
};

/* Owner: its holders, by turns. `link` and `mapping` are guarded by the library's lock.
 */
struct ds_buffer {
    struct list link; /* In mapping->unsealed; else alone. */
    _Atomic uint32_t holders;
    enum buffer_state state;
    uint8_t *data;
    uint64_t size;
    bool owns_data;          /* `data` is our own memory: it travels by message. */
    struct mapping *mapping; /* Counted. NULL: nothing there is kept for this. */
    uint64_t extent_offset;  /* Of what is pinned. */
    struct wire_ref ref;     /* Of what is unsealed. */
    uint8_t *key;            /* Of what can be published by itself; or NULL. */
    size_t key_len;
    bool is_lent; /* The worker does not know the key yet. */
    bool is_block_part;
    struct ds_block_id block; /* Then: of which one. */
    bool is_exposed; /* A pointer for writing is out: anybody may write at any time. */
    struct wire_checksum checksum; /* Of what is unsealed. */
    struct ds_set_options options; /* For the seal. */
};

/* Where an object was in shared memory, by the worker's word or the table's. */
struct extent {
    struct mapping *mapping;
    uint32_t slot;
    uint64_t commit;
    uint64_t offset;
    uint64_t size;
};

/* A buffer over it, pinned. Lock held. *out_stale: it is not there any more; then, and
 * after an error, *out is left alone.
 *   DS_CORRUPT   it lies outside of the arena
 *   DS_FULL      this process has no pin left */
DS_MUST_USE enum ds_status
buffer_open(const struct extent *extent, enum buffer_state state,
            struct ds_buffer **out, bool *out_stale, struct ds_error *err);

/* A sealed buffer of `size` bytes of our own memory; NULL when there is none. */
struct ds_buffer *buffer_allocate(uint64_t size);

/* An unsealed one, for what the worker reserved under `ref`. Lock held. */
struct ds_buffer *
buffer_allocate_unsealed(struct mapping *mapping, struct wire_ref ref, uint64_t size);

/* Let it be published by itself, under a copy of `key`. Out of memory: false, and it is
 * as it was. */
bool buffer_set_key(struct ds_buffer *buffer, struct ds_slice key);

/* Shrink a sealed, pinned buffer to a part of it. */
DS_MUST_USE enum ds_status buffer_cut(struct ds_buffer *buffer, uint64_t offset,
                                      uint64_t size, struct ds_error *err);

/* It is published: the worker owns its fate. */
void buffer_mark_sealed(struct ds_buffer *buffer);

/* The client is being closed: what it has not sealed will never be. Lock held. */
void buffers_abandon(struct mapping *mapping);

/* Accept NULL. */
void buffer_release_locked(struct ds_buffer *buffer); /* Lock held. */
void buffers_release(struct ds_buffer **buffers, size_t count);

#endif
