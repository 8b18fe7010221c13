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

/* A deadline so many seconds, or tenths of one, from now for the store; 0: never. */
uint32_t objects_expiry(uint32_t ttl_seconds, uint64_t now_ds);
uint32_t objects_expiry_ds(uint64_t ttl_ds, uint64_t now_ds);

/* What is left until then, a tenth at least; 0: it is for ever. */
uint32_t objects_left_ds(uint32_t expires_ds, uint64_t now_ds);

/* The object in our arena that goes by this name, if it is the one of its key. */
bool objects_find_named(struct worker *worker, const struct object_name *name,
                        struct object_view *out);
/* It is reserved, whoever it is that fills it. */
bool objects_is_unsealed(const struct worker *worker, struct object_ref ref);
struct object_name objects_name(const struct worker *worker, struct object_ref ref);

#endif
