/* Checksums of what a client writes and reads. The truth is in the table: a writer's
 * checksum gets there with the message that publishes, and is never taken from bytes
 * that a client can write. */
#ifndef CLIENT_VERIFY_H
#define CLIENT_VERIFY_H

#include "client/buffer.h"

/* Fills the first bytes of an unsealed buffer. Its checksum is known if that is all of
 * it, and nobody has got a pointer with which to write past us. */
void buffer_write(struct ds_buffer *buffer, const void *from, uint64_t bytes);

/* About to be sealed: computes the checksum if it is not known and cheap to have. */
void buffer_settle_checksum(struct ds_buffer *buffer);

/* DS_CORRUPT, with the key, both checksums and what to do, if they are not the bytes. */
DS_MUST_USE enum ds_status verify_bytes(struct ds_slice key, struct ds_slice bytes,
                                        uint64_t wanted, struct ds_error *err);

/* All bytes of a pinned, sealed object against the table; one that has no checksum (yet)
 * passes. */
DS_MUST_USE enum ds_status
verify_pinned(struct ds_slice key, const struct ds_buffer *buffer,
              struct ds_error *err);

#endif
