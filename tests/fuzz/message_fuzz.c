/* Every decoder of wire/message.h, wire/bindings.h and wire/leaving.h. The first byte chooses one, the rest is the body.
 *
 * What a decoder accepts, its encoder can say: the struct is written, which gives as
 * many bytes as were read (flags may become 0 or 1), and those bytes are read and
 * written once more without any change. Lists are stepped through to their end. */
#include "fuzz.h"

#include "wire/bindings.h"
#include "wire/journals.h"
#include "wire/leaving.h"
#include "wire/message.h"

#include <stdlib.h>

enum { LIST_MAX = 4096 };

/* Elements of the list at hand. */
static struct wire_ref refs[LIST_MAX];
static struct wire_filled filled[LIST_MAX];
static struct ds_slice keys[LIST_MAX];
static uint64_t sizes[LIST_MAX];
static struct ds_block_id ids[LIST_MAX];

/* Decodes `body` and encodes what came out; false if it is refused, or longer than
 * the arrays above. */
typedef bool (*rewrite_fn)(struct ds_slice body, struct writer *out);

static bool
collect_refs(struct ref_list list)
{
    size_t count = 0;
    uint32_t announced = list.count;
    if (announced > LIST_MAX)
        return false;
    while (next_ref(&list, &refs[count]))
        count++;
    DS_ASSERT(count == announced);
    DS_ASSERT(reader_done(&list.at));
    return true;
}

static bool
rewrite_fetched(struct ds_slice body, struct writer *out)
{
    struct fetched list;
    if (!decode_fetched(body, &list))
        return false;
    encode_fetched_begin(out, list.count);
    struct wire_value value;
    while (next_value(&list, &value))
        encode_fetched_value(out, &value);
    DS_ASSERT(reader_done(&list.at));
    return true;
}

static bool
collect_keys(struct key_list list)
{
    size_t count = 0;
    uint32_t announced = list.count;
    if (announced > LIST_MAX)
        return false;
    while (next_key(&list, &keys[count]))
        count++;
    DS_ASSERT(count == announced);
    DS_ASSERT(reader_done(&list.at));
    return true;
}

static bool
rewrite_discovered(struct ds_slice body, struct writer *out)
{
    struct discovered message;
    if (!decode_discovered(body, &message))
        return false;
    encode_discovered(out, &message);
    return true;
}

static bool
rewrite_hello(struct ds_slice body, struct writer *out)
{
    struct hello message;
    if (!decode_hello(body, &message) || !collect_refs(message.holding))
        return false;
    encode_hello(out, &message, refs, message.holding.count);
    return true;
}

static bool
rewrite_welcome(struct ds_slice body, struct writer *out)
{
    struct welcome message;
    if (!decode_welcome(body, &message))
        return false;
    encode_welcome(out, &message);
    return true;
}

static bool
rewrite_create(struct ds_slice body, struct writer *out)
{
    struct create message;
    if (!decode_create(body, &message) || message.objects.count > LIST_MAX)
        return false;
    struct sized_key_list list = message.objects;
    size_t count = 0;
    while (next_sized_key(&list, &keys[count], &sizes[count]))
        count++;
    DS_ASSERT(count == message.objects.count);
    DS_ASSERT(reader_done(&list.at));
    encode_create(out, message.wait_ms, message.write_mode, keys, sizes, count);
    return true;
}

static bool
rewrite_block_create(struct ds_slice body, struct writer *out)
{
    struct block_create message;
    if (!decode_block_create(body, &message) || message.sizes.count > LIST_MAX)
        return false;
    struct size_list list = message.sizes;
    size_t announced = list.count;
    size_t count = 0;
    while (next_size(&list, &sizes[count]))
        count++;
    DS_ASSERT(count == announced);
    DS_ASSERT(reader_done(&list.at));
    encode_block_create(out, message.wait_ms, sizes, count);
    return true;
}

static bool
rewrite_created(struct ds_slice body, struct writer *out)
{
    struct created list;
    if (!decode_created(body, &list))
        return false;
    encode_created_begin(out, list.block, list.count);
    struct wire_extent extent;
    while (next_extent(&list, &extent))
        encode_created_extent(out, extent);
    DS_ASSERT(reader_done(&list.at));
    return true;
}

static bool
rewrite_seal(struct ds_slice body, struct writer *out)
{
    struct seal message;
    if (!decode_seal(body, &message) || message.objects.count > LIST_MAX)
        return false;
    struct filled_list list = message.objects;
    size_t count = 0;
    while (next_filled(&list, &filled[count]))
        count++;
    DS_ASSERT(count == message.objects.count);
    DS_ASSERT(reader_done(&list.at));
    encode_seal(out, message.ttl_seconds, message.only_if_absent, filled, count);
    return true;
}

static bool
rewrite_publish(struct ds_slice body, struct writer *out)
{
    struct publish message;
    if (!decode_publish(body, &message))
        return false;
    encode_publish(out, &message);
    return true;
}

static bool
rewrite_refs(struct ds_slice body, struct writer *out)
{
    struct ref_list list;
    if (!decode_refs(body, &list) || !collect_refs(list))
        return false;
    encode_refs(out, refs, list.count);
    return true;
}

/* A legal key is one that can be printed, and never one of a block's part. */
static void
check_legality(struct ds_slice key)
{
    if (!wire_user_key_is_legal(key))
        return;
    const uint8_t *at = key.data;
    DS_ASSERT(key.len >= 1);
    DS_ASSERT(key.len <= DS_KEY_BYTES_MAX);
    for (size_t i = 0; i < key.len; i++)
        DS_ASSERT(at[i] > ' ' && at[i] < 0x7f);
}

static bool
rewrite_keys(struct ds_slice body, struct writer *out)
{
    struct key_list list;
    if (!decode_keys(body, &list) || !collect_keys(list))
        return false;
    for (size_t i = 0; i < list.count; i++)
        check_legality(keys[i]);
    encode_keys(out, keys, list.count);
    return true;
}

static bool
rewrite_lookup(struct ds_slice body, struct writer *out)
{
    struct lookup message;
    if (!decode_lookup(body, &message) || !collect_keys(message.keys))
        return false;
    encode_lookup(out, &message, keys, message.keys.count);
    return true;
}

static bool
rewrite_found(struct ds_slice body, struct writer *out)
{
    struct found list;
    if (!decode_found(body, &list))
        return false;
    encode_found_begin(out, list.count);
    struct wire_object object;
    while (next_object(&list, &object))
        encode_found_object(out, &object);
    DS_ASSERT(reader_done(&list.at));
    return true;
}

static bool
rewrite_expire(struct ds_slice body, struct writer *out)
{
    struct expire message;
    if (!decode_expire(body, &message) || !collect_keys(message.keys))
        return false;
    encode_expire(out, message.ttl_seconds, keys, message.keys.count);
    return true;
}

static bool
rewrite_put(struct ds_slice body, struct writer *out)
{
    struct put message;
    if (!decode_put(body, &message))
        return false;
    encode_put(out, &message);
    return true;
}

static bool
rewrite_flags(struct ds_slice body, struct writer *out)
{
    uint32_t count;
    const uint8_t *flags;
    if (!decode_flags(body, &count, &flags))
        return false;
    encode_flags_begin(out, count);
    for (uint32_t i = 0; i < count; i++)
        write_u8(out, flags[i]);
    return true;
}

static bool
rewrite_block_ids(struct ds_slice body, struct writer *out)
{
    struct block_id_list list;
    if (!decode_block_ids(body, &list) || list.count > LIST_MAX)
        return false;
    size_t announced = list.count;
    size_t count = 0;
    while (next_block_id(&list, &ids[count]))
        count++;
    DS_ASSERT(count == announced);
    DS_ASSERT(reader_done(&list.at));
    encode_block_ids(out, ids, count);
    return true;
}

static bool
rewrite_orphans_found(struct ds_slice body, struct writer *out)
{
    static struct ds_block_id all[LIST_MAX];
    struct orphans_found message;
    size_t count = 0;
    if (!decode_orphans_found(body, &message) || message.ids.count > LIST_MAX ||
        *(const uint8_t *)body.data > 1)
        return false;
    while (next_block_id(&message.ids, &all[count]))
        count++;
    encode_orphans_found(out, message.is_anybodys, all, count);
    return true;
}

static bool
rewrite_member_renew(struct ds_slice body, struct writer *out)
{
    struct member_renew message;
    if (!decode_member_renew(body, &message))
        return false;
    DS_ASSERT(message.who.address.len <= MEMBER_ADDRESS_BYTES_MAX);
    struct queue_place place;
    while (next_member_queue(&message.who.queues, &place))
        DS_ASSERT(place.name.len <= QUEUE_PLACE_NAME_MAX);
    DS_ASSERT(message.who.queues.len == 0);
    bool whole = decode_member_renew(body, &message);
    DS_ASSERT(whole);
    encode_member_renew(out, &message);
    return true;
}

static bool
rewrite_member_list(struct ds_slice body, struct writer *out)
{
    struct member_list list;
    struct wire_member member;
    if (!decode_member_list(body, &list))
        return false;
    encode_member_list_begin(out, &list);
    while (next_member(&list, &member))
        encode_member(out, &member);
    DS_ASSERT(reader_done(&list.at));
    return true;
}

static bool
rewrite_queue_place(struct ds_slice body, struct writer *out)
{
    struct queue_place message;
    if (!decode_queue_place(body, &message))
        return false;
    DS_ASSERT(message.name.len <= QUEUE_PLACE_NAME_MAX);
    DS_ASSERT(message.address.len <= QUEUE_PLACE_ADDRESS_MAX);
    DS_ASSERT(message.tcp_address.len <= QUEUE_PLACE_ADDRESS_MAX);
    encode_queue_place(out, &message);
    return true;
}

static bool
rewrite_fill(struct ds_slice body, struct writer *out)
{
    struct fill message;
    if (!decode_fill(body, &message))
        return false;
    encode_fill(out, &message);
    return true;
}

/* The committed inputs go by these positions: add at the end. */
static void
write_bindings(struct binding_list list, struct writer *out)
{
    struct wire_binding binding;
    while (next_binding(&list, &binding))
        encode_binding(out, &binding);
    DS_ASSERT(reader_done(&list.at));
}

static void
write_answers(struct answer_list list, struct writer *out)
{
    struct wire_answer answer;
    while (next_answer(&list, &answer))
        encode_answer(out, &answer);
    DS_ASSERT(reader_done(&list.at));
}

static bool
rewrite_key_orders(struct ds_slice body, struct writer *out)
{
    struct key_orders message;
    if (!decode_key_orders(body, &message))
        return false;
    encode_key_orders_begin(out, &message);
    write_bindings(message.bindings, out);
    return true;
}

static bool
rewrite_answers(struct ds_slice body, struct writer *out)
{
    struct answer_list list;
    if (!decode_answers(body, &list))
        return false;
    encode_answers_begin(out, list.count);
    write_answers(list, out);
    return true;
}

static bool
rewrite_key_report(struct ds_slice body, struct writer *out)
{
    struct key_report message;
    if (!decode_key_report(body, &message))
        return false;
    encode_key_report_begin(out, &message);
    write_bindings(message.bindings, out);
    return true;
}

static bool
rewrite_report_reply(struct ds_slice body, struct writer *out)
{
    struct key_report_reply message;
    if (!decode_report_reply(body, &message))
        return false;
    encode_report_reply_begin(out, message.wants_all, message.refused.count);
    write_answers(message.refused, out);
    return true;
}

static bool
rewrite_queue_serve(struct ds_slice body, struct writer *out)
{
    struct queue_serve message;
    if (!decode_queue_serve(body, &message))
        return false;
    DS_ASSERT(message.journal_path.len <= JOURNAL_PATH_MAX);
    encode_queue_serve(out, &message);
    return true;
}

static bool
rewrite_journal_sync(struct ds_slice body, struct writer *out)
{
    struct journal_sync message;
    if (!decode_journal_sync(body, &message))
        return false;
    encode_journal_sync(out, &message);
    return true;
}

static bool
rewrite_journal_write(struct ds_slice body, struct writer *out)
{
    struct journal_write message;
    if (!decode_journal_write(body, &message))
        return false;
    DS_ASSERT(message.name.len > 0 && message.name.len <= QUEUE_PLACE_NAME_MAX);
    DS_ASSERT(message.offset + message.bytes.len >= message.offset);
    encode_journal_write(out, &message);
    return true;
}

static bool
rewrite_journal_ask(struct ds_slice body, struct writer *out)
{
    struct journal_ask message;
    if (!decode_journal_ask(body, &message))
        return false;
    encode_journal_ask(out, &message);
    return true;
}

static bool
rewrite_journal_known(struct ds_slice body, struct writer *out)
{
    struct journal_known message;
    if (!decode_journal_known(body, &message))
        return false;
    encode_journal_known(out, &message);
    return true;
}

static bool
rewrite_journal_synced(struct ds_slice body, struct writer *out)
{
    struct journal_synced message;
    if (!decode_journal_synced(body, &message))
        return false;
    encode_journal_synced(out, &message);
    return true;
}

static bool
rewrite_leave(struct ds_slice body, struct writer *out)
{
    enum leave_action action;
    if (!decode_leave(body, &action))
        return false;
    encode_leave(out, action);
    return true;
}

static bool
rewrite_room(struct ds_slice body, struct writer *out)
{
    uint64_t bytes;
    if (!decode_room(body, &bytes))
        return false;
    encode_room(out, bytes);
    return true;
}

static bool
rewrite_take_keys(struct ds_slice body, struct writer *out)
{
    struct take_key_list list;
    struct wire_take_key key;
    if (!decode_take_keys(body, &list))
        return false;
    encode_take_keys_begin(out, list.count);
    while (next_take_key(&list, &key))
        encode_take_key(out, &key);
    DS_ASSERT(reader_done(&list.at));
    return true;
}

static bool
rewrite_take_end(struct ds_slice body, struct writer *out)
{
    struct ds_slice arenas;
    struct wire_giver giver;
    struct wire_arena arena;
    AUTO_WRITER(again);
    if (!decode_take_end(body, &giver, &arenas))
        return false;
    while (next_arena(&arenas, &arena)) {
        DS_ASSERT(arena.node != 0);
        encode_arena(&again, &arena);
    }
    DS_ASSERT(arenas.len == 0);
    encode_take_end(out, &giver, slice(again.data, again.len));
    return true;
}

static bool
rewrite_take(struct ds_slice body, struct writer *out)
{
    struct wire_giver giver;
    struct ds_slice lookup;
    if (!decode_take(body, &giver, &lookup))
        return false;
    encode_take_begin(out, &giver);
    return rewrite_lookup(lookup, out);
}

static const rewrite_fn rewrites[] = {
    rewrite_discovered,    rewrite_hello,          rewrite_welcome,
    rewrite_create,        rewrite_created,        rewrite_seal,
    rewrite_refs,          rewrite_keys,           rewrite_lookup,
    rewrite_found,         rewrite_expire,         rewrite_put,
    rewrite_flags,         rewrite_block_ids,      rewrite_block_create,
    rewrite_fill,          rewrite_publish,        rewrite_fetched,
    rewrite_queue_place,   rewrite_member_renew,   rewrite_member_list,
    rewrite_orphans_found, rewrite_key_orders,     rewrite_answers,
    rewrite_key_report,    rewrite_report_reply,   rewrite_queue_serve,
    rewrite_journal_sync,  rewrite_journal_write,  rewrite_journal_ask,
    rewrite_journal_known, rewrite_journal_synced, rewrite_leave,
    rewrite_room,          rewrite_take_keys,      rewrite_take_end,
    rewrite_take,
};

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || data[0] >= sizeof rewrites / sizeof rewrites[0])
        return 0;
    rewrite_fn rewrite = rewrites[data[0]];
    AUTO_WRITER(once);
    AUTO_WRITER(twice);
    if (!rewrite(slice(data + 1, size - 1), &once))
        return 0;
    DS_ASSERT(once.len == size - 1);
    bool accepted = rewrite(slice(once.data, once.len), &twice);
    DS_ASSERT(accepted);
    DS_ASSERT(slice_equal(slice(once.data, once.len), slice(twice.data, twice.len)));
    return 0;
}
