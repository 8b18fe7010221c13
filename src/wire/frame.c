#include "wire/frame.h"

#include "wire/cursor.h"

#include "base/check.h"

#include <string.h>

bool
frame_decode(const uint8_t bytes[FRAME_HEADER_BYTES], struct frame_header *out)
{
    struct reader reader = reader_of(bytes, FRAME_HEADER_BYTES);
    uint32_t magic = read_u32(&reader);
    uint16_t type = read_u16(&reader);
    uint16_t status = read_u16(&reader);
    struct frame_header header = {
        .type = (enum message_type)type,
        .status = (enum ds_status)status,
    };
    header.sequence = read_u32(&reader);
    header.body_bytes = read_u32(&reader);
    header.payload_bytes = read_u64(&reader);
    DS_ASSERT(reader_done(&reader));
    if (magic != FRAME_MAGIC || type == 0 || type >= MESSAGE_TYPE_COUNT)
        return false;
    if (status >= DS_STATUS_COUNT || header.body_bytes > FRAME_BODY_BYTES_MAX)
        return false;
    *out = header;
    return true;
}

static uint8_t *
store_little_endian(uint8_t *at, uint64_t value, size_t len)
{
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)(value >> (8 * i));
    return at + len;
}

void
frame_encode(const struct frame_header *header, uint8_t out[FRAME_HEADER_BYTES])
{
    DS_ASSERT(header->body_bytes <= FRAME_BODY_BYTES_MAX);
    uint8_t *at = store_little_endian(out, FRAME_MAGIC, 4);
    at = store_little_endian(at, (uint64_t)header->type, 2);
    at = store_little_endian(at, (uint64_t)header->status, 2);
    at = store_little_endian(at, header->sequence, 4);
    at = store_little_endian(at, header->body_bytes, 4);
    at = store_little_endian(at, header->payload_bytes, 8);
    DS_ASSERT(at == out + FRAME_HEADER_BYTES);
}
