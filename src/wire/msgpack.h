/* MessagePack, read in place and written straight into a buffer.
 *
 * Reading is a cursor over borrowed bytes: no allocation, no recursion, no tree. A
 * library that builds a tree of objects spends tens of bytes for each byte that a peer
 * sends; here a hostile message costs what it weighs (docs/decisions/0003-msgpack.md).
 *
 * All reading functions follow struct reader: whatever does not fit turns `failed`, and
 * from then on they answer zeros. They refuse
 *   - a value of another type than asked for,
 *   - an array or map that announces more elements than there are bytes left, so that
 *     a count may be used to size memory,
 *   - str that is not UTF-8: it could be stored here and break every later reader,
 *   - arrays or maps as keys of a map, and nesting beyond MSGPACK_DEPTH_MAX.
 *
 * Owner: whoever holds the cursor. Pure. */
#ifndef WIRE_MSGPACK_H
#define WIRE_MSGPACK_H

#include "wire/cursor.h"

enum { MSGPACK_DEPTH_MAX = 64 };

enum msgpack_type {
    MSGPACK_NONE, /* Nothing left, or a byte that begins no value. */
    MSGPACK_NIL,
    MSGPACK_BOOL,
    MSGPACK_INTEGER,
    MSGPACK_FLOAT,
    MSGPACK_STR,
    MSGPACK_BIN,
    MSGPACK_ARRAY,
    MSGPACK_MAP,
    MSGPACK_EXT,
};

/* ---- Reading ---- */

/* Type of the next value, which stays unread. */
enum msgpack_type msgpack_peek(const struct reader *reader);

/* Steps over a nil if that is what comes next, and tells. Anything else stays unread.
 */
bool msgpack_read_nil(struct reader *reader);

/* Negative numbers are refused. */
uint64_t msgpack_read_uint(struct reader *reader);
struct ds_slice msgpack_read_str(struct reader *reader);
struct ds_slice msgpack_read_bin(struct reader *reader);

/* The number of elements, or of pairs, that follow. */
uint32_t msgpack_read_array(struct reader *reader);
uint32_t msgpack_read_map(struct reader *reader);

/* One whole value of any type, checked to its end, as it stands in the input. */
struct ds_slice msgpack_read_raw(struct reader *reader);
void msgpack_skip(struct reader *reader);

/* ---- Writing; lengths and counts are below 2^32 ---- */

void msgpack_write_nil(struct writer *writer);
void msgpack_write_uint(struct writer *writer, uint64_t value);
void msgpack_write_str(struct writer *writer, struct ds_slice text);
void msgpack_write_bin(struct writer *writer, struct ds_slice bytes);
void msgpack_write_array(struct writer *writer, size_t count);
void msgpack_write_map(struct writer *writer, size_t pair_count);

/* An array whose count is known only afterwards: begin gives a mark for end. */
size_t msgpack_begin_array(struct writer *writer);
void msgpack_end_array(struct writer *writer, size_t mark, size_t count);

#endif
