/* Writes the seeds of the fuzz targets: one small, valid input for each kind of thing
 * that a target reads.
 *
 *      fuzz_seeds FOLDER            writes FOLDER/x_fuzz/seed-NAME
 *      fuzz_seeds --check FOLDER    fails if one of them is not there or differs */
#include "fuzz.h"

#include "encryption_ends.h"
#include "queue/snapshot.h"
#include "queue/test_text.h"
#include "seeds.h"
#include "wire/bindings.h"
#include "wire/journals.h"
#include "wire/leaving.h"
#include "wire/message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { PATH_BYTES = 4096, SEED_BYTES_MAX = 4096 };

static const char *corpus;
static bool only_check;
static int wrong;

static void
check_file(const char *path, struct ds_slice bytes)
{
    uint8_t found[SEED_BYTES_MAX];
    FILE *file = fopen(path, "re");
    size_t len = file == NULL ? 0 : fread(found, 1, sizeof found, file);
    if (file != NULL)
        fclose(file);
    if (file != NULL && slice_equal(slice(found, len), bytes))
        return;
    fprintf(stderr, "%s is missing or old: run fuzz_seeds on the corpus\n", path);
    wrong++;
}

static void
write_file(const char *path, struct ds_slice bytes)
{
    FILE *file = fopen(path, "we");
    bool done = file != NULL && fwrite(bytes.data, 1, bytes.len, file) == bytes.len;
    if (file == NULL || fclose(file) != 0 || !done) {
        perror(path);
        exit(EXIT_FAILURE);
    }
}

void
seed(const char *target, const char *name, struct ds_slice bytes)
{
    char folder[PATH_BYTES / 2];
    char path[PATH_BYTES];
    DS_ASSERT(bytes.len <= SEED_BYTES_MAX);
    snprintf(folder, sizeof folder, "%s/%s", corpus, target);
    snprintf(path, sizeof path, "%s/seed-%s", folder, name);
    if (only_check) {
        check_file(path, bytes);
        return;
    }
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        perror(folder);
    write_file(path, bytes);
}

/* ---- Frames ---- */

static void
seed_frame(const char *name, struct frame_header header)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_encode(&header, bytes);
    seed("frame_fuzz", name, slice(bytes, sizeof bytes));
}

static void
seed_frames(void)
{
    seed_frame("ping", (struct frame_header){.type = MESSAGE_PING, .sequence = 1});
    seed_frame("put", (struct frame_header){.type = MESSAGE_PUT,
                                            .sequence = 0xffffffff,
                                            .body_bytes = 20,
                                            .payload_bytes = UINT64_MAX});
    seed_frame("fill", (struct frame_header){.type = MESSAGE_FILL,
                                             .sequence = 2,
                                             .body_bytes = 20,
                                             .payload_bytes = 16 << 20});
    seed_frame("error", (struct frame_header){.type = MESSAGE_QUEUE_CALL,
                                              .status = DS_STATUS_COUNT - 1,
                                              .body_bytes = FRAME_BODY_BYTES_MAX});
}

/* ---- Messages: the first byte is the decoder's place in message_fuzz.c ---- */

static struct writer
message(uint8_t decoder)
{
    struct writer writer = {0};
    write_u8(&writer, decoder);
    return writer;
}

/* Takes the writer's memory. */
static void
seed_message(const char *name, struct writer writer)
{
    DS_ASSERT(!writer.failed);
    seed("message_fuzz", name, slice(writer.data, writer.len));
    writer_fini(&writer);
}

static const struct wire_ref two_refs[] = {{.slot = 3, .generation = 5},
                                           {.slot = 4, .generation = 7}};
static const uint64_t two_sizes[] = {100, 1 << 20};

static void
seed_greetings(void)
{
    struct writer writer = message(0);
    struct discovered discovered = {.layout_version = 1,
                                    .protocol_version = 1,
                                    .uid = 1000,
                                    .pid = 4711,
                                    .boot_id = slice_of_text("8a5e-11"),
                                    .socket_path = slice_of_text("/run/w.sock"),
                                    .version = slice_of_text("1.0.0")};
    encode_discovered(&writer, &discovered);
    seed_message("discovered", writer);

    writer = message(1);
    struct hello hello = {.layout_version = 1,
                          .protocol_version = 1,
                          .flags = HELLO_SHARED_MEMORY | HELLO_RESUME,
                          .client = 2,
                          .token = 77,
                          .incarnation = 9};
    encode_hello(&writer, &hello, two_refs, 2);
    seed_message("hello", writer);

    writer = message(18);
    struct queue_place place = {.name = slice_of_text("train"),
                                .address = slice_of_text("unix:/run/q.sock"),
                                .tcp_address = slice_of_text("10.0.0.1:31600")};
    encode_queue_place(&writer, &place);
    seed_message("queue_place", writer);

    writer = message(19);
    AUTO_WRITER(queues);
    place.address = (struct ds_slice){0};
    encode_queue_place(&queues, &place);
    AUTO_WRITER(arenas);
    encode_arena(&arenas, &(struct wire_arena){8, 9, true});
    struct wire_member member = {.node = 4,
                                 .incarnation = 5,
                                 .restarts = 1,
                                 .since = 6,
                                 .address = slice_of_text("10.0.0.1:31501"),
                                 .queues = slice(queues.data, queues.len),
                                 .arenas = slice(arenas.data, arenas.len)};
    struct member_renew renewal = {.who = member,
                                   .epoch = 7,
                                   .version = 3,
                                   .count = 2,
                                   .wait_ms = 3000,
                                   .cluster_name = slice_of_text("blue")};
    encode_member_renew(&writer, &renewal);
    seed_message("member_renew", writer);

    writer = message(20);
    struct member_list list = {.epoch = 7, .version = 3, .lease_ms = 10000, .count = 1};
    encode_member_list_begin(&writer, &list);
    encode_member(&writer, &member);
    seed_message("member_list", writer);

    writer = message(2);
    struct welcome welcome = {.node = 1,
                              .incarnation = 9,
                              .client = 2,
                              .token = 77,
                              .arena_bytes = 1 << 30,
                              .table_bytes = 1 << 20,
                              .pins_offset = 4096,
                              .pins_bytes = 4096};
    encode_welcome(&writer, &welcome);
    seed_message("welcome", writer);
}

static void
seed_leaving(void)
{
    struct writer writer = message(32);
    encode_leave(&writer, LEAVE_BEGIN);
    seed_message("leave", writer);

    writer = message(33);
    encode_room(&writer, 1 << 30);
    seed_message("room", writer);

    writer = message(34);
    struct wire_take_key key = {
        .object = {.node = 4, .incarnation = 5, .slot = 6, .generation = 7},
        .is_evictable = true,
        .key = slice_of_text("key-2")};
    encode_take_keys_begin(&writer, 1);
    encode_take_key(&writer, &key);
    seed_message("take_keys", writer);

    writer = message(35);
    AUTO_WRITER(arenas);
    encode_arena(&arenas, &(struct wire_arena){4, 5, true});
    encode_arena(&arenas, &(struct wire_arena){8, 9, true});
    struct wire_giver giver = {.node = 4, .incarnation = 5, .restarts = 1};
    encode_take_end(&writer, &giver, slice(arenas.data, arenas.len));
    seed_message("take_end", writer);

    writer = message(36);
    struct ds_slice part = slice("twenty bytes of a key", BLOCK_KEY_BYTES);
    struct lookup lookup = {.flags = LOOKUP_BLOCKS};
    encode_take_begin(&writer, &giver);
    encode_lookup(&writer, &lookup, &part, 1);
    seed_message("take", writer);
}

static void
seed_bindings(void)
{
    struct wire_binding binding = {
        .object = {.node = 4, .incarnation = 5, .slot = 6, .generation = 7},
        .ttl_ds = 600,
        .key = slice_of_text("key-2")};
    struct wire_answer answer = {.answer = KEY_YES, .object = binding.object};

    struct writer writer = message(22);
    struct key_orders orders = {
        .order = KEY_BIND, .wait_ms = 9, .from = 3, .epoch = 5, .bindings.count = 1};
    encode_key_orders_begin(&writer, &orders);
    encode_binding(&writer, &binding);
    seed_message("key_orders", writer);

    writer = message(22);
    orders.order = KEY_FIND;
    orders.wants_values = true;
    encode_key_orders_begin(&writer, &orders);
    encode_binding(&writer, &binding);
    seed_message("key_find", writer);
    orders.wants_values = false;

    writer = message(22);
    orders.order = KEY_MOVE;
    binding.was = (struct object_name){.node = 8, .incarnation = 9, .generation = 3};
    encode_key_orders_begin(&writer, &orders);
    encode_binding(&writer, &binding);
    seed_message("key_move", writer);
    binding.was = (struct object_name){0};

    writer = message(23);
    encode_answers_begin(&writer, 2);
    encode_answer(&writer, &answer);
    encode_answer(&writer, &(struct wire_answer){0});
    seed_message("answers", writer);

    writer = message(23);
    struct wire_answer with_value = answer;
    with_value.value = slice_of_text("a small value");
    with_value.checksum = 5;
    encode_answers_begin(&writer, 2);
    encode_answer(&writer, &with_value);
    encode_answer(&writer, &answer);
    seed_message("answers_values", writer);

    AUTO_WRITER(lost);
    encode_past_epoch_begin(&lost, 2);
    encode_past_member(&lost, &(struct past_member){4, 5, false, false});
    encode_past_member(&lost, &(struct past_member){6, 7, true, true});
    encode_past_epoch_begin(&lost, 0);
    writer = message(24);
    struct key_report report = {.node = 4,
                                .incarnation = 5,
                                .restarts = 1,
                                .member_since = 2,
                                .epoch = 9,
                                .since = 8,
                                .is_last = true,
                                .lost = slice(lost.data, lost.len),
                                .bindings.count = 1};
    encode_key_report_begin(&writer, &report);
    encode_binding(&writer, &binding);
    seed_message("key_report", writer);

    writer = message(25);
    encode_report_reply_begin(&writer, false, 1);
    encode_answer(&writer, &answer);
    seed_message("report_reply", writer);
}

static void
seed_creation(void)
{
    const struct ds_slice two_keys[] = {slice_of_text("a"), slice_of_text("key-2")};
    struct writer writer = message(3);
    encode_create(&writer, 30000, 0, two_keys, two_sizes, 2);
    seed_message("create", writer);

    writer = message(4);
    encode_created_begin(&writer, wire_block_id((struct block_birth){1, 9, 0}, 3), 2);
    encode_created_extent(&writer, (struct wire_extent){.ref = two_refs[0]});
    encode_created_extent(&writer,
                          (struct wire_extent){.ref = two_refs[1], .offset = 4096});
    seed_message("created", writer);

    writer = message(5);
    const struct wire_filled filled[] = {
        {.ref = two_refs[0], .checksum = {true, 0x1234567890abcdef}},
        {.ref = two_refs[1]}};
    encode_seal(&writer, 60, true, filled, 2);
    seed_message("seal", writer);

    writer = message(6);
    encode_refs(&writer, two_refs, 2);
    seed_message("refs", writer);

    writer = message(15);
    struct fill fill = {.ref = two_refs[1], .offset = 1 << 20, .checksum = 5};
    encode_fill(&writer, &fill);
    seed_message("fill", writer);

    writer = message(16);
    struct publish publish = {.ttl_seconds = 60,
                              .ref = two_refs[1],
                              .size = 1 << 20,
                              .lend_bytes = 1 << 20,
                              .checksum = {true, 6},
                              .key = two_keys[1]};
    encode_publish(&writer, &publish);
    seed_message("publish", writer);

    writer = message(11);
    struct put put = {
        .ttl_seconds = 60, .write_mode = 1, .checksum = {true, 7}, .key = two_keys[1]};
    encode_put(&writer, &put);
    seed_message("put", writer);
}

static void
seed_journals(void)
{
    struct writer writer = message(26);
    struct queue_serve serve = {
        .place = {.name = slice_of_text("train"),
                  .address = slice_of_text("unix:/run/q.sock"),
                  .tcp_address = slice_of_text("10.0.0.1:31600"),
                  .term = 2},
        .copies_max = 2,
        .journal_path = slice_of_text("/run/q.journal")};
    encode_queue_serve(&writer, &serve);
    seed_message("queue_serve", writer);

    writer = message(27);
    struct journal_sync sync = {
        .number = 3, .id = 4, .inode = 5, .bytes = 640, .sequence = 9};
    encode_journal_sync(&writer, &sync);
    seed_message("journal_sync", writer);

    writer = message(28);
    struct journal_write piece = {.name = slice_of_text("train"),
                                  .term = 2,
                                  .node = 7,
                                  .incarnation = 8,
                                  .id = 4,
                                  .offset = 64,
                                  .sequence = 9,
                                  .bytes = slice_of_text("records")};
    encode_journal_write(&writer, &piece);
    seed_message("journal_write", writer);

    writer = message(29);
    struct journal_ask ask = {slice_of_text("train"), 3, 7, ASK_WITHDRAWN};
    encode_journal_ask(&writer, &ask);
    seed_message("journal_ask", writer);

    writer = message(30);
    encode_journal_known(&writer, &(struct journal_known){true, false, 3, 2, 1, 2, 9});
    seed_message("journal_known", writer);

    writer = message(31);
    encode_journal_synced(&writer, &(struct journal_synced){3, 777});
    seed_message("journal_synced", writer);
}

static void
seed_keys(void)
{
    const struct ds_slice two_keys[] = {slice_of_text("a"), slice_of_text("key-2")};
    struct writer writer = message(7);
    encode_keys(&writer, two_keys, 2);
    seed_message("keys", writer);

    writer = message(8);
    struct lookup lookup = {.flags = LOOKUP_BLOCKS, .wait_ms = 5, .range_bytes = 9};
    encode_lookup(&writer, &lookup, two_keys, 2);
    seed_message("lookup", writer);

    writer = message(8);
    lookup.flags |= LOOKUP_RELAY;
    lookup.asker = (struct wire_place){7, 9};
    encode_lookup(&writer, &lookup, two_keys, 1);
    seed_message("lookup_relay", writer);

    writer = message(9);
    struct wire_object object = {.found = true, .slot = 3, .commit = 258, .size = 9};
    encode_found_begin(&writer, 2);
    encode_found_object(&writer, &object);
    encode_found_object(&writer, &(struct wire_object){0});
    seed_message("found", writer);

    writer = message(17);
    struct wire_value value = {
        .found = true, .size = 9, .checksum = 8, .relay = {7, 9}};
    encode_fetched_begin(&writer, 2);
    encode_fetched_value(&writer, &value);
    encode_fetched_value(&writer, &(struct wire_value){0});
    seed_message("fetched", writer);

    writer = message(10);
    encode_expire(&writer, 60, two_keys, 2);
    seed_message("expire", writer);

    writer = message(12);
    encode_flags_begin(&writer, 2);
    write_u8(&writer, 0);
    write_u8(&writer, 1);
    seed_message("flags", writer);
}

static void
seed_blocks(void)
{
    const struct ds_block_id two_ids[] = {
        wire_block_id((struct block_birth){1, 9, 0}, 3),
        wire_block_id((struct block_birth){1, 9, 0}, 4)};
    struct writer writer = message(13);
    encode_block_ids(&writer, two_ids, 2);
    seed_message("block-ids", writer);

    writer = message(21);
    encode_orphans_found(&writer, true, two_ids, 2);
    seed_message("orphans-found", writer);

    writer = message(14);
    encode_block_create(&writer, 30000, two_sizes, 2);
    seed_message("block-create", writer);

    static const uint64_t of_two_blocks[] = {100, 5000, 0, 7};
    writer = message(14);
    encode_block_create(&writer, 0, of_two_blocks, 4);
    seed_message("blocks-create", writer);
}

/* ---- The queue ---- */

static const char *const requests[] = {
    "['kv_put','p',['a','b'],[[@1],'y',['x','z'],[8,16],[]],[{'t':1},nil]]",
    "['kv_put','p',['b','c'],[[@2],'y',['x'],[8],[]],nil]",
    "['kv_put','p',['b'],nil,[{'t':'text','u':nil}]]",
    "['kv_put','p',['b','d','e'],[[@4,@5],'y',['z'],[8,9],[1]],nil]",
    "['kv_get','p',['a','b','a'],nil]",
    "['kv_get','p',['a','b','c'],['x','nope']]",
    "['kv_list','p']",
    "['kv_list',nil]",
    "['sparse_blocks',1000,'y']",
    "['kv_move','p',['b','d'],[[@6],'y',['z'],[9],[]],@4]",
    "['kv_clear','p',['a','c','nope']]",
    "['config_set',<config>]",
    "['config_get',5]",
    "['stats']",
    "['purge']",
    "['shutdown']",
};
enum { REQUEST_COUNT = sizeof requests / sizeof requests[0] };

static void
seed_requests(void)
{
    for (size_t i = 0; i < REQUEST_COUNT; i++) {
        char name[16];
        AUTO_WRITER(bytes);
        text_to_msgpack(requests[i], &bytes);
        snprintf(name, sizeof name, "%02zu", i);
        seed("queue_request_fuzz", name, slice(bytes.data, bytes.len));
        seed("msgpack_fuzz", name, slice(bytes.data, bytes.len));
    }
}

/* All requests, one after another; in between the block 3 is given up, and dead blocks
 * are taken off. */
static void
seed_dialogue(const char *name, uint8_t options)
{
    AUTO_WRITER(dialogue);
    write_u8(&dialogue, options);
    for (size_t i = 0; i < REQUEST_COUNT; i++) {
        AUTO_WRITER(bytes);
        text_to_msgpack(i % 4 == 3 ? "nil" : "@3", &bytes);
        write_bytes(&dialogue, slice(bytes.data, bytes.len));
        writer_clear(&bytes);
        text_to_msgpack(requests[i], &bytes);
        write_bytes(&dialogue, slice(bytes.data, bytes.len));
    }
    seed("queue_apply_fuzz", name, slice(dialogue.data, dialogue.len));
}

/* ---- Snapshots ---- */

static enum ds_status
take_record(enum record_type type, struct ds_slice body, void *arg,
            struct ds_error *err)
{
    (void)err;
    write_u8(arg, (uint8_t)type);
    write_short_bytes(arg, body);
    return DS_OK;
}

/* What the dialogue comes to, damaged as `how` says. */
static void
seed_snapshot(const char *name, uint8_t how)
{
    TALK(talk);
    AUTO(replies) struct replies *replies = NULL;
    enum ds_status status = replies_create(&replies, NULL);
    DS_ASSERT(status == DS_OK);
    AUTO_WRITER(pieces);
    write_u8(&pieces, how);
    for (size_t i = 0; i < REQUEST_COUNT - 2; i++) /* What follows forgets it. */
        (void)talk_call(&talk, requests[i]);
    struct ds_block_id deleting = test_block_id(8);
    struct snapshot_source source = {.queue = talk.queue,
                                     .replies = replies,
                                     .deleting = &deleting,
                                     .deleting_count = 1};
    status = snapshot_write(&source, take_record, &pieces, NULL);
    DS_ASSERT(status == DS_OK);
    seed("snapshot_fuzz", name, slice(pieces.data, pieces.len));
}

static void
seed_records(const char *name, uint8_t piece, size_t bytes, int count)
{
    static const uint8_t content[SEED_BYTES_MAX];
    struct encryption *sender = encryption_end(AUTH_CONNECTED);
    struct ds_slice part = slice(content, bytes);
    AUTO_WRITER(writer);
    write_u8(&writer, piece);
    for (int i = 0; i < count; i++) {
        (void)encryptor_fill(&sender->out, &part, 1, 0);
        struct ds_slice record = encryptor_unsent(&sender->out);
        write_bytes(&writer, record);
        encryptor_sent(&sender->out, record.len);
    }
    encryption_destroy(sender);
    seed("records_fuzz", name, slice(writer.data, writer.len));
}

int
main(int argc, char **argv)
{
    only_check = argc == 3 && strcmp(argv[1], "--check") == 0;
    if (argc != 2 && !only_check) {
        fprintf(stderr, "usage: %s [--check] FOLDER\n", argv[0]);
        return EXIT_FAILURE;
    }
    corpus = argv[argc - 1];
    seed_frames();
    seed_greetings();
    seed_bindings();
    seed_leaving();
    seed_creation();
    seed_keys();
    seed_journals();
    seed_blocks();
    seed_requests();
    seed_dialogue("dialogue", 1);
    seed_dialogue("dialogue-limits", 2);
    seed_snapshot("whole", 0);
    seed_snapshot("changed", 2);
    seed_snapshot("cut", 4);
    seed_texts();
    seed_records("one", 0, 5, 1);
    seed_records("three", 6, 100, 3);
    seed_records("large", 255, 3000, 1);
    return wrong == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
