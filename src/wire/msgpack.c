#include "wire/msgpack.h"

#include "base/check.h"

/* What the first byte of a value says, with its argument resolved. */
struct head {
    enum msgpack_type type;
    bool is_negative;
    uint64_t argument; /* Integer, or number of elements or pairs. */
    uint64_t bytes;    /* Contents that follow: of str, bin, ext and float. */
};

/* Values that begin with 0xc0 to 0xdf. */
struct form {
    uint8_t type;
    uint8_t argument_bytes; /* Big-endian, after the first byte. */
    uint8_t fixed_bytes;    /* Contents besides what the argument counts. */
};

static const struct form forms[32] = {
    [0x00] = {MSGPACK_NIL, 0, 0},     [0x02] = {MSGPACK_BOOL, 0, 0},
    [0x03] = {MSGPACK_BOOL, 0, 0},    [0x04] = {MSGPACK_BIN, 1, 0},
    [0x05] = {MSGPACK_BIN, 2, 0},     [0x06] = {MSGPACK_BIN, 4, 0},
    [0x07] = {MSGPACK_EXT, 1, 1},     [0x08] = {MSGPACK_EXT, 2, 1},
    [0x09] = {MSGPACK_EXT, 4, 1},     [0x0a] = {MSGPACK_FLOAT, 0, 4},
    [0x0b] = {MSGPACK_FLOAT, 0, 8},   [0x0c] = {MSGPACK_INTEGER, 1, 0},
    [0x0d] = {MSGPACK_INTEGER, 2, 0}, [0x0e] = {MSGPACK_INTEGER, 4, 0},
    [0x0f] = {MSGPACK_INTEGER, 8, 0}, [0x10] = {MSGPACK_INTEGER, 1, 0},
    [0x11] = {MSGPACK_INTEGER, 2, 0}, [0x12] = {MSGPACK_INTEGER, 4, 0},
    [0x13] = {MSGPACK_INTEGER, 8, 0}, [0x14] = {MSGPACK_EXT, 0, 2},
    [0x15] = {MSGPACK_EXT, 0, 3},     [0x16] = {MSGPACK_EXT, 0, 5},
    [0x17] = {MSGPACK_EXT, 0, 9},     [0x18] = {MSGPACK_EXT, 0, 17},
    [0x19] = {MSGPACK_STR, 1, 0},     [0x1a] = {MSGPACK_STR, 2, 0},
    [0x1b] = {MSGPACK_STR, 4, 0},     [0x1c] = {MSGPACK_ARRAY, 2, 0},
    [0x1d] = {MSGPACK_ARRAY, 4, 0},   [0x1e] = {MSGPACK_MAP, 2, 0},
    [0x1f] = {MSGPACK_MAP, 4, 0},
};

static uint64_t
read_big_endian(struct reader *reader, size_t bytes)
{
    struct ds_slice at = read_bytes(reader, bytes);
    uint64_t value = 0;
    for (size_t i = 0; i < at.len; i++)
        value = value << 8 | ((const uint8_t *)at.data)[i];
    return value;
}

/* First bytes up to 0x7f and from 0x80 to 0xbf and from 0xe0 hold a small argument. */
static struct head
small_head(uint8_t first)
{
    if (first <= 0x7f)
        return (struct head){.type = MSGPACK_INTEGER, .argument = first};
    if (first >= 0xe0)
        return (struct head){.type = MSGPACK_INTEGER, .is_negative = true};
    if (first >= 0xa0)
        return (struct head){.type = MSGPACK_STR, .bytes = first & 0x1f};
    if (first >= 0x90)
        return (struct head){.type = MSGPACK_ARRAY, .argument = first & 0x0f};
    return (struct head){.type = MSGPACK_MAP, .argument = first & 0x0f};
}

static bool
has_contents(enum msgpack_type type)
{
    return type == MSGPACK_STR || type == MSGPACK_BIN || type == MSGPACK_EXT;
}

/* Reads the head of the next value and leaves the cursor at its contents. */
static struct head
read_head(struct reader *reader)
{
    uint8_t first = read_u8(reader);
    if (first < 0xc0 || first >= 0xe0)
        return small_head(first);
    const struct form *form = &forms[first - 0xc0];
    uint64_t argument = read_big_endian(reader, form->argument_bytes);
    struct head head = {.type = form->type, .argument = argument};
    if (has_contents(head.type))
        head.bytes = argument;
    head.bytes += form->fixed_bytes;
    if (first >= 0xd0 && first <= 0xd3)
        head.is_negative = (argument >> (8 * form->argument_bytes - 1)) != 0;
    if (head.type == MSGPACK_NONE)
        reader->failed = true;
    return head;
}

/* As read_head(), and of this type: else the reader has failed. */
static struct head
expect_head(struct reader *reader, enum msgpack_type type)
{
    struct head head = read_head(reader);
    if (head.type != type)
        reader->failed = true;
    if (reader->failed)
        return (struct head){.type = type};
    return head;
}

/* Bytes of the UTF-8 sequence that begins here, 0 if there is none. The second byte has
 * a narrower range after some first bytes: no overlong forms, no surrogates, nothing
 * beyond U+10FFFF. */
static size_t
utf8_sequence(const uint8_t *at, size_t left)
{
    uint8_t first = at[0];
    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    size_t bytes = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (left < bytes)
        return 0;
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < bytes; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    }
    return bytes;
}

static bool
is_utf8(struct ds_slice text)
{
    const uint8_t *bytes = text.data;
    size_t at = 0;
    while (at < text.len) {
        size_t sequence = utf8_sequence(bytes + at, text.len - at);
        if (sequence == 0)
            return false;
        at += sequence;
    }
    return true;
}

static struct ds_slice
read_text(struct reader *reader, uint64_t bytes)
{
    struct ds_slice text = read_bytes(reader, bytes);
    if (!is_utf8(text)) {
        reader->failed = true;
        return (struct ds_slice){0};
    }
    return text;
}

/* Elements of `parts` values each that must follow; every value is a byte at least. */
static uint32_t
checked_count(struct reader *reader, const struct head *head, uint32_t parts)
{
    if (head->argument > reader_left(reader) / parts)
        reader->failed = true;
    return reader->failed ? 0 : (uint32_t)head->argument;
}

enum msgpack_type
msgpack_peek(const struct reader *reader)
{
    if (reader->failed || reader->at == reader->end)
        return MSGPACK_NONE;
    uint8_t first = *reader->at;
    if (first < 0xc0 || first >= 0xe0)
        return small_head(first).type;
    return forms[first - 0xc0].type;
}

bool
msgpack_read_nil(struct reader *reader)
{
    if (msgpack_peek(reader) != MSGPACK_NIL)
        return false;
    reader->at++;
    return true;
}

uint64_t
msgpack_read_uint(struct reader *reader)
{
    struct head head = expect_head(reader, MSGPACK_INTEGER);
    if (head.is_negative) {
        reader->failed = true;
        return 0;
    }
    return head.argument;
}

struct ds_slice
msgpack_read_str(struct reader *reader)
{
    return read_text(reader, expect_head(reader, MSGPACK_STR).bytes);
}

struct ds_slice
msgpack_read_bin(struct reader *reader)
{
    return read_bytes(reader, expect_head(reader, MSGPACK_BIN).bytes);
}

uint32_t
msgpack_read_array(struct reader *reader)
{
    struct head head = expect_head(reader, MSGPACK_ARRAY);
    return checked_count(reader, &head, 1);
}

uint32_t
msgpack_read_map(struct reader *reader)
{
    struct head head = expect_head(reader, MSGPACK_MAP);
    return checked_count(reader, &head, 2);
}

/* An array or map that is being stepped over. */
struct level {
    uint64_t left; /* Values still to come. */
    bool is_map;   /* An even `left` means that a key comes next. */
};

/* Steps over one value; an array or map becomes a new level. */
static void
skip_one(struct reader *reader, struct level levels[], size_t *depth)
{
    struct level *inside = *depth == 0 ? NULL : &levels[*depth - 1];
    bool is_key = inside != NULL && inside->is_map && inside->left % 2 == 0;
    struct head head = read_head(reader);
    bool is_map = head.type == MSGPACK_MAP;
    if (inside != NULL)
        inside->left--;
    if (!is_map && head.type != MSGPACK_ARRAY) {
        if (head.type == MSGPACK_STR)
            read_text(reader, head.bytes);
        else
            read_bytes(reader, head.bytes);
        return;
    }
    uint32_t count = checked_count(reader, &head, is_map ? 2 : 1);
    if (is_key || *depth == MSGPACK_DEPTH_MAX)
        reader->failed = true;
    else
        levels[(*depth)++] = (struct level){
            .left = is_map ? 2 * (uint64_t)count : count,
            .is_map = is_map,
        };
}

void
msgpack_skip(struct reader *reader)
{
    struct level levels[MSGPACK_DEPTH_MAX];
    size_t depth = 0;
    do {
        skip_one(reader, levels, &depth);
        while (depth > 0 && levels[depth - 1].left == 0)
            depth--;
    } while (depth > 0 && reader_ok(reader));
}

struct ds_slice
msgpack_read_raw(struct reader *reader)
{
    const uint8_t *begin = reader->at;
    msgpack_skip(reader);
    if (!reader_ok(reader))
        return (struct ds_slice){0};
    return (struct ds_slice){.data = begin, .len = (size_t)(reader->at - begin)};
}

/* `first`, then `value` in `bytes` big-endian bytes. */
static void
write_head(struct writer *writer, uint8_t first, uint64_t value, size_t bytes)
{
    uint8_t head[9] = {first};
    DS_ASSERT(bytes < sizeof head);
    for (size_t i = 0; i < bytes; i++)
        head[1 + i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
    write_bytes(writer, (struct ds_slice){.data = head, .len = 1 + bytes});
}

void
msgpack_write_nil(struct writer *writer)
{
    write_u8(writer, 0xc0);
}

void
msgpack_write_uint(struct writer *writer, uint64_t value)
{
    if (value <= 0x7f)
        write_u8(writer, (uint8_t)value);
    else if (value <= UINT8_MAX)
        write_head(writer, 0xcc, value, 1);
    else if (value <= UINT16_MAX)
        write_head(writer, 0xcd, value, 2);
    else if (value <= UINT32_MAX)
        write_head(writer, 0xce, value, 4);
    else
        write_head(writer, 0xcf, value, 8);
}

void
msgpack_write_str(struct writer *writer, struct ds_slice text)
{
    DS_ASSERT(text.len <= UINT32_MAX);
    if (text.len <= 31)
        write_u8(writer, (uint8_t)(0xa0 | text.len));
    else if (text.len <= UINT8_MAX)
        write_head(writer, 0xd9, text.len, 1);
    else if (text.len <= UINT16_MAX)
        write_head(writer, 0xda, text.len, 2);
    else
        write_head(writer, 0xdb, text.len, 4);
    write_bytes(writer, text);
}

void
msgpack_write_bin(struct writer *writer, struct ds_slice bytes)
{
    DS_ASSERT(bytes.len <= UINT32_MAX);
    if (bytes.len <= UINT8_MAX)
        write_head(writer, 0xc4, bytes.len, 1);
    else if (bytes.len <= UINT16_MAX)
        write_head(writer, 0xc5, bytes.len, 2);
    else
        write_head(writer, 0xc6, bytes.len, 4);
    write_bytes(writer, bytes);
}

/* Arrays and maps differ in their first bytes only. */
static void
write_container(struct writer *writer, uint8_t small, uint8_t large, size_t count)
{
    DS_ASSERT(count <= UINT32_MAX);
    if (count <= 15)
        write_u8(writer, (uint8_t)(small | count));
    else if (count <= UINT16_MAX)
        write_head(writer, large, count, 2);
    else
        write_head(writer, (uint8_t)(large + 1), count, 4);
}

void
msgpack_write_array(struct writer *writer, size_t count)
{
    write_container(writer, 0x90, 0xdc, count);
}

void
msgpack_write_map(struct writer *writer, size_t pair_count)
{
    write_container(writer, 0x80, 0xde, pair_count);
}

size_t
msgpack_begin_array(struct writer *writer)
{
    write_head(writer, 0xdd, 0, 4);
    return writer->len;
}

void
msgpack_end_array(struct writer *writer, size_t mark, size_t count)
{
    DS_ASSERT(count <= UINT32_MAX);
    if (!writer->failed) /* patch_u32() writes the lowest byte first. */
        patch_u32(writer, mark - 4, __builtin_bswap32((uint32_t)count));
}
