/* The 24 bytes in front of every message: whatever is accepted is written again as the
 * same bytes, and keeps the limits that the connection relies on. */
#include "fuzz.h"

#include "wire/frame.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame_header header;
    if (size != FRAME_HEADER_BYTES || !frame_decode(data, &header))
        return 0;
    DS_ASSERT(header.type > 0);
    DS_ASSERT(header.type < MESSAGE_TYPE_COUNT);
    DS_ASSERT(header.status < DS_STATUS_COUNT);
    DS_ASSERT(header.body_bytes <= FRAME_BODY_BYTES_MAX);
    uint8_t again[FRAME_HEADER_BYTES];
    frame_encode(&header, again);
    DS_ASSERT(memcmp(again, data, sizeof again) == 0);
    return 0;
}
