/* What users rely on, one promise per test. Requests and replies are shown as text, see
 * test_text.h. */
#include "queue/queue.h"

#include "queue/test_text.h"

#include "test.h"

#include <string.h>

/* ---- Tags ---- */

TEST(tags_merge_name_by_name)
{
    TALK(t);
    CHECK_REPLY(&t, "['kv_put','p',['k'],nil,[{'a':1}]]", "[[{'a':1}],[],[]]");
    CHECK_REPLY(&t, "['kv_put','p',['k'],nil,[{'b':2}]]", "[[{'a':1,'b':2}],[],[]]");
    CHECK_REPLY(&t, "['kv_put','p',['k'],nil,[{'a':[3,{'x':nil}]}]]",
                "[[{'a':[3,{'x':nil}],'b':2}],[],[]]");
}

TEST(a_put_without_tags_keeps_and_echoes_them)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['k'],nil,[{'a':1}]]"));
    CHECK_REPLY(&t, "['kv_put','p',['k','m'],[[@1],'y',['x'],[8],[]],nil]",
                "[[{'a':1},{}],['x'],[]]");
    CHECK_REPLY(&t, "['kv_put','p',['k','m'],nil,[nil,{}]]", "[[{'a':1},{}],['x'],[]]");
}

TEST(a_name_that_comes_twice_in_a_tag_counts_the_last_time)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['k'],nil,[{'a':0}]]"));
    CHECK_REPLY(&t, "['kv_put','p',['k'],nil,[{'a':1,'a':2}]]", "[[{'a':2}],[],[]]");
}

TEST(a_tag_only_row_is_listed_but_has_no_fields)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['k'],nil,[{'a':1}]]"));
    CHECK_REPLY(&t, "['kv_list','p']", "{'p':{'k':{'a':1}}}");
    CHECK_REFUSED(&t, "['kv_get','p',['k'],nil]", DS_NOT_READY,
                  "Some fields are not ready in all the requested keys!");
}

TEST(as_many_tags_as_keys)
{
    TALK(t);
    CHECK_REFUSED(&t, "['kv_put','p',['a','b'],nil,[{'a':1}]]", DS_INVALID,
                  "Length of `keys` (2) does not match length of `tags` (1).");
    CHECK_REPLY(&t, "['kv_list',nil]", "{}");
}

/* ---- Fields ---- */

TEST(fields_are_cumulative_and_sorted)
{
    TALK(t);
    CHECK_REPLY(&t, "['kv_put','p',['k'],[[@1],'y',['x','c'],[8,8],[]],nil]",
                "[[{}],['c','x'],[]]");
    CHECK_REPLY(&t, "['kv_put','p',['k'],[[@2],'y',['b'],[8],[]],nil]",
                "[[{}],['b','c','x'],[]]");
}

TEST(fields_of_a_batch_are_those_that_all_rows_have)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@1],'y',['x','y'],[8,8],[]],nil]"));
    CHECK_OK(talk_call(&t, "['kv_put','p',['b'],[[@2],'y',['y','z'],[8,8],[]],nil]"));
    CHECK_REPLY(&t, "['kv_put','p',['a','b'],[[@3],'y',['w'],[16],[]],nil]",
                "[[{},{}],['w','y'],[]]");
}

TEST(overwriting_one_field_leaves_the_others)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['k'],[[@1],'y',['x','z'],[8,8],[]],nil]"));
    CHECK_REPLY(&t, "['kv_put','p',['k'],[[@2],'y',['x'],[8],[]],nil]",
                "[[{}],['x','z'],[]]");
    CHECK_REPLY(&t, "['kv_get','p',['k'],nil]",
                "[nil,['x','z'],[[[1],[[@1,'y']],[0,0,1]],[[0],[[@2,'y']],[0,0,1]]]]");
}

/* ---- Get ---- */

TEST(rows_of_one_put_are_one_run)
{
    TALK(t);
    CHECK_OK(talk_call(
        &t, "['kv_put','p',['a','b','c','d'],[[@1],'y',['x','z'],[32,32],[]],nil]"));
    CHECK_REPLY(&t, "['kv_get','p',['a','b','c','d'],nil]",
                "[nil,['x','z'],[[[0,1],[[@1,'y']],[0,0,4]]]]");
    CHECK_REPLY(&t, "['kv_get','p',['d','b','c'],nil]",
                "[nil,['x','z'],[[[0,1],[[@1,'y']],[0,3,1,0,1,2]]]]");
}

TEST(a_repeated_key_repeats_its_row)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a','b'],[[@1],'y',['x'],[8],[]],nil]"));
    CHECK_REPLY(&t, "['kv_get','p',['b','b','a'],nil]",
                "[nil,['x'],[[[0],[[@1,'y']],[0,1,1,0,1,1,0,0,1]]]]");
}

TEST(unknown_keys_are_left_out_and_found_says_which_are_there)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a','b'],[[@1],'y',['x'],[8],[]],nil]"));
    CHECK_REPLY(&t, "['kv_get','p',['no','a','no','b','b'],nil]",
                "[[1,3,4],['x'],[[[0],[[@1,'y']],[0,0,2,0,1,1]]]]");
}

TEST(nothing_found_is_an_error)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@1],'y',['x'],[8],[]],nil]"));
    CHECK_REFUSED(&t, "['kv_get','p',['b'],nil]", DS_NOT_FOUND,
                  "keys or partition were not found!");
    CHECK_REFUSED(&t, "['kv_get','q',['a'],nil]", DS_NOT_FOUND,
                  "keys or partition were not found!");
    CHECK_REFUSED(&t, "['kv_get','p',[],nil]", DS_NOT_FOUND,
                  "keys or partition were not found!");
}

TEST(no_common_field_is_an_error)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@1],'y',['x'],[8],[]],nil]"));
    CHECK_OK(talk_call(&t, "['kv_put','p',['b'],[[@2],'y',['z'],[8],[]],nil]"));
    CHECK_REFUSED(&t, "['kv_get','p',['a','b'],nil]", DS_NOT_READY,
                  "Some fields are not ready in all the requested keys!");
}

TEST(select_drops_names_that_are_not_there)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@1],'y',['x','z'],[8,8],[]],nil]"));
    CHECK_REPLY(&t, "['kv_get','p',['a'],['z','nope','z']]",
                "[nil,['z'],[[[0],[[@1,'y']],[0,0,1]]]]");
    CHECK_REPLY(&t, "['kv_get','p',['a'],['nope']]", "[nil,[],[]]");
    CHECK_REPLY(&t, "['kv_get','p',['a'],[]]", "[nil,[],[]]");
    CHECK_REPLY(&t, "['kv_get','p',['no','a'],['nope']]", "[[1],[],[]]");
}

/* x lies with z in the first row and with w in the second: nothing coincides. */
TEST(groups_hold_for_every_row)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@1],'y',['x','z'],[8,8],[]],nil]"));
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@2],'y',['w','v'],[8,8],[]],nil]"));
    CHECK_OK(
        talk_call(&t, "['kv_put','p',['b'],[[@3],'y',['x','w','v'],[8,8,8],[]],nil]"));
    CHECK_OK(talk_call(&t, "['kv_put','p',['b'],[[@4],'y',['z'],[8],[]],nil]"));
    CHECK_REPLY(&t, "['kv_get','p',['a','b'],['x','z']]",
                "[nil,['x','z'],[[[0],[[@1,'y'],[@3,'y']],[0,0,1,1,0,1]],"
                "[[1],[[@1,'y'],[@4,'y']],[0,0,1,1,0,1]]]]");
    CHECK_REPLY(&t, "['kv_get','p',['a','b'],['v','w']]",
                "[nil,['v','w'],[[[1,0],[[@2,'y'],[@3,'y']],[0,0,1,1,0,1]]]]");
}

/* ---- List, partitions ---- */

TEST(list_keeps_the_order_of_insertion)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','q',['z','a'],nil,[{'t':1},nil]]"));
    CHECK_OK(talk_call(&t, "['kv_put','p',['m'],nil,nil]"));
    CHECK_OK(talk_call(&t, "['kv_put','q',['b','z'],nil,nil]"));
    CHECK_REPLY(&t, "['kv_list','q']", "{'q':{'z':{'t':1},'a':{},'b':{}}}");
    CHECK_REPLY(&t, "['kv_list',nil]",
                "{'q':{'z':{'t':1},'a':{},'b':{}},'p':{'m':{}}}");
    CHECK_REPLY(&t, "['kv_list','none']", "{}");
}

TEST(partitions_are_apart)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['k'],[[@1],'y',['x'],[8],[]],[{'a':1}]]"));
    CHECK_OK(talk_call(&t, "['kv_put','q',['k'],[[@2],'y',['z'],[8],[]],nil]"));
    CHECK_REPLY(&t, "['kv_get','q',['k'],nil]",
                "[nil,['z'],[[[0],[[@2,'y']],[0,0,1]]]]");
    CHECK_REPLY(&t, "['kv_clear','p',['k']]", "[[@1]]");
    CHECK_REPLY(&t, "['kv_list',nil]", "{'p':{},'q':{'k':{}}}");
}

TEST(reading_creates_no_partition)
{
    TALK(t);
    CHECK_STATUS(talk_call(&t, "['kv_get','p',['k'],nil]"), DS_NOT_FOUND);
    CHECK_REPLY(&t, "['kv_clear','p',['k']]", "[[]]");
    CHECK_REPLY(&t, "['kv_list',nil]", "{}");
}

/* ---- Clear and dead blocks ---- */

TEST(clear_is_idempotent)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a','b'],[[@1],'y',['x'],[8],[]],nil]"));
    CHECK_REPLY(&t, "['kv_clear','p',['a','a','no']]", "[[]]");
    CHECK_REPLY(&t, "['kv_clear','p',['a']]", "[[]]");
    CHECK_REPLY(&t, "['kv_clear','p',['b','a']]", "[[@1]]");
    CHECK_REPLY(&t, "['kv_clear','p',['b']]", "[[]]");
    CHECK_REPLY(&t, "['kv_list','p']", "{'p':{}}");
}

TEST(a_block_overwritten_bit_by_bit_is_reported_dead_once)
{
    TALK(t);
    CHECK_OK(
        talk_call(&t, "['kv_put','p',['a','b'],[[@1],'y',['x','z'],[8,8],[]],nil]"));
    CHECK_REPLY(&t, "['kv_put','p',['a'],[[@2],'y',['x','z'],[8,8],[]],nil]",
                "[[{}],['x','z'],[]]");
    CHECK_REPLY(&t, "['kv_put','p',['b'],[[@3],'y',['x'],[8],[]],nil]",
                "[[{}],['x','z'],[]]");
    CHECK_REPLY(&t, "['kv_put','p',['b'],[[@4],'y',['z','w'],[8,8],[]],nil]",
                "[[{}],['w','x','z'],[@1]]");
    CHECK_REPLY(&t, "['kv_clear','p',['a','b']]", "[[@2,@3,@4]]");
}

TEST(without_reports_dead_blocks_wait_to_be_taken)
{
    struct queue_options options = {.limits = queue_limits_default()};
    __attribute__((cleanup(talk_end))) struct talk t = talk_begin(&options);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@1],'y',['x'],[8],[]],nil]"));
    CHECK_OK(talk_call(&t, "['kv_put','p',['b'],[[@2],'y',['x'],[8],[]],nil]"));
    CHECK_REPLY(&t, "['kv_clear','p',['b','a']]", "[[]]");
    struct ds_block_id id;
    struct ds_block_id first = test_block_id(2);
    struct ds_block_id second = test_block_id(1);
    CHECK(queue_peek_dead(t.queue, &id));
    CHECK(memcmp(&id, &first, sizeof id) == 0);
    queue_pop_dead(t.queue);
    CHECK(queue_peek_dead(t.queue, &id));
    CHECK(memcmp(&id, &second, sizeof id) == 0);
    queue_pop_dead(t.queue);
    CHECK(!queue_peek_dead(t.queue, &id));
}

TEST(purge_forgets_everything_and_names_all_blocks)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@1],'y',['x'],[8],[]],[{'t':1}]]"));
    CHECK_OK(talk_call(&t, "['kv_put','q',['a','b'],[[@2],'y',['z'],[8],[]],nil]"));
    CHECK_OK(talk_call(&t, "['config_set',<c>]"));
    CHECK_REPLY(&t, "['purge']", "[[@1,@2]]");
    CHECK_REPLY(&t, "['kv_list',nil]", "{}");
    CHECK_REPLY(&t, "['config_get',0]", "nil");
    CHECK_REPLY(&t, "['purge']", "[[]]");
}

/* ---- Repeated, late and refused puts ---- */

TEST(a_repeated_put_changes_nothing_and_answers_the_same)
{
    TALK(t);
    const char *put = "['kv_put','p',['a','b'],[[@1],'y',['x'],[8],[]],[{'t':1},nil]]";
    CHECK_REPLY(&t, put, "[[{'t':1},{}],['x'],[]]");
    CHECK_REPLY(&t, put, "[[{'t':1},{}],['x'],[]]");
    CHECK_REPLY(&t, "['kv_clear','p',['a','b']]", "[[@1]]");
}

/* The reply to the first attempt was lost; meanwhile others went on. */
TEST(a_late_repeat_does_not_undo_newer_puts)
{
    TALK(t);
    const char *put = "['kv_put','p',['a','b'],[[@1],'y',['x'],[8],[]],[{'t':1},nil]]";
    CHECK_OK(talk_call(&t, put));
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@2],'y',['x'],[8],[]],[{'t':2}]]"));
    CHECK_REPLY(&t, put, "[[{'t':2},{}],['x'],[]]");
    CHECK_REPLY(&t, "['kv_get','p',['a'],nil]",
                "[nil,['x'],[[[0],[[@2,'y']],[0,0,1]]]]");
}

TEST(a_late_repeat_brings_no_cleared_rows_back)
{
    TALK(t);
    const char *put = "['kv_put','p',['a'],[[@1],'y',['x'],[8],[]],[{'t':1}]]";
    CHECK_OK(talk_call(&t, put));
    CHECK_REPLY(&t, "['kv_clear','p',['a']]", "[[@1]]");
    CHECK_REPLY(&t, put, "[[{}],[],[]]");
    CHECK_REPLY(&t, "['kv_list','p']", "{'p':{}}");
}

TEST(a_block_can_be_put_for_one_list_of_keys_only)
{
    TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@1],'y',['x'],[8],[]],nil]"));
    CHECK_REFUSED(&t, "['kv_put','p',['b'],[[@1],'y',['x'],[8],[]],nil]", DS_INVALID,
                  "this block was put before");
    CHECK_REPLY(&t, "['kv_list','p']", "{'p':{'a':{}}}");
}

TEST(a_put_of_several_blocks_is_one_step)
{
    TALK(t);
    const char *put =
        "['kv_put','p',['a','b','c'],[[@1,@2],'y',['x'],[8,16],[1]],[{'t':1},nil,nil]]";
    CHECK_REPLY(&t, put, "[[{'t':1},{},{}],['x'],[]]");
    CHECK_REPLY(&t, "['kv_get','p',['a','b','c'],nil]",
                "[nil,['x'],[[[0],[[@1,'y'],[@2,'y']],[0,0,1,1,0,2]]]]");
    CHECK_REPLY(&t, put, "[[{'t':1},{},{}],['x'],[]]"); /* Said again. */
    CHECK_REPLY(&t, "['kv_clear','p',['b']]", "[[]]");
    CHECK_REPLY(&t, "['kv_clear','p',['a']]", "[[@1]]");
    CHECK_REPLY(&t, "['kv_clear','p',['c']]", "[[@2]]");
}

TEST(a_put_with_one_refused_block_is_refused_whole)
{
    TALK(t);
    struct ds_block_id id = test_block_id(2);
    CHECK(!queue_refuse_block(t.queue, &id));
    CHECK_REFUSED(&t, "['kv_put','p',['a','b'],[[@1,@2],'y',['x'],[8,8],[1]],nil]",
                  DS_NOT_FOUND, "its block was given up");
    CHECK_REFUSED(&t, "['kv_get','p',['a'],nil]", DS_NOT_FOUND, "were not found");
}

TEST(a_refused_block_cannot_be_put)
{
    TALK(t);
    struct ds_block_id id = test_block_id(1);
    CHECK(!queue_refuse_block(t.queue, &id));
    CHECK(!queue_refuse_block(t.queue, &id));
    CHECK_REFUSED(&t, "['kv_put','p',['a'],[[@1],'y',['x'],[8],[]],nil]", DS_NOT_FOUND,
                  "its block was given up");
    CHECK_REPLY(&t, "['kv_list',nil]", "{}");
}

TEST(a_known_block_is_not_refused)
{
    TALK(t);
    struct ds_block_id id = test_block_id(1);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@1],'y',['x'],[8],[]],nil]"));
    CHECK(queue_refuse_block(t.queue, &id));
    CHECK(queue_knows_block(t.queue, &id));
    CHECK_OK(talk_call(&t, "['kv_get','p',['a'],nil]"));
}

TEST(only_the_last_blocks_refused_are_remembered)
{
    TALK(t);
    for (uint64_t i = 1; i <= 65536 + 1; i++) {
        struct ds_block_id id = test_block_id(i);
        CHECK(!queue_refuse_block(t.queue, &id));
    }
    CHECK_STATUS(talk_call(&t, "['kv_put','p',['a'],[[@2],'y',['x'],[8],[]],nil]"),
                 DS_NOT_FOUND);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@1],'y',['x'],[8],[]],nil]"));
}

/* ---- Refusals change nothing ---- */

TEST(duplicate_keys_change_nothing)
{
    TALK(t);
    CHECK_REFUSED(
        &t, "['kv_put','p',['a','b','a'],[[@1],'y',['x'],[8],[]],[{'t':1},nil,nil]]",
        DS_INVALID, "Got duplicated keys.");
    CHECK_REPLY(&t, "['kv_list',nil]", "{}");
    CHECK_OK(talk_call(&t, "['kv_put','p',['b'],nil,[{'t':1}]]"));
    CHECK_REFUSED(&t, "['kv_put','p',['a','b','b'],nil,[nil,{'t':2},nil]]", DS_INVALID,
                  "Got duplicated keys.");
    CHECK_REPLY(&t, "['kv_list',nil]", "{'p':{'b':{'t':1}}}");
}

TEST(an_empty_list_of_keys_is_refused)
{
    TALK(t);
    CHECK_REFUSED(&t, "['kv_put','p',[],nil,nil]", DS_INVALID,
                  "Received an empty list as keys.");
}

TEST(a_block_names_each_field_once)
{
    TALK(t);
    CHECK_REFUSED(&t, "['kv_put','p',['a'],[[@1],'y',['x','z','x'],[8,8,8],[]],nil]",
                  DS_INVALID, "names a field twice");
    CHECK_REPLY(&t, "['kv_list',nil]", "{}");
}

static struct talk
talk_with_limits(void)
{
    struct queue_options options = {
        .limits = {.partitions_max = 2,
                   .rows_max = 3,
                   .fields_max = 3,
                   .field_set_members_max = 5,
                   .row_tag_bytes_max = 16,
                   .tag_bytes_max = 24},
        .reports_dead = true,
    };
    return talk_begin(&options);
}
#define SMALL_TALK(name) \
    __attribute__((cleanup(talk_end))) struct talk name = talk_with_limits()

TEST(rows_are_limited)
{
    SMALL_TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a','b'],nil,nil]"));
    CHECK_REFUSED(&t, "['kv_put','p',['a','c','d'],nil,nil]", DS_FULL,
                  "the queue would have 4 rows; at most 3 are allowed");
    CHECK_OK(talk_call(&t, "['kv_put','p',['a','b','c'],nil,nil]"));
    CHECK_REPLY(&t, "['kv_list','p']", "{'p':{'a':{},'b':{},'c':{}}}");
}

TEST(partitions_are_limited)
{
    SMALL_TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],nil,nil]"));
    CHECK_OK(talk_call(&t, "['kv_put','q',['a'],nil,nil]"));
    CHECK_REFUSED(&t, "['kv_put','r',['a'],nil,nil]", DS_FULL, "2 partitions");
    CHECK_REPLY(&t, "['kv_list',nil]", "{'p':{'a':{}},'q':{'a':{}}}");
}

TEST(names_of_fields_are_limited_until_all_rows_are_cleared)
{
    SMALL_TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@1],'y',['x','z'],[8,8],[]],nil]"));
    CHECK_REFUSED(&t, "['kv_put','p',['a'],[[@2],'y',['v','w'],[8,8],[]],nil]", DS_FULL,
                  "3 names of fields");
    CHECK_REPLY(&t, "['kv_clear','p',['a']]", "[[@1]]");
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@2],'y',['v','w'],[8,8],[]],nil]"));
}

TEST(combinations_of_fields_are_limited)
{
    SMALL_TALK(t);
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],[[@1],'y',['x','z'],[8,8],[]],nil]"));
    CHECK_REFUSED(&t, "['kv_put','p',['a'],[[@2],'y',['z','w'],[8,8],[]],nil]", DS_FULL,
                  "combinations of fields");
    CHECK_REPLY(&t, "['kv_get','p',['a'],nil]",
                "[nil,['x','z'],[[[0,1],[[@1,'y']],[0,0,1]]]]");
}

TEST(tags_are_limited_per_row_and_in_all)
{
    SMALL_TALK(t);
    CHECK_REFUSED(&t, "['kv_put','p',['a'],nil,[{'t':'0123456789abc'}]]", DS_FULL,
                  "the tags of one row come to 17 bytes; at most 16 are allowed");
    CHECK_OK(talk_call(&t, "['kv_put','p',['a'],nil,[{'t':'0123456789ab'}]]"));
    CHECK_REFUSED(&t, "['kv_put','p',['b'],nil,[{'t':'01234'}]]", DS_FULL,
                  "the tags of all rows would come to 25 bytes");
    CHECK_OK(talk_call(&t, "['kv_put','p',['b'],nil,[{'t':'0123'}]]"));
    CHECK_REFUSED(&t, "['kv_put','p',['b'],nil,[{'u':'01234567'}]]", DS_FULL,
                  "the tags of one row");
    CHECK_REPLY(&t, "['kv_list','p']",
                "{'p':{'a':{'t':'0123456789ab'},'b':{'t':'0123'}}}");
}

/* ---- Configuration, stats ---- */

TEST(the_configuration_is_kept_as_it_is)
{
    TALK(t);
    CHECK_REPLY(&t, "['config_get',0]", "nil");
    CHECK_REPLY(&t, "['config_set',<one>]", "nil");
    CHECK_REPLY(&t, "['config_get',0]", "<one>");
    CHECK_REPLY(&t, "['config_set',<>]", "nil");
    CHECK_REPLY(&t, "['config_get',0]", "<>");
}

/* Four rows of 10 and 30 bytes; then one row loses the column of 30. */
TEST(live_bytes_follow_what_is_overwritten)
{
    TALK(t);
    CHECK_OK(talk_call(
        &t, "['kv_put','p',['a','b','c','d'],[[@1],'y',['x','z'],[40,120],[]],nil]"));
    CHECK_OK(talk_call(&t, "['stats']"));
    CHECK_CONTAINS((const char *)t.text.data, "'blocks_live_bytes':160");
    CHECK_OK(talk_call(&t, "['kv_put','p',['b'],[[@2],'y',['z'],[7],[]],nil]"));
    CHECK_OK(talk_call(&t, "['stats']"));
    CHECK_CONTAINS((const char *)t.text.data, "'blocks_live_bytes':137");
    CHECK_OK(talk_call(&t, "['kv_clear','p',['a','b','c','d']]"));
    CHECK_OK(talk_call(&t, "['stats']"));
    CHECK_CONTAINS((const char *)t.text.data, "'blocks_live_bytes':0");
    CHECK_CONTAINS((const char *)t.text.data, "'rows':0,'indexes_reusable':4");
}

TEST_MAIN(RUN(tags_merge_name_by_name), RUN(a_put_without_tags_keeps_and_echoes_them),
          RUN(a_name_that_comes_twice_in_a_tag_counts_the_last_time),
          RUN(a_tag_only_row_is_listed_but_has_no_fields), RUN(as_many_tags_as_keys),
          RUN(fields_are_cumulative_and_sorted),
          RUN(fields_of_a_batch_are_those_that_all_rows_have),
          RUN(overwriting_one_field_leaves_the_others),
          RUN(rows_of_one_put_are_one_run), RUN(a_repeated_key_repeats_its_row),
          RUN(unknown_keys_are_left_out_and_found_says_which_are_there),
          RUN(nothing_found_is_an_error), RUN(no_common_field_is_an_error),
          RUN(select_drops_names_that_are_not_there), RUN(groups_hold_for_every_row),
          RUN(list_keeps_the_order_of_insertion), RUN(partitions_are_apart),
          RUN(reading_creates_no_partition), RUN(clear_is_idempotent),
          RUN(a_block_overwritten_bit_by_bit_is_reported_dead_once),
          RUN(without_reports_dead_blocks_wait_to_be_taken),
          RUN(purge_forgets_everything_and_names_all_blocks),
          RUN(a_repeated_put_changes_nothing_and_answers_the_same),
          RUN(a_late_repeat_does_not_undo_newer_puts),
          RUN(a_late_repeat_brings_no_cleared_rows_back),
          RUN(a_block_can_be_put_for_one_list_of_keys_only),
          RUN(a_put_of_several_blocks_is_one_step),
          RUN(a_put_with_one_refused_block_is_refused_whole),
          RUN(a_refused_block_cannot_be_put), RUN(a_known_block_is_not_refused),
          RUN(only_the_last_blocks_refused_are_remembered),
          RUN(duplicate_keys_change_nothing), RUN(an_empty_list_of_keys_is_refused),
          RUN(a_block_names_each_field_once), RUN(rows_are_limited),
          RUN(partitions_are_limited),
          RUN(names_of_fields_are_limited_until_all_rows_are_cleared),
          RUN(combinations_of_fields_are_limited),
          RUN(tags_are_limited_per_row_and_in_all),
          RUN(the_configuration_is_kept_as_it_is),
          RUN(live_bytes_follow_what_is_overwritten))
