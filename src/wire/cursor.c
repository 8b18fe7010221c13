#include "wire/cursor.h"

#include "base/check.h"
#include "base/numeric.h"

#include <stdlib.h>
#include <string.h>

enum { WRITER_BYTES_MIN = 256 };

struct reader
reader_of(const void *data, size_t len)
{
    const uint8_t *at = data;
    return (struct reader){.at = at, .end = len == 0 ? at : at + len};
}

/* The next `len` bytes, or NULL. */
static const uint8_t *
advance(struct reader *reader, size_t len)
{
    if (reader->failed || len > reader_left(reader)) {
        reader->failed = true;
        return NULL;
    }
    const uint8_t *at = reader->at;
    reader->at += len;
    return at;
}

static uint64_t
read_little_endian(struct reader *reader, size_t len)
{
    const uint8_t *at = advance(reader, len);
    uint64_t value = 0;
    if (at == NULL)
        return 0;
    for (size_t i = 0; i < len; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

uint8_t
read_u8(struct reader *reader)
{
    return (uint8_t)read_little_endian(reader, 1);
}

uint16_t
read_u16(struct reader *reader)
{
    return (uint16_t)read_little_endian(reader, 2);
}

uint32_t
read_u32(struct reader *reader)
{
    return (uint32_t)read_little_endian(reader, 4);
}

uint64_t
read_u64(struct reader *reader)
{
    return read_little_endian(reader, 8);
}

struct ds_slice
read_bytes(struct reader *reader, size_t len)
{
    const uint8_t *at = advance(reader, len);
    if (at == NULL)
        return (struct ds_slice){0};
    return (struct ds_slice){.data = at, .len = len};
}

struct ds_slice
read_short_bytes(struct reader *reader)
{
    return read_bytes(reader, read_u16(reader));
}

bool
reader_ok(const struct reader *reader)
{
    return !reader->failed;
}

bool
reader_done(const struct reader *reader)
{
    return !reader->failed && reader->at == reader->end;
}

size_t
reader_left(const struct reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

void
writer_init(struct writer *writer)
{
    *writer = (struct writer){0};
}

void
writer_fini(struct writer *writer)
{
    free(writer->data);
    writer_init(writer);
}

void
writer_clear(struct writer *writer)
{
    writer->len = 0;
    writer->failed = false;
}

bool
writer_reserve(struct writer *writer, size_t bytes)
{
    if (bytes <= writer->capacity - writer->len)
        return true;
    size_t wanted = max_u64(writer->capacity * 2, writer->len + bytes);
    wanted = max_u64(wanted, WRITER_BYTES_MIN);
    uint8_t *data = realloc(writer->data, wanted);
    if (data == NULL)
        return false;
    writer->data = data;
    writer->capacity = wanted;
    return true;
}

/* Room for `len` more bytes; NULL once the writer has failed. */
static uint8_t *
extend(struct writer *writer, size_t len)
{
    if (writer->failed)
        return NULL;
    if (!writer_reserve(writer, len)) {
        writer->failed = true;
        return NULL;
    }
    uint8_t *at = writer->data + writer->len;
    writer->len += len;
    return at;
}

static void
write_little_endian(struct writer *writer, uint64_t value, size_t len)
{
    uint8_t *at = extend(writer, len);
    if (at == NULL)
        return;
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

void
write_u8(struct writer *writer, uint8_t value)
{
    write_little_endian(writer, value, 1);
}

void
write_u16(struct writer *writer, uint16_t value)
{
    write_little_endian(writer, value, 2);
}

void
write_u32(struct writer *writer, uint32_t value)
{
    write_little_endian(writer, value, 4);
}

void
write_u64(struct writer *writer, uint64_t value)
{
    write_little_endian(writer, value, 8);
}

void
write_bytes(struct writer *writer, struct ds_slice bytes)
{
    if (bytes.len == 0)
        return;
    uint8_t *at = extend(writer, bytes.len);
    if (at != NULL)
        memcpy(at, bytes.data, bytes.len);
}

void
write_short_bytes(struct writer *writer, struct ds_slice bytes)
{
    DS_ASSERT(bytes.len <= UINT16_MAX);
    write_u16(writer, (uint16_t)bytes.len);
    write_bytes(writer, bytes);
}

void
patch_u32(struct writer *writer, size_t offset, uint32_t value)
{
    if (writer->failed)
        return;
    DS_ASSERT(offset + 4 <= writer->len);
    for (size_t i = 0; i < 4; i++)
        writer->data[offset + i] = (uint8_t)(value >> (8 * i));
}
