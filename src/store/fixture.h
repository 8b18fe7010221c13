/* What the tests of the store share: a small store in plain memory, with an arena whose
 * bytes are real, and objects by short calls. */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include "base/slice.h"
#include "store/store.h"
#include "test.h"

enum { FIXTURE_NOW = 1000 };

struct fixture {
    struct store_geometry geometry;
    struct store_memory memory;
    uint8_t *arena; /* geometry.arena_bytes. */
    struct store *store;
    struct store_recovery report; /* Of the last opening. */
};

/* 1 MiB of arena, 64 slots in 16 buckets, 8 clients with 64 pins. */
struct store_geometry fixture_geometry(void);

/* Formats, opens and populates. Everything is checked; nothing is returned. */
void fixture_open(struct fixture *fixture, struct store_geometry geometry);
void fixture_close(struct fixture *fixture);

/* A worker that stops without a word, and the next one. */
void fixture_restart(struct fixture *fixture);

/* A copy of table and pins with a store of its own, not opened yet. */
void fixture_copy(struct fixture *out, const struct fixture *from);
DS_MUST_USE enum ds_status
fixture_reopen(struct fixture *fixture, struct ds_error *err);

/* cleanup for AUTO(fixture). */
void fixture_auto(struct fixture *fixture);

uint32_t add_client(struct store *store); /* Region number. */

struct create_request request_for(const char *key, uint64_t size);
enum ds_status
try_create(struct store *store, const char *key, uint64_t size, struct ds_error *err);
enum ds_status try_seal(struct store *store, const struct seal_request *request);
struct object_view create(struct store *store, const char *key, uint64_t size);
void seal(struct store *store, struct object_ref ref);
struct object_view put(struct store *store, const char *key, uint64_t size);
bool find(struct store *store, const char *key, struct object_view *out);
bool exists(struct store *store, const char *key);
bool delete_key(struct store *store, const char *key);
struct store_stats stats_of(const struct store *store);
struct pin_region *region_of(const struct fixture *fixture, uint32_t region);
const struct slot *slot_of(const struct fixture *fixture, uint32_t slot);

#endif
