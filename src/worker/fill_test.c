/* Objects of clients over TCP, which reserve first and send the bytes later. */
#include "worker/transfer.h"

#include "base/check.h"
#include "worker/fixture.h"

#include <stdlib.h>

enum { MIB = 1 << 20, PART_BYTES = 3 * MIB + 5, CUT = MIB + 1 };

static uint8_t *
make_bytes(void)
{
    uint8_t *bytes = malloc(PART_BYTES);
    DS_ASSERT(bytes != NULL);
    for (size_t i = 0; i < PART_BYTES; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    return bytes;
}

static void
member_open(struct caller *caller, struct fixture *fixture)
{
    caller_open_tcp(caller, fixture, fixture->address);
    say_hello_as_member(caller);
    CHECK(caller->welcome.client != 0);
}
#define MEMBER(name, fixture)                                  \
    __attribute__((cleanup(caller_close))) struct caller name; \
    member_open(&name, fixture)

/* Part 0 of the block, from `offset` on, has these bytes and no more. */
static bool
part_is(struct caller *caller, struct ds_block_id id, uint64_t offset,
        const uint8_t *bytes, size_t count)
{
    uint8_t key[BLOCK_KEY_BYTES];
    wire_block_key(id, 0, key);
    struct ds_slice name = slice(key, sizeof key);
    struct lookup message = {.flags = LOOKUP_BLOCKS, .range_offset = offset};
    AUTO_WRITER(body);
    encode_lookup(&body, &message, &name, 1);
    CHECK_OK(caller_call(caller, MESSAGE_FETCH, bytes_of(&body)));
    return caller->reply.payload_bytes == count &&
           memcmp(caller->payload, bytes, count) == 0;
}

TEST(a_block_is_filled_in_pieces_and_read_over_tcp)
{
    FIXTURE(f, 64);
    MEMBER(writer, &f);
    struct ds_block_id id;
    struct wire_ref ref;
    uint8_t *bytes = make_bytes();
    CHECK_OK(call_block_create(&writer, PART_BYTES, &id, &ref));
    struct fill head = {.ref = ref}, tail = {.ref = ref, .offset = CUT};
    CHECK_OK(call_fill(&writer, tail, bytes + CUT, PART_BYTES - CUT));
    CHECK_OK(call_fill(&writer, head, bytes, CUT));
    CHECK_OK(call_fill(&writer, head, bytes, CUT)); /* A repeat changes nothing. */
    CHECK(part_is(&writer, id, 0, bytes, 0));       /* Not there before it is sealed. */
    CHECK_OK(call_seal(&writer, ref));
    CHECK(part_is(&writer, id, 0, bytes, PART_BYTES));
    CHECK(part_is(&writer, id, CUT, bytes + CUT, PART_BYTES - CUT));
    free(bytes);
}

TEST(bytes_that_were_damaged_on_their_way_are_refused_and_can_be_sent_again)
{
    FIXTURE(f, 64);
    MEMBER(writer, &f);
    struct ds_block_id id;
    struct wire_ref ref;
    uint8_t *bytes = make_bytes();
    CHECK_OK(call_block_create(&writer, PART_BYTES, &id, &ref));
    struct fill whole = {.ref = ref}, damaged = {.ref = ref, .checksum = 1};
    CHECK_STATUS(call_fill(&writer, damaged, bytes, PART_BYTES), DS_CORRUPT);
    CHECK_INT(f.worker.counters.damaged, 1);
    CHECK_OK(call_fill(&writer, whole, bytes, PART_BYTES));
    CHECK_OK(call_seal(&writer, ref));
    CHECK(part_is(&writer, id, 0, bytes, PART_BYTES));
    free(bytes);
}

static void
check_refused(struct caller *caller, struct fill fill, const uint8_t *bytes,
              size_t count, enum ds_status status)
{
    CHECK_STATUS(call_fill(caller, fill, bytes, count), status);
    CHECK_OK(caller_call(caller, MESSAGE_PING, slice(NULL, 0))); /* It goes on. */
}

TEST(only_who_reserved_an_object_fills_it_within_its_bounds_until_it_is_sealed)
{
    FIXTURE(f, 64);
    MEMBER(writer, &f);
    MEMBER(other, &f);
    struct caller stranger;
    struct welcome nobody = {0};
    struct ds_block_id id;
    struct wire_ref ref;
    uint8_t *bytes = make_bytes();
    caller_open_tcp(&stranger, &f, f.address);
    CHECK_OK(say_hello_again(&stranger, &nobody, NULL, 0, 0));
    CHECK_OK(call_block_create(&writer, CUT, &id, &ref));
    struct fill fill = {.ref = ref};
    struct fill none = {.ref = {.slot = UINT32_MAX, .generation = ref.generation}};
    struct fill older = {.ref = {.slot = ref.slot, .generation = ref.generation - 1}};
    struct fill beyond = {.ref = ref, .offset = CUT};
    struct fill far = {.ref = ref, .offset = UINT64_MAX};
    CHECK_OK(call_fill(&writer, fill, bytes, CUT));

    const uint8_t *wrong = bytes + 1;
    check_refused(&other, fill, wrong, CUT, DS_INVALID);
    check_refused(&stranger, fill, wrong, CUT, DS_INVALID);
    check_refused(&writer, none, wrong, CUT, DS_INVALID);
    check_refused(&writer, older, wrong, CUT, DS_INVALID);
    check_refused(&writer, beyond, wrong, 1, DS_OUT_OF_RANGE);
    check_refused(&writer, far, wrong, 1, DS_OUT_OF_RANGE);
    check_refused(&writer, fill, wrong, CUT + 1, DS_OUT_OF_RANGE);
    check_refused(&writer, fill, NULL, 0, DS_OUT_OF_RANGE);
    CHECK_OK(call_seal(&writer, ref));
    CHECK_STATUS(call_fill(&writer, fill, wrong, CUT), DS_INVALID);
    CHECK_CONTAINS((const char *)writer.body, "given up, sealed, or never created");
    CHECK(part_is(&writer, id, 0, bytes, CUT));
    caller_close(&stranger);
    free(bytes);
}

static bool
is_arriving(const struct fixture *fixture)
{
    LIST_FOREACH (link, &fixture->worker.sessions)
        if (CONTAINER_OF(link, struct session, link)->put_open)
            return true;
    return false;
}

/* The object is given up half-way: the rest must not land in what comes after it. */
TEST(an_object_that_is_given_up_keeps_its_bytes_until_they_have_arrived)
{
    FIXTURE(f, 64);
    MEMBER(writer, &f);
    CALLER(other, &f);
    struct ds_block_id id;
    struct wire_ref ref;
    uint8_t *bytes = make_bytes();
    say_hello(&other);
    CHECK_OK(call_block_create(&writer, PART_BYTES, &id, &ref));
    send_fill(&writer, (struct fill){.ref = ref}, bytes, PART_BYTES, CUT);
    RUN_UNTIL(&f, is_arriving(&f));
    AUTO_WRITER(body);
    encode_refs(&body, &ref, 1);
    CHECK_OK(caller_call(&other, MESSAGE_ABORT, bytes_of(&body)));
    (void)store_tick(f.worker.store, 0);
    CHECK_INT(stats_of(&f).dead, 1);
    struct wire_extent extent;
    CHECK_OK(call_create(&other, "b", PART_BYTES, &extent));
    memset(f.worker.arena + extent.offset, 0, PART_BYTES);
    CHECK_OK(call_seal(&other, extent.ref)); /* The helper hashes it from now on. */
    caller_send_bytes(&writer, bytes + CUT, PART_BYTES - CUT);
    CHECK(caller_receive(&writer));
    CHECK_STATUS(writer.reply.status, DS_INVALID);
    for (size_t i = 0; i < PART_BYTES; i += 4096)
        CHECK_INT(f.worker.arena[extent.offset + i], 0);
    RUN_UNTIL(&f, stats_of(&f).dead == 0);
    free(bytes);
}

/* Half of the bytes arrive on a connection that breaks; its client says that it still
 * holds the object, and sends them again on the next. */
TEST(a_client_over_tcp_goes_on_where_its_connection_broke)
{
    FIXTURE(f, 64);
    struct caller broken;
    struct ds_block_id id;
    struct wire_ref ref, dropped;
    uint8_t *bytes = make_bytes();
    member_open(&broken, &f);
    struct welcome welcome = broken.welcome;
    CHECK_OK(call_block_create(&broken, CUT, &id, &dropped));
    CHECK_OK(call_block_create(&broken, PART_BYTES, &id, &ref));
    send_fill(&broken, (struct fill){.ref = ref}, bytes, PART_BYTES, CUT);
    RUN_UNTIL(&f, is_arriving(&f));
    caller_close(&broken);
    RUN_UNTIL(&f, f.worker.session_count == 0);

    struct caller again;
    caller_open_tcp(&again, &f, f.address);
    CHECK_OK(say_hello_again(&again, &welcome, &ref, 1, HELLO_MEMBER | HELLO_RESUME));
    CHECK_INT(again.welcome.client, welcome.client);
    CHECK_INT(stats_of(&f).writing, 1);
    CHECK_OK(call_fill(&again, (struct fill){.ref = ref}, bytes, PART_BYTES));
    CHECK_OK(call_seal(&again, ref));
    CHECK_OK(call_seal(&again, ref)); /* Its reply may have been lost, too. */
    CHECK(part_is(&again, id, 0, bytes, PART_BYTES));
    caller_close(&again);
    free(bytes);
}

TEST_MAIN(
    RUN(a_block_is_filled_in_pieces_and_read_over_tcp),
    RUN(bytes_that_were_damaged_on_their_way_are_refused_and_can_be_sent_again),
    RUN(only_who_reserved_an_object_fills_it_within_its_bounds_until_it_is_sealed),
    RUN(an_object_that_is_given_up_keeps_its_bytes_until_they_have_arrived),
    RUN(a_client_over_tcp_goes_on_where_its_connection_broke))
