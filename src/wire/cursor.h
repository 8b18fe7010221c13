/* Reading and writing little-endian bytes with the bounds checked once, in one place.
 *
 * A reader that runs out turns `failed` and gives zeros from then on: a decoder reads
 * everything, then asks reader_ok() once. A writer grows; out of memory turns `failed`.
 * Owner: whoever holds it. */
#ifndef WIRE_CURSOR_H
#define WIRE_CURSOR_H

#include <datasystem/datasystem.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

struct reader reader_of(const void *data, size_t len);
uint8_t read_u8(struct reader *reader);
uint16_t read_u16(struct reader *reader);
uint32_t read_u32(struct reader *reader);
uint64_t read_u64(struct reader *reader);

/* `len` bytes in place; borrowed from the input. Empty on failure. */
struct ds_slice read_bytes(struct reader *reader, size_t len);

/* u16 length, then bytes. */
struct ds_slice read_short_bytes(struct reader *reader);

/* Nothing ran out. */
bool reader_ok(const struct reader *reader);

/* Nothing ran out and nothing is left: what a whole message must satisfy. */
bool reader_done(const struct reader *reader);

size_t reader_left(const struct reader *reader);

struct writer {
    uint8_t *data; /* Owned; writer_fini() frees it, writer_take() hands it over. */
    size_t len;
    size_t capacity;
    bool failed;
};

void writer_init(struct writer *writer);
void writer_fini(struct writer *writer);
void writer_clear(struct writer *writer); /* Keeps the memory. */

/* Makes sure that `bytes` more can be written; false when out of memory, with the writer
 * as it was. */
bool writer_reserve(struct writer *writer, size_t bytes);
void write_u8(struct writer *writer, uint8_t value);
void write_u16(struct writer *writer, uint16_t value);
void write_u32(struct writer *writer, uint32_t value);
void write_u64(struct writer *writer, uint64_t value);
void write_bytes(struct writer *writer, struct ds_slice bytes);
void write_short_bytes(struct writer *writer, struct ds_slice bytes); /* len <= 65535 */

/* Overwrite 4 bytes written earlier, at `offset`. */
void patch_u32(struct writer *writer, size_t offset, uint32_t value);

/* A writer that frees its memory when it leaves scope. */
#define AUTO_WRITER(name) __attribute__((cleanup(writer_fini))) struct writer name = {0}

#endif
