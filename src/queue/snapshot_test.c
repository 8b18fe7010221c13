/* A queue that is written down and read again is the same; anything else is refused. */
#include "queue/snapshot.h"

#include "queue/test_text.h"

#include "base/check.h"
#include "base/slice.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

enum { PIECES_MAX = 64 };

struct piece {
    enum record_type type;
    struct writer body;
};

/* A snapshot in memory. Owner: the test. */
struct pieces {
    struct piece items[PIECES_MAX];
    size_t count;
};

static void
pieces_fini(struct pieces *pieces)
{
    for (size_t i = 0; i < pieces->count; i++)
        writer_fini(&pieces->items[i].body);
}

#define PIECES(name) __attribute__((cleanup(pieces_fini))) struct pieces name = {0}

static enum ds_status
take(enum record_type type, struct ds_slice body, void *arg, struct ds_error *err)
{
    struct pieces *pieces = arg;
    (void)err;
    DS_ASSERT(pieces->count < PIECES_MAX);
    struct piece *piece = &pieces->items[pieces->count++];
    piece->type = type;
    write_bytes(&piece->body, body);
    return DS_OK;
}

/* Rows in one and in two blocks, cleared ones, tags, an empty partition, a refused block,
 * a configuration. */
static void
fill(struct talk *talk)
{
    CHECK_OK(talk_call(talk, "['kv_put','p',['a','b','c'],[[@1],'y',['x','z'],[90,30],"
                             "[]],[{'t':1},nil,{'u':[1,'two']}]]"));
    CHECK_OK(talk_call(talk, "['kv_put','p',['b','d'],[[@2],'y',['x'],[64],[]],nil]"));
    CHECK_OK(talk_call(talk, "['kv_put','q',['e'],[[@3],'',['w'],[8],[]],nil]"));
    CHECK_OK(talk_call(talk, "['kv_put','q',['only tags'],nil,[{'s':'t'}]]"));
    CHECK_OK(talk_call(talk, "['kv_put','empty',['f'],nil,nil]"));
    CHECK_OK(talk_call(talk, "['kv_clear','empty',['f']]"));
    CHECK_OK(talk_call(talk, "['kv_clear','p',['a']]"));
    CHECK_OK(talk_call(talk, "['config_set',<settings>]"));
    struct ds_block_id refused = test_block_id(9);
    CHECK(!queue_refuse_block(talk->queue, &refused));
}

static void
write_pieces(const struct talk *talk, struct pieces *out)
{
    AUTO(replies) struct replies *replies = NULL;
    struct ds_block_id deleting = test_block_id(8);
    struct request_id id = {.client = 5, .number = 6};
    CHECK_OK(replies_create(&replies, NULL));
    CHECK(replies_reserve(replies, id));
    replies_keep(replies, id, slice("answer", 6));
    struct snapshot_source source = {.queue = talk->queue,
                                     .replies = replies,
                                     .deleting = &deleting,
                                     .deleting_count = 1};
    CHECK_OK(snapshot_write(&source, take, out, NULL));
}

/* Status of the first piece that is refused, or DS_OK. */
static enum ds_status
read_pieces(struct queue *queue, struct replies *replies, const struct pieces *pieces,
            struct ds_error *err)
{
    enum ds_status status = DS_OK;
    for (size_t i = 0; status == DS_OK && i < pieces->count; i++) {
        const struct piece *piece = &pieces->items[i];
        status = snapshot_read(queue, replies, piece->type,
                               slice(piece->body.data, piece->body.len), err);
    }
    return status;
}

static void
check_same_answer(struct talk *a, struct talk *b, const char *request)
{
    CHECK_OK(talk_call(a, request));
    CHECK_OK(talk_call(b, request));
    CHECK_TEXT((const char *)b->text.data, (const char *)a->text.data);
}

TEST(what_is_read_again_is_the_same_queue)
{
    TALK(before);
    struct queue_options options = {.limits = queue_limits_default()};
    __attribute__((cleanup(talk_end))) struct talk after = talk_begin(&options);
    AUTO(replies) struct replies *replies = NULL;
    PIECES(pieces);
    CHECK_OK(replies_create(&replies, NULL));
    fill(&before);
    write_pieces(&before, &pieces);
    CHECK_OK(read_pieces(after.queue, replies, &pieces, NULL));
    CHECK(!queue_is_loading(after.queue));
    queue_check(after.queue);

    check_same_answer(&before, &after, "['kv_list',nil]");
    check_same_answer(&before, &after, "['kv_get','p',['b','c'],nil]");
    check_same_answer(&before, &after, "['kv_get','p',['d','b'],['x']]");
    check_same_answer(&before, &after, "['config_get',0]");
    struct ds_block_id id = test_block_id(9);
    CHECK_REFUSED(&after, "['kv_put','p',['n'],[[@9],'y',['x'],[8],[]],nil]",
                  DS_NOT_FOUND, "given up");
    CHECK(queue_peek_dead(after.queue, &id));
    CHECK(memcmp(id.bytes, test_block_id(8).bytes, sizeof id.bytes) == 0);
    queue_pop_dead(after.queue);
    CHECK(!queue_peek_dead(after.queue, &id));
    struct ds_slice kept = {0};
    struct request_id asked = {.client = 5, .number = 6};
    CHECK(replies_find(replies, asked, &kept) == REPLY_KEPT);
    CHECK(slice_equal(kept, slice("answer", 6)));

    /* Freed indexes come again in the same order, repeats are known. */
    check_same_answer(&before, &after,
                      "['kv_put','p',['g','h'],[[@4],'y',['x'],[64],[]],nil]");
    check_same_answer(&before, &after, "['kv_get','p',['g','h','b'],['x']]");
    check_same_answer(&before, &after,
                      "['kv_put','p',['b','d'],[[@2],'y',['x'],[64],[]],nil]");
    CHECK_OK(talk_call(&before, "['kv_clear','p',['b','c','d','g','h']]"));
    CHECK_OK(talk_call(&after, "['kv_clear','p',['b','c','d','g','h']]"));
    check_same_answer(&before, &after, "['kv_list',nil]");
    queue_check(after.queue);
}

TEST(an_empty_queue_is_a_snapshot_too)
{
    TALK(before);
    TALK(after);
    AUTO(replies) struct replies *replies = NULL;
    PIECES(pieces);
    CHECK_OK(replies_create(&replies, NULL));
    struct snapshot_source source = {.queue = before.queue, .replies = replies};
    CHECK_OK(snapshot_write(&source, take, &pieces, NULL));
    CHECK_OK(read_pieces(after.queue, replies, &pieces, NULL));
    check_same_answer(&before, &after, "['stats']");
}

TEST(a_snapshot_is_only_for_a_new_queue)
{
    TALK(talk);
    AUTO(replies) struct replies *replies = NULL;
    struct ds_error err = {0};
    PIECES(pieces);
    CHECK_OK(replies_create(&replies, NULL));
    fill(&talk);
    write_pieces(&talk, &pieces);
    CHECK_STATUS(read_pieces(talk.queue, replies, &pieces, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "something before it");

    TALK(fresh);
    CHECK_STATUS(snapshot_read(fresh.queue, replies, SNAPSHOT_END, slice("", 0), &err),
                 DS_INVALID);
    CHECK_CONTAINS(err.message, "no beginning");
}

/* Reads the pieces with one of them changed; whatever is not refused is a queue. */
static void
check_changed(const struct pieces *pieces)
{
    TALK(talk);
    AUTO(replies) struct replies *replies = NULL;
    struct ds_error err = {0};
    CHECK_OK(replies_create(&replies, NULL));
    enum ds_status status = read_pieces(talk.queue, replies, pieces, &err);
    CHECK(status == DS_OK || status == DS_INVALID || status == DS_FULL);
    CHECK(status == DS_OK || err.message[0] != '\0');
    if (status == DS_OK)
        queue_check(talk.queue);
}

TEST(damage_is_refused_or_harmless)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0x93, 0xc0, 0xdc, 0xff};
    TALK(talk);
    PIECES(pieces);
    fill(&talk);
    write_pieces(&talk, &pieces);
    for (size_t i = 0; i < pieces.count; i++) {
        struct writer *body = &pieces.items[i].body;
        for (size_t at = 0; at < body->len; at++) {
            uint8_t had = body->data[at];
            for (size_t j = 0; j < sizeof values; j++) {
                body->data[at] = values[j];
                check_changed(&pieces);
            }
            body->data[at] = had;
        }
        size_t whole = body->len;
        for (body->len = 0; body->len < whole; body->len++)
            check_changed(&pieces);
    }
}

TEST(a_missing_or_repeated_piece_is_refused_or_harmless)
{
    TALK(talk);
    PIECES(pieces);
    fill(&talk);
    write_pieces(&talk, &pieces);
    for (size_t i = 0; i < pieces.count; i++) {
        struct piece had = pieces.items[i];
        pieces.items[i] = pieces.items[(i + 1) % pieces.count];
        check_changed(&pieces);
        pieces.items[i] = had;
    }
}

TEST_MAIN(RUN(what_is_read_again_is_the_same_queue),
          RUN(an_empty_queue_is_a_snapshot_too),
          RUN(a_snapshot_is_only_for_a_new_queue), RUN(damage_is_refused_or_harmless),
          RUN(a_missing_or_repeated_piece_is_refused_or_harmless))
