#include "wire/leaving.h"

#include "wire/message_internal.h"

/* ---- Arenas ---- */

void
encode_arena(struct writer *writer, const struct wire_arena *arena)
{
    write_u32(writer, arena->node);
    write_u32(writer, arena->incarnation);
    write_u8(writer, arena->is_whole);
}

bool
next_arena(struct ds_slice *arenas, struct wire_arena *out)
{
    if (arenas->len < WIRE_ARENA_BYTES)
        return false;
    struct reader reader = reader_of(arenas->data, arenas->len);
    out->node = read_u32(&reader);
    out->incarnation = read_u32(&reader);
    out->is_whole = read_u8(&reader) != 0;
    *arenas = (struct ds_slice){.data = reader.at, .len = reader_left(&reader)};
    return true;
}

bool
wire_are_arenas(struct ds_slice arenas)
{
    struct wire_arena arena;
    bool are_right = arenas.len % WIRE_ARENA_BYTES == 0;
    while (are_right && next_arena(&arenas, &arena))
        are_right = arena.node != 0;
    return are_right;
}

/* ---- LEAVE, TAKE_ROOM ---- */

void
encode_leave(struct writer *writer, enum leave_action action)
{
    write_u8(writer, (uint8_t)action);
}

bool
decode_leave(struct ds_slice body, enum leave_action *out)
{
    struct reader reader = reader_of(body.data, body.len);
    uint8_t action = read_u8(&reader);
    if (!reader_done(&reader) || action >= LEAVE_ACTION_COUNT)
        return false;
    *out = (enum leave_action)action;
    return true;
}

void
encode_room(struct writer *writer, uint64_t bytes)
{
    write_u64(writer, bytes);
}

bool
decode_room(struct ds_slice body, uint64_t *out_bytes)
{
    struct reader reader = reader_of(body.data, body.len);
    uint64_t bytes = read_u64(&reader);
    if (!reader_done(&reader))
        return false;
    *out_bytes = bytes;
    return true;
}

/* ---- TAKE ---- */

static void
write_giver(struct writer *writer, const struct wire_giver *giver)
{
    write_u32(writer, giver->node);
    write_u32(writer, giver->incarnation);
    write_u32(writer, giver->restarts);
}

/* And what is behind it. */
static bool
read_giver(struct ds_slice body, struct wire_giver *out, struct ds_slice *out_rest)
{
    struct reader reader = reader_of(body.data, body.len);
    out->node = read_u32(&reader);
    out->incarnation = read_u32(&reader);
    out->restarts = read_u32(&reader);
    *out_rest = (struct ds_slice){.data = reader.at, .len = reader_left(&reader)};
    return reader_ok(&reader) && out->node != 0;
}

void
encode_take_begin(struct writer *writer, const struct wire_giver *giver)
{
    write_giver(writer, giver);
}

bool
decode_take(struct ds_slice body, struct wire_giver *out_giver,
            struct ds_slice *out_lookup)
{
    struct wire_giver giver;
    struct lookup lookup;
    struct ds_slice rest;
    if (!read_giver(body, &giver, &rest) || !decode_lookup(rest, &lookup))
        return false;
    *out_giver = giver;
    *out_lookup = rest;
    return true;
}

/* ---- TAKE_KEYS, TAKE_END ---- */

void
encode_take_keys_begin(struct writer *writer, uint32_t count)
{
    write_u32(writer, count);
}

void
encode_take_key(struct writer *writer, const struct wire_take_key *key)
{
    uint8_t name[BLOCK_KEY_BYTES];
    wire_object_key(&key->object, name);
    write_bytes(writer, (struct ds_slice){.data = name, .len = sizeof name});
    write_u8(writer, key->is_evictable);
    write_short_bytes(writer, key->key);
}

bool
next_take_key(struct take_key_list *list, struct wire_take_key *out)
{
    if (!step(&list->count))
        return false;
    struct ds_slice name = read_bytes(&list->at, BLOCK_KEY_BYTES);
    out->is_evictable = read_u8(&list->at) != 0;
    out->key = read_short_bytes(&list->at);
    return reader_ok(&list->at) && wire_object_name(name, &out->object) &&
           out->object.node != 0 && wire_user_key_is_legal(out->key);
}

bool
decode_take_keys(struct ds_slice body, struct take_key_list *out)
{
    struct reader reader = reader_of(body.data, body.len);
    struct take_key_list list = {.count = read_u32(&reader)};
    struct wire_take_key key;
    list.at = reader;
    struct take_key_list probe = list;
    while (probe.count > 0) {
        if (!next_take_key(&probe, &key))
            return false;
    }
    if (!reader_done(&probe.at))
        return false;
    *out = list;
    return true;
}

void
encode_take_end(struct writer *writer, const struct wire_giver *giver,
                struct ds_slice arenas)
{
    write_giver(writer, giver);
    write_bytes(writer, arenas);
}

bool
decode_take_end(struct ds_slice body, struct wire_giver *out_giver,
                struct ds_slice *out_arenas)
{
    struct wire_giver giver;
    struct ds_slice arenas;
    if (!read_giver(body, &giver, &arenas) || !wire_are_arenas(arenas))
        return false;
    *out_giver = giver;
    *out_arenas = arenas;
    return true;
}
