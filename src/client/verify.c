/* Checksums: of what is written, and against what is read. */
#include "client/verify.h"
#include "client/buffer.h"

#include "base/check.h"
#include "base/status.h"
#include "os/checksum.h"
#include "os/copy.h"

#include <stdio.h>
#include <string.h>

enum {
    /* Up to here the bytes of one who wrote them without us are most likely still in a
     * cache when they are sealed; larger ones are left to the worker's helper. */
    SEAL_BYTES_MAX = 64 << 10,
};

void
buffer_write(struct ds_buffer *buffer, const void *from, uint64_t bytes)
{
    DS_ASSERT(buffer->state != BUFFER_SEALED);
    DS_ASSERT(bytes <= buffer->size);
    bool whole = bytes == buffer->size && !buffer->is_exposed;
    buffer->checksum.known = whole;
    if (whole)
        buffer->checksum.value = checksum_copy(buffer->data, from, bytes);
    else
        copy_bytes(buffer->data, from, bytes);
}

void
buffer_settle_checksum(struct ds_buffer *buffer)
{
    if (buffer->checksum.known || (buffer->size > SEAL_BYTES_MAX && !buffer->owns_data))
        return;
    buffer->checksum = (struct wire_checksum){
        .known = true, .value = checksum_of(buffer->data, buffer->size)};
}

/* A user's key as it is, that of a block's part in hexadecimal digits. */
static void
name_key(struct ds_slice key, char *out, size_t out_bytes)
{
    if (wire_user_key_is_legal(key)) {
        snprintf(out, out_bytes, "'%.*s'", (int)key.len, (const char *)key.data);
        return;
    }
    const uint8_t *bytes = key.data;
    int used = snprintf(out, out_bytes, "block part ");
    for (size_t i = 0; i < key.len && (size_t)used + 3 < out_bytes; i++)
        used += snprintf(out + used, out_bytes - (size_t)used, "%02x", bytes[i]);
}

enum ds_status
verify_bytes(struct ds_slice key, struct ds_slice bytes, uint64_t wanted,
             struct ds_error *err)
{
    char name[DS_KEY_BYTES_MAX / 2];
    uint64_t found = checksum_of(bytes.data, bytes.len);
    if (found == wanted)
        return DS_OK;
    name_key(key, name, sizeof name);
    return ds_fail(
        err, DS_CORRUPT,
        "the bytes of %s are damaged: the checksum of these %zu bytes is "
        "%016jx, that of what was stored is %016jx; get it once more, and if "
        "that fails too, delete it and store it again",
        name, bytes.len, (uintmax_t)found, (uintmax_t)wanted);
}

enum ds_status
verify_pinned(struct ds_slice key, const struct ds_buffer *buffer, struct ds_error *err)
{
    DS_ASSERT(!buffer->owns_data);
    const struct slot *slot = &buffer->mapping->reader.slots[buffer->ref.slot];
    uint64_t place = __atomic_load_n(&slot->place, __ATOMIC_ACQUIRE);
    if ((place_flags(place) & SLOT_FLAG_CHECKSUM) == 0)
        return DS_OK;
    uint64_t wanted = __atomic_load_n(&slot->checksum, __ATOMIC_RELAXED);
    struct ds_slice bytes = {.data = buffer->data, .len = buffer->size};
    return verify_bytes(key, bytes, wanted, err);
}
