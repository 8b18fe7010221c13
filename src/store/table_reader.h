/* Finding objects in the shared table without the worker.
 *
 *      reader                               worker
 *      epoch even?                          rebuilds chains: epoch odd, ..., even
 *      head -> slot -> slot                 links change by single stores
 *      commit SEALED, tag, key, place       fields change only while it is not SEALED
 *      pin place (pin.h), commit unchanged? ends an object: commit DEAD
 *      epoch unchanged? use it
 *
 * A hit is a claim until the caller has pinned it: only with commit and epoch unchanged
 * after that were the fields of one object, and the bytes stay. A miss means nothing:
 * the caller asks the worker. Nothing that is read here is trusted further than that,
 * so a damaged table leads to a miss or a wrong claim, never outside of the memory.
 *
 * No calls, no locks, no stores. Any number of readers in any process. */
#ifndef STORE_TABLE_READER_H
#define STORE_TABLE_READER_H

#include "store/store.h"

#include <stdbool.h>

/* Owner: who mapped the memory, which must live as long. */
struct table_reader {
    const struct table_header *header;
    const _Atomic uint32_t *heads;
    const struct slot *slots;
    const uint8_t *key_heap;
    uint64_t arena_bytes;
    uint64_t bucket_mask;
    uint64_t key_heap_bytes;
    uint32_t slot_count;
};

/* DS_MISMATCH: the memory is not a table that this build can read. */
DS_MUST_USE enum ds_status
table_reader_init(struct table_reader *reader, void *table, uint64_t table_bytes,
                  struct ds_error *err);

/* Where an object was. [offset, offset + size) lies in the arena. */
struct table_hit {
    uint64_t commit; /* SEALED. */
    uint64_t offset;
    uint64_t size;
    uint64_t epoch;
    uint32_t slot;
};

/* The newest sealed object under `key`, of this kind, that has not expired by `now_ds`.
 * False: none was seen. */
bool table_reader_find(const struct table_reader *reader, struct ds_slice key,
                       bool is_block, uint64_t now_ds, struct table_hit *out);

/* After a hit, and with a clock that was read after it: the node was told of every change of
 * users' keys until then. */
bool table_reader_is_current(const struct table_reader *reader, uint64_t now_ds);

/* After the pin: no worker has rebuilt the chains since the hit. */
bool
table_reader_confirms(const struct table_reader *reader, const struct table_hit *hit);

#endif
