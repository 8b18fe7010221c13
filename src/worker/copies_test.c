/* A worker that fetches from another one, which says what no worker of ours says. */
#include "worker/copies.h"

#include "worker/peers_testing.h"

#include "os/checksum.h"
#include "os/clock.h"

enum {
    COUNTER = 1,
    PART_BYTES = (5 << 20) + 100, /* Three ranges, the last of which is not full. */
};

static uint8_t part_bytes[PART_BYTES];

/* ---- The other worker ---- */

/* One value, with so many bytes behind it. */
static bool
reply_value(int fd, const struct frame_header *header, struct wire_value said,
            struct ds_slice bytes)
{
    AUTO_WRITER(body);
    encode_fetched_begin(&body, 1);
    encode_fetched_value(&body, &said);
    return fake_reply(fd, header, DS_OK, slice(body.data, body.len), bytes);
}

static bool
reply_not_found(int fd, const struct frame_header *header)
{
    return reply_value(fd, header, (struct wire_value){0}, (struct ds_slice){0});
}

/* The range that a FETCH asks for, and what is right to say of it. */
struct asked {
    uint64_t offset;
    struct ds_slice bytes;
    struct wire_value value;
};

static bool
read_fetch(const struct frame_header *header, struct ds_slice body, struct asked *out)
{
    struct lookup lookup;
    if (header->type != MESSAGE_FETCH || !decode_lookup(body, &lookup) ||
        (lookup.flags | LOOKUP_RELAY) !=
            (LOOKUP_BLOCKS | LOOKUP_RANGE | LOOKUP_RELAY) ||
        lookup.keys.count != 1 || lookup.range_offset >= PART_BYTES ||
        lookup.range_bytes == 0)
        return false;
    uint64_t left = PART_BYTES - lookup.range_offset;
    out->offset = lookup.range_offset;
    out->bytes = slice(part_bytes + lookup.range_offset,
                       lookup.range_bytes < left ? lookup.range_bytes : left);
    out->value = (struct wire_value){
        .found = true,
        .size = out->bytes.len,
        .total = PART_BYTES,
        .checksum = checksum_of(out->bytes.data, out->bytes.len),
    };
    return true;
}

WELCOMING(has_it)
{
    struct asked asked;
    return read_fetch(header, body, &asked) &&
           reply_value(fd, header, asked.value, asked.bytes);
}

/* It knows the checksum of all of it, and says that alone. */
static _Atomic uint64_t whole_checksum;

WELCOMING(says_one_checksum)
{
    struct asked asked;
    if (!read_fetch(header, body, &asked))
        return false;
    asked.value.checksum = 0;
    asked.value.whole = (struct wire_checksum){true, atomic_load(&whole_checksum)};
    return reply_value(fd, header, asked.value, asked.bytes);
}

HANDLER(hangs_up_before_a_later_range)
{
    struct asked asked;
    if (read_fetch(header, body, &asked) && asked.offset > 0 &&
        atomic_fetch_sub(&hang_ups_left, 1) > 0)
        return false;
    return has_it(peer, fd, header, body, payload);
}

WELCOMING(has_it_not)
{
    (void)body;
    return reply_not_found(fd, header);
}

HANDLER(loses_it_after_the_first_range)
{
    struct asked asked;
    if (read_fetch(header, body, &asked) && asked.offset > 0)
        return reply_not_found(fd, header);
    return has_it(peer, fd, header, body, payload);
}

HANDLER(says_another_size_later)
{
    struct asked asked;
    if (!read_fetch(header, body, &asked) || asked.offset == 0)
        return has_it(peer, fd, header, body, payload);
    asked.value.total = asked.offset + asked.bytes.len;
    return reply_value(fd, header, asked.value, asked.bytes);
}

HANDLER(sends_damaged_bytes)
{
    struct asked asked;
    if (!read_fetch(header, body, &asked) ||
        asked.offset + asked.bytes.len < PART_BYTES)
        return has_it(peer, fd, header, body, payload);
    asked.value.checksum ^= 1;
    return reply_value(fd, header, asked.value, asked.bytes);
}

HANDLER(sends_less_than_it_says)
{
    struct asked asked;
    if (!read_fetch(header, body, &asked))
        return has_it(peer, fd, header, body, payload);
    asked.bytes.len--;
    return reply_value(fd, header, asked.value, asked.bytes);
}

WELCOMING(sends_bytes_of_nothing)
{
    (void)body;
    return reply_value(fd, header, (struct wire_value){0}, slice(part_bytes, 1000));
}

WELCOMING(says_that_it_is_empty)
{
    struct wire_value nothing = {.found = true};
    (void)body;
    return reply_value(fd, header, nothing, (struct ds_slice){0});
}

/* More than any arena has; nothing is reserved, nor asked for. */
HANDLER(says_that_it_is_huge)
{
    struct asked asked;
    if (!read_fetch(header, body, &asked))
        return has_it(peer, fd, header, body, payload);
    asked.value.total = UINT64_MAX;
    return reply_value(fd, header, asked.value, asked.bytes);
}

WELCOMING(sends_nonsense)
{
    (void)body;
    return fake_reply(fd, header, DS_OK, slice(part_bytes, 77),
                      slice(part_bytes, 1000));
}

WELCOMING(refuses)
{
    (void)body;
    return fake_reply(fd, header, DS_NO_MEMORY, slice_of_text("not now"),
                      (struct ds_slice){0});
}

HANDLER(hangs_up)
{
    (void)peer;
    (void)body;
    (void)payload;
    return is_hello(header) && welcome(fd, header);
}

HANDLER(speaks_another_version)
{
    (void)peer;
    (void)body;
    (void)payload;
    return fake_reply(fd, header, DS_MISMATCH, slice_of_text("protocol 1"),
                      (struct ds_slice){0});
}

/* Of many blocks: one by one as above, or several at once. Each has as many bytes as its
 * counter says, but that LOST is not there, and LARGE is the part above. */
enum { MANY = 200, LOST = 150, LARGE = 170 };
static atomic_int batches_seen;

static uint64_t
counter_of(struct ds_slice key)
{
    struct ds_block_id id;
    memcpy(&id, key.data, sizeof id);
    struct reader reader = reader_of(id.bytes, sizeof id.bytes);
    (void)read_u64(&reader);
    return read_u64(&reader);
}

static uint64_t
bytes_of_counter(uint64_t counter)
{
    return counter == LOST ? 0 : counter == LARGE ? PART_BYTES : 1000 + counter;
}

static bool
reply_many(int fd, const struct frame_header *header, struct lookup *lookup,
           uint64_t damage)
{
    AUTO_WRITER(body);
    AUTO_WRITER(bytes);
    struct ds_slice key;
    encode_fetched_begin(&body, lookup->keys.count);
    while (next_key(&lookup->keys, &key)) {
        uint64_t counter = counter_of(key), total = bytes_of_counter(counter);
        uint64_t size = total < lookup->range_bytes ? total : lookup->range_bytes;
        struct wire_value value = {.found = total > 0, .size = size, .total = total};
        if (value.found)
            value.checksum = checksum_of(part_bytes, size) ^ (counter == damage);
        encode_fetched_value(&body, &value);
        write_bytes(&bytes, slice(part_bytes, size));
    }
    return fake_reply(fd, header, DS_OK, slice(body.data, body.len),
                      slice(bytes.data, bytes.len));
}

static atomic_int damaged_counter;

HANDLER(has_many)
{
    struct lookup lookup;
    if (header->type != MESSAGE_FETCH || !decode_lookup(body, &lookup))
        return has_it(peer, fd, header, body, payload);
    if (lookup.keys.count == 1) {
        struct reader at = lookup.keys.at;
        struct key_list keys = {.count = 1, .at = at};
        struct ds_slice key;
        if (next_key(&keys, &key) && counter_of(key) == LARGE)
            return has_it(peer, fd, header, body, payload);
        return reply_many(fd, header, &lookup, 0);
    }
    atomic_fetch_add(&batches_seen, 1);
    return reply_many(fd, header, &lookup, (uint64_t)atomic_load(&damaged_counter));
}

HANDLER(says_nonsense_of_many)
{
    struct lookup lookup;
    if (header->type != MESSAGE_FETCH || !decode_lookup(body, &lookup))
        return has_it(peer, fd, header, body, payload);
    lookup.keys.count--; /* One answer too few. */
    return reply_many(fd, header, &lookup, 0);
}

/* ---- The one that asks ---- */

static void
send_block_lookup(struct caller *caller, uint32_t incarnation)
{
    uint8_t key[BLOCK_KEY_BYTES];
    wire_block_key(wire_block_id((struct block_birth){NODE, incarnation, 0}, COUNTER),
                   0, key);
    struct ds_slice keys = slice(key, sizeof key);
    struct lookup lookup = {.flags = LOOKUP_BLOCKS};
    AUTO_WRITER(body);
    encode_lookup(&body, &lookup, &keys, 1);
    caller_send(caller, MESSAGE_LOOKUP, bytes_of(&body));
}

static bool
is_found(struct caller *caller, uint32_t incarnation)
{
    send_block_lookup(caller, incarnation);
    CHECK(caller_receive(caller));
    return found_of(caller) == 1;
}

static void
fill_part(void)
{
    for (size_t i = 0; i < PART_BYTES; i++)
        part_bytes[i] = (uint8_t)(i * 31 + i / 251);
}

/* The other worker has the blocks that the client asks for. */
static void
open_beside(struct fixture *f, struct fake_peer *other, struct caller *member,
            struct caller *client, fake_handler_fn handle)
{
    fake_peer_start_tcp(other, handle);
    join(f, member, other);
    say_hello(client);
}

static void
close_beside(struct fake_peer *other, struct caller *member)
{
    caller_close(member);
    fake_peer_stop(other);
}

TEST(a_part_is_fetched_once_and_kept_as_a_copy)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    fill_part();
    open_beside(&f, &other, &member, &client, has_it);
    CHECK(is_found(&client, INCARNATION));
    CHECK_INT(stats_of(&f).copies, 1);
    CHECK(is_found(&client, INCARNATION));
    CHECK_INT(f.worker.counters.seals, 1);
    CHECK(!is_found(&client, INCARNATION + 1)); /* An arena that is nobody's. */
    close_beside(&other, &member);
}

TEST(without_replication_a_copy_is_there_for_a_second)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    f.flags.enable_data_replication = false;
    fill_part();
    open_beside(&f, &other, &member, &client, has_it);
    for (int i = 1; i <= 2; i++) {
        CHECK(is_found(&client, INCARNATION));
        CHECK_INT(stats_of(&f).copies, 1);
        store_tick(f.worker.store, clock_boot_ds() + 15);
        CHECK_INT(stats_of(&f).copies, 0);
        CHECK_INT(f.worker.counters.seals, i);
    }
    close_beside(&other, &member);
}

static void check_is_damaged(fake_handler_fn handler);

/* What was copied is what there is, byte by byte. */
static void
check_is_copied(fake_handler_fn handler)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    fill_part();
    open_beside(&f, &other, &member, &client, handler);
    CHECK(is_found(&client, INCARNATION));
    uint8_t key[BLOCK_KEY_BYTES];
    struct object_view view;
    wire_block_key(wire_block_id((struct block_birth){NODE, INCARNATION, 0}, COUNTER),
                   0, key);
    CHECK(store_find(f.worker.store, slice(key, sizeof key), clock_boot_ds(), &view));
    CHECK_INT(view.size, PART_BYTES);
    CHECK(memcmp(f.worker.arena + view.offset, part_bytes, PART_BYTES) == 0);
    CHECK(view.flags & SLOT_FLAG_CHECKSUM);
    CHECK_INT(view.checksum, checksum_of(part_bytes, PART_BYTES));
    CHECK_INT(f.worker.counters.damaged, 0);
    close_beside(&other, &member);
}

TEST(a_part_that_comes_in_ranges_is_whole)
{
    check_is_copied(has_it);
}

TEST(one_checksum_of_all_ranges_is_enough_and_compared)
{
    fill_part();
    atomic_store(&whole_checksum, checksum_of(part_bytes, PART_BYTES));
    check_is_copied(says_one_checksum);
    atomic_fetch_xor(&whole_checksum, 1);
    check_is_damaged(says_one_checksum);
}

TEST(a_range_whose_connection_ended_is_asked_for_again)
{
    atomic_store(&hang_ups_left, 1);
    check_is_copied(hangs_up_before_a_later_range);
}

static void
check_is_refused(struct caller *client, enum ds_status status, const char *words)
{
    send_block_lookup(client, INCARNATION);
    caller_receive_error(client, status, words);
    CHECK_INT(stats_of(client->fixture).writing, 0);
}

static void
check_nothing_is_left(struct fixture *f)
{
    CHECK_INT(stats_of(f).objects, 0);
    CHECK_INT(stats_of(f).writing, 0);
    store_tick(f->worker.store, clock_boot_ds());
    CHECK_INT(stats_of(f).arena.used_bytes, 0);
    store_check(f->worker.store);
}

/* It is there, so nobody is told that it is gone. */
static void
check_is_damaged(fake_handler_fn handler)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    fill_part();
    open_beside(&f, &other, &member, &client, handler);
    check_is_refused(&client, DS_CORRUPT, "damaged, again and again");
    CHECK_INT(f.worker.counters.damaged, 3);
    check_nothing_is_left(&f);
    close_beside(&other, &member);
}

TEST(what_arrives_damaged_is_asked_for_again_and_then_reported)
{
    check_is_damaged(sends_damaged_bytes);
}

/* Whoever asked hears that it is gone, and nothing stays behind. */
static void
check_is_gone(fake_handler_fn handler)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    fill_part();
    open_beside(&f, &other, &member, &client, handler);
    CHECK(!is_found(&client, INCARNATION));
    CHECK(!is_found(&client, INCARNATION));
    check_nothing_is_left(&f);
    close_beside(&other, &member);
}

TEST(a_worker_that_does_not_give_it_is_no_harm)
{
    check_is_gone(has_it_not);
    check_is_gone(loses_it_after_the_first_range);
    check_is_gone(says_another_size_later);
    check_is_gone(sends_less_than_it_says);
    check_is_gone(sends_bytes_of_nothing);
    check_is_gone(says_that_it_is_empty);
    check_is_gone(sends_nonsense);
    check_is_gone(refuses);
    check_is_gone(hangs_up);
    check_is_gone(speaks_another_version);
}

/* It is there, and will be read when there is room: nobody is told that it is gone. */
TEST(who_has_no_room_for_a_copy_says_so)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    struct ds_block_id id;
    struct wire_ref ref;
    CALLER(client, &f);
    fill_part();
    open_beside(&f, &other, &member, &client, has_it);
    CHECK_OK(call_block_create(&client, 60 << 20, &id, &ref));
    CHECK_OK(call_seal(&client, ref));
    for (int i = 0; i < 2; i++)
        check_is_refused(&client, DS_FULL,
                         "has no room for a copy of what another node has: Shared "
                         "memory no space in arena: need 5.0 MiB");
    AUTO_WRITER(ids);
    encode_block_ids(&ids, &id, 1);
    CHECK_OK(caller_call(&client, MESSAGE_BLOCK_DELETE, bytes_of(&ids)));
    RUN_UNTIL(&f, stats_of(&f).arena.used_bytes == 0); /* It was being hashed. */
    CHECK(is_found(&client, INCARNATION));
    close_beside(&other, &member);
}

TEST(what_is_larger_than_the_arena_has_no_room_in_it)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    open_beside(&f, &other, &member, &client, says_that_it_is_huge);
    check_is_refused(&client, DS_FULL, "has no room for a copy");
    close_beside(&other, &member);
}

/* MANY from this counter on. */
static size_t
look_up_many(struct caller *caller, uint32_t first)
{
    static uint8_t bytes[MANY][BLOCK_KEY_BYTES];
    struct ds_slice keys[MANY];
    struct lookup lookup = {.flags = LOOKUP_BLOCKS};
    AUTO_WRITER(body);
    for (uint32_t i = 0; i < MANY; i++) {
        wire_block_key(
            wire_block_id((struct block_birth){NODE, INCARNATION, 0}, first + i), 0,
            bytes[i]);
        keys[i] = slice(bytes[i], BLOCK_KEY_BYTES);
    }
    encode_lookup(&body, &lookup, keys, MANY);
    caller_send(caller, MESSAGE_LOOKUP, bytes_of(&body));
    CHECK(caller_receive(caller));
    return found_of(caller);
}

static void
check_bytes_of(struct fixture *fixture, uint32_t counter)
{
    uint8_t key[BLOCK_KEY_BYTES];
    struct object_view view;
    wire_block_key(wire_block_id((struct block_birth){NODE, INCARNATION, 0}, counter),
                   0, key);
    CHECK(store_find(fixture->worker.store, slice(key, sizeof key), clock_boot_ds(),
                     &view));
    CHECK_INT(view.size, bytes_of_counter(counter));
    CHECK(memcmp(fixture->worker.arena + view.offset, part_bytes, view.size) == 0);
    CHECK_INT(view.checksum, checksum_of(part_bytes, view.size));
}

TEST(first_parts_of_many_blocks_come_together)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    fill_part();
    atomic_store(&batches_seen, 0);
    atomic_store(&damaged_counter, 33);
    open_beside(&f, &other, &member, &client, has_many);
    CHECK_INT(look_up_many(&client, 0), MANY - 1);
    CHECK_INT(atomic_load(&batches_seen), MANY / 8); /* They might be large. */
    for (uint32_t i = 0; i < MANY; i++) {
        if (i != LOST)
            check_bytes_of(&f, i);
    }
    CHECK_INT(f.worker.counters.damaged, 1);       /* Asked for again, alone. */
    CHECK_INT(look_up_many(&client, 0), MANY - 1); /* Only what was not there. */
    CHECK_INT(atomic_load(&batches_seen), MANY / 8);
    CHECK_INT(look_up_many(&client, MANY), MANY);        /* As small as those were, */
    CHECK_INT(atomic_load(&batches_seen), MANY / 8 + 4); /* so 64 at a time. */
    store_check(f.worker.store);
    close_beside(&other, &member);
}

TEST(nonsense_about_many_blocks_is_no_harm)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    fill_part();
    open_beside(&f, &other, &member, &client, says_nonsense_of_many);
    CHECK_INT(look_up_many(&client, 0), 0);
    check_nothing_is_left(&f);
    close_beside(&other, &member);
}

/* As one that is cut off: until it is no member any more. */
TEST(a_worker_that_says_nothing_is_given_up_when_it_is_no_member)
{
    FIXTURE(f, 64);
    struct fake_peer other;
    struct caller member;
    CALLER(client, &f);
    open_beside(&f, &other, &member, &client, says_nothing);
    send_block_lookup(&client, INCARNATION);
    RUN_UNTIL(&f, fake_peer_accepted(&other) == 1);
    CHECK(!caller_is_told(&client));
    caller_close(&member); /* Suspect, and gone 2 s later. */
    CHECK(caller_receive(&client));
    CHECK_INT(found_of(&client), 0);
    fake_peer_stop(&other);
}

TEST_MAIN(RUN(a_part_is_fetched_once_and_kept_as_a_copy),
          RUN(without_replication_a_copy_is_there_for_a_second),
          RUN(a_part_that_comes_in_ranges_is_whole),
          RUN(one_checksum_of_all_ranges_is_enough_and_compared),
          RUN(a_range_whose_connection_ended_is_asked_for_again),
          RUN(a_worker_that_does_not_give_it_is_no_harm),
          RUN(what_arrives_damaged_is_asked_for_again_and_then_reported),
          RUN(who_has_no_room_for_a_copy_says_so),
          RUN(what_is_larger_than_the_arena_has_no_room_in_it),
          RUN(first_parts_of_many_blocks_come_together),
          RUN(nonsense_about_many_blocks_is_no_harm),
          RUN(a_worker_that_says_nothing_is_given_up_when_it_is_no_member))
