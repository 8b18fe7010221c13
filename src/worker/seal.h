/* An object becomes what its key is: sealed here, once the owner of a user's key has bound
 * the key to it. Where no other node has a say, both are one step.
 * Owner: loop thread. */
#ifndef WORKER_SEAL_H
#define WORKER_SEAL_H

#include "worker/keys.h"

struct objects_seal {
    struct object_ref ref;
    uint32_t ttl_seconds;
    bool only_if_absent;
    struct wire_checksum checksum; /* Without: checksums.h finds the object later. */
};

/* Publish and wake those who wait for the key; whoever owns it agrees. */
DS_MUST_USE enum ds_status
objects_seal(struct worker *worker, const struct objects_seal *seal,
             struct ds_error *err);

/* Other nodes have a say in it: it is a user's object, unsealed, and this is its key. */
bool seal_is_asked_for(struct worker *worker, struct object_ref ref,
                       struct ds_slice *out_key);

/* As objects_seal(), when the key's owner has agreed; `key` is in `body`. `reply` is called
 * then, if the session is still there, with what became of it.
 *   DS_NO_MEMORY, DS_FULL   nothing was begun */
DS_MUST_USE enum ds_status
seal_one(struct session *session, const struct frame_header *header,
         struct ds_slice body, struct ds_slice key, const struct objects_seal *seal,
         key_reply_fn reply, struct ds_error *err);

/* Tenths of a second; 0, for ever, also for what is more than 13 years away. */
uint32_t seal_tenths(uint32_t seconds);

#endif
