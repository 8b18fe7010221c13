/* Creating, publishing and forgetting objects on behalf of sessions. */
#ifndef WORKER_OBJECTS_H
#define WORKER_OBJECTS_H

#include "worker/client.h"
#include "worker/session.h"

/* A client that came back after a restart keeps what it says it holds; the rest of its
 * unsealed objects is aborted. */
DS_MUST_USE enum ds_status
objects_resume(struct session *session, struct client *client,
               const struct hello *hello, struct ds_error *err);

enum { BLOCK_PART_FLAGS = SLOT_FLAG_BLOCK | SLOT_FLAG_PROVISIONAL };

/* A fresh one, never issued before by any worker of this arena. */
struct ds_block_id objects_issue_block_id(struct session *session);

/* The extent in a reply of kind `created`. */
void objects_write_created(struct writer *writer, const struct object_view *view);

/* As store_create(), for a user's key. Checks the key, the size and the mode. */
DS_MUST_USE enum ds_status
objects_create(struct session *session, struct ds_slice key, uint64_t size,
               uint8_t write_mode, uint32_t sequence, struct object_view *out,
               struct ds_error *err);

struct objects_seal {
    struct object_ref ref;
    uint32_t ttl_seconds;
    bool only_if_absent;
    struct wire_checksum checksum; /* Without: checksums.h finds the object later. */
};

/* Publish and wake those who wait for the key. */
DS_MUST_USE enum ds_status
objects_seal(struct worker *worker, const struct objects_seal *seal,
             struct ds_error *err);

/* A deadline `ttl_seconds` from now for the store; 0: never. */
uint32_t objects_expiry(uint32_t ttl_seconds, uint64_t now_ds);

#endif
